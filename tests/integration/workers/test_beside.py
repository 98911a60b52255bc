"""A sweep by the index beside a full scan: who begins, who is over, and what stays in the list."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from reconciler.operations.context import Stuck, count_stuck
from reconciler.operations.counts import Counts
from reconciler.operations.coverage import Coverage
from workers.ledger import BESIDE, CURRENT, KEEP_SECONDS, PREFIX, Ledger, Plan, Start, Unit

pytestmark = [pytest.mark.integration, pytest.mark.workers]

FULL, ACTIVE = Plan("repair", 1), Plan("repair", 1, Coverage.ACTIVE)
SCAN, INDEX = "sweep:full", "sweep:index"
FIRST = "segment:0:0"


def stuck(name: str, code: str = "unsettled_parent", age: float | None = 60.0) -> Stuck:
    return Stuck(name, None, code, "why", age)


def look_at(ledger: Ledger, sweep_id: str, name: str, *found: Stuck) -> None:
    """Evaluate an orchestration for a sweep."""
    unit = f"evaluate:{name}"
    ledger.open_unit(sweep_id, unit)
    ledger.settle(sweep_id, unit, count_stuck(found), stuck=found)


def end(ledger: Ledger, sweep_id: str, *, complete: bool = True) -> None:
    ledger.settle(sweep_id, FIRST, Counts(), unread=not complete)
    assert ledger.close(sweep_id) is not None


def left(ledger: Ledger) -> list[tuple[str, str]]:
    return sorted((entry["orchestration_id"], entry["code"]) for entry in ledger.last_stuck())


def swept_before(ledger: Ledger, *found: Stuck) -> None:
    """Have had a full scan that left these stuck."""
    ledger.start("sweep:before", FULL, [FIRST])
    for entry in found:
        look_at(ledger, "sweep:before", entry.orchestration_id, entry)
    end(ledger, "sweep:before")


def both_at_work(ledger: Ledger, *carried: str) -> None:
    assert ledger.start(SCAN, FULL, [FIRST]) is Start.STARTED
    units = [FIRST, *(f"evaluate:{name}" for name in carried)]
    assert ledger.start(INDEX, ACTIVE, units, beside=True) is Start.STARTED


# -- who begins


def test_one_by_the_index_begins_beside_a_full_scan_and_no_other_does(ledger: Ledger) -> None:
    both_at_work(ledger)
    assert ledger.start("sweep:3", ACTIVE, [FIRST], beside=True) is Start.OVERLAPS
    assert ledger.start("sweep:4", FULL, [FIRST]) is Start.OVERLAPS
    assert ledger.start(INDEX, ACTIVE, [FIRST], beside=True) is Start.BEGUN_BEFORE
    assert ledger.start(SCAN, FULL, [FIRST]) is Start.BEGUN_BEFORE
    current, beside = ledger.current(), ledger.beside()
    assert current is not None
    assert beside is not None
    assert (current.sweep_id, current.coverage) == (SCAN, Coverage.FULL)
    assert (beside.sweep_id, beside.coverage) == (INDEX, Coverage.ACTIVE)
    end(ledger, INDEX)
    assert ledger.beside() is None
    assert ledger.start("sweep:5", ACTIVE, [FIRST], beside=True) is Start.STARTED


@pytest.mark.parametrize(
    ("at_work", "plan", "beside"),
    [(ACTIVE, ACTIVE, True), (FULL, ACTIVE, False), (FULL, FULL, False), (ACTIVE, FULL, False)],
    ids=["beside one by the index", "a report by hand", "two full scans", "full beside one"],
)
def test_nothing_else_begins_while_one_is_at_work(
    ledger: Ledger, at_work: Plan, plan: Plan, *, beside: bool
) -> None:
    ledger.start("sweep:1", at_work, [FIRST])
    assert ledger.start("sweep:2", plan, [FIRST], beside=beside) is Start.OVERLAPS
    assert ledger.beside() is None
    assert not ledger.had_another_beside_it("sweep:1")


def test_two_ticks_at_once_take_the_place_once(ledger: Ledger) -> None:
    ledger.start(SCAN, FULL, [FIRST])
    together, came_of_it = threading.Barrier(8), []

    def tick(number: int) -> None:
        together.wait()
        name = f"sweep:{number}"
        came_of_it.append((ledger.start(name, ACTIVE, [FIRST], beside=True), name))

    ticks = [threading.Thread(target=tick, args=(number,)) for number in range(8)]
    for each in ticks:
        each.start()
    for each in ticks:
        each.join()
    began = [name for start, name in came_of_it if start is Start.STARTED]
    beside = ledger.beside()
    assert beside is not None
    assert began == [beside.sweep_id]


@pytest.mark.parametrize("gone", ["forgotten", "closed by a worker of the version before"])
def test_the_place_of_one_that_is_not_at_work_is_free(ledger: Ledger, gone: str) -> None:
    both_at_work(ledger)
    if gone == "forgotten":
        ledger._client.delete(f"{PREFIX}{INDEX}")
    else:
        ledger._client.hset(f"{PREFIX}{INDEX}", "closed", "1")
    assert ledger.beside() is None
    assert ledger.start("sweep:3", ACTIVE, [FIRST], beside=True) is Start.STARTED
    beside = ledger.beside()
    assert beside is not None
    assert beside.sweep_id == "sweep:3"


def test_one_that_is_still_at_work_when_the_full_scan_ends_is_the_one_under_way(
    ledger: Ledger,
) -> None:
    both_at_work(ledger)
    end(ledger, SCAN)
    current = ledger.current()
    assert current is not None
    assert (current.sweep_id, ledger.beside()) == (INDEX, None)
    for plan in (FULL, ACTIVE):
        assert ledger.start("sweep:3", plan, [FIRST], beside=True) is Start.OVERLAPS
    end(ledger, INDEX)
    assert ledger.start("sweep:4", FULL, [FIRST]) is Start.STARTED


def test_nor_does_one_begin_where_a_worker_of_the_version_before_ended_the_full_scan(
    ledger: Ledger,
) -> None:
    """It knows of one place only, and leaves the other as it is."""
    both_at_work(ledger)
    ledger._client.hset(f"{PREFIX}{SCAN}", "closed", "1")
    ledger._client.delete(CURRENT)
    assert ledger.start("sweep:3", FULL, [FIRST]) is Start.OVERLAPS
    assert ledger.step_aside("sweep:3") == INDEX


def test_one_that_could_not_begin_leaves_its_place(ledger: Ledger) -> None:
    both_at_work(ledger)
    ledger.fail(INDEX, mode="repair")
    current = ledger.current()
    assert current is not None
    assert (current.sweep_id, ledger.beside()) == (SCAN, None)


def test_neither_is_forgotten_while_anything_of_it_is_heard(ledger: Ledger) -> None:
    swept_before(ledger, stuck("orch_1"))
    both_at_work(ledger)
    client = ledger._client
    given = f"{PREFIX}{INDEX}:given"
    kept = [BESIDE, f"{PREFIX}{INDEX}", f"{PREFIX}{INDEX}:units", given]
    for hear in (
        lambda: ledger.open_unit(INDEX, "evaluate:orch_2"),
        lambda: ledger.settle(INDEX, "evaluate:orch_2", Counts()),
    ):
        for key in (*kept, CURRENT):
            client.expire(key, 60)
        hear()
        assert {client.ttl(key) for key in kept} == {KEEP_SECONDS}
        assert client.ttl(CURRENT) == 60, "that is the other's"


def test_whoever_waits_is_told_of_the_one_that_does_as_well(ledger: Ledger) -> None:
    both_at_work(ledger)
    assert ledger.step_aside("sweep:by-hand-1", Coverage.ACTIVE) == INDEX
    assert ledger.step_aside("sweep:by-hand-2", Coverage.FULL) == SCAN
    end(ledger, INDEX)
    assert ledger.step_aside("sweep:by-hand-3", Coverage.ACTIVE) == SCAN


# -- what is remembered as stuck


def test_what_the_full_scan_left_to_the_other_stays_in_the_list(ledger: Ledger) -> None:
    """Its own evaluation of it was dropped: only the other's list has it."""
    swept_before(ledger)
    both_at_work(ledger)
    look_at(ledger, INDEX, "orch_1", stuck("orch_1"))
    assert ledger.open_unit(SCAN, "evaluate:orch_1") is Unit.NEW
    ledger.drop_unit(SCAN, "evaluate:orch_1")
    look_at(ledger, SCAN, "orch_2", stuck("orch_2"))
    end(ledger, INDEX)
    assert left(ledger) == [("orch_1", "unsettled_parent")]
    end(ledger, SCAN)
    assert [name for name, _ in left(ledger)] == ["orch_1", "orch_2"]
    assert set(ledger.known().stuck or ()) == {"orch_1", "orch_2"}
    assert (ledger.last(complete=True) or {})["sweep_id"] == SCAN
    assert (ledger.last_full() or {})["sweep_id"] == SCAN


