"""The Celery tasks: thin shells over ``reconciler.sweeping``, run by ``workers.running``."""

from __future__ import annotations

import secrets
from collections import Counter
from functools import partial
from typing import Any

import structlog
from celery import Task

from reconciler.clock import after
from reconciler.domain.model import Child, moment, seconds_since
from reconciler.domain.outcomes import Outcome
from reconciler.errors import OUTAGES, ReconcilerError, UnknownOrchestrationError
from reconciler.repair.context import BY_HAND, Evaluation
from reconciler.stores.items import text
from reconciler.sweeping.summary import TOTAL_FAILURE
from workers import sweeping
from workers.application import app
from workers.arguments import predecessors, segment_task_from, start_from
from workers.limits import WORK_SECONDS
from workers.names import EVALUATE, RELEASE, SEGMENT, SWEEP
from workers.resources import Resources
from workers.running import (
    OPTIONS,
    MalformedMessageError,
    ReconcilerTask,
    checked,
    checked_child,
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
    sweep_id: str | None = None,
    by_hand: bool = True,  # noqa: FBT001, FBT002 - a message's
) -> dict[str, Any]:
    """Begin a sweep, or ask again for the segments and evaluations that it still lacks."""

    def gave_up(resources: Resources, error: ReconcilerError) -> None:
        metrics = resources.metrics
        metrics.increment("reconciler_sweeps_total", outcome="failed")
        metrics.increment("reconciler_sweep_failures_total", extent="total")
        metrics.increment("reconciler_errors_total", kind=error.kind)
        log.error(
            "orch.sweep.failed", error_id=TOTAL_FAILURE, error_kind=error.kind, detail=str(error)
        )

    def work(resources: Resources) -> dict[str, Any]:
        name = checked_sweep(sweep_id) or str(task.request.id)
        sweeper = sweeping.sweeper_of(resources, name, report=report)
        asked = sweeper.ask(
            name,
            full=full,
            by_hand=by_hand,
            workers=partial(sweeping.count_sweeping_processes, resources),
        )
        if asked is None:
            return {"sweep_id": name, "outcome": "nothing to do: another sweep has just begun"}
        return {
            "sweep_id": name,
            "outcome": "asked" if asked.summary is None else "nothing to do: it has ended",
            "mode": asked.mode,
            "segments": asked.segments,
        }

    return run(task, work, gave_up, sweep_id=sweep_id or task.request.id)


# -- one step of a segment


@app.task(name=SEGMENT, base=ReconcilerTask, **OPTIONS)
def sweep_segment(
    task: Task[..., Any],
    segment: dict[str, Any],
    sweep_id: str,
    since: float,
    report: bool = False,  # noqa: FBT001, FBT002 - a message's
) -> dict[str, Any]:
    """Read one step of a segment, nominate, and hand the rest on."""
    asked = segment_task_from(segment, sweep_id, since)

    def gave_up(resources: Resources, error: ReconcilerError) -> None:
        if asked is not None:
            sweeping.sweeper_of(resources, sweep_id, report=report).could_not_read(asked, error)

    def work(resources: Resources) -> dict[str, Any]:
        if asked is None:
            raise MalformedMessageError(f"not a segment: {segment!r:.200}")
        sweeper = sweeping.sweeper_of(resources, sweep_id, report=report)
        result = sweeper.read(asked, secrets.token_hex(8), after(sweeping.STEP_SECONDS))
        if result is None:
            return {"outcome": "nothing to do: it has been read, or somebody is reading it"}
        return {
            "outcome": "handed on" if result.handed_on else "read to its end",
            "segment": asked.segment.label,
            "rows": result.counts.rows_scanned,
            "nominated": result.nominated,
        }

    ids = {} if asked is None else {"sweep_id": sweep_id, "segment": asked.segment.label}
    end = partial(sweeping.end_task, task=task, sweep_id=sweep_id, report=report)
    return run(task, work, gave_up, end, **ids)


# -- one orchestration


