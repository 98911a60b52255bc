"""Every interleaving of the real code with everybody who writes beside it, on small graphs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.simulation.conftest import Show
from tests.simulation.explorer import explore
from tests.simulation.matrix import cell, cells, large_cells
from tests.simulation.recovery import Convergence, watched
from tests.simulation.scenarios import ADVERSARIAL, SCENARIOS
from tests.simulation.world import Scenario

pytestmark = pytest.mark.simulation


def _explore(scenario: Scenario, show: Show) -> None:
    explored = explore(watched(scenario), Convergence(scenario))
    show(scenario.name, explored)
    assert explored.schedules > 1, "nothing was interleaved"


@pytest.mark.parametrize("scenario", ADVERSARIAL, ids=lambda scenario: scenario.name)
def test_the_platforms_own_adversarial_schedules(scenario: Scenario, show: Show) -> None:
    _explore(scenario, show)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_every_interleaving_keeps_the_invariants(scenario: Scenario, show: Show) -> None:
    _explore(scenario, show)


@pytest.mark.timeout(1800)  # half a minute of one core, which a loaded machine may not have
@pytest.mark.parametrize("scenario", cells(), ids=lambda scenario: scenario.name)
def test_every_small_graph_beside_everybody_who_writes(scenario: Scenario, show: Show) -> None:
    _explore(scenario, show)


def test_what_is_remembered_of_a_step_changes_nothing() -> None:
    """Each step executed anew in every state comes to the same states and schedules."""
    scenario = cell("pair", "live", "retry", faults=0)
    start, judge = watched(scenario), Convergence(scenario)
    known, anew = explore(start, judge), explore(start, judge, remember=False)
    assert anew.executions > known.executions, "hardly anything was remembered"
    assert replace(known, executions=0) == replace(anew, executions=0)


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("scenario", large_cells(), ids=lambda scenario: scenario.name)
def test_every_interleaving_of_the_larger_ones(scenario: Scenario, show: Show) -> None:
    _explore(scenario, show)
