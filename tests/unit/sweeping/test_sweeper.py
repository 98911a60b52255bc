"""What a sweep asks for: segments to read, and orchestrations to evaluate."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest

from reconciler.repair.context import Stuck
from reconciler.repair.counts import Counts
from reconciler.sweeping.known_stuck import KEEP_CLEAN_SECONDS, Finding
from reconciler.sweeping.segments import Place, Scope, Segment
from reconciler.sweeping.sweeper import Sweeper
from tests.unit.sweeping.swept import ACTIVE, FIRST, INTERVAL, NOW, ROTATION, TABLE, Sent, Swept

# -- asking for segments


def test_a_sweep_asks_for_all_of_the_table(swept: Swept) -> None:
    sweep = swept.sweeper().ask("s")
    assert sweep is not None
    assert (sweep.mode, sweep.started_at, sweep.segments) == ("repair", NOW, 2)
    assert [(task.sweep_id, task.since, task.step) for task in swept.sent.segments] == [
        ("s", NOW, 0)
    ] * 2
    assert swept.sent.labels() == ["1of2", "2of2"]
    assert swept.state.totals() == {TABLE: 2}


def test_a_caller_can_set_the_segment_count(swept: Swept) -> None:
    swept.sweeper().ask("s", segments=3)
    assert swept.sent.labels() == ["1of3", "2of3", "3of3"]


def test_one_worker_is_assumed_by_default(swept: Swept) -> None:
    swept.settings["sweep_segments"] = "auto"
    megabyte = 1024 * 1024
    for number, (size, segments) in enumerate(((8 * megabyte, 1), (64 * megabyte, 2))):
        sweeper = swept.sweeper(orchestrations=Mock(size_bytes=lambda size=size: size))
        sweeper.ask(f"s{number}")
        assert swept.state.totals() == {TABLE: segments}


def test_a_sweep_repairs_by_default(swept: Swept) -> None:
    sweep = Sweeper(swept.reconciler(), swept.state, swept.sent).ask("s")
    assert sweep is not None
    assert sweep.mode == "repair"


def test_asking_again_skips_segments_being_read(swept: Swept) -> None:
    """It also skips segments that have been read since the sweep began."""
    sweeper = swept.sweeper()
    sweeper.ask("s")
    swept.sent.labels()
    swept.state.take(FIRST, "reader", NOW)
    swept.seconds += 1
    again = sweeper.ask("s")
    assert again is not None
    assert again.started_at == NOW
    assert swept.sent.labels() == ["2of2"]
    swept.state.finish(FIRST, "reader")
    sweeper.ask("s")
    assert swept.sent.labels() == ["2of2"], "the first has been read"


def test_a_sweep_that_has_ended_asks_for_nothing(swept: Swept) -> None:
    sweeper = swept.sweeper()
    sweeper.ask("s")
    swept.sent.labels()
    assert sweeper.end("s") is not None
    assert sweeper.ask("s") is not None
    assert swept.sent.labels() == []


def test_a_sweep_begins_anew_after_a_clock_jump(swept: Swept) -> None:
    """Its interval has come again, and what it read then no longer counts."""
    sweeper = swept.sweeper()
    for later in (0, 3 * INTERVAL):
        swept.seconds = NOW + later
        sweeper.ask(f"sweep:{later}")
        swept.state.count(f"sweep:{later}", Counts(errors=1))
        swept.read_all()
        assert [summary.complete for summary in sweeper.end_what_is_done()] == [True]
    swept.seconds = NOW + 1
    assert sweeper.ask("sweep:0") is not None
    assert swept.sent.labels() == ["1of2", "2of2"]
    swept.seconds += 0.1
    assert sweeper.ask("sweep:0") is not None
    swept.read_all()
    assert swept.state.counts("sweep:0") == Counts()


def test_forgetting_takes_few_seconds_of_an_ask(
    swept: Swept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an outage it would take the task beyond its time limit."""
    seconds = 0.0

    def passes() -> float:
        nonlocal seconds
        seconds += 1
        return seconds

    for name in range(20):
        swept.state.evaluated(f"{name}", Finding(NOW), INTERVAL)
    swept.seconds += KEEP_CLEAN_SECONDS + 1
    monkeypatch.setattr("time.monotonic", passes)
    left = []
    for _ in range(4):
        swept.sweeper().ask("s")
        left.append(len(swept.state.overview().known))
    assert left == [16, 12, 8, 4]


