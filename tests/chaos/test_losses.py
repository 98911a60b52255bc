"""One kind of loss, repeated while many children wait, costs at most one interval.

Two workers, two beats, an interval of ten seconds, and 40 ms for each request to the tables, so
that losses hit work in progress. ``CHAOS_SEED`` decides when they come, and which worker they hit.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from random import Random
from statistics import median

import celery as celery_app
import pytest

from reconciler.clock import utc_now
from reconciler.domain.model import moment
from reconciler.embedded.process import signal_group
from tests.conftest import Servers
from tests.support.broker import Broker, broker_of_its_own
from tests.support.faults import fault_proxy
from tests.support.hosts import Fleet, Host, fleet_of
from tests.support.processes import Celery, until
from tests.support.world import RealClock, World, build_world
from workers.names import RELEASE_QUEUE, SWEEP_QUEUE

pytestmark = pytest.mark.chaos

INTERVAL = 10
DELAY_SECONDS = 0.04
WAVE = 68
"""The number of orchestrations seeded at once, each with three due children."""

GRAPH = {"root": [], **{f"c{number}": ["root"] for number in range(3)}}
MIN_LOSSES = 4
GIVE_UP_SECONDS = 600.0


@dataclass
class Scene:
    """What a case breaks; ``workers``: those that may be lost."""

    fleet: Fleet
    broker: Broker
    workers: list[Host]
    rng: Random

    def any_worker(self) -> Host:
        return self.rng.choice(self.workers)

    def queued(self) -> Iterator[str]:
        """Yield the ids of the messages that wait in the queues."""
        for queue in (SWEEP_QUEUE, RELEASE_QUEUE):
            for raw in self.broker.client.lrange(queue, 0, -1):
                yield json.loads(raw)["headers"]["id"]


def kill(scene: Scene) -> None:
    """SIGKILL a worker and its pool, and start it again; returns when it is ready."""
    host = scene.any_worker()
    host.kill()
    host.start()


def delete_queues(scene: Scene) -> None:
    scene.broker.client.delete(SWEEP_QUEUE, RELEASE_QUEUE)


def wipe(scene: Scene) -> None:
    """Delete everything in the broker, in the middle of a sweep."""
    scene.broker.client.flushall()


def revoke(scene: Scene) -> None:
    with celery_app.Celery(broker=f"{scene.broker.url}/0", set_as_current=False) as sender:
        sender.control.revoke(list(scene.queued()))


def stop_for(seconds: float) -> Callable[[Scene], None]:
    """SIGSTOP a worker and its pool for a while: in silence it keeps its lease and its messages."""

    def stop(scene: Scene) -> None:
        host = scene.any_worker()
        signal_group(host.pid, signal.SIGSTOP)
        time.sleep(seconds)
        signal_group(host.pid, signal.SIGCONT)

    return stop


@dataclass(frozen=True)
class Case:
    """A kind of loss; ``every``: the range of seconds between two losses."""

    lose: Callable[[Scene], None]
    grace: int = 2
    every: tuple[float, float] = (5.0, 7.0)


CASES = {
    "workers killed, grace 2 s": Case(kill),
    "workers killed, grace 20 s": Case(kill, grace=20),
    "queues deleted": Case(delete_queues),
    "broker wiped": Case(wipe),
    "messages revoked": Case(revoke),
    "a worker stopped for 30 s": Case(stop_for(30.0)),
    "a worker stopped for 60 s": Case(stop_for(60.0)),
}


@dataclass
class Seen:
    """The results of a case; times in seconds."""

    losses: int = 0
    due: dict[str, datetime] = field(default_factory=dict)
    late: list[float] = field(default_factory=list)
    duplicates: int = 0
    sweeps: list[int] = field(default_factory=list)
    longest_sweep: float = 0.0

    @property
    def intervals_without(self) -> int:
        """The number of intervals in which no sweep began."""
        return sum(later - earlier - 1 for earlier, later in pairwise(self.sweeps))


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", CASES)
def test_a_loss_costs_at_most_one_interval(
    name: str, servers: Servers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every child is released once, within two intervals and the time of a sweep."""
    case, seed = CASES[name], int(os.environ.get("CHAOS_SEED") or 1)
    with (
        fault_proxy(servers.endpoint("dynamodb_local"), seed) as proxy,
        broker_of_its_own(tmp_path / "broker") as broker,
    ):
        proxy.delay_seconds = DELAY_SECONDS
        world = world_of(servers, case)
        world.endpoint = proxy.url
        with fleet_of(Celery(world, broker.url, tmp_path)) as fleet:
            workers = [fleet.worker(each, concurrency=2) for each in ("w1", "w2")]
            for beat in ("b1", "b2"):
                fleet.beat(beat)
            until("a complete sweep", lambda: fleet.celery.last(complete=True))
            scene = Scene(fleet, broker, workers, Random(f"{seed}/{name}"))
            seen = play(case, scene)
    allowed = 2 * INTERVAL + seen.longest_sweep
    with capsys.disabled():
        print(  # noqa: T201 - what the run is for
            f"\n{name}: {seen.losses} times, {len(seen.late)} children, released past the grace "
            f"within {median(seen.late):.0f} s (median), {max(seen.late):.0f} s at most; "
            f"longest sweep {seen.longest_sweep:.0f} s; {len(seen.sweeps)} sweeps, intervals "
            f"without one {seen.intervals_without}; duplicates {seen.duplicates}; seed {seed}"
        )
    assert seen.duplicates == 0
    assert len(seen.late) == 3 * len(seen.due)
    assert max(seen.late) < allowed
    assert seen.intervals_without == 0


