"""Each child gets one task, whoever else releases it at the same time."""

from __future__ import annotations

import multiprocessing
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import count
from typing import Any

import pytest

from reconciler.domain.identity import derived_ulid
from reconciler.repair.context import Pacer
from reconciler.sweeping.inline import run_inline_sweep
from tests.support.world import USER, World, make_client

pytestmark = pytest.mark.integration
CHILDREN = 12


class LiveReconciler:
    """What the platform runs: it claims a child, creates its task, and marks it released."""

    def __init__(self, world: World, orchestration_id: str) -> None:
        self._world = world
        self._orchestration_id = orchestration_id
        self._client = make_client(world.endpoint)

    def _change(self, key: str, before: tuple[str, ...], **values: str) -> bool:
        conditions = [f":b{number}" for number in range(len(before))]
        try:
            self._client.update_item(
                TableName=self._world.settings.orchestration_table_name,
                Key={
                    "orchestration_id": {"S": self._orchestration_id},
                    "sub_issue_id": {"S": key},
                },
                UpdateExpression="SET " + ", ".join(f"{name} = :{name}" for name in values),
                ConditionExpression=f"child_status IN ({', '.join(conditions)})",
                ExpressionAttributeValues={
                    **{f":{name}": {"S": value} for name, value in values.items()},
                    **dict(zip(conditions, ({"S": status} for status in before), strict=True)),
                },
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def claim(self, key: str) -> bool:
        at = self._world.ago(0)
        return self._change(key, ("blocked", "ready"), child_status="releasing", updated_at=at)

    def create(self, key: str) -> str:
        task_id = derived_ulid(f"live {self._orchestration_id} {key}", self._world.clock())
        at = self._world.ago(0)
        self._client.put_item(
            TableName=self._world.settings.task_table_name,
            Item={
                "task_id": {"S": task_id},
                "user_id": {"S": USER},
                "status": {"S": "SUBMITTED"},
                "status_created_at": {"S": f"SUBMITTED#{at}"},
                "created_at": {"S": at},
                "idempotency_key": {"S": f"{self._orchestration_id}_{key}"},
            },
        )
        return task_id

    def mark(self, key: str, task_id: str) -> bool:
        return self._change(
            key, ("releasing",), child_status="released", child_task_id=task_id,
            updated_at=self._world.ago(0),
        )  # fmt: skip

    def release(self, key: str) -> str:
        if not self.claim(key):
            return "lost"
        self.mark(key, self.create(key))
        return "released"


def sweep(world: World) -> Counter[str]:
    reconciler = world.reconciler()
    counts = run_inline_sweep(reconciler, segments=1).counts
    assert counts.errors == 0
    return +Counter({"released": counts.released, "adopted": counts.adopted, **counts.stuck})


def one_task_each(world: World, found: str, keys: list[str]) -> None:
    by_child = Counter(task["idempotency_key"]["S"] for task in world.tasks(found))
    assert by_child == {f"{found}_{key}": 1 for key in keys}
    for key, row in world.rows(found).items():
        if key in keys:
            (task,) = world.tasks(found, key)
            assert (row["child_status"], row["child_task_id"]) == (
                {"S": "released"},
                task["task_id"],
            )


def test_a_sweep_leaves_a_claimed_child_alone(world: World) -> None:
    found = world.seed({"a": []})
    live = LiveReconciler(world, found)
    assert live.claim("a")
    assert sweep(world) == {}
    task_id = live.create("a")
    assert sweep(world) == {}
    assert live.mark("a", task_id)
    assert sweep(world) == {}
    one_task_each(world, found, ["a"])


def test_a_late_live_reconciler_loses_to_the_sweep(world: World) -> None:
    found = world.seed({"a": []})
    assert sweep(world) == {"released": 1}
    assert LiveReconciler(world, found).release("a") == "lost"
    one_task_each(world, found, ["a"])


@pytest.mark.parametrize("created", [True, False])
def test_a_sweep_completes_an_interrupted_live_release(world: World, *, created: bool) -> None:
    found = world.seed({"a": []})
    live = LiveReconciler(world, found)
    live.claim("a")
    task_id = live.create("a") if created else None
    world.clock.forward(901)
    adopted = {"adopted": 1, "unstarted_task": 1}  # no pipeline is configured that could be invoked
    assert sweep(world) == (adopted if created else {"released": 1})
    if task_id is not None:
        assert not live.mark("a", task_id)  # if it wakes up after all
        assert world.rows(found)["a"]["child_task_id"] == {"S": task_id}
    one_task_each(world, found, ["a"])


def test_concurrent_releases_create_one_task_each(world: World) -> None:
    """Two live reconcilers and two sweeps release twelve children at the same moment."""
    keys = [f"c{number:02}" for number in range(CHILDREN)]
    found = world.seed({key: [] for key in keys})
    barrier = threading.Barrier(4)
    live = LiveReconciler(world, found)

    def forwards() -> list[str]:
        barrier.wait()
        return [live.release(key) for key in keys]

    def backwards() -> list[str]:
        barrier.wait()
        return [live.release(key) for key in reversed(keys)]

    def ours() -> Counter[str]:
        reconciler = world.reconciler()
        barrier.wait()
        counts = run_inline_sweep(reconciler, segments=1).counts
        assert counts.errors == 0
        return Counter({"released": counts.released})

    with ThreadPoolExecutor(4) as threads:
        lives = [threads.submit(forwards), threads.submit(backwards)]
        sweeps = [threads.submit(ours), threads.submit(ours)]
        by_them = sum(job.result().count("released") for job in lives)
        by_us = sum(job.result()["released"] for job in sweeps)
    assert by_them + by_us == CHILDREN
    one_task_each(world, found, keys)


# -- eight processes


def release_in_a_process(
    world_of: tuple[str, dict[str, str]], found: str, key: str, barrier: Any
) -> str:
    """Release in a separate process, which gets everything as arguments and shares nothing."""
    from reconciler.settings import load_settings  # noqa: PLC0415 - in the child

    endpoint, environ = world_of
    world = World(endpoint, make_client(endpoint), load_settings(environ))
    reconciler = world.reconciler()
    barrier.wait()
    return reconciler.release(found, key).outcome


def test_eight_concurrent_processes_create_one_task(world: World) -> None:
    found = world.seed({"a": [], "b": ["a"]}, {"a": "succeeded"})
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.world"])
    with context.Manager() as manager, ProcessPoolExecutor(8, mp_context=context) as processes:
        barrier = manager.Barrier(8)
        jobs = [
            processes.submit(
                release_in_a_process, (world.endpoint, world.environment), found, "b", barrier
            )
            for _ in range(8)
        ]
        outcomes = Counter(job.result() for job in jobs)
    assert outcomes["released"] == 1
    assert set(outcomes) <= {"released", "already_released", "adopted"}
    one_task_each(world, found, ["b"])
    assert len(world.events("task_created")) == 1
    assert len(world.events("orchestration_recovered")) == 1


def test_a_pause_stops_a_running_sweep(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pause comes at the third of twelve releases; the other nine wait until it ends."""
    monkeypatch.setattr("reconciler.stores.control.CACHE_SECONDS", 0.0)
    world = make_world()
    found = world.seed({f"c{number:02}": [] for number in range(CHILDREN)})
    operator = world.reconciler()

    turns = count(1)

    def acquire() -> bool:
        if next(turns) == 3:
            operator.pause("stop", "ann")
        return True

    reconciler = world.reconciler(pacer=Pacer(acquire))
    summary = run_inline_sweep(reconciler, segments=1)
    assert len(world.tasks(found)) == 3
    assert (summary.mode, summary.counts.released) == ("paused", 3)
    assert summary.counts.stuck == {"lost_release": CHILDREN - 3}
    operator.resume()
    assert sweep(world) == {"released": CHILDREN - 3}
