"""A sweep's parts: what belongs to it, who waits for whom, and when it counts as lost."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import celery
import pytest

from reconciler.errors import AccessError
from reconciler.operations.context import ReleaseRequest, Stuck
from reconciler.operations.counts import Counts
from reconciler.operations.coverage import Coverage
from reconciler.operations.scan import SegmentCursor, SegmentResult
from tests.integration.workers.conftest import INTERVAL, Time
from tests.support.metrics import RecordingMetrics
from workers import sweeping, tasks
from workers.beat import GatedScheduler
from workers.ledger import LAST_STUCK, Plan, Start, Unit, stale_after
from workers.names import SWEEP
from workers.resources import Resources

pytestmark = [pytest.mark.integration, pytest.mark.workers]

FIRST, SECOND = "segment:0:0", "segment:0:1"
WORK, RELEASE_WORK = "evaluate:orch_1", "release:orch_1_b"


@pytest.fixture
def held(held: Resources) -> Resources:
    """With a full scan at work."""
    held.ledger.start("sweep:1", Plan("repair", 1), [FIRST])
    return held


def test_what_two_runs_publish_at_once_is_waited_for(held: Resources) -> None:
    """The one opens the unit, and it is the other's message that leaves."""

    def enter() -> bool:
        return held.gate.enter(WORK, 60, "sweep:1") is not None

    def second_run_comes_between() -> bool:
        sweeping.publish(held, "sweep:1", WORK, enter)
        return enter()

    sweeping.publish(held, "sweep:1", WORK, second_run_comes_between)
    assert not held.ledger.settle("sweep:1", FIRST, Counts()), "it is not over"
    assert held.ledger.settle("sweep:1", WORK, Counts())


@pytest.mark.parametrize(("work", "over"), [(WORK, False), (RELEASE_WORK, True)])
def test_what_is_under_way_for_another_sweep_is_not_waited_for(
    held: Resources, work: str, *, over: bool
) -> None:
    """Of an evaluation the other's word counts while it is at work, beside a full scan."""
    if not over:
        beside = Plan("repair", 1, Coverage.ACTIVE)
        assert held.ledger.start("sweep:0", beside, [FIRST], beside=True) is Start.STARTED
    held.gate.enter(work, 60, "sweep:0")
    sweeping.publish(held, "sweep:1", work, enters(held, work))
    assert held.ledger.settle("sweep:1", FIRST, Counts())
    assert held.gate.held_for(work, "sweep:0")


def enters(held: Resources, work: str) -> Callable[[], bool]:
    return lambda: held.gate.enter(work, 60, "sweep:1") is not None


@pytest.mark.parametrize("ended", [False, True], ids=["forgotten", "closed"])
def test_an_evaluation_is_taken_from_a_sweep_that_is_over(held: Resources, *, ended: bool) -> None:
    """Its message may be lost: this sweep would be complete, and have looked at less than all."""
    if ended:
        beside = Plan("repair", 1, Coverage.ACTIVE)
        held.ledger.start("sweep:0", beside, [FIRST], beside=True)
        held.ledger.close("sweep:0", abandoned=True)
    nonce = held.gate.enter(WORK, 60, "sweep:0")
    sweeping.publish(held, "sweep:1", WORK, enters(held, WORK))
    assert not held.ledger.settle("sweep:1", FIRST, Counts()), "it is waited for"
    assert not held.gate.leave(WORK, str(nonce)), "what it was taken from does not give it back"
    assert held.gate.held_for(WORK, "sweep:1")


def test_an_evaluation_that_ends_for_another_just_now_is_sent(held: Resources) -> None:
    nonce = held.gate.enter(WORK, 60, "sweep:0")

    def ends_when_it_has_been_refused() -> bool:
        entered = held.gate.enter(WORK, 60, "sweep:1") is not None
        held.gate.leave(WORK, str(nonce))
        return entered

    sweeping.publish(held, "sweep:1", WORK, ends_when_it_has_been_refused)
    assert not held.ledger.settle("sweep:1", FIRST, Counts()), "it is waited for"


