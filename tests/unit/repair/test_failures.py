"""Failure records of several children, and when a recorded failure is over."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from reconciler.clock import OutOfTime, never
from reconciler.domain.model import WHOLE, Orchestration
from reconciler.domain.outcomes import Outcome
from reconciler.errors import InvalidRequestError
from reconciler.repair.context import ActionOutcome
from reconciler.repair.failures import FailureRecords
from reconciler.repair.repair_pass import RepairPass
from reconciler.stores.orchestrations import OrchestrationStore
from tests.support.world import World
from tests.unit.repair.test_releaser import context, whole


class Store:
    """Reads as told, and lists what is recorded and cleared."""

    def __init__(self, reads: dict[str, Orchestration | Exception | None]) -> None:
        self.reads = reads
        self.recorded: list[str] = []
        self.cleared: list[str] = []

    def read_failing(self, _orchestration_id: str, key: str) -> Orchestration | None:
        found = self.reads[key]
        if isinstance(found, Exception):
            raise found
        return found

    def record_attempts(self, _orchestration_id: str, key: str, *_: object) -> None:
        self.recorded.append(key)

    def clear_attempts(self, _orchestration_id: str, key: str) -> None:
        self.cleared.append(key)


class Pass:
    """What a pass has come to."""

    def __init__(
        self,
        world: World,
        *,
        went_well: bool,
        queued: set[str],
        failures: dict[str, BaseException],
        outcomes: dict[str, Outcome],
    ) -> None:
        self.context = context(world)
        self.went_well, self.queued, self.failures = went_well, queued, failures
        self.outcomes = [
            ActionOutcome("release", key, "lost_release", outcome, applied=True)
            for key, outcome in outcomes.items()
        ]


def records(world: World, store: Any) -> FailureRecords:
    made = world.reconciler().evaluator.failures
    return replace(made, orchestrations=cast("OrchestrationStore", store))


def cleared(
    world: World, key: str, *, moved: bool, out_of_time: OutOfTime = never, **done: Any
) -> list[str]:
    """Return the records that a pass clears, of one for ``key``."""
    name = world.seed({"a": []})
    failures = world.reconciler().evaluator.failures
    failures.hold_against(name, {key: ValueError("broken")}, context(world))
    seen = whole(world, name)
    if moved:
        old = replace(seen.attempts[key], fingerprint="another")
        seen = replace(seen, attempts={key: old})
    store = Store({})
    given = {"went_well": True, "queued": set(), "failures": {}, "outcomes": {}, **done}
    ended = Pass(world, **given)
    ended.context = replace(ended.context, out_of_time=out_of_time)
    records(world, store).remember(seen, cast("RepairPass", ended))
    return store.cleared


def test_an_unreadable_child_blocks_no_other_childs_record(world: World) -> None:
    seen = whole(world, world.seed({"c": []}))
    too_long = InvalidRequestError("Size of rangekey has exceeded the maximum size limit")
    store = Store({"a": LookupError("torn"), "b": None, "d": too_long, "c": seen})
    errors = {key: ValueError("broken") for key in "abdc"}
    records(world, store).hold_against("orch_1", errors, context(world))
    assert store.recorded == ["c"]


def test_recording_ends_when_time_is_up(world: World) -> None:
    """Each evaluation records one failure at least, so that one after the other backs off."""
    seen = whole(world, world.seed({"a": [], "b": []}))
    store = Store(dict.fromkeys("ab", seen))
    errors = dict.fromkeys("ab", ValueError("broken"))
    late = replace(context(world), out_of_time=lambda: True)
    records(world, store).hold_against("orch_1", errors, late)
    assert store.recorded == ["a"]
    assert cleared(world, "a", moved=True, out_of_time=lambda: True) == []


@pytest.mark.parametrize(
    ("moved", "went_well", "queued", "over"),
    [
        (False, True, set(), True),
        (True, True, {"a"}, True),
        (False, True, {"a"}, False),
        (False, False, set(), False),
        (True, False, {"a"}, False),
    ],
)
def test_an_orchestration_is_forgiven_after_a_clean_pass(
    world: World,
    *,
    moved: bool,
    went_well: bool,
    queued: set[str],
    over: bool,
) -> None:
    """Handed-on releases may still fail, unless the rows have changed."""
    done = cleared(world, WHOLE, moved=moved, went_well=went_well, queued=queued)
    assert done == ([WHOLE] if over else [])


@pytest.mark.parametrize(
    ("moved", "outcome", "over"),
    [
        (False, Outcome.RELEASED, True),
        (False, Outcome.QUEUED, False),
        (True, Outcome.QUEUED, True),
    ],
)
def test_a_child_is_forgiven_after_its_repair(
    world: World, *, moved: bool, outcome: Outcome, over: bool
) -> None:
    """A change of its rows forgives it too."""
    done = cleared(world, "a", moved=moved, outcomes={"a": outcome})
    assert done == (["a"] if over else [])


def test_a_failed_child_keeps_its_record(world: World) -> None:
    """Another repair of it in the same pass does not help."""
    failed = {"a": ValueError("broken")}
    assert cleared(world, "a", moved=True, failures=failed) == []
    assert cleared(world, "a", moved=False, failures=failed, outcomes={"a": Outcome.DONE}) == []
