"""From what a person has at hand (an id of any sort) to an orchestration."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reconciler.errors import UnknownOrchestrationError, UsageError

if TYPE_CHECKING:
    from reconciler.repair.reconciler import Reconciler

_ORCHESTRATION = re.compile(r"orch_[0-9a-f]{32}")
_TASK = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}")
_INTEGRATION = "__integration"
_MOST = 5

OnRows = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Found:
    """An orchestration, the child that was meant (if one was), and how it was found."""

    orchestration_id: str
    sub_issue_id: str | None = None
    note: str | None = None


def find(reconciler: Reconciler, name: str, on_rows: OnRows) -> Found:
    """Find what ``name`` means; the cheap ways first, and the scan of the table last.

    ``on_rows`` is called with how many rows have been searched.

    Raises:
        UsageError: it means several things.
        UnknownOrchestrationError: it means nothing.
    """
    if _ORCHESTRATION.fullmatch(name):
        return Found(name)
    if name.endswith(_INTEGRATION):
        return Found(name.removesuffix(_INTEGRATION), name)
    if _TASK.fullmatch(name):
        child = reconciler.orchestrations.children_by_task(name)
        if child is None:
            raise UnknownOrchestrationError(f"no child carries the task {name}")
        return Found(*child)
    return _search(reconciler, name, on_rows)


def _search(reconciler: Reconciler, name: str, on_rows: OnRows) -> Found:
    found: list[tuple[str, str]] = []
    rows = 0
    for matches, scanned in reconciler.orchestrations.search(name):
        found.extend(matches)
        rows += scanned
        on_rows(rows)
    if not found:
        raise UnknownOrchestrationError(
            f"{name} is no orchestration id, task id, sub-issue id or display id that is known"
        )
    if len(found) > 1:
        listed = ", ".join(f"{orchestration} {child}" for orchestration, child in found[:_MOST])
        more = f" and {len(found) - _MOST} more" if len(found) > _MOST else ""
        raise UsageError(f"{name} means several: {listed}{more}; name one by its ids")
    note = f"found by searching {rows} rows; its id finds it at once"
    return Found(*found[0], note)