def test_the_rest_of_a_segment_is_waited_for_whoever_sent_it(
    held: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I6: with the rest still to be read, the sweep must not end, and as complete."""
    cursor = SegmentCursor("sweep:1", 0, 1)
    result = SegmentResult(Counts(), SegmentCursor("sweep:1", 0, 1, step=1))
    cast("Any", held.reconciler).scan_segment = lambda *_, **__: result
    sent_by_another_run = SimpleNamespace(segment=lambda *_, **__: False)
    monkeypatch.setattr(sweeping, "enqueuer_of", lambda _: sent_by_another_run)
    sweeping.step(held, cursor, Coverage.FULL, report=False)
    assert held.ledger.last() is None
    assert held.ledger.is_open("sweep:1", SECOND)


class Sent:
    """An enqueuer that only remembers."""

    def __init__(self) -> None:
        self.segments: list[tuple[int, int, Coverage]] = []
        self.evaluations: list[str] = []

    def segment(self, cursor: SegmentCursor, coverage: Coverage, *, report: bool) -> bool:
        assert not report
        self.segments.append((cursor.segment, cursor.total, coverage))
        return True

    def evaluate(self, orchestration_id: str, sweep_id: str, *, report: bool) -> bool:
        assert (sweep_id in {"sweep:2", "sweep:3"}, report) == (True, False)
        self.evaluations.append(orchestration_id)
        return True


@pytest.fixture
def sent(held: Resources, monkeypatch: pytest.MonkeyPatch) -> Sent:
    """What is sent by a sweep that begins when the one before it has ended."""
    held.ledger.settle("sweep:1", FIRST, Counts())
    held.ledger.close("sweep:1")
    found = Sent()
    monkeypatch.setattr(sweeping, "enqueuer_of", lambda _: found)
    return found


def start(held: Resources, segments: int, *, full: bool = False) -> dict[str, Any]:
    cast("Any", held.reconciler).choose_segments = lambda *_: segments
    return sweeping.start(held, "sweep:2", report=False, full=full)


@pytest.mark.parametrize("other", [2, 6])
def test_a_redelivery_goes_by_the_segments_that_its_sweep_was_begun_with(
    held: Resources, sent: Sent, other: int
) -> None:
    """I6: with a worker lost, or one more, the number would be another, and a part left out."""
    start(held, 4)
    held.ledger.settle("sweep:2", "segment:1:0", Counts())
    sent.segments.clear()
    start(held, other)
    assert sent.segments == [(number, 4, Coverage.FULL) for number in (0, 2, 3)]


STUCK = [Stuck("orch_1", None, "unsettled_parent", "why", 60.0)]


@pytest.fixture
def indexed(held: Resources, sent: Sent) -> Sent:
    """An index, and a full scan a moment ago that left an orchestration stuck."""
    held.settings.active_index_name = "Active"
    held.settings.full_scan_interval_seconds = 3600
    cast("Any", held.reconciler).clock = lambda: datetime.fromtimestamp(1600, UTC)
    held.ledger.start("sweep:1b", Plan("repair", 1), [FIRST])
    counts = Counts(stuck={"unsettled_parent": 1})
    held.ledger.settle("sweep:1b", FIRST, counts, stuck=STUCK)
    held.ledger.close("sweep:1b")
    return sent


def test_a_sweep_by_the_index_looks_again_at_what_was_stuck(held: Resources, indexed: Sent) -> None:
    begun = start(held, 1)
    assert begun["coverage"] == "active"
    assert indexed.segments == [(0, 1, Coverage.ACTIVE)]
    assert indexed.evaluations == ["orch_1"]
    assert not held.ledger.settle("sweep:2", FIRST, Counts()), "that is still to be looked at"
    assert held.ledger.settle("sweep:2", "evaluate:orch_1", Counts())
    held.ledger.close("sweep:2")
    last = held.ledger.last(complete=True)
    assert last is not None
    assert last["coverage"] == "active"
    assert (held.ledger.last_full() or {})["sweep_id"] == "sweep:1b"


def test_a_redelivery_looks_again_at_what_was_stuck_though_a_full_scan_is_due_by_now(
    held: Resources, indexed: Sent
) -> None:
    start(held, 1)
    indexed.segments.clear()
    indexed.evaluations.clear()
    held.settings.full_scan_interval_seconds = 1
    start(held, 1)
    assert indexed.segments == [(0, 1, Coverage.ACTIVE)]
    assert indexed.evaluations == ["orch_1"]


def test_a_redelivery_looks_at_what_its_sweep_was_begun_with_whatever_is_remembered_by_now(
    held: Resources, scanned: Sent
) -> None:
    """A full scan that ends in between takes out what it has seen mended: that unit stays open."""
    start(held, 1)
    scanned.evaluations.clear()
    held.ledger._client.delete(LAST_STUCK)
    start(held, 1)
    assert scanned.evaluations == ["orch_1"]


def test_what_is_still_looked_at_for_another_sweep_is_not_said_to_have_been(
    held: Resources, indexed: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is it waited for: the sweep is not complete, and the next one reads everything."""
    monkeypatch.setattr(indexed, "evaluate", lambda *_, **__: False)
    held.gate.enter("evaluate:orch_1", 60, "sweep:0")
    start(held, 1)
    assert held.ledger.settle("sweep:2", FIRST, Counts()), "nothing else is waited for"
    held.ledger.close("sweep:2")
    assert (held.ledger.last() or {})["complete"] is False
    assert held.ledger.known().index_failed_at is not None


def test_all_of_it_is_read_when_a_person_asks_for_it(held: Resources, indexed: Sent) -> None:
    begun = start(held, 3, full=True)
    assert begun["coverage"] == "full"
    assert [total for _, total, _ in indexed.segments] == [3, 3, 3]
    assert indexed.evaluations == []


# -- beside a full scan that is at work


SCAN = "sweep:full"


@pytest.fixture
def scanned(held: Resources, indexed: Sent, now: Time) -> Sent:
    """A full scan at work: that of a moment ago left an orchestration stuck."""
    now.seconds += 600
    held.ledger.start(SCAN, Plan("repair", 1), [FIRST])
    cast("Any", held.reconciler).choose_segments = lambda *_: 1
    return indexed


def stepped_aside(held: Resources) -> int:
    metrics = cast("RecordingMetrics", held.metrics)
    return int(metrics.count("reconciler_sweeps_total", outcome="overlapped"))


@pytest.mark.parametrize("interval", [3600, 1], ids=["by hand", "due"])
def test_a_tick_beside_a_full_scan_goes_by_the_index_and_a_second_one_steps_aside(
    held: Resources, scanned: Sent, interval: int
) -> None:
    held.settings.full_scan_interval_seconds = interval
    begun = start(held, 1)
    assert (begun["outcome"], begun["coverage"]) == ("started", "active")
    assert scanned.segments == [(0, 1, Coverage.ACTIVE)]
    assert scanned.evaluations == ["orch_1"]
    assert stepped_aside(held) == 0
    third = sweeping.start(held, "sweep:3", report=False, full=False)
    assert third["at work"] == "sweep:2"
    assert stepped_aside(held) == 1


@pytest.mark.parametrize(
    "why", ["a full scan", "a report", "no index", "not all is known", "in the index's place"]
)
def test_what_steps_aside_for_a_full_scan_as_ever(
    held: Resources, scanned: Sent, now: Time, why: str
) -> None:
    if why == "no index":
        held.settings.active_index_name = None
    if why == "not all is known":
        held.ledger._client.delete(LAST_STUCK)
    if why == "in the index's place":
        held.ledger.close(SCAN, abandoned=True)
        held.ledger.start("sweep:index", Plan("repair", 1, Coverage.ACTIVE), [FIRST])
        held.ledger.settle("sweep:index", FIRST, Counts(), unread=True)
        held.ledger.close("sweep:index")
        now.seconds += 1
        held.ledger.start(SCAN + "-2", Plan("repair", 1), [FIRST])
    found = sweeping.start(held, "sweep:2", report=why == "a report", full=why == "a full scan")
    assert found["outcome"].startswith("stepped aside")
    assert str(found["at work"]).startswith(SCAN)
    assert scanned.segments == []
    assert held.ledger.beside() is None
    assert stepped_aside(held) == 1


def test_what_the_full_scan_is_looking_at_counts_as_it_was_last_seen(
    held: Resources, scanned: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its word comes to the other one: it is not waited for, and nothing looks mended."""
    monkeypatch.setattr(scanned, "evaluate", lambda *_, **__: False)
    held.gate.enter(WORK, 60, SCAN)
    start(held, 1)
    assert held.ledger.settle("sweep:2", FIRST, Counts()), "nothing else is waited for"
    held.ledger.close("sweep:2")
    last = held.ledger.last(complete=True) or {}
    assert (last["sweep_id"], last["stuck"]) == ("sweep:2", {"unsettled_parent": 1})
    assert last["oldest_stuck_seconds"] == {"unsettled_parent": 60.0}
    assert held.ledger.known().stuck == ("orch_1",)


def test_what_is_carried_is_sent_before_a_segment_can_nominate_it(
    held: Resources, scanned: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_time: list[bool] = []
    monkeypatch.setattr(
        scanned, "segment", lambda *_, **__: in_time.append(scanned.evaluations == ["orch_1"])
    )
    start(held, 1)
    assert in_time == [True]


def test_what_was_opened_and_is_under_way_for_the_other_is_not_waited_for(
    held: Resources, scanned: Sent
) -> None:
    """Whoever opened it was lost before its message left; meanwhile the other has sent one."""
    held.ledger.open_unit(SCAN, WORK)
    start(held, 1)
    assert scanned.evaluations == ["orch_1"]
    held.gate.enter(WORK, 60, "sweep:2")
    sweeping.publish(held, SCAN, WORK, lambda: held.gate.enter(WORK, 60, SCAN) is not None)
    assert held.ledger.settle(SCAN, FIRST, Counts()), "nothing else is waited for"


def test_what_has_been_settled_meanwhile_stays_settled(held: Resources, scanned: Sent) -> None:
    """So that none is counted twice: of two runs, the one's message has come and gone."""
    assert scanned
    held.ledger.open_unit(SCAN, WORK)

    def comes_too_late() -> bool:
        held.ledger.settle(SCAN, WORK, Counts())
        return False

    sweeping.publish(held, SCAN, WORK, comes_too_late)
    assert held.ledger.open_unit(SCAN, WORK) is Unit.SETTLED


def test_each_of_two_that_is_lost_is_closed_and_the_other_goes_on(
    held: Resources, scanned: Sent, now: Time
) -> None:
    start(held, 1)
    assert scanned.segments
    now.seconds += stale_after(INTERVAL) - 1
    held.ledger.settle(SCAN, "segment:none", Counts())
    held.ledger.open_unit(SCAN, WORK)
    held.ledger.settle(SCAN, WORK, Counts())
    sweeping.close_a_lost_one(held, "sweep:3")
    assert held.ledger.beside() is not None
    now.seconds += 1
    sweeping.close_a_lost_one(held, "sweep:2")
    assert held.ledger.beside() is not None, "a redelivery of its own does not end it"
    sweeping.close_a_lost_one(held, "sweep:3")
    assert held.ledger.beside() is None
    last, current = held.ledger.last(), held.ledger.current()
    assert last is not None
    assert current is not None
    assert (last["sweep_id"], last["complete"]) == ("sweep:2", False)
    assert current.sweep_id == SCAN
    found = sweeping.start(held, "sweep:3", report=False, full=False)
    assert found["coverage"] == "active", "it failed since that began, and is tried again"


def test_with_both_lost_the_next_tick_begins(held: Resources, scanned: Sent, now: Time) -> None:
    start(held, 1)
    scanned.segments.clear()
    now.seconds += stale_after(INTERVAL)
    found = sweeping.start(held, "sweep:3", report=False, full=True)
    assert (found["outcome"], scanned.segments) == ("started", [(0, 1, Coverage.FULL)])


def test_one_beside_whose_last_part_was_settled_and_not_ended_is_whole(
    held: Resources, scanned: Sent
) -> None:
    start(held, 1)
    for unit in (FIRST, *(f"evaluate:{name}" for name in scanned.evaluations)):
        held.ledger.settle("sweep:2", unit, Counts())
    sweeping.close_a_lost_one(held, "sweep:3")
    assert (held.ledger.last(complete=True) or {})["sweep_id"] == "sweep:2"
    assert held.ledger.beside() is None
    assert held.ledger.current() is not None


@pytest.mark.parametrize("sweep_id", ["sweep:0", "by-hand:01J00000000000000000000000"])
def test_a_release_whose_sweep_is_over_or_was_none_is_sent_all_the_same(
    held: Resources, monkeypatch: pytest.MonkeyPatch, sweep_id: str
) -> None:
    """I3: it is due, and the next sweep may find its evaluation under way."""
    sent: list[ReleaseRequest] = []
    enqueuer = SimpleNamespace(has_room=lambda _: True, release=sent.append)
    monkeypatch.setattr(sweeping, "enqueuer_of", lambda _: enqueuer)
    request = ReleaseRequest("orch_1", "a", "orch_1_a", (), None, sweep_id)
    assert sweeping.dispatch(held, in_sweep=True)(request)
    assert sent == [request]


def test_one_whose_last_part_was_settled_and_not_ended_is_whole(held: Resources) -> None:
    """Whoever settles the last unit may be lost before it ends the sweep."""
    held.ledger.settle("sweep:1", FIRST, Counts(rows_scanned=7))
    sweeping.close_a_lost_one(held, "sweep:2")
    summary = held.ledger.last(complete=True)
    assert summary is not None
    assert (summary["sweep_id"], summary["rows_scanned"]) == ("sweep:1", 7)


def test_a_lost_message_costs_no_more_than_the_sweep_it_was_of(held: Resources, now: Time) -> None:
    """I3: the very next sweep takes over, however short the time since anything was heard."""
    now.seconds += 20
    held.ledger.settle("sweep:1", "segment:none", Counts())
    held.ledger.open_unit("sweep:1", WORK)
    held.ledger.settle("sweep:1", FIRST, Counts())
    now.seconds += INTERVAL - 20
    sweeping.close_a_lost_one(held, "sweep:2")
    assert held.ledger.current() is None
    assert (held.ledger.last() or {})["complete"] is False


def test_one_that_was_heard_of_a_moment_ago_is_left_at_work(held: Resources, now: Time) -> None:
    now.seconds += INTERVAL
    held.ledger.open_unit("sweep:1", WORK)
    held.ledger.settle("sweep:1", FIRST, Counts())
    now.seconds += stale_after(INTERVAL) - 1
    sweeping.close_a_lost_one(held, "sweep:2")
    assert held.ledger.current() is not None


@pytest.mark.parametrize(
    ("interval", "seconds"), [(2, 30), (60, 60), (100, 80), (300, 150), (3600, 1800)]
)
def test_how_long_a_sweep_may_be_silent(interval: int, seconds: float) -> None:
    assert stale_after(interval) == seconds


def test_a_beat_asks_at_once_and_then_whenever_an_interval_begins() -> None:
    """I3: however late in an interval it is started, the next one has its sweep."""
    with celery.Celery(set_as_current=False) as app:
        app.conf.beat_schedule = {"sweep": {"task": SWEEP, "schedule": float(INTERVAL)}}
        scheduler = GatedScheduler(app)
        entry = scheduler.schedule["sweep"]
        due, _ = entry.is_due()
        assert due
        reserved = scheduler.reserve(entry)
        due_at = reserved.last_run_at + timedelta(seconds=INTERVAL)
        assert due_at.timestamp() % INTERVAL == 0
        assert timedelta(0) <= due_at - app.now() <= timedelta(seconds=INTERVAL)
        assert scheduler.schedule["sweep"] is reserved


def test_what_could_not_be_checked_is_listed_and_carried(
    held: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next sweep need not read everything to look at it again."""

    def fails(*_: Any, **__: Any) -> None:
        raise AccessError("the table may not be read")

    reconciler = cast("Any", held.reconciler)
    reconciler.evaluate = fails
    reconciler.could_not_check = lambda *_: Counts(errors=1, stuck={"check_failed": 1})
    monkeypatch.setattr("workers.running.resources", lambda: held)
    monkeypatch.setattr(held.metrics, "flush", lambda: None, raising=False)
    held.ledger.open_unit("sweep:1", WORK)
    ended = tasks.evaluate_orchestration.apply(args=("orch_1", "sweep:1"))
    assert ended.state == "FAILURE"
    assert held.ledger.settle("sweep:1", FIRST, Counts())
    held.ledger.close("sweep:1")
    (entry,) = held.ledger.last_stuck()
    assert (entry["orchestration_id"], entry["code"]) == ("orch_1", "check_failed")
    assert held.ledger.known().stuck == ("orch_1",)
