"""A malformed record stops no sweep, wherever it is malformed: it counts as absent."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

from reconciler.clock import never
from reconciler.repair.context import Stuck
from reconciler.repair.counts import Counts
from reconciler.sweeping.known_stuck import Finding
from reconciler.sweeping.listing import list_entries
from reconciler.sweeping.overview import Sweep
from reconciler.sweeping.records import MemoryRecords
from reconciler.sweeping.segments import Place, Scope, Segment
from reconciler.sweeping.state import SweepState
from reconciler.sweeping.summary import SweepSummary
from tests.unit.sweeping.swept import Swept

NOW = 5000.0
SEGMENT = Segment(Scope.TABLE, 0, 2)
OTHERS: tuple[Any, ...] = (None, True, -1, 1e300, -1e300, "other", [], {}, [1], {"other": 1}, [{}])


def exercise(state: SweepState, sweep_id: str) -> None:
    """Do everything that sweeps do to their state."""
    state.set_total(Scope.TABLE, 2)
    sweep = state.begin(Sweep(sweep_id, "repair", state.now(), {"table": (0, 1)}, {"table": 2}))
    taken = state.take(SEGMENT, "reader", sweep.started_at)
    state.renew(SEGMENT, "reader")
    state.nominate("orch_a", Scope.TABLE, 0.0, state.now(), "rows")
    state.watched(Scope.TABLE)
    if taken is not None:
        state.leave(SEGMENT, "reader", Place(state.now(), 1, {"orchestration_id": "orch_a"}))
    for number in (0, 1):
        segment = Segment(Scope.TABLE, number, 2)
        state.take(segment, "another", state.now())
        state.finish(segment, "another")
    known, read_at = state.look_up("orch_a")
    assert known.needs_evaluation
    entry = Stuck("orch_a", "b", "over_budget", "no slot", 60.0)
    finding = Finding(read_at, (entry,), "rows", needs_person=True, display_ids={"b": "ENG-1"})
    state.evaluated("orch_a", finding, 300.0, {"c": 4000.0})
    state.released("orch_b", "c", (entry,), {"d": None}, settled=False)
    state.count(sweep_id, Counts(released=1))
    seen = state.overview()
    for listed in list_entries(seen.known, seen.now):
        listed.to_json(seen.now)
    seen.choose_paced(10)
    seen.is_done(sweep)
    state.advance_coverage(state.overview())
    state.counts(sweep_id)
    state.end(sweep, SweepSummary(sweep_id, "repair", True, 2, 1.0).to_json())  # noqa: FBT003 - a field
    state.sweep(sweep_id)
    state.forget(state.overview(), 300.0, never)


def dumped() -> dict[str, Any]:
    """Return the state after a sweep, and in the middle of another."""
    records = MemoryRecords(lambda: NOW)
    state = SweepState(records)
    exercise(state, "sweep:1")
    state.begin(Sweep("sweep:2", "repair", NOW, {"table": (0, 1)}, {"table": 2}))
    state.nominate("orch_c", Scope.TABLE, 0.0, NOW, "rows")
    state.take(SEGMENT, "reader", NOW + 1)
    found: dict[str, Any] = json.loads(records.dump())
    return found


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value within the records."""
    if len(path) > 1:  # the records themselves, and all that is in them
        yield path
    if isinstance(value, dict | list):
        for name, within in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(within, (*path, name))


def replaced(state: dict[str, Any], path: tuple[Any, ...], other: Any) -> str:
    changed = at = copy.deepcopy(state)
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] = other
    return json.dumps(changed)


DUMPED = dumped()


@pytest.mark.parametrize("path", list(places(DUMPED)), ids=lambda path: "/".join(map(str, path)))
def test_a_malformed_value_stops_no_sweep(path: tuple[Any, ...]) -> None:
    for other in OTHERS:
        records = MemoryRecords(lambda: NOW + 60)
        try:
            records.load(replaced(DUMPED, path, other))
        except ValueError:
            continue  # then the whole state counts as absent: `test_cron.py`
        state = SweepState(records)
        swept = Swept()
        swept.state = state
        for name in ("sweep:1", "sweep:2", "sweep:by-hand-1"):
            assert swept.sweeper().ask(name) is not None, other
            swept.sweeper().end(name)
        exercise(state, "sweep:3")
        last = state.overview().last()
        assert last is not None, other
        assert last["sweep_id"] == "sweep:3", other
