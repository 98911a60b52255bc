"""Reads one orchestration without changing anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

from reconciler.domain.model import LONG_AGO, Item, Orchestration, moment
from reconciler.errors import UnknownOrchestrationError
from reconciler.inspection.explain import build_view
from reconciler.inspection.find import Found
from reconciler.inspection.theme import counted
from reconciler.inspection.views import Circumstances, Repair, View
from reconciler.repair.audit import RECOVERED
from reconciler.repair.reconciler import Reconciler
from reconciler.stores.items import plain

_MAX_TASKS_ASKED = 50
_MAX_HOLDERS = 10


def look(reconciler: Reconciler, found: Found, next_sweep: float | None = None) -> View:
    """Read an orchestration, and find out what a repair would do.

    ``next_sweep``: when it starts (epoch seconds); None if unknown.

    Raises:
        UnknownOrchestrationError: it has no rows.
        TemporaryError, PermanentError: it cannot be read.
    """
    name = found.orchestration_id
    before = reconciler.orchestrations.read(name)
    if before is None:
        raise UnknownOrchestrationError(f"no orchestration {name} exists")
    evaluation = reconciler.evaluate(name, sweep_id="inspect", report=True)
    withheld = reconciler.withhold(before)
    given = Circumstances(
        policy=reconciler.policy,
        now=reconciler.clock(),
        next_sweep_at=None if next_sweep is None else datetime.fromtimestamp(next_sweep, UTC),
        withheld=withheld,
        paused=withheld is not None and reconciler.withhold.by_settings(before) is None,
    )
    repairs, partial = _repairs(reconciler, before)
    view = build_view(before, evaluation, given)
    return replace(
        view,
        slot_holders=_slot_holders(reconciler, view),
        repairs=repairs,
        repairs_partial=partial,
        focus=found.sub_issue_id,
        notes=tuple(_notes(found, before)),
    )


def _notes(found: Found, orchestration: Orchestration) -> Iterator[str]:
    if found.note is not None:
        yield found.note
    if found.sub_issue_id is not None and found.sub_issue_id not in orchestration.children:
        yield f"it has no child {found.sub_issue_id}"


def _slot_holders(reconciler: Reconciler, view: View) -> tuple[str, ...]:
    """Describe the user's unfinished tasks, the longest in their status first."""
    if view.user_id is None or not view.waiting_for_slot:
        return ()
    tasks = sorted(reconciler.tasks.unfinished(view.user_id), key=lambda t: t.status_since or "")
    said = [
        f"task {task.task_id}, {task.status} since {(task.status_since or 'unknown')[:19]}"
        + (f", of {task.orchestration_id}" if task.orchestration_id else "")
        for task in tasks[:_MAX_HOLDERS]
    ]
    left = len(tasks) - _MAX_HOLDERS
    return (*said, f"and {left} more") if left > 0 else tuple(said)


def _repairs(
    reconciler: Reconciler, orchestration: Orchestration
) -> tuple[tuple[Repair, ...], str | None]:
    tasks = list(dict.fromkeys(_tasks_of(reconciler, orchestration)))
    repairs = [
        _repair(task_id, event)
        for task_id in tasks[:_MAX_TASKS_ASKED]
        for event in reconciler.tasks.events(task_id, RECOVERED)
    ]
    left = len(tasks) - _MAX_TASKS_ASKED
    partial = f"the repairs of {counted(left, 'more task')} were not read" if left > 0 else None
    return tuple(sorted(repairs, key=lambda repair: repair.at)), partial


def _tasks_of(reconciler: Reconciler, orchestration: Orchestration) -> Iterator[str]:
    """Yield the tasks whose events may record repairs.

    Fixes, which no row names, come first, because they are few.
    """
    meta = orchestration.meta
    if meta is not None and meta.user_id is not None:
        since = moment(meta.created_at) or LONG_AGO
        fixes = reconciler.tasks.iterations_of(meta.user_id, orchestration.orchestration_id, since)
        yield from (task.task_id for task in fixes.values())
    children = orchestration.children.values()
    yield from (child.task_id for child in children if child.task_id is not None)


def _repair(task_id: str, event: Item) -> Repair:
    said = plain({"M": event.get("metadata", {}).get("M", {})})
    stranded = said.get("stranded_seconds")
    return Repair(
        at=event["timestamp"]["S"],
        sub_issue_id=str(said.get("sub_issue_id")),
        task_id=task_id,
        code=str(said.get("code")),
        before=str(said.get("before")),
        after=str(said.get("after")),
        stranded_seconds=None if stranded is None else float(stranded),
        sweep_id=str(said.get("sweep_id")),
    )
