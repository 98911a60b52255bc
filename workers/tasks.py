"""The tasks: thin shells over ``reconciler.operations``, around which ``workers.running`` is.

Each settles its unit in the sweep's ledger however it ends.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import structlog
from celery import Task

from reconciler.domain.codes import Code
from reconciler.domain.model import moment
from reconciler.errors import ReconcilerError, UnknownOrchestrationError, UsageError
from reconciler.operations.context import Evaluation, ReleaseResult, Stuck
from reconciler.operations.counts import Counts
from reconciler.operations.coverage import Coverage
from reconciler.operations.summary import TOTAL_FAILURE
from workers import sweeping
from workers.application import app
from workers.arguments import cursor_from, predecessors
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

# -- the sweep


@app.task(name=SWEEP, base=ReconcilerTask, **{**OPTIONS, "ignore_result": False})
def sweep(
    task: Task[..., Any],
    report: bool = False,  # noqa: FBT001, FBT002 - a message's
    full: bool = False,  # noqa: FBT001, FBT002 - a message's
) -> dict[str, Any]:
    """Start a sweep: one task for each segment. Steps aside for one that is still at work.

    Only a sweep by the index may begin beside a full scan.
    """
    sweep_id = str(task.request.id)

    def gave_up(held: Resources, error: ReconcilerError) -> None:
        held.metrics.increment("reconciler_sweeps_total", outcome="failed")
        held.metrics.increment("reconciler_sweep_failures_total", extent="total")
        held.metrics.increment("reconciler_errors_total", kind=error.kind)
        log.error(
            "orch.sweep.failed", error_id=TOTAL_FAILURE, error_kind=error.kind, detail=str(error)
        )
        held.ledger.fail(sweep_id, mode=sweeping.mode_of(held, report=report))

    def work(held: Resources) -> dict[str, Any]:
        return sweeping.start(held, sweep_id, report=report, full=full)

    return run(task, work, gave_up, sweep_id=sweep_id)


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
    at = cursor_from(cursor)

    def gave_up(held: Resources, error: ReconcilerError) -> None:
        if at is not None:
            held.metrics.increment("reconciler_errors_total", kind=error.kind)
            log.error("orch.sweep.failed", error_kind=error.kind, detail=str(error))
            sweeping.settle(held, at.sweep_id, sweeping.unit_of(at), Counts(errors=1), unread=True)

    def work(held: Resources) -> dict[str, Any]:
        if at is None:
            raise MalformedMessageError(f"not a place in a segment: {cursor!r:.200}")
        return sweeping.step(held, at, coverage, report=report)

    ids = {} if at is None else {"sweep_id": at.sweep_id, "segment": at.segment}
    return run(task, work, gave_up, **ids)


# -- one orchestration


@app.task(name=EVALUATE, base=ReconcilerTask, **OPTIONS)
def evaluate_orchestration(
    task: Task[..., Any],
    orchestration_id: str,
    sweep_id: str | None = None,
    report: bool = False,  # noqa: FBT001, FBT002 - a message's
) -> dict[str, Any]:
    """Look at one orchestration closely, and repair it. By hand: any time, any number of times."""
    unit = sweeping.unit_of_evaluation(orchestration_id)

    def work(held: Resources) -> dict[str, Any]:
        checked("orchestration_id", orchestration_id)
        try:
            evaluation = held.reconciler.evaluate(
                orchestration_id,
                sweep_id=checked_sweep(sweep_id),
                report=report,
                release=sweeping.dispatch(held, in_sweep=sweep_id is not None),
            )
        except UnknownOrchestrationError as error:
            if sweep_id is None:
                raise
            sweeping.settle(held, sweep_id, unit, Counts())
            return {"outcome": "it is gone", "detail": str(error)}
        _remember(held, evaluation)
        sweeping.settle(held, sweep_id, unit, evaluation.counts, stuck=evaluation.stuck)
        return _shown(evaluation)

    def gave_up(held: Resources, error: ReconcilerError) -> None:
        if isinstance(error, UsageError):
            sweeping.settle(held, sweep_id, unit, Counts(errors=1))
            return
        counts = held.reconciler.could_not_check(
            orchestration_id, error, sweep_id or str(task.request.id)
        )
        # It is listed like all that is stuck: later sweeps look at it again, wherever it is found.
        stuck = Stuck(orchestration_id, None, Code.CHECK_FAILED.value, str(error), None)
        sweeping.settle(held, sweep_id, unit, counts, stuck=(stuck,))

    return run(task, work, gave_up, orchestration_id=orchestration_id, sweep_id=sweep_id)


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
            depends_on=predecessors(depends_on),
            due_since=since,
            dispatch=sweeping.dispatch(held, in_sweep=sweep_id is not None),
        )
        if result.outcome in {"released", "adopted", "reinvoked"} and result.applied:
            latency = _stranded_seconds(since, held.reconciler.clock())
            held.ledger.record_recovery("lost_release", ids, latency)
        sweeping.settle(held, sweep_id, unit, result.counts, stuck=_left(ids, result))
        return {
            "outcome": result.outcome,
            **({"task_id": result.task_id} if result.task_id else {}),
            **({"detail": result.detail} if result.detail else {}),
        }

    def gave_up(held: Resources, error: ReconcilerError) -> None:
        if isinstance(error, UsageError):
            sweeping.settle(held, sweep_id, unit, Counts(errors=1))
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
    sweeping.settle(held, sweep_id, unit, counts, stuck=(stuck,))


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
