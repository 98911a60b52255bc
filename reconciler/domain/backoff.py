"""Backing off: what keeps failing is left alone for a growing time.

A failure is held against the child that it concerns, never against its siblings: those go on. Only
what fails before a single child can be told apart is held against the orchestration as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from reconciler.domain.due import MAX_AHEAD
from reconciler.domain.model import moment, timestamp

BACK_OFF_FROM = 3
"""From this many failures on it is left alone for a while."""

MAX_PAUSE = timedelta(hours=6)
_MAX_DOUBLINGS = 15
"""Takes a second past the longest pause; one that fails for weeks must not overflow a time."""

_MAX_ERROR_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Attempts:
    """Our own record of what failed (a marker row); ISO 8601 times.

    ``failures``: those that count; with none of them it only lets its siblings go first.
    ``fingerprint``: of the rows that it concerns; once they change, the record says nothing more.
    """

    failures: int
    last_error: str
    last_failed_at: str
    retry_at: str | None
    fingerprint: str

    def backed_off(self, now: datetime, fingerprint: str) -> bool:
        """Whether it is to be left alone at ``now``: unchanged since, and its pause not over."""
        until = moment(self.retry_at)
        # Further ahead than any pause lasts, it was written by a clock that is wrong.
        believable = until is not None and now < until <= now + MAX_PAUSE + MAX_AHEAD
        return believable and fingerprint == self.fingerprint

    @property
    def says(self) -> str:
        """Until when it is left alone, and why, for a person."""
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
    """Return the record after one more failure; the pause doubles with each that ``counts``.

    ``interval``: between two sweeps: the first pause.
    """
    failures = (earlier.failures if earlier is not None else 0) + counts
    retry_at = None
    # Up to then it may be chance, and the next sweep tries again.
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