def world_of(servers: Servers, case: Case) -> World:
    world = build_world(
        servers.endpoint("dynamodb_local"),
        SWEEP_INTERVAL_SECONDS=str(INTERVAL),
        STRANDED_GRACE_SECONDS=str(case.grace),
        SWEEP_SEGMENTS="4",
        RELEASE_RATE_PER_MINUTE="6000",
    )
    world.clock = RealClock()
    return world


def play(case: Case, scene: Scene) -> Seen:
    """Seed children and lose things until enough was lost and every child is released."""
    world, seen = scene.fleet.celery.world, Seen()
    began = time.monotonic()
    next_loss = case.grace / 2
    while True:
        waiting = 3 * len(seen.due) - len(world.scan(world.settings.task_table_name))
        if waiting <= 0:
            if seen.losses >= MIN_LOSSES:
                break
            for _ in range(WAVE):
                at = utc_now()
                seen.due[world.seed(GRAPH, {"root": "succeeded"}, age=0)] = at
        passed = time.monotonic() - began
        assert passed < GIVE_UP_SECONDS, f"{waiting} children still wait"
        if passed >= next_loss:
            case.lose(scene)
            seen.losses += 1
            next_loss = max(next_loss + scene.rng.uniform(*case.every), time.monotonic() - began)
        time.sleep(0.3)
    judge(seen, case, scene)
    return seen


def judge(seen: Seen, case: Case, scene: Scene) -> None:
    """Note when each child was released, and the sweeps that the workers logged."""
    world = scene.fleet.celery.world
    tasks = world.scan(world.settings.task_table_name)
    keys = [task["idempotency_key"]["S"] for task in tasks]
    seen.duplicates = len(keys) - len(set(keys))
    grace = timedelta(seconds=case.grace)
    for task in tasks:
        due = seen.due[task["channel_metadata"]["M"]["orchestration_id"]["S"]]
        created = moment(task["created_at"]["S"])
        assert created is not None
        seen.late.append((created - due - grace).total_seconds())
    began: set[int] = set()
    for host in scene.workers:
        for line in host.log.splitlines():
            if '"event": "orch.sweep.started"' in line:
                began.add(int(json.loads(line)["sweep_id"].rpartition(":")[2]))
            elif '"event": "orch.sweep.completed"' in line:
                took = json.loads(line)["duration_seconds"]
                seen.longest_sweep = max(seen.longest_sweep, took)
    seen.sweeps = sorted(began)
