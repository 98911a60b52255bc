"""The four tasks: thin shells over ``reconciler.operations``.

Each binds its context for the logs, hands bad arguments back with a clear word, gives temporary
failures a few more tries, and settles its unit in the sweep's ledger however it ends.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from celery import Task, signals
from celery.exceptions import SoftTimeLimitExceeded

from reconciler.domain.model import moment
from reconciler.errors import PermanentError, ReconcilerError, TemporaryError, UsageError
from reconciler.operations.context import Evaluation, ReleaseRequest, ReleaseResult, Stuck
from reconciler.operations.counts import Counts
from reconciler.operations.scan import SegmentCursor
from reconciler.operations.summary import TOTAL_FAILURE, record_sweep
from workers.application import app
from workers.enqueue import EVALUATE, RELEASE, SEGMENT, SWEEP, Enqueuer
from workers.gate import from_headers
from workers.ledger import LEAST_STALE_SECONDS
from workers.resources import Resources, resources

log = structlog.get_logger("reconciler")

MAX_RETRIES = 3
STEP_SECONDS = 20.0
_LONGEST_COUNTDOWN_SECONDS = 20.0
_LONGEST_ID = 255
_PROCESSES = 8
"""For how many processes a small table is still cut up."""

OPTIONS: dict[str, Any] = {
    "bind": True,
    "acks_late": True,
    "max_retries": MAX_RETRIES,
    "ignore_result": True,
    "time_limit": 60,
    "soft_time_limit": 50,
}


# -- what surrounds each task


@signals.task_postrun.connect
def _leave_gate(task: Task[..., Any], state: str | None = None, **_: Any) -> None:  # noqa: ANN401 - Celery's
    """Give back the key of the work when it has ended, in any way but to be tried again."""
    found = from_headers(getattr(task.request, "headers", None))
    if found is not None and state != "RETRY":
        try:
            resources().gate.leave(*found)
        except Exception:  # noqa: BLE001 - a signal's receiver; its expiry gives the key back
            log.debug("gate kept until it expires", key=found[0])


@contextmanager
def _at_work(task: Task[..., Any], **ids: str | None) -> Iterator[Resources]:
    """Bind what the logs should say, and write what was counted at the end."""
    structlog.contextvars.clear_contextvars()
    known = {name: value for name, value in ids.items() if value is not None}
    structlog.contextvars.bind_contextvars(celery_task_id=task.request.id, **known)
    held = resources()
    try:
        yield held
    finally:
        held.metrics.flush()
        structlog.contextvars.clear_contextvars()


class OutOfTimeError(PermanentError):
    """A task used up its time; the next sweep comes by again."""

    kind = "time_limit"


@contextmanager
def _bounded() -> Iterator[None]:
    """Make of Celery's time limit an end like any other, so that the ledger hears of it."""
    try:
        yield
    except SoftTimeLimitExceeded:
        raise OutOfTimeError("it took longer than its time limit") from None


def _enqueuer(held: Resources) -> Enqueuer:
    return Enqueuer(app, held.gate, held.metrics, held.settings.sweep_interval_seconds)


def _try_again(task: Task[..., Any], error: TemporaryError) -> None:
    """Raise a retry, unless there have been enough."""
    if task.request.retries < MAX_RETRIES:
        pause = min(2.0**task.request.retries * 2, _LONGEST_COUNTDOWN_SECONDS)
        # Below the visibility timeout, or it would be delivered twice (asserted in a test).
        raise task.retry(exc=error, countdown=pause * random.uniform(0.5, 1.0))  # noqa: S311


