"""Touches: which finished task to write to, so that the live reconciler hears of its end again.

The live reconciler settles parents and recovers children when the stream delivers the record of a
finished task. A touch makes the stream deliver it once more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from reconciler.domain.codes import Code, OrchestrationCode
from reconciler.domain.diagnosis import Diagnosis, Evidence, Policy
from reconciler.domain.due import MAX_AHEAD
from reconciler.domain.model import LONG_AGO, Child, ChildStatus, Orchestration, Task, moment
from reconciler.domain.planning import Nudge

RECOVERY_HORIZON = timedelta(days=2)
"""How far back to look for lost recoveries: eight full rotations of the table."""

MAX_NUDGE_PAUSE = timedelta(days=1)
"""The pause between two touches of a task doubles up to this. Touches never end, because the live
reconciler may have been down each time."""

_MAX_DOUBLINGS = 17
"""Enough to get from a second to the longest pause, and few enough not to overflow a time."""


def recoveries_since(children: Iterable[Child], now: datetime) -> datetime | None:
    """Return since when a recovery may have been lost; None if no child is failed."""
    failed = [
        moment(child.updated_at) or LONG_AGO
        for child in children
        if child.status is ChildStatus.FAILED
    ]
    # A fix must have ended after the failure.
    return max(min(failed), now - RECOVERY_HORIZON) if failed else None


def plan_nudges(
    orchestration: Orchestration,
    diagnosis: Diagnosis,
    evidence: Evidence,
    policy: Policy,
    now: datetime,
) -> tuple[tuple[Nudge, ...], str]:
    """Return the tasks to touch now, and one sentence that says why, or why none.

    Lost recoveries take precedence, because a recovery also settles the parent in the end.
    ``evidence.tasks`` must hold the tasks of the children.
    """
    wanted = _wanted_nudges(orchestration, diagnosis, evidence)
    if not wanted and diagnosis.code is OrchestrationCode.UNSETTLED_PARENT:
        return (), "none of its children has a finished task that could be touched"
    due = tuple(nudge for nudge in wanted if _may_be_touched(nudge.task, policy, now))
    waiting = [nudge.task for nudge in wanted if nudge not in due]
    said = [f"touch task {nudge.task.task_id}" for nudge in due]
    said += [f"touched task {t.task_id} {_times(t.nudge_count)}, nobody answered" for t in waiting]
    return due, "; ".join(said)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _wanted_nudges(
    orchestration: Orchestration, diagnosis: Diagnosis, evidence: Evidence
) -> list[Nudge]:
    recoveries = [
        Nudge(found.sub_issue_id, found.code, found.since, evidence.iterations[found.sub_issue_id])
        for found in diagnosis.children.values()
        if found.code is Code.LOST_RECOVERY
    ]
    if recoveries or diagnosis.code is not OrchestrationCode.UNSETTLED_PARENT:
        return recoveries
    chosen = _tells_the_end(orchestration, evidence.tasks)
    return [] if chosen is None else [Nudge(chosen[0], diagnosis.code, diagnosis.since, chosen[1])]


def _tells_the_end(
    orchestration: Orchestration, tasks: Mapping[str, Task | None]
) -> tuple[str, Task] | None:
    """Return a child and its task whose record, if streamed again, changes no row.

    The live reconciler sets the row to the outcome of the task. So the outcome must equal the row's
    status; a child that was fixed has succeeded, but names the task that failed. A success is the
    best choice, because no retry can reset its row while the record is on its way.
    """
    finished = [
        (task.outcome is ChildStatus.SUCCEEDED, moment(task.finished_at) or LONG_AGO, key, task)
        for key, child in orchestration.children.items()
        if (task := tasks.get(child.task_id or "")) is not None
        and task.terminal
        and child.status is task.outcome
    ]
    if not finished:
        return None
    _, _, key, task = max(finished, key=lambda entry: entry[:3])
    return key, task


def _may_be_touched(task: Task, policy: Policy, now: datetime) -> bool:
    last = moment(task.nudged_at)
    # Ignore an unbelievable time: one touch too many does no harm.
    if not task.nudge_count or last is None or last - now > MAX_AHEAD:
        return True
    doubled: timedelta = policy.interval * 2 ** min(task.nudge_count, _MAX_DOUBLINGS)
    return now - last >= min(doubled, MAX_NUDGE_PAUSE)


def parent_needs_action(
    diagnosis: Diagnosis,
    orchestration: Orchestration,
    tasks: Mapping[str, Task | None],
    policy: Policy,
) -> bool:
    """Whether no touch can settle a stuck parent, so that somebody has to act.

    False while not all tasks of its children have been read.
    """
    if diagnosis.code is OrchestrationCode.ROWS_MISSING or not policy.settles:
        return True
    names = (child.task_id for child in orchestration.children.values())
    if any(name is not None and name not in tasks for name in names):
        return False
    return _tells_the_end(orchestration, tasks) is None
