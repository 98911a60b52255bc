"""Backoff: what keeps failing is left alone for a growing time.

A failure counts only for the child it concerns, not for its siblings. It counts for the whole
orchestration only if it cannot be assigned to a child.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from reconciler.domain.due import MAX_AHEAD
from reconciler.domain.model import moment, timestamp

BACK_OFF_FROM = 3
"""The number of failures from which on it is left alone for a while."""

MAX_PAUSE = timedelta(hours=6)
_MAX_DOUBLINGS = 15
"""Enough to get from a second to the longest pause, and few enough not to overflow a time."""

_MAX_ERROR_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Attempts:
    """A failure record (a marker row); times are ISO 8601.

    ``failures``: number of failures that count; with 0, siblings only take precedence.
    ``fingerprint``: of the rows concerned; once they change, the record no longer applies.
    """

    failures: int
    last_error: str
    last_failed_at: str
    retry_at: str | None
    fingerprint: str

    def backed_off(self, now: datetime, fingerprint: str) -> bool:
        """Whether to leave it alone at ``now``: its rows are unchanged, its pause is not over."""
        until = moment(self.retry_at)
        # A time further ahead than the longest pause comes from a wrong clock.
        believable = until is not None and now < until <= now + MAX_PAUSE + MAX_AHEAD
        return believable and fingerprint == self.fingerprint

    @property
    def says(self) -> str:
        """Until when it is left alone, and why, as text."""
        return (
            f"left alone until {self.retry_at} after {self.failures} failures, "
            f"the last: {self.last_error}"
        )


def after_failure(
    earlier: Attempts | None,
    error: str,
    fingerprint: str,
    interval: timedelta,
    now: datetime,
    *,
    counts: bool,
) -> Attempts:
    """Return the record after one more failure; the pause doubles with each one that ``counts``.

    ``interval``: the first pause, which is the time between two sweeps.
    """
    failures = (earlier.failures if earlier is not None else 0) + counts
    retry_at = None
    # The first failures may be chance: the next sweep tries again.
    if counts and failures >= BACK_OFF_FROM:
        doublings = min(failures - BACK_OFF_FROM, _MAX_DOUBLINGS)
        retry_at = timestamp(now + min(interval * 2**doublings, MAX_PAUSE))
    return Attempts(
        failures=failures,
        last_error=error[:_MAX_ERROR_CHARACTERS],
        last_failed_at=timestamp(now),
        retry_at=retry_at,
        fingerprint=fingerprint,
    )