def test_what_the_full_scan_found_stays_when_the_other_ends_after_it(ledger: Ledger) -> None:
    swept_before(ledger)
    both_at_work(ledger)
    look_at(ledger, SCAN, "orch_1", stuck("orch_1"))
    end(ledger, SCAN)
    look_at(ledger, INDEX, "orch_2", stuck("orch_2"))
    end(ledger, INDEX)
    assert [name for name, _ in left(ledger)] == ["orch_1", "orch_2"]
    assert (ledger.last(complete=True) or {})["sweep_id"] == INDEX
    assert (ledger.last_full() or {})["sweep_id"] == SCAN


def test_what_one_was_given_and_has_looked_at_stands_as_it_found_it(ledger: Ledger) -> None:
    """Mended, it goes; changed, it is named anew; left to the other sweep, it stays, and counts."""
    swept_before(ledger, stuck("mended"), stuck("changed"), stuck("left"))
    both_at_work(ledger, "mended", "changed")
    look_at(ledger, INDEX, "mended")
    look_at(ledger, INDEX, "changed", stuck("changed", "rows_missing"))
    leave(ledger, INDEX, "left")
    end(ledger, INDEX)
    assert left(ledger) == [("changed", "rows_missing"), ("left", "unsettled_parent")]
    last = ledger.last(complete=True) or {}
    assert last["stuck"] == {"rows_missing": 1, "unsettled_parent": 1}
    assert last["oldest_stuck_seconds"] == {"rows_missing": 60.0, "unsettled_parent": 60.0}
    assert set(ledger.known().stuck or ()) == {"changed", "left"}


