"""The ports through which a sweep sends work to others.

Celery workers do the work (``workers.enqueue``), or threads of this process (``sweeping.inline``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from reconciler.repair.context import ReleaseRequest
from reconciler.sweeping.segments import Segment


@dataclass(frozen=True, slots=True)
class SegmentTask:
    """A segment to read for a sweep, unless it was read after ``since`` (epoch seconds)."""

    segment: Segment
    sweep_id: str
    since: float
    step: int = 0


class Sender(Protocol):
    """Sends segments to read and orchestrations to evaluate."""

    def room(self) -> int:
        """Return how many more segments and evaluations may be sent now."""

    def segment(self, task: SegmentTask) -> object:
        """Send a segment, to be read from where its last reader stopped."""

    def evaluate(self, orchestration_id: str, sweep_id: str, since: float) -> object:
        """Send an orchestration to evaluate, unless it was since ``since`` and there is no news."""


class ReleaseSender(Protocol):
    """Sends children to release."""

    def room_for_releases(self, *, in_turn: bool) -> int:
        """Return how many more releases can be made soon; a later ask covers the others.

        ``in_turn``: they were chosen by age, not just found.
        """

    def release(self, requests: Sequence[ReleaseRequest]) -> object:
        """Send releases."""