def test_a_sweep_is_remembered_for_its_interval(swept: Swept) -> None:
    """Its later asks begin no second one, although a sweep by hand has ended since."""
    swept.settings["sweep_interval_seconds"] = 6 * 3600
    sweeper = swept.sweeper()
    for name in ("sweep:1", "sweep:by-hand-1"):
        sweeper.ask(name)
        swept.read_all()
        assert [summary.complete for summary in sweeper.end_what_is_done()] == [True]
        swept.seconds += 600
    for hours in (2, 4):
        swept.seconds = NOW + hours * 3600
        sweeper.ask("sweep:1", by_hand=False)
        assert swept.sent.labels() == []


def test_the_longest_unread_segments_are_asked_for_first(
    swept: Swept,
) -> None:
    """A sweep asks only for as many as there is room for."""
    sweeper = swept.sweeper()
    sweeper.ask("s", segments=3)
    swept.sent.labels()
    for number, place in ((2, None), (0, Place(NOW, 4))):
        swept.state.take(Segment(TABLE, number, 3), "reader", NOW)
        swept.seconds += 1
        if place is None:
            swept.state.finish(Segment(TABLE, number, 3), "reader")
        else:
            swept.state.leave(Segment(TABLE, number, 3), "reader", place)
    sweeper.end("s")
    swept.sent.room_left = 2
    swept.seconds += INTERVAL
    sweeper.ask("t", segments=3)
    assert [task.step for task in swept.sent.segments] == [4, 0]
    assert swept.sent.labels() == ["1of3", "2of3"], "the third has a mark"
    swept.sent.room_left = -1
    sweeper.ask("t", segments=3)
    assert swept.sent.labels() == []


def test_a_sweep_of_another_layout_asks_nothing(swept: Swept) -> None:
    """The number of segments has changed since the sweep began."""
    sweeper = swept.sweeper()
    sweeper.ask("s")
    swept.sent.labels()
    swept.state.set_total(TABLE, 4)
    sweeper.ask("s")
    assert swept.sent.labels() == []


@pytest.mark.parametrize(("ago", "begins"), [(0.0, False), (14.75, False), (15.0, True)])
def test_a_backlog_of_sweeps_becomes_one_sweep(swept: Swept, ago: float, *, begins: bool) -> None:
    """After an outage, the sweeps of several intervals start at almost the same time."""
    sweeper = swept.sweeper()
    sweeper.ask("s")
    swept.seconds += ago
    assert (sweeper.ask("t", by_hand=False) is not None) is begins
    assert sweeper.ask("s", by_hand=False) is not None, "a sweep that has begun goes on"
    assert sweeper.ask("u") is not None, "a person asked for it"


# -- with an index


def marks_read(indexed: Swept, *scopes: Scope) -> None:
    """Read these scopes to their end now."""
    for scope in scopes:
        for number in range(2):
            segment = Segment(scope, number, 2)
            indexed.state.take(segment, "reader", indexed.seconds)
            indexed.state.finish(segment, "reader")


def asked_for(indexed: Swept, **how: Any) -> set[str]:
    indexed.sweeper().ask(f"s{indexed.seconds}", **how)
    return set(indexed.sent.labels())


INDEX = {"1of2-active", "2of2-active"}
WHOLE = INDEX | {"1of2", "2of2"}


