"""What a sweep asks others to do: read segments, evaluate orchestrations, release children.

Celery workers do it (``workers.enqueue``), or threads of this process (``sweeping.inline``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from reconciler.repair.context import ReleaseRequest
from reconciler.sweeping.segments import Segment


@dataclass(frozen=True, slots=True)
class SegmentTask:
    """A segment to be read for a sweep, unless it was read since ``since`` (epoch seconds)."""

    segment: Segment
    sweep_id: str
    since: float
    step: int = 0


class Sender(Protocol):
    """Has segments and orchestrations looked at: by another process, or another thread."""

    def room(self) -> int:
        """Return how many more segments and evaluations may be asked for at present."""

    def segment(self, task: SegmentTask) -> object:
        """Have a segment read on from where its last reader left it."""

    def evaluate(self, orchestration_id: str, sweep_id: str, since: float) -> object:
        """Have an orchestration evaluated, unless it was since ``since`` and has no news."""


class ReleaseSender(Protocol):
    """Has children released elsewhere."""

    def room_for_releases(self, *, in_turn: bool) -> int:
        """Return how many more can be made soon; a later ask comes back to the others.

        ``in_turn``: they were chosen by their age, and not found just now.
        """

    def release(self, requests: Sequence[ReleaseRequest]) -> object:
        """Hand releases on."""
