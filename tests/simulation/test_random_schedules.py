"""Larger worlds with random schedules; a failing one is shrunk, and its seed replays it.

pytest tests/simulation/test_random_schedules.py --seed 1234
"""

from __future__ import annotations

import os

import pytest

from tests.simulation.conftest import Show
from tests.simulation.explorer import Explored, Violation, replay, run_random
from tests.simulation.random_worlds import random_scenario
from tests.simulation.recovery import Convergence, watched
from tests.simulation.scheduler import Execution
from tests.simulation.world import Node, Scenario, sweep

pytestmark = pytest.mark.simulation

SEEDS = 400
BATCH = 50


def _run(seed: int) -> int:
    scenario = random_scenario(seed)
    return len(run_random(watched(scenario), Convergence(scenario), seed))


@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_random_schedules_keep_the_invariants(first: int, request: pytest.FixtureRequest) -> None:
    chosen = request.config.getoption("--seed")
    seeds = range(first, first + BATCH) if chosen is None else [chosen] if first == 0 else []
    for seed in seeds:
        _run(seed)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_many_random_schedules_keep_the_invariants(show: Show) -> None:
    count = 20 * SEEDS * int(os.environ.get("SIMULATION_MINUTES", "1"))
    choices = sum(_run(seed) for seed in range(SEEDS, SEEDS + count))
    show("random worlds", Explored(states=choices, steps=choices, ends=count, schedules=count))


def test_a_failing_schedule_shrinks_and_replays() -> None:
    """It breaks a made-up rule that no process may die, and shrinks to a single crash."""
    nodes = {"a": Node("succeeded", task="COMPLETED"), "b": Node("blocked", "a")}
    scenario = Scenario("shrinking", nodes, [sweep(1), sweep(2)], faults=2)
    start = watched(scenario)

    def judge(execution: Execution) -> None:
        if any(actor.crashed for actor in execution.actors):
            raise Violation("a process died")

    found: list[Violation] = []

    def search() -> None:
        for seed in range(50):
            run_random(start, judge, seed)

    for _ in range(2):
        with pytest.raises(Violation) as caught:
            search()
        found.append(caught.value)
    assert str(found[0]) == str(found[1]), "the same seeds find the same"
    assert "shrunk to" in str(found[0])
    assert sum("crash" in line for line in found[0].trace) == 1, "one crash is enough"
    assert replay(start, judge, []) is None, "the plainest schedule kills nobody"