@app.task(name=EVALUATE, base=ReconcilerTask, **OPTIONS)
def evaluate_orchestration(
    task: Task[..., Any],
    orchestration_id: str,
    sweep_id: str | None = None,
    since: float | None = None,
    report: bool = False,  # noqa: FBT001, FBT002 - a message's
) -> dict[str, Any]:
    """Evaluate and repair one orchestration. Safe to call by hand, at any time."""

    def work(resources: Resources) -> dict[str, Any]:
        out_of_time = after(WORK_SECONDS)
        checked("orchestration_id", orchestration_id)
        sweeper = sweeping.sweeper_of(resources, checked_sweep(sweep_id), report=report)
        try:
            begun = start_from(since)
            evaluation = sweeper.evaluate(orchestration_id, sweep_id, begun, out_of_time)
        except UnknownOrchestrationError as error:
            if sweep_id is None:
                raise
            return {"outcome": "it is gone", "detail": str(error)}
        if evaluation is None:
            return {"outcome": "nothing to do: it has been evaluated"}
        rows = evaluation.orchestration
        for action in evaluation.actions:
            if action.repaired:
                _remember(
                    resources,
                    action.code,
                    action.stranded_seconds,
                    rows.children.get(action.sub_issue_id) if rows is not None else None,
                    orchestration_id=orchestration_id,
                    sub_issue_id=action.sub_issue_id,
                    user_id=rows.user_id if rows is not None else None,
                    task_id=action.task_id,
                )
        return _shown(evaluation)

    def gave_up(resources: Resources, error: ReconcilerError) -> None:
        sweeper = sweeping.sweeper_of(resources, sweep_id, report=report)
        asked_for_by = sweep_id or f"{BY_HAND}{task.request.id}"
        sweeper.could_not_evaluate(orchestration_id, error, asked_for_by)

    end = partial(sweeping.end_task, task=task, sweep_id=sweep_id, report=report)
    return run(task, work, gave_up, end, orchestration_id=orchestration_id, sweep_id=sweep_id)


def _shown(evaluation: Evaluation) -> dict[str, Any]:
    """Return an evaluation for display in Flower."""
    actions = Counter(f"{action.verb}: {action.outcome}" for action in evaluation.actions)
    shown: dict[str, Any] = {"outcome": str(evaluation.code), "actions": dict(actions)}
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
    alone: bool = False,  # noqa: FBT001, FBT002 - a message's
) -> dict[str, Any]:
    """Release one child if it is due. Safe to call by hand, at any time."""
    ids = {"orchestration_id": orchestration_id, "sub_issue_id": sub_issue_id}

    def work(resources: Resources) -> dict[str, Any]:
        since = None if due_since is None else moment(checked("due_since", due_since))
        sweeper = sweeping.sweeper_of(resources, checked_sweep(sweep_id), report=False)
        result = sweeper.release(
            checked("orchestration_id", orchestration_id),
            checked_child(sub_issue_id),
            sweep_id=sweep_id,
            depends_on=predecessors(depends_on),
            due_since=since,
            alone=alone is True,
            out_of_time=after(WORK_SECONDS),
        )
        if result.repaired:
            _remember(
                resources,
                "lost_release",
                seconds_since(since, resources.reconciler.clock()),
                result.child,
                **ids,
                user_id=result.task.user_id if result.task is not None else None,
                task_id=result.task_id,
            )
        shown = {"outcome": result.outcome, "task_id": result.task_id, "detail": result.detail}
        return {name: value for name, value in shown.items() if value}

    def gave_up(resources: Resources, error: ReconcilerError) -> None:
        resources.metrics.increment("reconciler_releases_total", outcome=Outcome.FAILED)
        resources.metrics.increment("reconciler_errors_total", kind=error.kind)
        if error.kind not in OUTAGES:
            log.error("orch.child.release_failed", error_kind=error.kind, detail=str(error))
        sweeper = sweeping.sweeper_of(resources, sweep_id, report=False)
        sweeper.could_not_release(
            orchestration_id, sub_issue_id, error, sweep_id=sweep_id, due_since=moment(due_since)
        )

    end = partial(sweeping.end_task, task=task, sweep_id=sweep_id, report=False)
    return run(task, work, gave_up, end, **ids, sweep_id=sweep_id)


# -- what was repaired


def _remember(
    resources: Resources,
    code: str,
    latency: float | None,
    child: Child | None,
    **names: str | None,
) -> None:
    """Record a recovery under all its known names, since a person may search for any."""
    if child is not None:
        names |= {"display_id": child.display_id, "repo": text(child.item, "repo")}
    known = {name: value for name, value in names.items() if value is not None}
    resources.recoveries.add(code, known, latency)