def _checked(name: str, value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_ID:
        raise UsageError(f"{name} must be a string of 1 to {_LONGEST_ID} characters, not {value!r}")
    return value


def _refused(held: Resources, error: ReconcilerError) -> dict[str, Any]:
    """Answer a call that makes no sense: said, counted, and done with."""
    held.metrics.increment("reconciler_errors_total", kind="malformed_message")
    log.warning("orch.sweep.failed", error_kind="malformed_message", detail=str(error))
    return {"outcome": "not understood", "detail": str(error)}


def _settle(
    held: Resources,
    sweep_id: str | None,
    unit: str,
    counts: Counts,
    *,
    stuck: tuple[Stuck, ...] = (),
    unread: bool = False,
) -> None:
    if sweep_id is None:
        return
    if held.ledger.settle(sweep_id, unit, counts, stuck=stuck, unread=unread):
        _close(held, sweep_id)


def _close(held: Resources, sweep_id: str, *, abandoned: bool = False) -> None:
    summary = held.ledger.close(sweep_id, abandoned=abandoned)
    if summary is not None:
        record_sweep(summary, held.metrics, held.reconciler.clock())


# -- the sweep


@app.task(name=SWEEP, **{**OPTIONS, "ignore_result": False})
def sweep(task: Task[..., Any], report: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - a message's
    """Start a sweep: one task for each segment. Steps aside for one that is still at work."""
    sweep_id = _checked("the task's id", task.request.id)
    with _at_work(task, sweep_id=sweep_id) as held:
        if _overlaps(held, sweep_id):
            held.metrics.increment("reconciler_sweeps_total", outcome="overlapped")
            return {"sweep_id": sweep_id, "outcome": "stepped aside: the last one is still at work"}
        mode: str = "report" if report else held.settings.repair_mode
        try:
            if mode == "repair" and held.reconciler.paused() is not None:
                mode = "paused"
            segments = held.reconciler.choose_segments(_PROCESSES)
        except ReconcilerError as error:
            return _not_started(task, held, error)
        cursors = [SegmentCursor(sweep_id, number, segments) for number in range(segments)]
        units = [_unit_of(cursor) for cursor in cursors]
        if held.ledger.start(sweep_id, mode=mode, segments=segments, units=units):
            log.info("orch.sweep.started", mode=mode, segments=segments)
        enqueuer = _enqueuer(held)
        # On a redelivery, only what is still open; what is under way the gate keeps out.
        for cursor in cursors:
            if held.ledger.is_open(sweep_id, _unit_of(cursor)):
                enqueuer.segment(cursor, report=report)
        return {"sweep_id": sweep_id, "outcome": "started", "mode": mode, "segments": segments}


def _not_started(task: Task[..., Any], held: Resources, error: ReconcilerError) -> dict[str, Any]:
    if isinstance(error, TemporaryError):
        _try_again(task, error)
    held.metrics.increment("reconciler_sweeps_total", outcome="failed")
    held.metrics.increment("reconciler_errors_total", kind=error.kind)
    log.error("orch.sweep.failed", error_id=TOTAL_FAILURE, error_kind=error.kind, detail=str(error))
    return {"outcome": "failed", "detail": str(error)}


def _overlaps(held: Resources, sweep_id: str) -> bool:
    """Whether an earlier sweep is at work; one that nothing is heard of is closed first."""
    current = held.ledger.current()
    if current is None or current.sweep_id == sweep_id:
        return False
    patience = max(held.settings.sweep_interval_seconds, LEAST_STALE_SECONDS)
    if current.idle_seconds < patience:
        return True
    log.warning("orch.sweep.failed", detail="its workers were lost", lost_sweep_id=current.sweep_id)
    _close(held, current.sweep_id, abandoned=True)
    return False


def _unit_of(cursor: SegmentCursor) -> str:
    return f"segment:{cursor.segment}:{cursor.step}"


@app.task(name=SEGMENT, **OPTIONS)
def sweep_segment(
    task: Task[..., Any],
    cursor: dict[str, Any],
    report: bool = False,  # noqa: FBT001, FBT002 - a message's
) -> dict[str, Any]:
    """Read a step of a segment, nominate, and hand the rest of it on."""
    with _at_work(task) as held:
        try:
            at = _cursor_from(cursor)
        except UsageError as error:
            return _refused(held, error)
        structlog.contextvars.bind_contextvars(sweep_id=at.sweep_id, segment=at.segment)
        try:
            with _bounded():
                return _step(held, at, report=report)
        except ReconcilerError as error:
            if isinstance(error, TemporaryError):
                _try_again(task, error)
            held.metrics.increment("reconciler_errors_total", kind=error.kind)
            log.error("orch.sweep.failed", error_kind=error.kind, detail=str(error))  # noqa: TRY400
            _settle(held, at.sweep_id, _unit_of(at), Counts(errors=1), unread=True)
            return {"outcome": "not read", "segment": at.segment, "detail": str(error)}


def _step(held: Resources, cursor: SegmentCursor, *, report: bool) -> dict[str, Any]:
    enqueuer = _enqueuer(held)
    nominated = 0

    def nominate(orchestration_id: str) -> None:
        nonlocal nominated
        nominated += 1
        unit = f"evaluate:{orchestration_id}"
        if held.ledger.open_unit(cursor.sweep_id, unit) and not enqueuer.evaluate(
            orchestration_id, cursor.sweep_id, report=report
        ):
            held.ledger.drop_unit(cursor.sweep_id, unit)

    ends = time.monotonic() + STEP_SECONDS
    result = held.reconciler.scan_segment(
        cursor, out_of_time=lambda: time.monotonic() >= ends, nominate=nominate
    )
    if result.next is not None:
        held.ledger.open_unit(cursor.sweep_id, _unit_of(result.next))
        enqueuer.segment(result.next, report=report)
    _settle(held, cursor.sweep_id, _unit_of(cursor), result.counts)
    return {
        "outcome": "read to its end" if result.next is None else "handed on",
        "segment": f"{cursor.segment + 1} of {cursor.total}",
        "rows": result.counts.rows_scanned,
        "nominated": nominated,
    }


def _cursor_from(cursor: object) -> SegmentCursor:
    try:
        at = SegmentCursor(**cursor)  # type: ignore[arg-type]
        numbers = (at.segment, at.total, at.step)
        sound = all(isinstance(n, int) and n >= 0 for n in numbers) and at.segment < at.total
    except TypeError as error:
        raise UsageError(f"not a place in a segment: {error}") from None
    if not sound or not isinstance(at.sweep_id, str):
        raise UsageError(f"not a place in a segment: {cursor!r}")
    return at


# -- one orchestration


@app.task(name=EVALUATE, **OPTIONS)
def evaluate_orchestration(
    task: Task[..., Any],
    orchestration_id: str,
    sweep_id: str | None = None,
    report: bool = False,  # noqa: FBT001, FBT002 - a message's
) -> dict[str, Any]:
    """Look at one orchestration closely, and repair it. By hand: any time, any number of times."""
    with _at_work(task, orchestration_id=str(orchestration_id), sweep_id=sweep_id) as held:
        try:
            _checked("orchestration_id", orchestration_id)
            with _bounded():
                evaluation = held.reconciler.evaluate(
                    orchestration_id,
                    sweep_id=sweep_id,
                    report=report,
                    release=_dispatch(held, in_sweep=sweep_id is not None),
                )
        except UsageError as error:
            _settle(held, sweep_id, f"evaluate:{orchestration_id}", Counts())
            return _refused(held, error) if sweep_id is None else {"outcome": str(error)}
        except ReconcilerError as error:
            if isinstance(error, TemporaryError):
                _try_again(task, error)
            counts = held.reconciler.could_not_check(
                orchestration_id, error, sweep_id or str(task.request.id)
            )
            _settle(held, sweep_id, f"evaluate:{orchestration_id}", counts)
            return {"outcome": "could not be checked", "detail": str(error)}
        _remember(held, evaluation)
        unit = f"evaluate:{orchestration_id}"
        _settle(held, sweep_id, unit, evaluation.counts, stuck=evaluation.stuck)
        return _shown(evaluation)


def _dispatch(held: Resources, *, in_sweep: bool) -> Callable[[ReleaseRequest], None]:
    enqueuer = _enqueuer(held)

    def dispatch(request: ReleaseRequest) -> None:
        unit = f"release:{request.idempotency_key}"
        opened = in_sweep and held.ledger.open_unit(request.sweep_id, unit)
        if not enqueuer.release(request) and opened:
            held.ledger.drop_unit(request.sweep_id, unit)

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


@app.task(name=RELEASE, **OPTIONS)
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
    ids = {"orchestration_id": str(orchestration_id), "sub_issue_id": str(sub_issue_id)}
    unit = f"release:{idempotency_key}"
    with _at_work(task, **ids, sweep_id=sweep_id) as held:
        try:
            hint = _predecessors(depends_on)
            with _bounded():
                result = held.reconciler.release(
                    _checked("orchestration_id", orchestration_id),
                    _checked("sub_issue_id", sub_issue_id),
                    sweep_id=sweep_id,
                    depends_on=hint,
                    due_since=moment(due_since),
                )
        except UsageError as error:
            _settle(held, sweep_id, unit, Counts())
            return _refused(held, error)
        except ReconcilerError as error:
            if isinstance(error, TemporaryError):
                _try_again(task, error)
            return _release_failed(held, ids, sweep_id, unit, error)
        if result.outcome in {"released", "adopted", "reinvoked"} and result.applied:
            held.ledger.record_recovery("lost_release", ids, _latency(due_since, held))
        _settle(held, sweep_id, unit, result.counts, stuck=_left(ids, result))
        return {
            "outcome": result.outcome,
            **({"task_id": result.task_id} if result.task_id else {}),
            **({"detail": result.detail} if result.detail else {}),
        }


def _release_failed(
    held: Resources,
    ids: dict[str, str],
    sweep_id: str | None,
    unit: str,
    error: ReconcilerError,
) -> dict[str, Any]:
    held.metrics.increment("reconciler_releases_total", outcome="failed")
    held.metrics.increment("reconciler_errors_total", kind=error.kind)
    log.error("orch.child.release_failed", error_kind=error.kind, detail=str(error))
    stuck = Stuck(ids["orchestration_id"], ids["sub_issue_id"], "lost_release", str(error), None)
    counts = Counts(errors=1, stuck={"lost_release": 1}, oldest_stuck_seconds={"lost_release": 0.0})
    _settle(held, sweep_id, unit, counts, stuck=(stuck,))
    return {"outcome": "failed", "detail": str(error)}


def _predecessors(depends_on: object) -> tuple[str, ...] | None:
    if depends_on is None:
        return None
    if not isinstance(depends_on, list) or not all(isinstance(key, str) for key in depends_on):
        raise UsageError(f"depends_on must be a list of sub-issue ids, not {depends_on!r}")
    return tuple(depends_on)


def _latency(due_since: str | None, held: Resources) -> float | None:
    since = moment(due_since)
    return None if since is None else max(0.0, (held.reconciler.clock() - since).total_seconds())


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
