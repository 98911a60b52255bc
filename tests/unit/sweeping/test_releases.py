"""What is remembered of a child after an attempt to release it, by a sweep or by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from reconciler.clock import never
from reconciler.errors import ThrottledError
from reconciler.repair.context import Pacer, ReleaseRequest
from reconciler.repair.counts import Counts
from reconciler.sweeping.inline import new_state
from reconciler.sweeping.state import SweepState
from reconciler.sweeping.sweeper import Sweeper
from tests.support.world import World

NO_TURN = Pacer(lambda: False)
SWEEPS = pytest.mark.parametrize("sweep_id", ["sweep-1", None], ids=["of a sweep", "by hand"])


def sweeper_of(world: World, state: SweepState, **how: Any) -> Sweeper:
    nobody: Any = None
    return Sweeper(world.reconciler(**how), state, nobody)


def evaluated(world: World, found: str, **how: Any) -> SweepState:
    """Return the state after an evaluation of an orchestration."""
    state = new_state(world.reconciler())
    sweeper_of(world, state, **how).evaluate(found, "sweep-0", None, lambda: False)
    return state


def codes(state: SweepState, found: str) -> list[tuple[str | None, str]]:
    known = state.known(found)
    return [(left.sub_issue_id, left.code) for left in known.list_stuck(found, state.now())]


@SWEEPS
@pytest.mark.parametrize("held_up_by", ["the row", "a pause", "an outage"])
def test_an_unsuccessful_release_leaves_malformed_rows_listed(
    world: World, sweep_id: str | None, held_up_by: str
) -> None:
    found = world.seed({"a": []}, rows={"a": {"depends_on": {"S": "not a list"}}})
    state = evaluated(world, found)
    assert codes(state, found) == [("a", "malformed_row")]
    sweeper = sweeper_of(world, state)
    if held_up_by == "an outage":
        sweeper.could_not_release(
            found, "a", ThrottledError("x"), sweep_id=sweep_id, due_since=None
        )
    else:
        if held_up_by == "a pause":
            world.reconciler().pause("a deployment", "me")
        outcome = sweeper.release(found, "a", sweep_id=sweep_id).outcome
        assert outcome == ("paused" if held_up_by == "a pause" else "no_longer_due")
    assert codes(state, found) == [("a", "malformed_row")]


@SWEEPS
def test_a_task_that_has_not_started_stays_known(world: World, sweep_id: str | None) -> None:
    found = world.seed({"a": []}, {"a": "released"})
    world.task(found, "a", "SUBMITTED", age=2000)
    state = evaluated(world, found)
    assert codes(state, found) == [("a", "unstarted_task")]
    result = sweeper_of(world, state).release(found, "a", sweep_id=sweep_id)
    assert (result.outcome, codes(state, found)) == ("already_released", [("a", "unstarted_task")])


@SWEEPS
@pytest.mark.parametrize("held_up_by", ["no turn", "a pause", "an outage"])
def test_a_due_child_stays_listed_until_released(
    world: World, sweep_id: str | None, held_up_by: str
) -> None:
    found = world.seed({"a": []})
    world.reconciler().pause("a deployment", "me")
    state = evaluated(world, found)
    if held_up_by != "a pause":
        world.reconciler().resume()
    if held_up_by == "an outage":
        sweeper_of(world, state).could_not_release(
            found, "a", ThrottledError("x"), sweep_id=sweep_id, due_since=None
        )
    else:
        sweeper_of(world, state, pacer=NO_TURN).release(found, "a", sweep_id=sweep_id)
    assert codes(state, found) == [("a", "lost_release")]
    world.reconciler().resume()
    result = sweeper_of(world, state).release(found, "a", sweep_id=sweep_id)
    assert (result.outcome, codes(state, found)) == ("released", [])


def test_a_withheld_release_lists_no_healthy_child(world: World) -> None:
    """A release by hand that was withheld did not find out whether the child is due."""
    found = world.seed({"a": [], "b": ["a"]}, {"a": "released"})
    world.task(found, "a", "RUNNING")
    state = evaluated(world, found)
    sweeper = sweeper_of(world, state)
    sweeper.could_not_release(found, "b", ThrottledError("x"), sweep_id=None, due_since=None)
    world.reconciler().pause("a deployment", "me")
    assert sweeper.release(found, "b").outcome == "paused"
    assert codes(state, found) == []


def test_a_release_by_hand_leaves_no_counts(world: World) -> None:
    """They would belong to no sweep, so nothing would ever delete them."""
    found = world.seed({"a": []})
    state = new_state(world.reconciler())
    asked: list[ReleaseRequest] = []
    nobody: Any = SimpleNamespace(release=asked.extend)
    sweeper = Sweeper(world.reconciler(), state, nobody, nobody)
    sweeper.evaluate(found, None, None, never)
    (request,) = asked
    assert sweeper.release(found, "a", sweep_id=request.sweep_id).outcome == "released"
    assert state.counts(request.sweep_id) == Counts()
    assert codes(state, found) == []
