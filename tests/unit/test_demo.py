"""The demo's platform finishes every blueprint if no event is lost."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

import pytest

from reconciler.demo.run import CAP, Plan, seeds
from reconciler.demo.shapes import Blueprint
from reconciler.demo.task_pipeline import FUNCTION_ARN, TaskPipeline, pipeline_endpoint
from reconciler.services.pipeline import Pipeline
from tests.support.memory import MEMORY
from tests.support.world import World, build_world, make_session


def widest(blueprint: Blueprint) -> int:
    """Return how many children can run at once, that is, are equally far from a root."""
    depth: dict[str, int] = {}
    for child in blueprint.children:
        depth[child.key] = 1 + max((depth[key] for key in child.depends_on), default=0)
    return max(Counter(depth.values()).values())


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("orchestrations", [3, 24, 200])
def test_no_user_can_reach_the_cap(orchestrations: int, seed: int) -> None:
    """A task beyond the cap fails on admission, although no event was lost."""
    running: dict[str, int] = defaultdict(int)
    for user, blueprint in seeds(Plan(orchestrations=orchestrations, seed=seed)):
        running[user] += widest(blueprint)
    assert max(running.values()) < CAP


# -- the task pipeline


@pytest.fixture
def world() -> Iterator[World]:
    made = build_world(MEMORY)
    yield made
    made.remove()


def test_a_second_run_fails_its_task(world: World) -> None:
    """As in the platform, the second run finds the task at work."""
    pipeline = TaskPipeline(world.client, world.settings, world.clock)
    once, twice = (world.task("orch_1", key, "SUBMITTED") for key in "ab")
    for task_id in (once, twice):
        pipeline.invoke(task_id)
        pipeline.step()
    pipeline.invoke(twice)
    while pipeline.step():
        pass
    tasks = world.reconciler().tasks.read_all([once, twice])
    assert {key: task and task.status for key, task in tasks.items()} == {
        once: "COMPLETED",
        twice: "FAILED",
    }


def test_invocations_of_one_name_run_once(world: World) -> None:
    pipeline = TaskPipeline(world.client, world.settings, world.clock)
    task_id = world.task("orch_1", "a", "SUBMITTED")
    for _ in range(3):
        pipeline.invoke(task_id, task_id)
        pipeline.step()
    assert pipeline.idle
    task = world.reconciler().tasks.read_all([task_id])[task_id]
    assert task is not None
    assert task.status == "COMPLETED"


def test_another_name_starts_a_second_run(world: World) -> None:
    pipeline = TaskPipeline(world.client, world.settings, world.clock)
    task_id = world.task("orch_1", "a", "SUBMITTED")
    pipeline.invoke(task_id)
    pipeline.step()
    with pipeline_endpoint(pipeline.invoke) as url:
        client = make_session(MEMORY, {"lambda": url}).client("lambda")
        Pipeline(client, FUNCTION_ARN).invoke(task_id)
    pipeline.step()
    task = world.reconciler().tasks.read_all([task_id])[task_id]
    assert task is not None
    assert task.status == "FAILED"
