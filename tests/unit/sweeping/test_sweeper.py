"""What a sweep asks for, of whom and when: segments, and evaluations of what is left."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest

from reconciler.repair.context import Stuck
from reconciler.sweeping.known_stuck import Finding
from reconciler.sweeping.segments import Place, Scope, Segment
from reconciler.sweeping.sweeper import Sweeper
from tests.unit.sweeping.swept import INTERVAL, NOW, ROTATION, Sent, Swept

TABLE, ACTIVE = Scope.TABLE, Scope.ACTIVE
FIRST = Segment(TABLE, 0, 2)


@pytest.fixture
def swept() -> Swept:
    return Swept()


@pytest.fixture
def indexed() -> Swept:
    return Swept(settings={"active_index_name": "ByStatus", "sweep_segments": 2})


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


def test_how_many_segments_there_are_may_be_asked_for(swept: Swept) -> None:
    swept.sweeper().ask("s", segments=3)
    assert swept.sent.labels() == ["1of3", "2of3", "3of3"]


def test_by_default_one_worker_is_counted_on(swept: Swept) -> None:
    swept.settings["sweep_segments"] = "auto"
    megabyte = 1024 * 1024
    for number, (size, segments) in enumerate(((8 * megabyte, 1), (64 * megabyte, 2))):
        sweeper = swept.sweeper(orchestrations=Mock(size_bytes=lambda size=size: size))
        sweeper.ask(f"s{number}")
        assert swept.state.totals() == {TABLE: segments}


def test_by_default_a_sweep_repairs(swept: Swept) -> None:
    sweep = Sweeper(swept.reconciler(), swept.state, swept.sent).ask("s")
    assert sweep is not None
    assert sweep.mode == "repair"


def test_asking_again_asks_only_for_what_nobody_reads(swept: Swept) -> None:
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
    assert swept.sent.labels() == ["2of2"], "the first was read since"


def test_a_sweep_that_has_ended_asks_for_nothing(swept: Swept) -> None:
    sweeper = swept.sweeper()
    sweeper.ask("s")
    swept.sent.labels()
    assert sweeper.end("s") is not None
    assert sweeper.ask("s") is not None
    assert swept.sent.labels() == []


def test_the_longest_unread_are_asked_for_first_as_many_as_there_is_room_for(
    swept: Swept,
) -> None:
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


def test_where_the_layout_has_changed_a_sweep_asks_no_more(swept: Swept) -> None:
    sweeper = swept.sweeper()
    sweeper.ask("s")
    swept.sent.labels()
    swept.state.set_total(TABLE, 4)
    sweeper.ask("s")
    assert swept.sent.labels() == []


@pytest.mark.parametrize(("ago", "begins"), [(0.0, False), (14.75, False), (15.0, True)])
def test_after_an_outage_sweeps_of_many_intervals_are_one(
    swept: Swept, ago: float, *, begins: bool
) -> None:
    sweeper = swept.sweeper()
    sweeper.ask("s")
    swept.seconds += ago
    assert (sweeper.ask("t", by_hand=False) is not None) is begins
    assert sweeper.ask("s", by_hand=False) is not None, "it goes on"
    assert sweeper.ask("u") is not None, "a person asked for it"


# -- beside an index


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


def test_beside_an_index_the_table_is_read_in_rotation(indexed: Swept) -> None:
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
    """Let the next ask be another sweep's."""
    indexed.seconds += 0.5
    indexed.sent = Sent()
    return indexed


@pytest.mark.parametrize(
    ("ended", "ago", "expected"),
    [(False, 44.75, INDEX), (False, 45.0, WHOLE), (True, 1.0, WHOLE)],
    ids=["under way", "almost an interval old", "ended"],
)
def test_the_table_takes_the_place_of_an_index_that_cannot_be_read(
    indexed: Swept, ago: float, expected: set[str], *, ended: bool
) -> None:
    """The last sweep has read nothing of it."""
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


def test_what_is_left_is_evaluated_the_longest_unseen_first(swept: Swept) -> None:
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


def test_nobody_asks_for_room_where_no_release_waits_for_it(swept: Swept) -> None:
    swept.state.evaluated("o", stuck("o"), INTERVAL)
    Sweeper(swept.reconciler(), swept.state, swept.sent, swept.sent).ask("s")
    assert swept.sent.evaluated == ["o"]


def test_a_layout_that_has_changed_holds_up_no_other_scope(indexed: Swept) -> None:
    sweeper = indexed.sweeper()
    sweeper.ask("s")
    indexed.sent.labels()
    indexed.state.set_total(ACTIVE, 4)
    sweeper.ask("s")
    assert indexed.sent.labels() == ["1of2", "2of2"]


def test_what_had_no_room_is_evaluated_where_its_rows_have_changed(swept: Swept) -> None:
    swept.state.evaluated("o", stuck("o", paced=True), INTERVAL)
    swept.state.nominate("o", TABLE, NOW - 99, NOW - 1, "other rows")
    swept.sweeper().ask("s")
    assert swept.sent.evaluated == ["o"]