def leave(ledger: Ledger, sweep_id: str, name: str) -> None:
    """Nominate what is looked at for another."""
    ledger.open_unit(sweep_id, f"evaluate:{name}")
    ledger.drop_unit(sweep_id, f"evaluate:{name}")


@pytest.mark.parametrize("abandoned", [True, False], ids=["given up", "not all read"])
def test_one_that_is_not_complete_takes_nothing_out(ledger: Ledger, *, abandoned: bool) -> None:
    """What the last complete one counted stays all known, and sweeps by the index go on.

    Nor does it know that what it has begun to mend is mended: a release of it may be lost.
    """
    swept_before(ledger, stuck("mended"), stuck("changed"), stuck("not sent"))
    both_at_work(ledger, "mended", "changed", *(["not sent"] if abandoned else []))
    look_at(ledger, INDEX, "mended")
    look_at(ledger, INDEX, "changed", stuck("changed", "rows_missing"))
    ledger.settle(INDEX, FIRST, Counts(), unread=not abandoned)
    ledger.close(INDEX, abandoned=abandoned)
    assert left(ledger) == [
        ("changed", "rows_missing"),
        ("mended", "unsettled_parent"),
        ("not sent", "unsettled_parent"),
    ]
    assert set(ledger.known().stuck or ()) == {"changed", "mended", "not sent"}
    end(ledger, SCAN)
    assert set(ledger.known().stuck or ()) == {"changed", "mended", "not sent"}
    assert sum((ledger.last(complete=True) or {})["stuck"].values()) == 3


