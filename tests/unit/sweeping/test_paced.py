"""A backlog that is released at a rate: what found no room gets its turn, the oldest first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast
from unittest.mock import Mock

from reconciler.clock import never
from reconciler.repair.context import Evaluation, ReleaseRequest, Stuck
from reconciler.repair.counts import Counts
from reconciler.sweeping.known_stuck import Finding
from reconciler.sweeping.overview import Sweep
from reconciler.sweeping.records import MemoryRecords
from reconciler.sweeping.segments import Scope
from reconciler.sweeping.sender import SegmentTask
from reconciler.sweeping.state import SweepState
from reconciler.sweeping.sweeper import Sweeper

NOW = 1_000_000.0


@dataclass
class Sent:
    """Records evaluations that are asked for; ``room_left``: how many releases have room."""

    room_left: int
    evaluated: list[str] = field(default_factory=list)

    def room(self) -> int:
        return 100

    def segment(self, task: SegmentTask) -> None:
        raise AssertionError(task)

    def evaluate(self, orchestration_id: str, _sweep_id: str, _since: float) -> None:
        self.evaluated.append(orchestration_id)

    def room_for_releases(self, *, in_turn: bool) -> int:
        return self.room_left if in_turn else 0

    def release(self, requests: Sequence[ReleaseRequest]) -> None:
        raise AssertionError(requests)


def test_an_ask_evaluates_the_oldest_first() -> None:
    """It asks for as many evaluations as there is room for releases."""
    state = SweepState(MemoryRecords(lambda: NOW))
    state.begin(Sweep("s", "repair", NOW - 10))
    for age in (40.0, 90.0, 60.0):
        stuck = Stuck(f"o{age:.0f}", "a", "lost_release", "it is due", age)
        state.evaluated(f"o{age:.0f}", Finding(NOW - 5, (stuck,), "rows", paced=True), 60.0)
    # The sweep goes on until the release that was handed on has ended.
    state.evaluated("busy", Finding(NOW - 5), 60.0, {"a": None})
    sent = Sent(room_left=2)
    settings = Mock(sweep_interval_seconds=60, repair_mode="repair")
    reconciler = Mock(settings=settings, paused=lambda: None)
    Sweeper(cast("Any", reconciler), state, sent, sent).ask("s")
    assert sent.evaluated == ["o90", "o60"]


def test_a_lost_release_keeps_its_place() -> None:
    """In the backlog, an orchestration is as old as its oldest due child, handed on or not."""
    state = SweepState(MemoryRecords(lambda: NOW))
    for name, age in (("young", 40.0), ("old", 90.0)):
        stuck = Stuck(name, "a", "lost_release", "it is due", age)
        handed_on = {"b": NOW - 500} if name == "young" else {}
        state.evaluated(name, Finding(NOW - 5, (stuck,), "rows", paced=True), 60.0, handed_on)
    assert state.overview().choose_paced(1) == ["young"]


def test_only_what_an_ask_chose_gets_room() -> None:
    """An orchestration that a scan has nominated waits for its turn."""
    state = SweepState(MemoryRecords(lambda: NOW))
    stuck = Stuck("o", "a", "lost_release", "it is due", 40.0)
    state.evaluated("o", Finding(NOW - 5, (stuck,), "rows", paced=True), 60.0)
    request = ReleaseRequest("o", "a", "o_a", (), None, "s")
    asked: list[bool] = []

    def evaluate(*_: object, release: Callable[[object], bool], **__: object) -> Evaluation:
        asked.append(release(request))
        return Evaluation("o", None, None, (), Counts())

    sent = Mock(room_for_releases=lambda *, in_turn: 5 if in_turn else 0)
    settings = Mock(sweep_interval_seconds=60, repair_mode="repair")
    reconciler = Mock(settings=settings, evaluate=evaluate)
    sweeper = Sweeper(cast("Any", reconciler), state, sent, sent)
    state.nominate("o", Scope.TABLE, 0.0, NOW - 1, "other rows")
    sweeper.evaluate("o", "s", NOW - 1, never)
    state.evaluated("p", Finding(NOW - 5, (stuck,), "rows", paced=True), 60.0)
    sweeper.evaluate("p", "s", NOW - 1, never)
    sweeper.evaluate("seen for the first time", "s", NOW - 1, never)
    assert asked == [False, True, False]
