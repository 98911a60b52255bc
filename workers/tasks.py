"""The tasks: thin shells over ``reconciler.operations``, around which ``workers.running`` is.

Each settles its unit in the sweep's ledger however it ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import fields
from datetime import datetime
from typing import Any

import structlog
from celery import Task

from reconciler.domain.model import moment
from reconciler.errors import ReconcilerError, UnknownOrchestrationError, UsageError
from reconciler.operations.context import Evaluation, ReleaseRequest, ReleaseResult, Stuck
from reconciler.operations.counts import Counts
from reconciler.operations.coverage import Coverage, Known, choose_scope
from reconciler.operations.scan import SegmentCursor
from reconciler.operations.summary import TOTAL_FAILURE, record_sweep
from workers.about import count_processes
from workers.application import app
from workers.enqueue import Enqueuer
from workers.ledger import Plan, Start, Unit, stale_after
from workers.names import ACTIVE, EVALUATE, RELEASE, SEGMENT, SWEEP
from workers.resources import Resources
from workers.running import (
    OPTIONS,
    MalformedMessageError,
    ReconcilerTask,
    checked,
    checked_sweep,
    run,
)

log = structlog.get_logger("reconciler")

MOST_SEGMENTS = 1_000_000
"""As many as DynamoDB lets a scan have."""

STEP_SECONDS = 20.0
_LEAST_PROCESSES = 8
"""For how many processes a table is cut up at least: some may not have answered in time."""

_ANSWER_SECONDS = 1.0


def _enqueuer(held: Resources) -> Enqueuer:
    return Enqueuer(app, held.gate, held.metrics, held.settings.sweep_interval_seconds)


# -- the sweep


@app.task(name=SWEEP, base=ReconcilerTask, **{**OPTIONS, "ignore_result": False})
def sweep(
    task: Task[..., Any],
    report: bool = False,  # noqa: FBT001, FBT002 - a message's
    full: bool = False,  # noqa: FBT001, FBT002 - a message's
) -> dict[str, Any]:
    """Start a sweep: one task for each segment. Steps aside for one that is still at work."""
    sweep_id = str(task.request.id)

    def gave_up(held: Resources, error: ReconcilerError) -> None:
        held.metrics.increment("reconciler_sweeps_total", outcome="failed")
        held.metrics.increment("reconciler_sweep_failures_total", extent="total")
        held.metrics.increment("reconciler_errors_total", kind=error.kind)
        log.error(
            "orch.sweep.failed", error_id=TOTAL_FAILURE, error_kind=error.kind, detail=str(error)
        )
        held.ledger.fail(sweep_id, mode=_mode(held, report=report))

    def work(held: Resources) -> dict[str, Any]:
        return _start(held, sweep_id, report=report, full=full)

    return run(task, work, gave_up, sweep_id=sweep_id)


def _mode(held: Resources, *, report: bool) -> str:
    return "report" if report else held.settings.repair_mode


def _start(held: Resources, sweep_id: str, *, report: bool, full: bool) -> dict[str, Any]:
    _close_a_lost_one(held, sweep_id)
    plan = held.ledger.plan(sweep_id)
    known = held.ledger.known() if held.settings.active_index_name is not None else Known()
    if plan is None:
        now = held.reconciler.clock().timestamp()
        scope = choose_scope(held.settings, known, now, full=full)
        plan = Plan(_mode(held, report=report), _segments(held, scope.coverage), scope.coverage)
        units = [_unit_of(cursor) for cursor in _cursors(sweep_id, plan)]
        units += map(_unit_of_evaluation, scope.carried)
        began = held.ledger.start(sweep_id, plan, units)
        if began is Start.OVERLAPS:
            return _step_aside(held, sweep_id)
        if began is Start.STARTED:
            said = {"segments": plan.segments, "coverage": plan.coverage.value}
            log.info("orch.sweep.started", mode=plan.mode, **said)
        else:
            plan = held.ledger.plan(sweep_id) or plan
    carried = known.stuck if plan.coverage is Coverage.ACTIVE else None
    _send(held, sweep_id, plan, carried or (), report=report)
    return {
        "sweep_id": sweep_id,
        "outcome": "started",
        "mode": plan.mode,
        "segments": plan.segments,
        "coverage": plan.coverage.value,
    }


def _send(
    held: Resources, sweep_id: str, plan: Plan, carried: Iterable[str], *, report: bool
) -> None:
    """Send a sweep's first units; on a redelivery, only what is still open.

    What is under way the gate keeps out. A redelivery goes by the number of segments that the
    sweep was begun with: of another number the same ones would not be the whole table (I6).
    """
    enqueuer = _enqueuer(held)
    for cursor in _cursors(sweep_id, plan):
        if held.ledger.is_open(sweep_id, _unit_of(cursor)):
            enqueuer.segment(cursor, plan.coverage, report=report)
    for orchestration_id in carried:
        unit = _unit_of_evaluation(orchestration_id)
        if held.ledger.is_open(sweep_id, unit):
            _publish_evaluation(held, enqueuer, orchestration_id, sweep_id, report=report)


def _cursors(sweep_id: str, plan: Plan) -> list[SegmentCursor]:
    return [SegmentCursor(sweep_id, number, plan.segments) for number in range(plan.segments)]


def _segments(held: Resources, coverage: Coverage) -> int:
    def processes() -> int:
        return max(_LEAST_PROCESSES, count_processes(app, _ANSWER_SECONDS))

    return held.reconciler.choose_segments(processes, coverage)


def _close_a_lost_one(held: Resources, sweep_id: str) -> None:
    """Close an earlier sweep of which nothing has been heard for long: its workers died."""
    current = held.ledger.current()
    if current is None or current.sweep_id == sweep_id:
        return
    if current.units == 0:
        # Whoever settled the last of it was lost before it could end it: it is whole.
        _close(held, current.sweep_id)
    elif current.idle_seconds >= stale_after(held.settings.sweep_interval_seconds):
        log.warning(
            "orch.sweep.failed", detail="its workers were lost", lost_sweep_id=current.sweep_id
        )
        _close(held, current.sweep_id, abandoned=True)


def _step_aside(held: Resources, sweep_id: str) -> dict[str, Any]:
    held.metrics.increment("reconciler_sweeps_total", outcome="overlapped")
    other = held.ledger.step_aside(sweep_id)
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


def _settle(
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


def _publish(held: Resources, sweep_id: str, unit: str, publish: Callable[[], bool]) -> None:
    """Open a unit and publish its message, where it belongs to a sweep that is at work.

    A unit that stands open from an earlier run of the same task is published again: its message
    may never have left, and if it did, the gate holds this one back. So it does where two runs
    are at it at once: whoever opened the unit need not be the one whose message left.
    """
    found = held.ledger.open_unit(sweep_id, unit)
    if found in {Unit.SETTLED, Unit.SWEEP_OVER}:
        return
    sent = publish()
    if not sent and found is Unit.NEW and not held.gate.held_for(unit, sweep_id):
        # The same work is under way for somebody else, who will not settle this unit.
        held.ledger.drop_unit(sweep_id, unit)


def _publish_evaluation(
    held: Resources, enqueuer: Enqueuer, orchestration_id: str, sweep_id: str, *, report: bool
) -> None:
    _publish(
        held,
        sweep_id,
        _unit_of_evaluation(orchestration_id),
        lambda: enqueuer.evaluate(orchestration_id, sweep_id, report=report),
    )


# -- one step of a segment


@app.task(name=SEGMENT, base=ReconcilerTask, **OPTIONS)
def sweep_segment(
    task: Task[..., Any],
    cursor: dict[str, Any],
    report: bool = False,  # noqa: FBT001, FBT002 - a message's
) -> dict[str, Any]:
    """Read a step of a segment, nominate, and hand the rest of it on."""
    return _read_step(task, cursor, Coverage.FULL, report=report)


@app.task(name=ACTIVE, base=ReconcilerTask, **OPTIONS)
def sweep_active(
    task: Task[..., Any],
    cursor: dict[str, Any],
    report: bool = False,  # noqa: FBT001, FBT002 - a message's
) -> dict[str, Any]:
    """Read a step of what an index shows of a segment, nominate, and hand the rest of it on."""
    return _read_step(task, cursor, Coverage.ACTIVE, report=report)


def _read_step(
    task: Task[..., Any], cursor: object, coverage: Coverage, *, report: bool
) -> dict[str, Any]:
    at = _cursor_from(cursor)

    def gave_up(held: Resources, error: ReconcilerError) -> None:
        if at is not None:
            held.metrics.increment("reconciler_errors_total", kind=error.kind)
            log.error("orch.sweep.failed", error_kind=error.kind, detail=str(error))
            _settle(held, at.sweep_id, _unit_of(at), Counts(errors=1), unread=True)

    def work(held: Resources) -> dict[str, Any]:
        if at is None:
            raise MalformedMessageError(f"not a place in a segment: {cursor!r:.200}")
        return _step(held, at, coverage, report=report)

    ids = {} if at is None else {"sweep_id": at.sweep_id, "segment": at.segment}
    return run(task, work, gave_up, **ids)


def _step(
    held: Resources, cursor: SegmentCursor, coverage: Coverage, *, report: bool
) -> dict[str, Any]:
    if not held.ledger.is_open(cursor.sweep_id, _unit_of(cursor)):
        return {"outcome": "nothing to do: it has been read, or its sweep is over"}
    enqueuer = _enqueuer(held)
    nominated = 0

    def nominate(orchestration_id: str) -> None:
        nonlocal nominated
        nominated += 1
        _publish_evaluation(held, enqueuer, orchestration_id, cursor.sweep_id, report=report)

    ends = time.monotonic() + STEP_SECONDS
    result = held.reconciler.scan_segment(
        cursor,
        out_of_time=lambda: time.monotonic() >= ends,
        nominate=nominate,
        coverage=coverage,
    )
    following = result.next
    # Its key is of this sweep alone: taken, its message is on its way, and the unit stays open.
    if following is not None and held.ledger.open_unit(cursor.sweep_id, _unit_of(following)) in {
        Unit.NEW,
        Unit.OPEN,
    }:
        enqueuer.segment(following, coverage, report=report)
    _settle(
        held,
        cursor.sweep_id,
        _unit_of(cursor),
        result.counts,
        paused_since=result.paused_since,
    )
    return {
        "outcome": "read to its end" if following is None else "handed on",
        "segment": f"{cursor.segment + 1} of {cursor.total}",
        "rows": result.counts.rows_scanned,
        "nominated": nominated,
    }


def _unit_of(cursor: SegmentCursor) -> str:
    return f"segment:{cursor.segment}:{cursor.step}"


def _cursor_from(cursor: object) -> SegmentCursor | None:
    """Return the place that a message names; None when it names none.

    What a newer version says of it besides is passed over.
    """
    if not isinstance(cursor, dict):
        return None
    known = {field.name for field in fields(SegmentCursor)}
    try:
        at = SegmentCursor(**{name: value for name, value in cursor.items() if name in known})
    except TypeError:
        return None
    numbers = (at.segment, at.total, at.step)
    # A bool is an int, and no number of a segment.
    sound = all(type(number) is int and number >= 0 for number in numbers)
    if not sound or not at.segment < at.total <= MOST_SEGMENTS:
        return None
    return at if isinstance(at.sweep_id, str) and _is_key(at.start_key) else None


def _is_key(key: object) -> bool:
    """Whether this is where a scan can go on: the key of a row, or none for the beginning."""
    if key is None:
        return True
    return (
        isinstance(key, dict)
        and key.keys() == {"orchestration_id", "sub_issue_id"}
        and all(isinstance(part, str) and part for part in key.values())
    )


# -- one orchestration


@app.task(name=EVALUATE, base=ReconcilerTask, **OPTIONS)
def evaluate_orchestration(
    task: Task[..., Any],
    orchestration_id: str,
    sweep_id: str | None = None,
    report: bool = False,  # noqa: FBT001, FBT002 - a message's
) -> dict[str, Any]:
    """Look at one orchestration closely, and repair it. By hand: any time, any number of times."""
    unit = _unit_of_evaluation(orchestration_id)

    def work(held: Resources) -> dict[str, Any]:
        checked("orchestration_id", orchestration_id)
        try:
            evaluation = held.reconciler.evaluate(
                orchestration_id,
                sweep_id=checked_sweep(sweep_id),
                report=report,
                release=_dispatch(held, in_sweep=sweep_id is not None),
            )
        except UnknownOrchestrationError as error:
            if sweep_id is None:
                raise
            _settle(held, sweep_id, unit, Counts())
            return {"outcome": "it is gone", "detail": str(error)}
        _remember(held, evaluation)
        _settle(held, sweep_id, unit, evaluation.counts, stuck=evaluation.stuck)
        return _shown(evaluation)

    def gave_up(held: Resources, error: ReconcilerError) -> None:
        if isinstance(error, UsageError):
            counts = Counts(errors=1)
        else:
            counts = held.reconciler.could_not_check(
                orchestration_id, error, sweep_id or str(task.request.id)
            )
        _settle(held, sweep_id, unit, counts)

    return run(task, work, gave_up, orchestration_id=orchestration_id, sweep_id=sweep_id)


def _unit_of_evaluation(orchestration_id: str) -> str:
    return f"evaluate:{orchestration_id}"


def _dispatch(held: Resources, *, in_sweep: bool) -> Callable[[ReleaseRequest], bool]:
    """Return what sends a child to be released, as far as there is room for it."""
    enqueuer = _enqueuer(held)

    def dispatch(request: ReleaseRequest) -> bool:
        if in_sweep and not enqueuer.has_room(held.settings.release_rate_per_minute):
            return False
        if not in_sweep or held.ledger.is_over(request.sweep_id):
            # It is due all the same, and nobody waits for its end.
            enqueuer.release(request)
            return True
        _publish(
            held,
            request.sweep_id,
            f"release:{request.idempotency_key}",
            lambda: enqueuer.release(request),
        )
        return True

    return dispatch


def _remember(held: Resources, evaluation: Evaluation) -> None:
    for action in evaluation.actions:
        if action.repaired:
            ids = {
                "orchestration_id": evaluation.orchestration_id,
                "sub_issue_id": action.sub_issue_id,
            }
            held.ledger.record_recovery(action.code, ids, action.stranded_seconds)


def _shown(evaluation: Evaluation) -> dict[str, Any]:
    """Return an evaluation as Flower should show it."""
    done: dict[str, int] = {}
    for action in evaluation.actions:
        name = f"{action.verb}: {action.outcome}"
        done[name] = done.get(name, 0) + 1
    shown: dict[str, Any] = {"outcome": str(evaluation.code), "actions": done}
    if evaluation.counts.stuck:
        shown["stuck"] = dict(evaluation.counts.stuck)
    if evaluation.withheld is not None:
        shown["nothing was changed"] = evaluation.withheld
    return shown


# -- one child


@app.task(name=RELEASE, base=ReconcilerTask, **OPTIONS)
def release_child(
    task: Task[..., Any],
    orchestration_id: str,
    sub_issue_id: str,
    sweep_id: str | None = None,
    depends_on: list[str] | None = None,
    due_since: str | None = None,
    idempotency_key: str | None = None,
) -> dict[str, Any]:
    """Release one child, if it is due. By hand: at any time, any number of times."""
    ids = {"orchestration_id": orchestration_id, "sub_issue_id": sub_issue_id}
    unit = f"release:{idempotency_key}"

    def work(held: Resources) -> dict[str, Any]:
        since = moment(checked("due_since", due_since)) if due_since is not None else None
        result = held.reconciler.release(
            checked("orchestration_id", orchestration_id),
            checked("sub_issue_id", sub_issue_id),
            sweep_id=checked_sweep(sweep_id),
            depends_on=_predecessors(depends_on),
            due_since=since,
            dispatch=_dispatch(held, in_sweep=sweep_id is not None),
        )
        if result.outcome in {"released", "adopted", "reinvoked"} and result.applied:
            latency = _stranded_seconds(since, held.reconciler.clock())
            held.ledger.record_recovery("lost_release", ids, latency)
        _settle(held, sweep_id, unit, result.counts, stuck=_left(ids, result))
        return {
            "outcome": result.outcome,
            **({"task_id": result.task_id} if result.task_id else {}),
            **({"detail": result.detail} if result.detail else {}),
        }

    def gave_up(held: Resources, error: ReconcilerError) -> None:
        if isinstance(error, UsageError):
            _settle(held, sweep_id, unit, Counts(errors=1))
        else:
            _release_failed(held, ids, sweep_id, unit, error)

    return run(task, work, gave_up, **ids, sweep_id=sweep_id)


def _release_failed(
    held: Resources,
    ids: dict[str, str],
    sweep_id: str | None,
    unit: str,
    error: ReconcilerError,
) -> None:
    held.metrics.increment("reconciler_releases_total", outcome="failed")
    held.metrics.increment("reconciler_errors_total", kind=error.kind)
    log.error("orch.child.release_failed", error_kind=error.kind, detail=str(error))
    stuck = Stuck(ids["orchestration_id"], ids["sub_issue_id"], "lost_release", str(error), None)
    counts = Counts(errors=1, stuck={"lost_release": 1}, oldest_stuck_seconds={"lost_release": 0.0})
    _settle(held, sweep_id, unit, counts, stuck=(stuck,))


def _predecessors(depends_on: object) -> tuple[str, ...] | None:
    if depends_on is None:
        return None
    if not isinstance(depends_on, list) or not all(isinstance(key, str) for key in depends_on):
        raise MalformedMessageError(
            f"depends_on must be a list of sub-issue ids, not {depends_on!r:.80}"
        )
    return tuple(depends_on)


def _stranded_seconds(since: datetime | None, now: datetime) -> float | None:
    return None if since is None else max(0.0, (now - since).total_seconds())


def _left(ids: dict[str, str], result: ReleaseResult) -> tuple[Stuck, ...]:
    return tuple(
        Stuck(
            ids["orchestration_id"],
            ids["sub_issue_id"],
            code,
            result.detail,
            result.counts.oldest_stuck_seconds.get(code),
        )
        for code in result.counts.stuck
    )
