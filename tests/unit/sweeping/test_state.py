"""The state of sweeps: coverage, open work, summaries, and how long each is kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reconciler.clock import never
from reconciler.repair.context import BY_HAND, Stuck
from reconciler.repair.counts import Counts
from reconciler.sweeping.known_stuck import KEEP_CLEAN_SECONDS, Finding, Known
from reconciler.sweeping.overview import KEEP_SWEEPS_SECONDS, MAX_SWEEPS_KEPT, Overview, Sweep
from reconciler.sweeping.records import MemoryRecords
from reconciler.sweeping.segments import NEVER, Place, Scope, Segment, SegmentState
from reconciler.sweeping.state import SweepState, _later

NOW = 10_000.0
TABLE, ACTIVE = Scope.TABLE, Scope.ACTIVE
SWEEP = Sweep("s", "repair", 100.0, {"table": (0, 1)}, {"table": 2})


class Timer:
    """A clock that is set by hand."""

    seconds = NOW

    def __call__(self) -> float:
        return self.seconds


def new_state() -> tuple[SweepState, Timer]:
    timer = Timer()
    return SweepState(MemoryRecords(timer)), timer


def overview(
    marks: dict[str, list[float]] | None = None,
    known: dict[str, Known] | None = None,
    floors: dict[str, float] | None = None,
    sweeps: tuple[Sweep, ...] = (),
) -> Overview:
    segments = {
        scope: {number: SegmentState(mark=mark) for number, mark in enumerate(found)}
        for scope, found in (marks or {}).items()
    }
    return Overview(NOW, segments, known or {}, floors or {}, sweeps)


def waiting(scope: Scope, mark: float) -> Known:
    return Known(waiting={scope.value: mark})


# -- coverage


def test_coverage_is_the_earliest_mark_or_nomination() -> None:
    marks = {"table": [300.0, 200.0]}
    assert overview(marks).covered_as_of(TABLE) == 200.0
    assert overview(marks).oldest_mark(TABLE) == 200.0
    held_back = {"o": waiting(TABLE, 150.0), "p": waiting(ACTIVE, 50.0)}
    assert overview(marks, held_back).covered_as_of(TABLE) == 150.0
    assert overview(marks, held_back, {"table": 170.0}).covered_as_of(TABLE) == 170.0
    assert overview().covered_as_of(TABLE) == overview().oldest_mark(TABLE) == NEVER


def test_a_table_scan_also_covers_the_active_scope() -> None:
    assert overview({"table": [300.0], "active": [200.0]}).covered_as_of(ACTIVE) == 300.0
    assert overview({"table": [300.0], "active": [400.0]}).covered_as_of(ACTIVE) == 400.0
    assert overview({"table": [300.0], "active": [400.0]}).covered_as_of(TABLE) == 300.0


def test_a_sweep_is_read_after_all_owed_segments() -> None:
    """They must have been read since it began, and no earlier nomination may await evaluation."""
    assert overview({"table": [100.0, 200.0]}).is_read(SWEEP)
    assert not overview({"table": [99.0, 200.0]}).is_read(SWEEP)
    assert not overview({"table": [100.0, 200.0, 300.0]}).is_read(SWEEP), "another layout"
    first = replace(SWEEP, owed={"table": (0,)})
    assert overview({"table": [100.0, 99.0]}).is_read(first)
    assert overview({"table": [100.0]}, {"o": waiting(ACTIVE, 1.0)}).is_read(
        replace(SWEEP, owed={"table": (0,)}, totals={"table": 1})
    )
    assert not overview({"table": [100.0, 100.0]}, {"o": waiting(TABLE, 99.0)}).is_read(SWEEP)
    assert overview({"table": [100.0, 100.0]}, {"o": waiting(TABLE, 100.0)}).is_read(SWEEP)
    assert overview().is_read(replace(SWEEP, owed={}, totals={}))


def test_a_sweeps_unread_segments_are_counted() -> None:
    assert SWEEP.segments == 2
    assert overview({"table": [99.0, 100.0]}).count_unread(SWEEP) == 1
    first = replace(SWEEP, owed={"table": (1,)})
    assert overview({"table": [99.0, 100.0]}).count_unread(first) == 0
    assert overview().count_unread(SWEEP) == 0


def test_a_sweep_owing_unknown_segments_counts_as_absent() -> None:
    """There are as many as its total, counted from zero."""
    assert SWEEP.is_valid
    assert not replace(SWEEP, owed={"table": (1, 2)}).is_valid
    assert not replace(SWEEP, owed={"table": (-1,)}).is_valid
    assert not replace(SWEEP, owed={"active": (0,)}).is_valid


def test_lost_reads_undo_only_a_complete_sweep() -> None:
    """Other segments than its own tell nothing: those of another layout were never read."""
    complete = replace(SWEEP, summary=ended("s", 200.0).summary)
    assert overview({"table": [99.0, 100.0]}).is_undone(complete)
    assert not overview({"table": [99.0, 100.0]}).is_undone(SWEEP)
    assert not overview({"table": [100.0, 100.0]}).is_undone(complete)
    assert not overview({"table": [99.0, 100.0, 100.0]}).is_undone(complete)


def test_a_sweep_is_done_without_open_work_items() -> None:
    """Stuck orchestrations to evaluate again and pending releases are such items."""
    stuck = Stuck("o", "a", "dependency_cycle", "on a cycle", 50.0)
    left = Known().evaluated(Finding(50.0, (stuck,)), 60.0, 60.0)
    read = {"table": [100.0, 100.0]}
    assert not overview(read, {"o": left}).is_done(SWEEP)
    assert overview(read, {"o": left}).is_done(replace(SWEEP, started_at=50.0))
    released = Known().with_releases({"a": None}, 101.0)
    assert not overview(read, {"o": released}).is_done(SWEEP)
    evaluated = replace(released, read_at=100.0)
    assert not overview(read, {"o": evaluated}).is_done(SWEEP), "only the release is left"
    assert overview(read, {"o": Known()}).is_done(SWEEP)
    assert not overview({"table": [100.0, 99.0]}).is_done(SWEEP)


def test_a_pause_ending_later_keeps_no_sweep_open() -> None:
    """Pauses are whole intervals, so they end just after a sweep has asked for what is due."""
    stuck = Stuck("o", "a", "dependency_cycle", "on a cycle", 50.0)
    left = Known().evaluated(Finding(50.0, (stuck,)), 60.0, 60.0)
    read = {"table": [100.0, 100.0]}
    assert not overview(read, {"o": replace(left, evaluate_at=100.0)}).is_done(SWEEP)
    assert overview(read, {"o": replace(left, evaluate_at=100.1)}).is_done(SWEEP)


# -- known stuck


def paced(age: float, *keys: str) -> Known:
    stuck = tuple(Stuck("o", key, "lost_release", "it is due", age) for key in keys)
    return Known().evaluated(Finding(NOW - 5, stuck, "rows", paced=True), 60.0, NOW)


def test_paced_orchestrations_are_chosen_until_room_runs_out() -> None:
    """The oldest comes first, and each takes as much room as it has paced children."""
    known = {"young": paced(10.0, "a"), "old": paced(90.0, "a", "b"), "middle": paced(50.0, "a")}
    known["stuck for another reason"] = replace(paced(99.0, "a"), paced=False)
    seen = overview(known=known)
    assert seen.has_paced
    chosen = {room: seen.choose_paced(room) for room in (0, 1, 2, 3, 4)}
    assert chosen == {
        0: [],
        1: ["old"],
        2: ["old"],
        3: ["old", "middle"],
        4: ["old", "middle", "young"],
    }
    nominated = replace(known["old"], waiting={"table": 1.0})
    assert overview(known={"old": nominated}).choose_paced(9) == []
    assert not overview(known={"o": Known()}).has_paced


def test_the_oldest_stuck_entry_is_listed_first() -> None:
    """An entry without an age counts as the oldest."""
    state, timer = new_state()
    timer.seconds = NOW + 5000
    for name, age in (("of the future", 0.0), ("young", 5010.0), ("old", 5090.0)):
        stuck = Stuck(name, "a", "orphan_row", "its meta row is missing", age)
        state.evaluated(name, Finding(timer.seconds, (stuck,)), 60.0)
    timer.seconds = NOW
    listed = [
        (entry.orchestration_id, entry.age_seconds) for entry in state.overview().list_stuck()
    ]
    assert listed == [("of the future", None), ("old", 90.0), ("young", 10.0)]


# -- summaries


def ended(name: str, at: float, *, complete: bool = True, started_at: float = 1.0) -> Sweep:
    summary: Any = {
        "sweep_id": name,
        "complete": complete,
        "started_at": started_at,
        "ended_at": at,
    }
    return Sweep(name, "repair", started_at, ended_at=at, summary=summary)


def test_the_last_complete_sweep_may_be_older() -> None:
    """If the last sweep was incomplete, the last complete one is an earlier one."""
    seen = overview(sweeps=(ended("b", 20.0, complete=False), ended("a", 10.0), SWEEP))
    assert [summary["sweep_id"] for summary in seen.list_ended()] == ["a", "b"]
    last, complete = seen.last(), seen.last(complete=True)
    assert last is not None
    assert complete is not None
    assert (last["sweep_id"], complete["sweep_id"]) == ("b", "a")
    assert overview(sweeps=(SWEEP,)).last() is None
    assert [sweep.complete for sweep in seen.sweeps] == [False, True, False]


@pytest.mark.parametrize(
    ("sweep", "at"),
    [
        (ended("s", NOW - 1, started_at=NOW - 60), NOW),
        (ended("s", NOW - 1, started_at=NOW - 40), NOW + 20),
        (ended("s", NOW - 1, started_at=NOW - 61), None),
        (ended("by-hand:s", NOW - 1, started_at=NOW - 40), None),
        (SWEEP, None),
    ],
    ids=["now", "soon", "overdue", "by hand", "none has ended"],
)
def test_the_next_sweep_starts_after_one_interval(sweep: Sweep, at: float | None) -> None:
    """If it is overdue, or no scheduled sweep has ended, its start is unknown."""
    assert overview(sweeps=(sweep,)).next_start(60.0) == at


def test_sweeps_at_work_are_listed_oldest_first() -> None:
    later = replace(SWEEP, sweep_id="later", started_at=200.0)
    assert overview(sweeps=(later, ended("e", 5.0), SWEEP)).at_work() == (SWEEP, later)


def names(sweeps: list[Sweep]) -> list[str]:
    return [sweep.sweep_id for sweep in sweeps]


def test_the_last_complete_sweep_is_never_old() -> None:
    """The same holds for the last sweep of all."""
    limit = NOW - KEEP_SWEEPS_SECONDS
    old = [ended("a", 1.0), ended("b", 2.0), ended("c", 3.0, complete=False), ended("d", 4.0)]
    old[-1] = ended("d", 4.0, complete=False)
    assert names(overview(sweeps=(SWEEP, *reversed(old))).list_old(300.0)) == ["a", "c"]
    young = (ended("y", limit), ended("z", limit + 1))
    assert names(overview(sweeps=(*old, *young)).list_old(300.0)) == ["a", "b", "c", "d"]
    just_old = ended("x", limit - 0.5)
    assert names(overview(sweeps=(just_old, *young)).list_old(300.0)) == ["x"]


def test_only_the_youngest_sweeps_are_kept() -> None:
    many = tuple(ended(f"s{number}", NOW - number) for number in range(MAX_SWEEPS_KEPT + 2))
    gone = names(overview(sweeps=many).list_old(300.0))
    assert gone == [f"s{MAX_SWEEPS_KEPT + 1}", f"s{MAX_SWEEPS_KEPT}"]


def test_a_sweep_from_the_future_counts_as_absent() -> None:
    state, timer = new_state()
    sweep = state.begin(replace(SWEEP, started_at=NOW))
    assert state.sweep("s") == sweep
    timer.seconds = NOW - 1
    assert state.sweep("s") is None
    again = replace(SWEEP, started_at=NOW - 1)
    assert state.begin(again) == again, "it begins again"
    timer.seconds = NOW
    assert state.end(again, {"sweep_id": "s", "complete": True})
    timer.seconds = NOW - 0.5
    assert state.sweep("s") is None, "it ended in the future"


def test_a_sweep_begins_and_ends_once() -> None:
    state, timer = new_state()
    first = state.begin(SWEEP)
    assert state.begin(replace(SWEEP, mode="report")) == first
    timer.seconds = NOW + 5
    assert state.end(first, {"sweep_id": "s", "complete": True, "released": 3})
    assert not state.end(first, {"sweep_id": "s", "complete": False})
    assert not state.end(replace(SWEEP, sweep_id="unknown"), {"complete": True})
    found = state.sweep("s")
    assert found is not None
    assert (found.complete, found.ended_at) == (True, NOW + 5)
    assert found.summary is not None
    assert (found.summary["started_at"], found.summary["ended_at"]) == (100.0, NOW + 5)
    assert {**found.summary}["released"] == 3, "the whole summary is kept"


def test_work_by_hand_is_not_counted() -> None:
    state, _ = new_state()
    for sweep_id in ("s", None, f"{BY_HAND}s"):
        state.count(sweep_id, Counts(released=1))
    state.count("s", Counts(released=2))
    assert state.counts("s") == Counts(released=3)
    assert state.counts(f"{BY_HAND}s") == Counts()


# -- segments


def test_a_segment_has_one_reader_at_a_time() -> None:
    """It is read once for each sweep."""
    state, timer = new_state()
    state.set_total(TABLE, 2)
    segment = Segment(TABLE, 1, 2)
    assert state.take(Segment(TABLE, 1, 4), "a", NOW) is None, "another layout"
    assert state.take(segment, "a", NOW) is not None
    assert state.take(segment, "b", NOW) is None
    assert state.take(segment, "a", NOW) is not None, "the same message came twice"
    assert not state.leave(segment, "b", None)
    timer.seconds = NOW + 1
    assert state.finish(segment, "a")
    assert not state.renew(segment, "a"), "it is free"
    assert state.take(segment, "b", NOW) is None, "it was read since"
    assert state.take(segment, "b", NOW + 0.5) is not None
    assert not state.renew(Segment(TABLE, 0, 2), "a"), "nobody has taken that one"


def test_a_new_segment_count_keeps_the_coverage() -> None:
    state, timer = new_state()
    state.set_total(TABLE, 1)
    segment = Segment(TABLE, 0, 1)
    state.take(segment, "a", NOW)
    state.finish(segment, "a")
    timer.seconds = NOW + 5
    state.set_total(TABLE, 1)
    assert state.overview().segments["table"][0].mark == NOW
    state.set_total(TABLE, 2)
    seen = state.overview()
    assert (len(seen.segments["table"]), seen.floors) == (2, {"table": NOW, "active": NOW})
    assert seen.covered_as_of(TABLE) == NOW
    assert seen.oldest_mark(TABLE) == NEVER
    state.set_total(TABLE, 1)
    assert state.overview().oldest_mark(TABLE) == NEVER, "the old marks are gone"


def test_coverage_only_moves_forward() -> None:
    state, timer = new_state()
    state.set_total(TABLE, 1)
    segment = Segment(TABLE, 0, 1)
    assert state.advance_coverage(state.overview()) == {}
    state.take(segment, "a", NOW)
    state.finish(segment, "a")
    assert state.advance_coverage(state.overview()) == {TABLE: NOW, ACTIVE: NOW}
    assert state.advance_coverage(state.overview()) == {}
    timer.seconds = NOW - 1
    assert state.overview().floors == {}, "the clock jumped back"


@pytest.mark.parametrize(
    ("kept", "expected"), [(5.0, 5.0), (7.0, 7.0), (10.0, 10.0), (4.0, 5.0), (11.0, 5.0)]
)
def test_the_later_recorded_coverage_counts(kept: float, expected: float) -> None:
    """A time ahead of the clock is ignored, because the clock has jumped back."""
    old = {"as_of": kept}
    left = _later(5.0, old, 10.0)
    assert left == {"as_of": expected}
    assert (left is old) is (kept == expected), "nothing is written if nothing changes"


# -- orchestrations


def test_an_orchestration_needing_manual_action_is_watched() -> None:
    """Its next evaluation waits until its rows have changed, as for one that waits its turn."""
    state, _ = new_state()
    stuck = Stuck("o", "a", "dependency_cycle", "on a cycle", 50.0)
    for name, needs_person in (("o", True), ("p", False)):
        assert state.nominate(name, TABLE, 0.0, NOW - 10, "rows")
        finding = Finding(NOW - 5, (stuck,), "rows", needs_person=needs_person)
        state.evaluated(name, finding, 60.0)
    state._records.update("known", "q", lambda _old, _now: {"unchanged": "unlike ours"})
    assert state.nominate("r", TABLE, 0.0, NOW - 10, "rows")
    state.evaluated("r", Finding(NOW - 5, (stuck,), "rows", paced=True), 60.0)
    assert state.watched(TABLE) == {"o": "rows", "r": "rows"}
    assert state.watched(ACTIVE) == {}


def test_an_already_evaluated_nomination_is_ignored() -> None:
    state, _ = new_state()
    assert state.nominate("o", TABLE, 0.0, NOW - 1, "rows")
    state.evaluated("o", Finding(NOW), 60.0)
    assert not state.nominate("o", TABLE, 0.0, NOW - 1, "rows")
    known, read_at = state.look_up("o")
    assert (known, read_at) == (state.known("o"), NOW)


def test_a_clean_orchestration_is_forgotten_after_a_while() -> None:
    """A new nomination keeps it."""
    state, timer = new_state()
    for name in ("clean", "nominated"):
        state.evaluated(name, Finding(NOW), 60.0)
    timer.seconds = NOW + KEEP_CLEAN_SECONDS + 1
    seen = state.overview()
    state.nominate("nominated", TABLE, 0.0, timer.seconds, "rows")
    state.forget(seen, 300.0, never)
    assert set(state.overview().known) == {"nominated"}


def test_an_old_sweep_is_forgotten_with_its_counts() -> None:
    state, timer = new_state()
    for number in range(2):
        sweep = state.begin(replace(SWEEP, sweep_id=f"s{number}", started_at=timer.seconds))
        state.count(sweep.sweep_id, Counts(released=1))
        state.end(sweep, {"sweep_id": sweep.sweep_id, "complete": True})
        timer.seconds += KEEP_SWEEPS_SECONDS + 1
    state.forget(state.overview(), 300.0, never)
    assert names(list(state.overview().sweeps)) == ["s1"]
    assert (state.counts("s0"), state.counts("s1")) == (Counts(), Counts(released=1))


def test_a_segment_resumes_where_it_was_left() -> None:
    state, _ = new_state()
    state.set_total(TABLE, 1)
    segment, place = Segment(TABLE, 0, 1), Place(NOW - 5, 3)
    state.take(segment, "a", NOW)
    assert state.leave(segment, "a", place)
    taken = state.take(segment, "b", NOW)
    assert taken is not None
    assert taken.place == place
