"""Finds an orchestration by any id that a person has, or by its beginning."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from reconciler.domain.model import INTEGRATION_SUFFIX, Child, Orchestration
from reconciler.errors import UnknownChildError, UnknownOrchestrationError, UsageError
from reconciler.inspection.theme import counted, listed
from reconciler.repair.reconciler import Reconciler

_ORCHESTRATION = re.compile(r"orch_[0-9a-f]{32}")
_TASK = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}")
_MAX_NAMED = 5

OnRows = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Found:
    """An orchestration, the child that was meant, if any, and how it was found."""

    orchestration_id: str
    sub_issue_id: str | None = None
    note: str | None = None


def find(reconciler: Reconciler, name: str, on_rows: OnRows) -> Found:
    """Find what ``name`` means; scan the table only if cheaper ways fail.

    ``name``: an orchestration id, a sub-issue id, a task id, the beginning of one of these, a
    display id, or ``orchestration/child`` as printed by ``list -o name``.
    ``on_rows`` is called with the number of rows searched so far.

    Raises:
        UsageError: it is ambiguous; the message names the matches.
        UnknownOrchestrationError: nothing matches.
        TemporaryError, PermanentError: the tables cannot be read.
    """
    if not name.strip():
        raise UsageError("an empty id names nothing")
    whole, slash, child = name.partition("/")
    if _ORCHESTRATION.fullmatch(whole):
        return Found(whole, child if slash else None)
    if _ORCHESTRATION.fullmatch(name.removesuffix(INTEGRATION_SUFFIX)):
        return Found(name.removesuffix(INTEGRATION_SUFFIX), name)
    if _TASK.fullmatch(name):
        return _of_task(reconciler, name)
    return _search(reconciler, name, on_rows)


def find_child(
    reconciler: Reconciler, name: str, child: str | None, on_rows: OnRows
) -> tuple[str, str]:
    """Return the (orchestration id, sub-issue id) that ``name`` means.

    With ``child``, it is ``child`` within the orchestration of ``name``.

    Raises:
        UsageError: it means no child, or several; the message names candidates.
        UnknownOrchestrationError, UnknownChildError: there is no such row.
        TemporaryError, PermanentError: the tables cannot be read.
    """
    found = find(reconciler, name, on_rows)
    if child is None and found.sub_issue_id is not None:
        return found.orchestration_id, found.sub_issue_id
    orchestration = reconciler.orchestrations.read(found.orchestration_id)
    if orchestration is None:
        raise UnknownOrchestrationError(f"no orchestration {found.orchestration_id} exists")
    if child is None:
        open_ = [c for c in orchestration.children.values() if not c.terminal]
        raise UsageError(f"{name} is an orchestration: name a child too{_such_as(open_)}")
    return found.orchestration_id, _child_of(orchestration, child)


def _child_of(orchestration: Orchestration, name: str) -> str:
    if name in orchestration.children:
        return name
    children = orchestration.children.values()
    exact = [child for child in children if child.display_id == name]
    matching = exact or [child for child in children if _begins(child, name)]
    if not matching:
        raise UnknownChildError(f"{orchestration.orchestration_id} has no child {name}")
    if len(matching) > 1:
        raise UsageError(f"{name} means several{_such_as(matching)}")
    return matching[0].sub_issue_id


def _of_task(reconciler: Reconciler, task_id: str) -> Found:
    """Find the child of a task: by the row that names it, or else by the task's metadata."""
    child = reconciler.orchestrations.children_by_task(task_id)
    if child is not None:
        return Found(*child)
    task = reconciler.tasks.read([task_id], consistent=False).get(task_id)
    if task is None or task.orchestration_id is None:
        raise UnknownOrchestrationError(f"no orchestration has the task {task_id}")
    return Found(task.orchestration_id, task.sub_issue_id, f"task {task_id} works for it")


def _search(reconciler: Reconciler, name: str, on_rows: OnRows) -> Found:
    exact: list[Found] = []
    begun: list[Found] = []
    rows = 0
    for matches, scanned in reconciler.orchestrations.search(name):
        for child in matches:
            of_child = Found(child.orchestration_id, child.sub_issue_id)
            if name in (child.sub_issue_id, child.display_id):
                exact.append(of_child)
            else:
                names_all = child.orchestration_id.startswith(name)
                begun.append(Found(child.orchestration_id) if names_all else of_child)
        rows += scanned
        on_rows(rows)
    found = list(dict.fromkeys(exact or begun))
    if not found:
        raise UnknownOrchestrationError(
            f"{name} is not a known orchestration id, sub-issue id, display id or task id, "
            "nor the beginning of one"
        )
    if len(found) > 1:
        named = [f"{one.orchestration_id} {one.sub_issue_id or ''}".rstrip() for one in found]
        raise UsageError(f"{name} means several: {listed(named, _MAX_NAMED)}")
    searched = f"found by searching {counted(rows, 'row')}"
    return replace(found[0], note=f"{searched}; {found[0].orchestration_id} is found at once")


def _begins(child: Child, name: str) -> bool:
    return child.sub_issue_id.startswith(name) or (child.task_id or "").startswith(name)


def _such_as(children: Iterable[Child]) -> str:
    names = [child.display_id or child.sub_issue_id for child in children]
    return f": {listed(names, _MAX_NAMED)}" if names else ""
