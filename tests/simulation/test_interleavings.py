"""Every interleaving of the real code with all other writers, on small graphs."""

from __future__ import annotations

import re

import pytest

from tests.simulation import reopened
from tests.simulation.actors import ActorSpec, Port
from tests.simulation.conftest import Show
from tests.simulation.explorer import explore
from tests.simulation.matrix import ENDED, cell, cells, large_cells
from tests.simulation.others import task_removal
from tests.simulation.recovery import Convergence, watched
from tests.simulation.scenarios import ADVERSARIAL, SCENARIOS
from tests.simulation.scheduler import Choice
from tests.simulation.world import Scenario, start, task_id

pytestmark = pytest.mark.simulation

MOST_STATES = 200_000_000
"""The limit for the largest scenarios; a state takes about 150 bytes."""


def _explore(scenario: Scenario, show: Show, most_states: int = 4_000_000) -> None:
    explored = explore(watched(scenario), Convergence(scenario), most_states=most_states)
    show(scenario.name, explored)
    assert explored.schedules > 1, "nothing was interleaved"


@pytest.mark.parametrize("scenario", ADVERSARIAL, ids=lambda scenario: scenario.name)
def test_adversarial_schedules_keep_the_invariants(scenario: Scenario, show: Show) -> None:
    _explore(scenario, show)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_every_interleaving_keeps_the_invariants(scenario: Scenario, show: Show) -> None:
    _explore(scenario, show)


@pytest.mark.timeout(1800)  # half a minute of one core, which a loaded machine may not have
@pytest.mark.parametrize("scenario", cells(), ids=lambda scenario: scenario.name)
def test_every_small_graph_keeps_the_invariants(scenario: Scenario, show: Show) -> None:
    _explore(scenario, show)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("scenario", reopened.cells(), ids=lambda scenario: scenario.name)
def test_reopened_orchestrations_keep_the_invariants(scenario: Scenario, show: Show) -> None:
    _explore(scenario, show)


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    "scenario", [*large_cells(), *reopened.large_cells()], ids=lambda scenario: scenario.name
)
def test_the_largest_scenarios_keep_the_invariants(scenario: Scenario, show: Show) -> None:
    _explore(scenario, show, most_states=MOST_STATES)


# -- the explorer itself, compared with something plainer


def _plainly(scenario: Scenario) -> int:
    """Count schedules by running each one from the start, with nothing learnt about actors."""
    ways: dict[tuple[object, ...], int] = {}

    def ways_from(path: list[Choice]) -> int:
        execution = start(scenario)
        for actor in execution.actors:
            actor.forgets = False
        for choice in path:
            execution.step(choice)
        state, choices = execution.state(), execution.choices()
        execution.end()
        if state not in ways:
            ways[state] = sum(ways_from([*path, choice]) for choice in choices) if choices else 1
        return ways[state]

    return ways_from([])


@pytest.mark.parametrize(
    "scenario",
    [cell("pair", "live", "retry", faults=0), cell("fan-out", "retry", "cancellation")],
    ids=lambda scenario: scenario.name,
)
def test_learnt_calls_give_the_same_schedules(scenario: Scenario) -> None:
    """Running every call of every schedule finds as many as learning each call once."""
    assert explore(watched(scenario), Convergence(scenario)).schedules == _plainly(scenario)


@pytest.mark.parametrize(
    "scenario",
    [cell("fan-out", beside, faults=0) for beside in ("second sweep", "live", "older live")]
    + [cell("diamond", "second sweep"), cell("chain", "retry", "live")],
    ids=lambda scenario: scenario.name,
)
def test_forgetting_keeps_the_number_of_schedules(scenario: Scenario) -> None:
    """Actors have the same schedules whether or not they forget what they no longer need."""
    begin = watched(scenario)
    brief = explore(begin, Convergence(scenario))
    whole = explore(begin, Convergence(scenario), forget=False)
    assert brief.schedules == whole.schedules
    assert brief.states < whole.states, "nothing was forgotten"


def test_the_explorer_notices_undeclared_knowledge() -> None:
    """Such an actor acts differently from another that has declared the same knowledge."""

    def body(port: Port) -> None:
        key = {"task_id": {"S": task_id("a")}}
        there = port.call("get_item", TableName="TaskTable", Key=key)
        port.remember("nothing")
        port.call("get_item", TableName="TaskTable" if "Item" in there else "RepoTable", Key=key)

    secretive = ActorSpec("secretive", body)
    scenario = Scenario("a secret", {"a": ENDED}, [secretive, task_removal(task_id("a"))])
    with pytest.raises(RuntimeError, match="secretive knows more than it says"):
        explore(lambda: start(scenario), lambda _: None)


def test_an_actors_exception_comes_with_its_schedule() -> None:
    """An unexpected crash is a finding too, and must be found again."""

    def body(port: Port) -> None:
        key = {"task_id": {"S": task_id("a")}}
        if "Item" not in port.call("get_item", TableName="TaskTable", Key=key):
            raise LookupError("not expected")

    careless = ActorSpec("careless", body)
    scenario = Scenario("a crash", {"a": ENDED}, [careless, task_removal(task_id("a"))])
    with pytest.raises(LookupError, match="not expected") as found:
        explore(lambda: start(scenario), lambda _: None)
    (note,) = found.value.__notes__
    assert re.findall(r"actor=(\d)", note) == ["0", "1", "1", "0"]
