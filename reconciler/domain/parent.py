"""The orchestration as a whole: whether it is finished, settled, or lacks rows."""

from __future__ import annotations

from datetime import datetime

from reconciler.domain.codes import OrchestrationCode
from reconciler.domain.due import is_expired
from reconciler.domain.model import Meta, Orchestration

_UNSETTLED_CHANNEL = "api"
"""The platform posts no roll-up for this channel."""


def orchestration_code(
    orchestration: Orchestration, unfinished: int, now: datetime, *, old: bool
) -> tuple[OrchestrationCode, str]:
    """Return the code of an orchestration, and one sentence of why.

    ``unfinished``: number of children that are not terminal. ``old``: whether the grace has passed
    since the last change of any row.
    """
    meta, rows = orchestration.meta, len(orchestration.children)
    if meta is None:
        return _without_meta(unfinished, old=old)
    # The platform's mark takes precedence over the number of rows: some may have expired.
    if not unfinished and meta.settled:
        return OrchestrationCode.SETTLED, "the parent has been settled"
    if not orchestration.complete:
        code = OrchestrationCode.ROWS_MISSING if old else OrchestrationCode.IN_PROGRESS
        return code, f"{rows} of {meta.child_count} child rows are there"
    if unfinished:
        are = "is" if unfinished == 1 else "are"
        return OrchestrationCode.IN_PROGRESS, f"{unfinished} of {rows} children {are} not finished"
    why = _never_settled(meta, rows, now)
    if why is not None:
        return OrchestrationCode.SETTLED, why
    if not old:
        return OrchestrationCode.IN_PROGRESS, "the last change is still young"
    reason = "all children are terminal, and nobody has settled the parent"
    return OrchestrationCode.UNSETTLED_PARENT, reason


def _without_meta(unfinished: int, *, old: bool) -> tuple[OrchestrationCode, str]:
    if not unfinished:
        return OrchestrationCode.SETTLED, "all children are terminal; no meta row"
    # The meta row is written last, so a new orchestration has none yet.
    if old:
        return OrchestrationCode.ROWS_MISSING, "the meta row is missing"
    return OrchestrationCode.IN_PROGRESS, "still being seeded"


def _never_settled(meta: Meta, rows: int, now: datetime) -> str | None:
    """Return why the platform never settles this parent, or None if it does."""
    if not rows:
        return "it has no children, so there is nothing to settle"
    if meta.channel == _UNSETTLED_CHANNEL:
        return f"the platform settles no parent of the channel {meta.channel}"
    if is_expired(None, meta, now):
        return "its time to live is over, so its parent is left as it is"
    return None
