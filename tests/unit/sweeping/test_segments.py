"""How many segments there are, when one is due, and who reads it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.sweeping.records import MemoryRecords
from reconciler.sweeping.segments import (
    LEASE_SECONDS,
    NEVER,
    Place,
    Scope,
    Segment,
    SegmentState,
    choose_by_rotation,
    choose_totals,
)
from reconciler.sweeping.state import SweepState

MIB = 1024 * 1024
HOUR = 3600.0


def total(
    size: int, workers: int | None, current: int | None = None, scope: Scope = Scope.TABLE
) -> int:
    def count_workers() -> int:
        assert workers is not None, "asked although it makes no difference"
        return workers

    known = {} if current is None else {scope: current}
    return choose_totals("auto", lambda: size, count_workers, known)[scope]


@pytest.mark.parametrize(
    ("size", "workers", "segments"),
    [
        (0, None, 1),
        (4 * MIB, None, 1),
        (4 * MIB + 1, 8, 2),
        (8 * MIB + 1, 8, 4),
        (64 * MIB, 8, 8),
        (64 * MIB, 0, 2),
        (64 * MIB + 1, 1, 4),
        (9999 * 32 * MIB, 9999, 4096),
    ],
)
def test_segment_count_follows_size_and_workers(
    size: int, workers: int | None, segments: int
) -> None:
    assert total(size, workers) == segments


@pytest.mark.parametrize(
    ("wanted", "current", "segments"),
    [
        (8, 8, 8),
        (5, 8, 8),
        (9, 8, 16),
        (3, 8, 8),
        (2, 8, 2),
        (1, 8, 1),
        (5, 16, 16),
        (60, 60, 60),
    ],
)
def test_segments_split_at_once_and_merge_late(wanted: int, current: int, segments: int) -> None:
    assert total(wanted * 32 * MIB, 1, current) == segments


def test_the_index_has_no_more_segments_than_workers() -> None:
    assert total(640 * MIB, 8, scope=Scope.ACTIVE) == 8
    assert total(640 * MIB, 1, scope=Scope.ACTIVE) == 1
    assert total(640 * MIB, 0, scope=Scope.ACTIVE) == 1


def test_a_small_tables_index_keeps_its_segments() -> None:
    assert total(4 * MIB, None, current=2, scope=Scope.ACTIVE) == 2


def test_a_configured_segment_count_is_not_adjusted() -> None:
    def asked() -> int:
        raise AssertionError("asked although it makes no difference")

    assert choose_totals(60, asked, asked, {}) == {Scope.TABLE: 60, Scope.ACTIVE: 8}


def rotated(marks: list[float], now: float) -> list[int]:
    return choose_by_rotation(dict(enumerate(marks)), now, 6 * HOUR)


def test_unread_segments_are_due_at_once() -> None:
    assert rotated([NEVER] * 4, now=10.0) == [0, 1, 2, 3]
    assert rotated([9.0, NEVER, 9.0, NEVER], now=10.0) == [1, 3]


def test_a_table_without_segments_has_none_to_read() -> None:
    assert rotated([], now=10.0) == []


def test_each_segment_is_read_once_per_rotation() -> None:
    """Reads are spread evenly, and the segment that was unread for longest comes first."""
    for segments in (1, 7, 64, 1024):
        marks, reads = [0.1] * segments, 0
        for sweep in range(1, 2 * 72 + 1):
            now = sweep * 300.0
            due = rotated(marks, now)
            assert due == sorted(due, key=lambda number: (marks[number], number))
            reads += len(due)
            assert len(due) <= -(-segments // 72) + 1
            for number in due:
                marks[number] = now
            assert now - min(marks) <= 6 * HOUR
        assert reads == 2 * segments


@pytest.mark.parametrize(
    ("segment", "label"),
    [
        (Segment(Scope.TABLE, 0, 4), "1of4"),
        (Segment(Scope.TABLE, 3, 4), "4of4"),
        (Segment(Scope.ACTIVE, 0, 4), "1of4-active"),
    ],
)
def test_a_segments_label_counts_from_one(segment: Segment, label: str) -> None:
    assert segment.label == label


@pytest.mark.parametrize(("segments", "least", "most"), [(32, 0, 1), (512, 7, 8), (4096, 56, 57)])
def test_each_sweep_reads_its_share_of_a_rotation(segments: int, least: int, most: int) -> None:
    """Give or take one segment; docs/scaling.md has the resulting figures."""
    marks = [0.1] * segments
    shares = set()
    for sweep in range(1, 72 + 1):
        now = sweep * 300.0
        due = rotated(marks, now)
        shares.add(len(due))
        for number in due:
            marks[number] = now
    assert (min(shares), max(shares)) == (least, most)


def test_an_expired_lease_leaves_its_place() -> None:
    place = Place(5.0, 3, {"orchestration_id": "o", "sub_issue_id": "a"})
    leased = SegmentState(place=place).leased_to("reader", 100.0)
    record = leased.to_record()
    assert SegmentState.from_record(record, 100.0 + LEASE_SECONDS / 2).token == "reader"
    killed = SegmentState.from_record(record, 100.0 + LEASE_SECONDS)
    assert (killed.token, killed.place) == (None, place)
    assert killed.leased_to("another", 110.0).read_to_its_end().mark == 5.0, "when it began"


def test_a_read_lost_in_its_first_step_restarts() -> None:
    """Nothing of it was kept, so the mark may be the time when the new read began."""
    now = 1000.0
    state = SweepState(MemoryRecords(lambda: now))
    state.set_total(Scope.TABLE, 1)
    segment = Segment(Scope.TABLE, 0, 1)
    state.take(segment, "dead", now)
    now += LEASE_SECONDS + 1
    assert state.take(segment, "alive", now)
    assert state.renew(segment, "alive")
    began, now = now, now + 1
    assert state.renew(segment, "alive")
    assert state.finish(segment, "alive")
    assert state.overview().segments[Scope.TABLE][0].mark == began


def test_times_ahead_of_the_clock_count_as_absent() -> None:
    ahead = SegmentState(mark=900.0).leased_to("reader", 900.0)
    assert SegmentState.from_record(ahead.to_record(), 100.0) == SegmentState()


def test_a_mark_of_this_very_moment_counts() -> None:
    record = SegmentState(mark=100.0).to_record()
    assert SegmentState.from_record(record, 100.0).mark == 100.0


def test_a_mark_never_moves_back() -> None:
    late = replace(SegmentState(mark=50.0), place=Place(20.0))
    assert late.read_to_its_end() == SegmentState(mark=50.0)


def test_an_expired_lease_holds_until_someone_takes_it() -> None:
    """A page may take longer than a lease; otherwise its segment would never be finished."""
    now = 1000.0
    state = SweepState(MemoryRecords(lambda: now))
    segment = Segment(Scope.TABLE, 0, 1)
    state.set_total(Scope.TABLE, 1)
    taken = state.take(segment, "slow", now)
    assert taken is not None
    assert taken.place is not None
    now += 3 * LEASE_SECONDS
    assert state.leave(segment, "slow", replace(taken.place, step=1))
    again = state.take(segment, "slow again", now)
    assert again is not None
    assert again.place == replace(taken.place, step=1)
    now += 3 * LEASE_SECONDS
    assert state.renew(segment, "slow again")
    now += 3 * LEASE_SECONDS
    assert state.take(segment, "another", now) is not None
    assert not state.renew(segment, "slow again")
    assert not state.finish(segment, "slow again"), "another reads it now"