def test_what_a_full_scan_left_to_the_other_counts_as_it_was_last_seen(ledger: Ledger) -> None:
    """Else the gauges would fall when it ends, and rise when the next sweep does."""
    swept_before(ledger, stuck("left"), stuck("mended"))
    both_at_work(ledger, "left", "mended")
    leave(ledger, SCAN, "left")
    look_at(ledger, SCAN, "mended")
    look_at(ledger, INDEX, "left", stuck("left", age=90.0))
    look_at(ledger, INDEX, "mended")
    end(ledger, INDEX)
    ledger.settle(SCAN, FIRST, Counts())
    ended = ledger.close(SCAN)
    assert ended is not None
    assert ended.counts.stuck == {"unsettled_parent": 1}
    assert ended.counts.oldest_stuck_seconds == {"unsettled_parent": 90.0}
    assert (ledger.last_full() or {})["stuck"] == {"unsettled_parent": 1}
    assert ledger.known().stuck == ("left",)


def test_what_the_full_scan_found_since_is_not_taken_out_by_one_that_looked_before(
    ledger: Ledger,
) -> None:
    swept_before(ledger, stuck("orch_1", age=60.0))
    both_at_work(ledger, "orch_1")
    look_at(ledger, INDEX, "orch_1")
    look_at(ledger, SCAN, "orch_1", stuck("orch_1", age=90.0))
    end(ledger, SCAN)
    end(ledger, INDEX)
    assert left(ledger) == [("orch_1", "unsettled_parent")]


def test_each_is_in_the_list_once_as_it_was_last_told(ledger: Ledger) -> None:
    swept_before(ledger, stuck("orch_1", age=60.0))
    both_at_work(ledger, "orch_1")
    look_at(ledger, INDEX, "orch_1", stuck("orch_1", age=90.0))
    end(ledger, INDEX)
    look_at(ledger, SCAN, "orch_1", stuck("orch_1", age=None))
    end(ledger, SCAN)
    (entry,) = ledger.last_stuck()
    assert entry["age_seconds"] is None


@pytest.mark.parametrize("complete", [True, False])
def test_what_either_found_is_listed_though_it_was_not_complete(
    ledger: Ledger, *, complete: bool
) -> None:
    """Of what was dropped for the other in its favour, nobody else tells."""
    swept_before(ledger, stuck("orch_0"))
    both_at_work(ledger)
    look_at(ledger, INDEX, "orch_1", stuck("orch_1"))
    look_at(ledger, SCAN, "orch_2", stuck("orch_2"))
    end(ledger, INDEX, complete=complete)
    end(ledger, SCAN, complete=not complete)
    assert [name for name, _ in left(ledger)] == ["orch_0", "orch_1", "orch_2"]
    assert (ledger.last_full() or {})["sweep_id"] == ("sweep:before" if complete else SCAN)


def test_one_that_was_planned_beside_a_scan_which_has_just_ended_forgets_nothing_of_it(
    ledger: Ledger,
) -> None:
    """It was made out what to look at before that scan told what it had found."""
    swept_before(ledger)
    ledger.start(SCAN, FULL, [FIRST])
    look_at(ledger, SCAN, "orch_1", stuck("orch_1"))
    end(ledger, SCAN)
    assert ledger.start(INDEX, ACTIVE, [FIRST], beside=True) is Start.STARTED
    assert ledger.beside() is None
    end(ledger, INDEX)
    assert left(ledger) == [("orch_1", "unsettled_parent")]


def test_the_next_full_scan_that_is_alone_replaces_the_list(ledger: Ledger) -> None:
    swept_before(ledger, stuck("orch_1"))
    both_at_work(ledger)
    end(ledger, INDEX)
    end(ledger, SCAN)
    assert left(ledger) == [("orch_1", "unsettled_parent")]
    ledger.start("sweep:next", FULL, [FIRST])
    end(ledger, "sweep:next")
    assert left(ledger) == []
    assert ledger.known().stuck == ()


def test_a_report_by_hand_adds_nothing_though_another_was_beside_it(ledger: Ledger) -> None:
    swept_before(ledger)
    ledger.start(SCAN, Plan("report", 1), [FIRST])
    ledger.start(INDEX, ACTIVE, [FIRST], beside=True)
    look_at(ledger, SCAN, "orch_1", stuck("orch_1"))
    end(ledger, SCAN)
    assert left(ledger) == []


