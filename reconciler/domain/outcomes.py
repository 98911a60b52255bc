"""The outcomes of repairs. Losing a race is a normal outcome, not an error."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """How one action ended, in logs, metrics and ``--json``."""

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
"""The outcomes of releases: the label values of ``reconciler_releases_total{outcome}``."""

LOST_TO_OTHERS = frozenset(
    {
        Outcome.ALREADY_RELEASED,
        Outcome.NO_LONGER_DUE,
        Outcome.CLAIM_IN_PROGRESS,
        Outcome.LOST_RACE,
    }
)
"""Outcomes in which somebody else was faster, so what was read is stale."""

REPAIRED = frozenset({Outcome.DONE, Outcome.RELEASED, Outcome.ADOPTED, Outcome.REINVOKED})
"""Outcomes in which the reconciler has made progress on a child."""
