"""The audit event that every repair writes to a task: what was done, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.domain.identity import task_id_for
from reconciler.domain.model import FAILURE, Child, ChildStatus, seconds_since
from reconciler.domain.planning import Action
from reconciler.repair.context import Context
from reconciler.stores.conditions import Write
from reconciler.stores.tasks import TaskStore

RECOVERED = "orchestration_recovered"


def concerned_task(child: Child) -> str:
    """Return the id of the task whose events record a repair of ``child``.

    A child that was never released has no task. Its events go under the deterministic id that its
    task gets if the reconciler releases it later.
    """
    return child.task_id or task_id_for(child.idempotency_key, child.created_at)


def recovered(
    tasks: TaskStore,
    child: Child,
    action: Action,
    after: str,
    context: Context,
    *,
    before: str | None = None,
    task_id: str | None = None,
    more: Mapping[str, Any] | None = None,
) -> Write:
    """Return the write of an event: ``action`` took ``child`` from ``before`` to ``after``.

    ``before`` defaults to the child's status, ``task_id`` to ``concerned_task``. ``more`` is
    further metadata.
    """
    metadata: dict[str, Any] = {
        "orchestration_id": child.orchestration_id,
        "sub_issue_id": child.sub_issue_id,
        "code": str(action.code),
        "before": child.raw_status if before is None else before,
        "after": after,
        "sweep_id": context.sweep_id,
        **(more or {}),
    }
    stranded = seconds_since(action.since, context.now)
    if stranded is not None:
        metadata["stranded_seconds"] = round(stranded, 3)
    return tasks.event(task_id or concerned_task(child), RECOVERED, metadata, context.now)


class FirstFailures:
    """Traces skipped children back to the task whose failure caused the skips."""

    def __init__(self) -> None:
        self._roots: dict[str, str] = {}

    def root_of(self, cause: Child, children: Mapping[str, Child]) -> str:
        """Return the id of the task whose failure led to ``cause``, a failed or skipped child."""
        passed: set[str] = set()
        current = cause
        while self._is_without_failure(current):
            passed.add(current.sub_issue_id)
            before = [children[key] for key in current.depends_on if key in children]
            fell = (row for row in before if row.status in FAILURE)
            # In a cycle of skips nothing failed first: fall back to the cause itself.
            current = next((row for row in fell if row.sub_issue_id not in passed), cause)
            if current is cause:
                break
        root = self._roots.get(current.sub_issue_id) or concerned_task(current)
        self._roots.update(dict.fromkeys((*passed, current.sub_issue_id), root))
        return root

    def _is_without_failure(self, child: Child) -> bool:
        """Whether the child was skipped before it ran, so the failure is further back."""
        skipped = child.task_id is None and child.status is ChildStatus.SKIPPED
        return skipped and child.sub_issue_id not in self._roots