# -- whether the list is whole


def many(prefix: str, count: int) -> tuple[Stuck, ...]:
    return tuple(stuck(f"{prefix}_{number}", age=float(number)) for number in range(count))


def settle_many(ledger: Ledger, sweep_id: str, found: tuple[Stuck, ...]) -> None:
    counts = Counts(stuck={"unsettled_parent": len(found)})
    ledger.settle(sweep_id, FIRST, counts, stuck=found)
    ledger.close(sweep_id)


@pytest.mark.parametrize(("added", "whole"), [(400, True), (401, False)])
def test_a_list_that_is_cut_when_it_is_added_to_says_so(
    ledger: Ledger, added: int, *, whole: bool
) -> None:
    """Its last summary alone counts fewer than it holds."""
    ledger.start("sweep:before", FULL, [FIRST])
    settle_many(ledger, "sweep:before", many("before", 600))
    both_at_work(ledger)
    settle_many(ledger, INDEX, many("since", added))
    assert len(ledger.last_stuck()) == 1000
    assert (ledger.known().stuck is not None) is whole
    end(ledger, SCAN)
    assert (ledger.known().stuck is not None) is whole, "nothing has been found again since"
    ledger.start("sweep:next", FULL, [FIRST])
    end(ledger, "sweep:next")
    assert ledger.known().stuck == ()


@pytest.mark.parametrize("other", [SCAN, INDEX])
def test_what_is_counted_and_not_listed_is_not_made_up_for_by_what_another_listed(
    ledger: Ledger, other: str
) -> None:
    swept_before(ledger, *many("before", 5))
    both_at_work(ledger)
    ledger.settle(other, FIRST, Counts(stuck={"unsettled_parent": 1}))
    ledger.close(other)
    assert ledger.known().stuck is None


def test_a_list_that_was_not_whole_is_not_made_so_by_what_is_added(ledger: Ledger) -> None:
    ledger.start("sweep:before", FULL, [FIRST])
    ledger.settle("sweep:before", FIRST, Counts(stuck={"unsettled_parent": 3}))
    ledger.close("sweep:before")
    both_at_work(ledger)
    look_at(ledger, INDEX, "orch_1", stuck("orch_1"))
    end(ledger, INDEX)
    assert ledger.known().stuck is None


def test_what_the_next_one_goes_by_is_told_of_one_moment(ledger: Ledger) -> None:
    swept_before(ledger, stuck("orch_1"))
    both_at_work(ledger)
    end(ledger, INDEX, complete=False)
    known: Any = ledger.known()
    assert (known.full_ended_at, known.stuck, known.index_failed_at) == (1000, ("orch_1",), 1000)


def test_what_one_that_was_given_up_found_is_listed_though_none_was_beside_it(
    ledger: Ledger,
) -> None:
    """A full scan that a person asked for: none is due, and the next sweep goes by the index."""
    swept_before(ledger, stuck("old"), stuck("mended"))
    ledger.start(SCAN, FULL, [FIRST])
    look_at(ledger, SCAN, "found", stuck("found"))
    ledger.close(SCAN, abandoned=True)
    assert left(ledger) == [(name, "unsettled_parent") for name in ("found", "mended", "old")]
    ledger.start(INDEX, ACTIVE, [FIRST])
    look_at(ledger, INDEX, "mended")
    end(ledger, INDEX)
    assert left(ledger) == [(name, "unsettled_parent") for name in ("found", "old")]


def test_what_the_other_found_to_be_so_still_is_not_taken_out_though_it_reads_the_same(
    ledger: Ledger,
) -> None:
    """A check that fails has no age: told twice, the entry is one and the same."""
    again = stuck("orch_1", "check_failed", None)
    swept_before(ledger, again)
    both_at_work(ledger, "orch_1")
    look_at(ledger, INDEX, "orch_1")
    look_at(ledger, SCAN, "orch_1", again)
    end(ledger, SCAN)
    end(ledger, INDEX)
    assert left(ledger) == [("orch_1", "check_failed")]
