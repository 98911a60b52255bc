"""The diagnosis codes. Every unfinished child has exactly one, and so has every orchestration.

A terminal child has one only if the platform lost an event about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Code(StrEnum):
    """The state of a child (each has a section in ``docs/operating.md``)."""

    WAITING = "waiting"
    RUNNING = "running"
    WITHIN_GRACE = "within_grace"
    CLAIM_IN_PROGRESS = "claim_in_progress"
    OVER_BUDGET = "over_budget"
    LOST_RELEASE = "lost_release"
    LOST_TERMINAL = "lost_terminal"
    LOST_SKIP = "lost_skip"
    ABANDONED_CLAIM = "abandoned_claim"
    UNSTARTED_TASK = "unstarted_task"
    LOST_RECOVERY = "lost_recovery"
    LOST_UNSKIP = "lost_unskip"
    REFUSED = "refused"
    LONG_RUNNING = "long_running"
    MISSING_TASK = "missing_task"
    MISSING_TASK_ID = "missing_task_id"
    DANGLING_DEPENDENCY = "dangling_dependency"
    DEPENDENCY_CYCLE = "dependency_cycle"
    ORPHAN_ROW = "orphan_row"
    UNKNOWN_STATUS = "unknown_status"
    MALFORMED_ROW = "malformed_row"
    IDEMPOTENCY_CONFLICT = "idempotency_conflict"
    CHECK_FAILED = "check_failed"
    QUARANTINED = "quarantined"


class OrchestrationCode(StrEnum):
    """The state of an orchestration as a whole."""

    IN_PROGRESS = "in_progress"
    SETTLED = "settled"
    UNSETTLED_PARENT = "unsettled_parent"
    ROWS_MISSING = "rows_missing"


HEALTHY = frozenset({Code.WAITING, Code.RUNNING, Code.WITHIN_GRACE, Code.CLAIM_IN_PROGRESS})
"""Codes of children for which nothing has to be done."""

BENIGN = HEALTHY | {Code.OVER_BUDGET}
"""Codes that are no reason for an alarm."""


def count_alarming(stuck_by_code: Mapping[str, int]) -> int:
    """Return how many stuck entries are a reason for an alarm."""
    return sum(count for code, count in stuck_by_code.items() if code not in BENIGN)


ACTIONABLE = (
    Code.LOST_RELEASE,
    Code.LOST_TERMINAL,
    Code.LOST_SKIP,
    Code.ABANDONED_CLAIM,
    Code.UNSTARTED_TASK,
    Code.MISSING_TASK_ID,
    Code.LOST_RECOVERY,
)
"""Codes of children that the reconciler repairs."""

SURFACED = (OrchestrationCode.UNSETTLED_PARENT, OrchestrationCode.ROWS_MISSING)
"""Codes of orchestrations that are stuck as a whole."""

STUCK_CODES: tuple[str, ...] = (
    *(code.value for code in Code if code not in HEALTHY),
    *(code.value for code in SURFACED),
)
"""The codes in a summary's ``stuck`` and in the metric ``reconciler_stuck_children``."""

REPAIRABLE = frozenset({*ACTIONABLE, Code.CHECK_FAILED, OrchestrationCode.UNSETTLED_PARENT})
"""Stuck codes that the reconciler resolves by itself, unless something prevents that."""

NEEDS_ACTION = frozenset(STUCK_CODES) - REPAIRABLE - BENIGN
"""Stuck codes that always need manual action."""
