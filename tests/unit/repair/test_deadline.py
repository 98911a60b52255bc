"""An evaluation that runs out of time keeps its repairs and leaves the rest to the next."""

from __future__ import annotations

import pytest

from reconciler.clock import never
from reconciler.repair.context import Evaluation
from tests.support.world import World

SIBLINGS = ["b", "c", "d", "e"]


class Asked:
    """Reports that no time is left once ``releases`` children have been released."""

    def __init__(self, world: World, orchestration_id: str, releases: int) -> None:
        self._world, self._id, self._releases = world, orchestration_id, releases

    def __call__(self) -> bool:
        done = [s for s in self._world.statuses(self._id).values() if s == "released"]
        return len(done) >= self._releases


def evaluate(world: World, found: str, releases: int) -> Evaluation:
    out_of_time = Asked(world, found, releases)
    return world.reconciler().evaluate(found, sweep_id="s", out_of_time=out_of_time)


@pytest.mark.parametrize("releases", [0, 1, 3])
def test_an_evaluation_ends_between_two_releases(world: World, releases: int) -> None:
    found = world.seed({"a": [], **{key: ["a"] for key in SIBLINGS}}, {"a": "succeeded"})
    evaluation = evaluate(world, found, releases)
    assert evaluation.counts.released == releases == len(world.tasks(found))
    left = {entry.sub_issue_id: entry.code for entry in evaluation.stuck}
    assert len(left) == len(SIBLINGS) - releases
    assert set(left.values()) == {"lost_release"}
    assert all(entry.age_seconds for entry in evaluation.stuck)
    assert evaluate(world, found, 10).counts.released == len(SIBLINGS) - releases


def test_an_evaluation_ends_between_two_transactions(world: World) -> None:
    """A failure with thousands of dependents takes many transactions to skip them."""
    graph: dict[str, list[str]] = {"a": [], **{f"c{number:03}": ["a"] for number in range(200)}}
    found = world.seed(graph, {"a": "failed"})

    def out_of_time() -> bool:
        return "skipped" in world.statuses(found).values()

    counts = [
        world.reconciler().evaluate(found, sweep_id="s", out_of_time=time).counts
        for time in (out_of_time, never)
    ]
    assert [(c.skipped, c.errors) for c in counts] == [(98, 0), (102, 0)]
    assert counts[0].stuck == {"lost_skip": 102}


def test_running_out_of_time_is_no_failure(world: World) -> None:
    found = world.seed({"a": [], **{key: ["a"] for key in SIBLINGS}}, {"a": "succeeded"})
    for _ in range(5):
        evaluate(world, found, 0)
    assert evaluate(world, found, 10).counts.released == len(SIBLINGS)
