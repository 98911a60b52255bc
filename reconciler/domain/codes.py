"""The diagnosis codes: every non-terminal child has exactly one, and so has the orchestration.

A terminal child has one only if the platform's work on it was lost halfway.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Code(StrEnum):
    """Why a child is where it is (a section each in ``docs/operating.md``)."""

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
    """How an orchestration as a whole stands."""

    IN_PROGRESS = "in_progress"
    SETTLED = "settled"
    UNSETTLED_PARENT = "unsettled_parent"
    ROWS_MISSING = "rows_missing"


HEALTHY = frozenset({Code.WAITING, Code.RUNNING, Code.WITHIN_GRACE, Code.CLAIM_IN_PROGRESS})
"""Codes of children that need nothing from anybody."""

BENIGN = HEALTHY | {Code.OVER_BUDGET}
"""Codes that are nobody's fault: reported, and no reason to wake a person."""


def count_alarming(stuck_by_code: Mapping[str, int]) -> int:
    """Return how much of what is stuck is a reason for a person to look."""
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
"""Codes of children that the reconciler acts on by itself."""

SURFACED = (OrchestrationCode.UNSETTLED_PARENT, OrchestrationCode.ROWS_MISSING)
"""How an orchestration as a whole can be stuck."""

STUCK_CODES: tuple[str, ...] = (
    *(code.value for code in Code if code not in HEALTHY),
    *(code.value for code in SURFACED),
)
"""Everything that a summary's ``stuck`` and the metric ``reconciler_stuck_children`` count by."""

REPAIRABLE = frozenset({*ACTIONABLE, Code.CHECK_FAILED, OrchestrationCode.UNSETTLED_PARENT})
"""Stuck codes that the reconciler resolves by itself, unless something prevents that."""

NEEDS_ACTION = frozenset(STUCK_CODES) - REPAIRABLE - BENIGN
"""Stuck codes that always need manual action."""