def test_an_indexed_table_is_read_in_rotation(indexed: Swept) -> None:
    indexed.seconds = 1000 * ROTATION + 1
    assert asked_for(indexed) == WHOLE, "nothing was read yet"
    marks_read(indexed, TABLE, ACTIVE)
    indexed.seconds += INTERVAL
    assert asked_for(indexed) == INDEX
    assert asked_for(replace_sent(indexed), full=True) == WHOLE
    indexed.seconds = 1000.5 * ROTATION + 1
    marks_read(indexed, ACTIVE)
    indexed.seconds += 1
    assert asked_for(indexed) == INDEX | {"2of2"}


def replace_sent(indexed: Swept) -> Swept:
    """Let another sweep ask next, and forget what was sent."""
    indexed.seconds += 0.5
    indexed.sent = Sent()
    return indexed


@pytest.mark.parametrize(
    ("ended", "ago", "expected"),
    [(False, 44.75, INDEX), (False, 45.0, WHOLE), (True, 1.0, WHOLE)],
    ids=["under way", "almost an interval old", "ended"],
)
def test_the_table_replaces_an_unreadable_index(
    indexed: Swept, ago: float, expected: set[str], *, ended: bool
) -> None:
    """The last sweep is over, or almost an interval old, and has read nothing of the index."""
    indexed.seconds = 1000 * ROTATION + 1
    asked_for(indexed)
    marks_read(indexed, TABLE, ACTIVE)
    indexed.seconds += INTERVAL
    last = f"s{indexed.seconds}"
    asked_for(indexed)
    if ended:
        indexed.sweeper().end(last)
    indexed.seconds += ago
    assert asked_for(indexed) == expected


# -- asking for evaluations


def stuck(name: str, **finding: Any) -> Finding:
    entry = Stuck(name, "a", "over_budget", "no slot", 60.0)
    return Finding(finding.pop("read_at", NOW - 10), (entry,), "rows", **finding)


def test_the_longest_unseen_orchestrations_are_evaluated_first(swept: Swept) -> None:
    """A sweep asks only for as many as there is room for."""
    swept.state.evaluated("later", stuck("later", read_at=NOW - 5), INTERVAL)
    swept.state.evaluated("earlier", stuck("earlier", read_at=NOW - 9), INTERVAL)
    swept.state.nominate("nominated", TABLE, NOW - 99, NOW - 1, "rows")
    swept.state.evaluated("just now", stuck("just now", read_at=NOW), INTERVAL)
    swept.state.evaluated("no room", stuck("no room", paced=True), INTERVAL)
    swept.state.evaluated("clean", Finding(NOW - 10), INTERVAL)
    swept.sweeper().ask("s")
    assert swept.sent.evaluated == ["nominated", "earlier", "later"]
    for room, evaluated in ((1, ["nominated"]), (0, []), (-1, [])):
        swept.sent.evaluated.clear()
        swept.sent.room_left = room
        swept.sweeper().ask("s")
        assert swept.sent.evaluated == evaluated


def test_room_is_not_requested_without_paced_releases(swept: Swept) -> None:
    swept.state.evaluated("o", stuck("o"), INTERVAL)
    Sweeper(swept.reconciler(), swept.state, swept.sent, swept.sent).ask("s")
    assert swept.sent.evaluated == ["o"]


def test_a_changed_layout_stops_no_other_scope(indexed: Swept) -> None:
    sweeper = indexed.sweeper()
    sweeper.ask("s")
    indexed.sent.labels()
    indexed.state.set_total(ACTIVE, 4)
    sweeper.ask("s")
    assert indexed.sent.labels() == ["1of2", "2of2"]


def test_a_paced_orchestration_with_changed_rows_is_evaluated(swept: Swept) -> None:
    swept.state.evaluated("o", stuck("o", paced=True), INTERVAL)
    swept.state.nominate("o", TABLE, NOW - 99, NOW - 1, "other rows")
    swept.sweeper().ask("s")
    assert swept.sent.evaluated == ["o"]
