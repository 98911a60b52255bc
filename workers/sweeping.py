"""A sweep on the workers: begun, sent out in units, settled unit by unit, and ended.

What is decided stands in ``reconciler.operations``; here it is spread over processes, with the
ledger (what is still open) and the gate (what is under way).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import structlog

from reconciler.operations.context import ReleaseRequest, Stuck, count_stuck
from reconciler.operations.counts import Counts
from reconciler.operations.coverage import Coverage, Known, choose_scope
from reconciler.operations.scan import SegmentCursor
from reconciler.operations.summary import record_sweep
from workers.about import count_processes
from workers.application import app
from workers.enqueue import Enqueuer
from workers.ledger import Plan, Start, Unit, stale_after
from workers.resources import Resources

log = structlog.get_logger("reconciler")

STEP_SECONDS = 20.0
_EVALUATION = "evaluate:"
_LEAST_PROCESSES = 8
"""For how many processes a table is cut up at least: some may not have answered in time."""

_ANSWER_SECONDS = 1.0


def enqueuer_of(held: Resources) -> Enqueuer:
    """Return what publishes for this process."""
    return Enqueuer(app, held.gate, held.metrics, held.settings.sweep_interval_seconds)


# -- begun, and ended


def mode_of(held: Resources, *, report: bool) -> str:
    """Return what a sweep may do, as its summary says it."""
    return "report" if report else held.settings.repair_mode


def start(held: Resources, sweep_id: str, *, report: bool, full: bool) -> dict[str, Any]:
    """Begin a sweep, or go on with one whose beginning was delivered again; returns what it is."""
    close_a_lost_one(held, sweep_id)
    plan = held.ledger.plan(sweep_id)
    if plan is None:
        known = held.ledger.known() if held.settings.active_index_name is not None else Known()
        now = held.reconciler.clock().timestamp()
        since = None if report else _full_scan_since(held)
        scope = choose_scope(held.settings, known, now, full=full, full_scan_since=since)
        beside = since is not None and scope.coverage is Coverage.ACTIVE
        plan = Plan(mode_of(held, report=report), _segments(held, scope.coverage), scope.coverage)
        units = [unit_of(cursor) for cursor in _cursors(sweep_id, plan)]
        units += map(unit_of_evaluation, scope.carried)
        began = held.ledger.start(sweep_id, plan, units, beside=beside)
        if began is Start.OVERLAPS:
            return _step_aside(held, sweep_id, plan.coverage)
        if began is Start.STARTED:
            said = {"segments": plan.segments, "coverage": plan.coverage.value}
            log.info("orch.sweep.started", mode=plan.mode, **said)
        else:
            plan = held.ledger.plan(sweep_id) or plan
    _send(held, sweep_id, plan, report=report)
    return {
        "sweep_id": sweep_id,
        "outcome": "started",
        "mode": plan.mode,
        "segments": plan.segments,
        "coverage": plan.coverage.value,
    }


def _full_scan_since(held: Resources) -> float | None:
    """Return since when a full scan is at work; None where none is.

    Nothing that a person asked only a report of begins beside one: it would keep the scan from
    repairing what it looks at meanwhile.
    """
    current = held.ledger.current()
    if current is None or current.coverage is not Coverage.FULL:
        return None
    return current.started_at


def _send(held: Resources, sweep_id: str, plan: Plan, *, report: bool) -> None:
    """Send a sweep's first units; on a redelivery, only what is still open.

    What is under way the gate keeps out. A redelivery goes by the number of segments that the
    sweep was begun with: of another number the same ones would not be the whole table (I6). And by
    what it was begun with to look at: a sweep beside it may have changed since what is remembered.

    What is carried goes first: a segment may nominate it too, and would not wait for its word.
    """
    enqueuer = enqueuer_of(held)
    unsent = []
    carried = held.ledger.open_units(sweep_id) if plan.coverage is Coverage.ACTIVE else ()
    for unit in carried:
        if not unit.startswith(_EVALUATION):
            continue
        orchestration_id = unit.removeprefix(_EVALUATION)
        send = _evaluation(enqueuer, orchestration_id, sweep_id, report=report)
        if not _sent(held, sweep_id, unit, send):
            unsent.append(orchestration_id)
    if unsent:
        _settle_unsent(held, sweep_id, unsent)
    for cursor in _cursors(sweep_id, plan):
        if held.ledger.is_open(sweep_id, unit_of(cursor)):
            enqueuer.segment(cursor, plan.coverage, report=report)


def _settle_unsent(held: Resources, sweep_id: str, unsent: Iterable[str]) -> None:
    """Settle what was known to be stuck and is under way for another sweep, whose word stays there.

    Where that one may be at work beside this one, it counts as it was last seen. Else it may be
    that nobody looks at it: this sweep is not complete.
    """
    beside = held.ledger.had_another_beside_it(sweep_id)
    last_seen: dict[str, list[Stuck]] = {}
    for entry in held.ledger.last_stuck() if beside else ():
        last_seen.setdefault(entry["orchestration_id"], []).append(Stuck(**entry))
    for orchestration_id in unsent:
        seen = tuple(last_seen.get(orchestration_id, ()))
        unit = unit_of_evaluation(orchestration_id)
        settle(held, sweep_id, unit, count_stuck(seen), stuck=seen, unread=not beside)


def _cursors(sweep_id: str, plan: Plan) -> list[SegmentCursor]:
    return [SegmentCursor(sweep_id, number, plan.segments) for number in range(plan.segments)]


def _segments(held: Resources, coverage: Coverage) -> int:
    def processes() -> int:
        return max(_LEAST_PROCESSES, count_processes(app, _ANSWER_SECONDS))

    return held.reconciler.choose_segments(processes, coverage)


def close_a_lost_one(held: Resources, sweep_id: str) -> None:
    """Close an earlier sweep of which nothing has been heard for long: its workers died."""
    for other in (held.ledger.beside(), held.ledger.current()):
        if other is None or other.sweep_id == sweep_id:
            continue
        if other.units == 0:
            # Whoever settled the last of it was lost before it could end it: it is whole.
            _close(held, other.sweep_id)
        elif other.idle_seconds >= stale_after(held.settings.sweep_interval_seconds):
            log.warning(
                "orch.sweep.failed", detail="its workers were lost", lost_sweep_id=other.sweep_id
            )
            _close(held, other.sweep_id, abandoned=True)


def _step_aside(held: Resources, sweep_id: str, coverage: Coverage) -> dict[str, Any]:
    held.metrics.increment("reconciler_sweeps_total", outcome="overlapped")
    other = held.ledger.step_aside(sweep_id, coverage)
    return {
        "sweep_id": sweep_id,
        "outcome": "stepped aside: the last one is still at work",
        "at work": other,
    }


def _close(held: Resources, sweep_id: str, *, abandoned: bool = False) -> None:
    mode = held.settings.repair_mode
    summary = held.ledger.close(sweep_id, abandoned=abandoned, repair_mode=mode)
    if summary is not None:
        record_sweep(summary, held.metrics, held.reconciler.clock(), mode)


def settle(
    held: Resources,
    sweep_id: str | None,
    unit: str,
    counts: Counts,
    *,
    stuck: tuple[Stuck, ...] = (),
    unread: bool = False,
    paused_since: str | None = None,
) -> None:
    """Settle a unit of a sweep; whoever settles the last one ends the sweep."""
    if sweep_id is not None and held.ledger.settle(
        sweep_id, unit, counts, stuck=stuck, unread=unread, paused_since=paused_since
    ):
        _close(held, sweep_id)


def publish(held: Resources, sweep_id: str, unit: str, send: Callable[[], bool]) -> None:
    """Open a unit and publish its message, where it belongs to a sweep that is at work.

    A unit that stands open from an earlier run of the same task is published again: its message
    may never have left, and if it did, the gate holds this one back. So it does where two runs
    are at it at once: whoever opened the unit need not be the one whose message left.
    """
    found = held.ledger.open_unit(sweep_id, unit)
    if found in {Unit.SETTLED, Unit.SWEEP_OVER}:
        return
    if _sent(held, sweep_id, unit, send):
        return
    # The same work is under way for somebody else, who will not settle this unit.
    if found is Unit.NEW or held.ledger.is_open(sweep_id, unit):
        held.ledger.drop_unit(sweep_id, unit)


def _sent(held: Resources, sweep_id: str, unit: str, send: Callable[[], bool]) -> bool:
    """Publish a unit, if the gate lets it in; returns whether its word will come to this sweep.

    An evaluation that is held for a sweep that is over is taken from it: its message may be lost,
    and its word would come to nobody, while this sweep would be complete without having looked. A
    release is not: it says nothing of what is stuck, and thousands may be queued.
    """
    if send() or held.gate.held_for(unit, sweep_id):
        return True
    if not unit.startswith(_EVALUATION):
        return False
    holder = held.gate.holder(unit)
    if holder is not None:
        if not held.ledger.is_over(holder):
            return False
        held.gate.take_from(unit, holder)
    return send() or held.gate.held_for(unit, sweep_id)


def _evaluation(
    enqueuer: Enqueuer, orchestration_id: str, sweep_id: str, *, report: bool
) -> Callable[[], bool]:
    return lambda: enqueuer.evaluate(orchestration_id, sweep_id, report=report)


# -- its units


def unit_of(cursor: SegmentCursor) -> str:
    """Name the unit that a step is."""
    return f"segment:{cursor.segment}:{cursor.step}"


def unit_of_evaluation(orchestration_id: str) -> str:
    """Name the unit that an evaluation is; also the key of its work at the gate."""
    return f"{_EVALUATION}{orchestration_id}"


def step(
    held: Resources, cursor: SegmentCursor, coverage: Coverage, *, report: bool
) -> dict[str, Any]:
    """Read a step, publish what it nominates and the step behind it, and settle it."""
    if not held.ledger.is_open(cursor.sweep_id, unit_of(cursor)):
        return {"outcome": "nothing to do: it has been read, or its sweep is over"}
    enqueuer = enqueuer_of(held)
    nominated = 0

    def nominate(orchestration_id: str) -> None:
        nonlocal nominated
        nominated += 1
        unit = unit_of_evaluation(orchestration_id)
        send = _evaluation(enqueuer, orchestration_id, cursor.sweep_id, report=report)
        publish(held, cursor.sweep_id, unit, send)

    ends = time.monotonic() + STEP_SECONDS
    result = held.reconciler.scan_segment(
        cursor,
        out_of_time=lambda: time.monotonic() >= ends,
        nominate=nominate,
        coverage=coverage,
    )
    following = result.next
    # Its key is of this sweep alone: taken, its message is on its way, and the unit stays open.
    if following is not None and held.ledger.open_unit(cursor.sweep_id, unit_of(following)) in {
        Unit.NEW,
        Unit.OPEN,
    }:
        enqueuer.segment(following, coverage, report=report)
    settle(
        held,
        cursor.sweep_id,
        unit_of(cursor),
        result.counts,
        paused_since=result.paused_since,
    )
    return {
        "outcome": "read to its end" if following is None else "handed on",
        "segment": f"{cursor.segment + 1} of {cursor.total}",
        "rows": result.counts.rows_scanned,
        "nominated": nominated,
    }


def dispatch(held: Resources, *, in_sweep: bool) -> Callable[[ReleaseRequest], bool]:
    """Return what sends a child to be released, as far as there is room for it."""
    enqueuer = enqueuer_of(held)

    def send(request: ReleaseRequest) -> bool:
        if in_sweep and not enqueuer.has_room(held.settings.release_rate_per_minute):
            return False
        if not in_sweep or held.ledger.is_over(request.sweep_id):
            # It is due all the same, and nobody waits for its end.
            enqueuer.release(request)
            return True
        publish(
            held,
            request.sweep_id,
            f"release:{request.idempotency_key}",
            lambda: enqueuer.release(request),
        )
        return True

    return send
