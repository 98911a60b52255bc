"""Outcomes: what can come of one repair.

Losing a race is not an error: it is an outcome with a name.
"""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """What came of one planned action, in logs, metrics and ``--json``."""

    RELEASED = "released"
    ADOPTED = "adopted"
    ALREADY_RELEASED = "already_released"
    NO_LONGER_DUE = "no_longer_due"
    CLAIM_IN_PROGRESS = "claim_in_progress"
    OVER_BUDGET = "over_budget"
    REFUSED = "refused"
    IDEMPOTENCY_CONFLICT = "idempotency_conflict"
    PAUSED = "paused"
    REPORT_ONLY = "report_only"
    PACED = "paced"
    REINVOKED = "reinvoked"
    FAILED = "failed"
    QUEUED = "queued"
    DONE = "done"
    LOST_RACE = "lost_race"


RELEASE_OUTCOMES = tuple(
    outcome
    for outcome in Outcome
    if outcome not in {Outcome.QUEUED, Outcome.DONE, Outcome.LOST_RACE}
)
"""How a release can end: the label values of ``reconciler_releases_total{outcome}``."""

LOST_TO_OTHERS = frozenset(
    {
        Outcome.ALREADY_RELEASED,
        Outcome.NO_LONGER_DUE,
        Outcome.CLAIM_IN_PROGRESS,
        Outcome.LOST_RACE,
    }
)
"""Somebody else was faster, so what was read is stale."""

REPAIRED = frozenset({Outcome.DONE, Outcome.RELEASED, Outcome.ADOPTED, Outcome.REINVOKED})
"""Something was changed, by us, that brings a child on."""
