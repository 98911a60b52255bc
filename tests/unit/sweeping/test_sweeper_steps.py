"""The steps of a sweep: reading, looking for recoveries, evaluating, and ending."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import pytest
import structlog

from reconciler.clock import never
from reconciler.domain.model import timestamp
from reconciler.domain.outcomes import Outcome
from reconciler.errors import (
    InvalidRequestError,
    ReconcilerError,
    StoreUnavailableError,
    ThrottledError,
    UnknownChildError,
    UnknownOrchestrationError,
)
from reconciler.repair.context import ReleaseRequest, RepairResult, Stuck
from reconciler.repair.counts import Counts
from reconciler.stores.control import Pause
from reconciler.sweeping import sweeper as module
from reconciler.sweeping.known_stuck import Finding
from reconciler.sweeping.overview import Sweep
from reconciler.sweeping.scan_step import SegmentResult
from reconciler.sweeping.segments import Place, Segment
from reconciler.sweeping.sender import SegmentTask
from reconciler.sweeping.sweeper import Sweeper
from tests.support.strategies import NOW as TODAY
from tests.unit.sweeping.swept import ACTIVE, FIRST, INTERVAL, NOW, ROTATION, TABLE, Swept

# -- reading


def reading(
    swept: Swept, monkeypatch: pytest.MonkeyPatch, following: Place | None = None
) -> list[Place]:
    """Let each step end at ``following``, and return where each one begins."""
    begun: list[Place] = []

    def scan(_: Any, _segment: Segment, place: Place, **how: Any) -> SegmentResult:
        begun.append(place)
        how["nominate"]("o", "rows")
        how["nominate"]("o", "rows")
        return SegmentResult(Counts(rows_scanned=7), following)

    monkeypatch.setattr(module, "scan_segment", scan)
    swept.state.set_total(TABLE, 2)
    return begun


TASK = SegmentTask(FIRST, "s", NOW)


def test_a_step_nominates_and_counts_what_it_read(
    swept: Swept, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading(swept, monkeypatch)
    result = swept.sweeper().read(TASK, "reader", never)
    assert result is not None
    assert (result.counts.rows_scanned, result.nominated, result.handed_on) == (7, 2, False)
    assert (swept.sent.evaluated, swept.sent.segments) == (["o", "o"], [])
    assert swept.state.counts("s") == Counts(rows_scanned=7)
    assert swept.state.overview().segments["table"][0].mark == NOW
    assert swept.sweeper().read(TASK, "another", never) is None, "it was read since"


def test_an_already_evaluated_orchestration_is_not_nominated(
    swept: Swept, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading(swept, monkeypatch)
    swept.state.evaluated("o", Finding(NOW), INTERVAL)
    result = swept.sweeper().read(TASK, "reader", never)
    assert result is not None
    assert (result.nominated, swept.sent.evaluated) == (0, [])


def test_a_step_hands_on_the_unread_rest(swept: Swept, monkeypatch: pytest.MonkeyPatch) -> None:
    following = Place(NOW, 1, {"orchestration_id": "o", "sub_issue_id": "a"})
    reading(swept, monkeypatch, following)
    result = swept.sweeper().read(TASK, "reader", never)
    assert result is not None
    assert result.handed_on
    assert swept.sent.segments == [replace(TASK, step=1)]
    assert swept.state.overview().segments["table"][0].place == following


def test_a_read_older_than_its_sweep_is_repeated(
    swept: Swept, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = reading(swept, monkeypatch)
    swept.state.take(FIRST, "reader", NOW)
    swept.state.leave(FIRST, "reader", Place(NOW - 5, 3))
    result = swept.sweeper().read(replace(TASK, step=3), "reader", never)
    assert result is not None
    assert result.handed_on
    assert begun == [Place(NOW - 5, 3)]
    assert swept.sent.segments == [TASK]


@pytest.mark.parametrize(
    ("asked", "left", "following"),
    [(1, None, Place(NOW, 1)), (0, Place(NOW - 5, 2), None)],
    ids=["a step", "once more"],
)
def test_a_step_never_hands_on_itself(
    swept: Swept,
    monkeypatch: pytest.MonkeyPatch,
    asked: int,
    left: Place | None,
    following: Place | None,
) -> None:
    """Otherwise the dedup key of the running task would drop the message.

    Others read on after the message was sent, so it names another step than the one it reads.
    """
    reading(swept, monkeypatch, following)
    swept.state.take(FIRST, "another", NOW)
    swept.state.leave(FIRST, "another", left)
    result = swept.sweeper().read(replace(TASK, step=asked), "reader", never)
    assert result is not None
    assert result.handed_on
    assert [task.step for task in swept.sent.segments] == [asked + 1]


@pytest.mark.parametrize("following", [None, Place(NOW, 1)], ids=["to its end", "a step"])
def test_a_reader_without_lease_hands_nothing_on(
    swept: Swept, monkeypatch: pytest.MonkeyPatch, following: Place | None
) -> None:
    def overtaken(*_: Any, **__: Any) -> SegmentResult:
        swept.seconds += 100
        assert swept.state.take(FIRST, "another", swept.seconds) is not None
        return SegmentResult(Counts(), following)

    reading(swept, monkeypatch)
    monkeypatch.setattr(module, "scan_segment", overtaken)
    result = swept.sweeper().read(TASK, "reader", never)
    assert result is not None
    assert not result.handed_on
    assert swept.sent.segments == []


def test_a_request_from_the_future_is_dropped(
    swept: Swept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock has jumped back, and no read could satisfy the request."""
    begun = reading(swept, monkeypatch)
    assert swept.sweeper().read(replace(TASK, since=NOW + 1), "reader", never) is None
    assert begun == []


def test_a_failed_reader_frees_its_segment_at_once(
    swept: Swept, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise ThrottledError("x")

    reading(swept, monkeypatch)
    monkeypatch.setattr(module, "scan_segment", fails)
    with pytest.raises(ThrottledError):
        swept.sweeper().read(TASK, "reader", never)
    assert swept.state.overview().segments["table"][0].token is None


@pytest.mark.parametrize(
    ("changes", "into_rotation", "step", "looks"),
    [
        ({}, 0.0, 0, True),
        ({}, INTERVAL - 1, 0, True),
        ({}, INTERVAL, 0, False),
        ({}, 0.0, 1, False),
        ({"segment": Segment(TABLE, 1, 2)}, 0.0, 0, False),
        ({"segment": Segment(ACTIVE, 0, 2)}, 0.0, 0, False),
    ],
    ids=["first", "late", "next sweep", "later step", "another segment", "another scope"],
)
def test_one_step_of_a_rotation_looks_for_recoveries(
    swept: Swept, changes: dict[str, Any], into_rotation: float, step: int, *, looks: bool
) -> None:
    task = replace(TASK, since=1000 * ROTATION + into_rotation, **changes)
    assert swept.sweeper()._looks_for_recoveries(task, Place(NOW, step)) is looks


def test_recoveries_are_looked_for_every_day(swept: Swept) -> None:
    """Each look goes back two days only, and a rotation may last a week."""
    day = 86_400.0
    swept.settings["full_scan_interval_seconds"] = int(7 * day)
    for hours in range(7 * 24):
        task = replace(TASK, since=7000 * day + hours * 3600)
        looks = swept.sweeper()._looks_for_recoveries(task, Place(NOW))
        assert looks is (hours % 24 == 0)


def test_an_index_scan_looks_for_recoveries(
    indexed: Swept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If there is an index, the scan of the table does not."""
    looked: list[str] = []
    monkeypatch.setattr(
        module,
        "nominate_recoveries",
        lambda _reconciler, _nominate, sweep_id: looked.append(sweep_id),
    )
    reading(indexed, monkeypatch)
    indexed.state.set_total(ACTIVE, 2)
    indexed.seconds = 1000 * ROTATION
    for scope in (TABLE, ACTIVE):
        task = SegmentTask(Segment(scope, 0, 2), scope.value, indexed.seconds)
        indexed.sweeper().read(task, "reader", never)
    assert looked == ["active"]


@pytest.mark.parametrize(
    ("error", "logged"), [(StoreUnavailableError("x"), False), (InvalidRequestError("x"), True)]
)
def test_an_unread_segment_is_counted_as_an_error(
    swept: Swept, error: ReconcilerError, *, logged: bool
) -> None:
    """An outage is logged when it begins, and not for each segment."""
    with structlog.testing.capture_logs() as lines:
        swept.sweeper().could_not_read(TASK, error)
    assert swept.state.counts("s") == Counts(errors=1)
    assert swept.metrics.count("reconciler_errors_total", kind=error.kind) == 1
    events = [(line["event"], line["segment"]) for line in lines]
    assert events == ([("orch.segment.unread", "1of2")] if logged else [])


# -- evaluating


def test_a_sweep_evaluates_each_orchestration_once(swept: Swept) -> None:
    """A request without ``since`` is always evaluated."""
    swept.state.evaluated("o", Finding(NOW), INTERVAL)
    sweeper = swept.sweeper(evaluate=Mock(side_effect=UnknownOrchestrationError("gone")))
    assert sweeper.evaluate("o", "s", NOW, never) is None
    for since in (NOW + 1, None):
        with pytest.raises(UnknownOrchestrationError):
            sweeper.evaluate("o", "s", since, never)


def test_a_deleted_orchestration_no_longer_awaits_evaluation(swept: Swept) -> None:
    """It counts as evaluated."""
    swept.state.nominate("o", TABLE, 0.0, NOW - 1, "rows")
    sweeper = swept.sweeper(evaluate=Mock(side_effect=UnknownOrchestrationError("gone")))
    with pytest.raises(UnknownOrchestrationError):
        sweeper.evaluate("o", "s", NOW - 1, never)
    assert not swept.state.known("o").needs_evaluation
    assert swept.state.counts("s") == Counts(orchestrations_evaluated=1)


@pytest.mark.parametrize(("due_since", "age"), [(None, None), (TODAY, 30.0)])
def test_a_failed_release_leaves_its_child_stuck(due_since: Any, age: float | None) -> None:
    swept = Swept(seconds=TODAY.timestamp() + 30)
    swept.sweeper().could_not_release(
        "o", "a", ThrottledError("x"), sweep_id="s", due_since=due_since
    )
    (left,) = swept.state.overview().list_stuck()
    assert (left.code, left.age_seconds) == ("lost_release", age or 0.0)
    assert swept.state.counts("s") == Counts(errors=1)


def test_a_deleted_child_is_no_longer_stuck(swept: Swept) -> None:
    entry = Stuck("o", "a", "missing_task", "its task does not exist", 60.0)
    swept.state.evaluated("o", Finding(NOW - 5, (entry,)), INTERVAL)
    gone = Mock(side_effect=UnknownChildError("gone"))
    with pytest.raises(UnknownChildError):
        swept.sweeper(release=gone).release("o", "a", sweep_id="s")
    assert swept.state.overview().list_stuck() == []
    assert gone.call_args.kwargs["alone"] is False


def test_a_withheld_release_leaves_its_child_stuck(swept: Swept) -> None:
    """A release by hand records nothing, because nobody has checked whether the child is due."""
    stuck = Stuck("o", "a", "lost_release", "paused", 60.0)
    withheld = Mock(return_value=RepairResult(Outcome.PAUSED, applied=False, stuck=(stuck,)))
    sweeper = swept.sweeper(release=withheld)
    sweeper.release("o", "a")
    assert swept.state.overview().list_stuck() == []
    sweeper.release("o", "a", sweep_id="s")
    assert [left.code for left in swept.state.overview().list_stuck()] == ["lost_release"]


def test_a_cascading_release_was_not_chosen_by_age(swept: Swept) -> None:
    """A sender has less room for releases that were just found."""
    asked: list[bool] = []

    def release(*_: object, dispatch: Callable[[object], bool], **__: object) -> RepairResult:
        asked.append(dispatch(ReleaseRequest("o", "b", "o_b", (), None, "s")))
        return RepairResult(Outcome.REFUSED)

    releases = Mock(room_for_releases=lambda *, in_turn: 5 if in_turn else 0)
    reconciler = swept.reconciler(release=release)
    Sweeper(reconciler, swept.state, swept.sent, releases).release("o", "a", sweep_id="s")
    assert asked == [False]


# -- ending


def ask_and_read(swept: Swept, name: str = "s", *, report: bool = False) -> None:
    swept.sweeper(report=report).ask(name)
    swept.read_all()


def test_a_sweep_ends_after_reads_and_releases(swept: Swept) -> None:
    sweeper = swept.sweeper()
    sweeper.ask("s")
    assert sweeper.end_what_is_done() == []
    swept.state.evaluated("o", Finding(NOW), INTERVAL, {"a": None})
    swept.seconds += 2
    swept.read_all()
    assert sweeper.end_what_is_done() == [], "a release is under way"
    swept.state.released("o", "a", settled=True)
    (summary,) = sweeper.end_what_is_done()
    assert (summary.sweep_id, summary.complete, summary.segments) == ("s", True, 2)
    assert (summary.duration_seconds, summary.mode) == (2.0, "repair")
    assert sweeper.end_what_is_done() == []
    assert sweeper.end("s") is None
    assert sweeper.end("unknown") is None


def test_what_is_known_is_read_seldom(swept: Swept, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be large."""
    ask_and_read(swept, "before")
    swept.seconds += INTERVAL
    sweeper = swept.sweeper()
    read: list[str] = []
    records = swept.state._records
    whole = records.read

    def reading(*kinds: str) -> Any:
        read.extend(kinds)
        return whole(*kinds)

    monkeypatch.setattr(records, "read", reading)

    def how_often(step: Callable[[], object]) -> int:
        read.clear()
        step()
        return read.count("known")

    assert how_often(lambda: sweeper.ask("s")) == 2
    assert how_often(lambda: sweeper.ask("s")) == 1
    assert how_often(sweeper.end_what_is_done) == 0, "segments are unread"
    swept.read_all()
    assert how_often(sweeper.end_what_is_done) == 1
    assert how_often(sweeper.end_what_is_done) == 0, "it has ended"


@pytest.mark.parametrize(("intervals", "ended"), [(2.75, False), (3.0, True)])
def test_a_sweep_is_given_up_after_three_intervals(
    swept: Swept, intervals: float, *, ended: bool
) -> None:
    """The next sweep to start gives it up."""
    sweeper = swept.sweeper()
    sweeper.ask("old")
    swept.seconds += intervals * INTERVAL
    sweeper.ask("old")
    assert swept.state.overview().list_ended() == [], "only another sweep gives it up"
    sweeper.ask("s")
    found = [
        (summary["sweep_id"], summary["complete"])
        for summary in swept.state.overview().list_ended()
    ]
    assert found == ([("old", False)] if ended else [])


def test_a_sweeps_duration_is_never_negative(swept: Swept) -> None:
    swept.sweeper().ask("s")
    sweep = swept.state.sweep("s")
    assert sweep is not None
    seen = replace(swept.state.overview(), now=NOW - 5)
    summary = swept.sweeper()._end(sweep, seen)
    assert summary is not None
    assert summary.duration_seconds == 0.0


SINCE = timestamp(TODAY)


@pytest.mark.parametrize(
    ("since", "mode", "expected"),
    [
        (SINCE, "repair", ("paused", TODAY.timestamp())),
        (SINCE, "report", ("report", TODAY.timestamp())),
        ("yesterday", "repair", ("paused", 1.0)),
        ("9999-12-31T00:00:00.000Z", "repair", ("paused", 1.0)),
        ("1970-01-01T00:00:00.000Z", "repair", ("paused", 1.0)),
        (None, "repair", ("repair", None)),
    ],
    ids=["a pause", "in report mode", "unreadable", "in the future", "of old", "no pause"],
)
def test_a_summary_reports_a_pause(
    since: str | None, mode: str, expected: tuple[str, float | None]
) -> None:
    swept = Swept(seconds=TODAY.timestamp() + 5, settings={"repair_mode": mode})
    swept.pause = None if since is None else Pause(since, "a deployment", "me")
    swept.sweeper().ask("s")
    summary = swept.sweeper().end("s")
    assert summary is not None
    assert (summary.mode, summary.paused_since) == expected


def modes(swept: Swept) -> int:
    return sum(name == "reconciler_mode" for name, _ in swept.metrics.gauges)


def test_a_report_by_hand_sets_no_gauges(swept: Swept) -> None:
    sweeper = swept.sweeper(report=True)
    sweeper.ask("s")
    swept.read_all()
    (summary,) = sweeper.end_what_is_done()
    assert (summary.mode, swept.metrics.gauges) == ("report", {})
    assert swept.state.overview().covered_as_of(TABLE) == NOW


def test_reports_set_the_gauges_in_report_mode() -> None:
    swept = Swept(settings={"repair_mode": "report"})
    sweeper = swept.sweeper(report=True)
    sweeper.ask("s")
    swept.read_all()
    (summary,) = sweeper.end_what_is_done()
    assert summary.mode == "report"
    assert modes(swept) == 3
    covered = "reconciler_covered_as_of_timestamp_seconds"
    assert swept.metrics.gauges[covered, (("scope", "table"),)] == NOW


def test_an_unreadable_pause_sets_no_mode_gauge(swept: Swept) -> None:
    def fails() -> None:
        raise ThrottledError("x")

    sweeper = swept.sweeper()
    sweeper._reconciler.paused = fails  # type: ignore[method-assign]
    sweeper.ask("s")
    summary = sweeper.end("s")
    assert summary is not None
    assert (summary.mode, modes(swept)) == ("repair", 0)


def test_an_ended_sweep_is_reported_once(swept: Swept) -> None:
    """Two workers may try to end it at the same time."""
    sweeper = swept.sweeper()
    sweeper.ask("s")
    sweep = swept.state.sweep("s")
    assert isinstance(sweep, Sweep)
    seen = swept.state.overview()
    assert sweeper._end(sweep, seen) is not None
    assert sweeper._end(sweep, seen) is None
    assert swept.metrics.count("reconciler_sweeps_total", outcome="incomplete") == 1
