"""The lease under which one worker reads a segment, and no other does."""

from __future__ import annotations

import time

from reconciler.clock import OutOfTime
from reconciler.sweeping.segments import Segment
from reconciler.sweeping.state import SweepState

_RENEW_SECONDS = 1.0


class LeaseHolder:
    """Keeps a segment's lease while it is read; ends the step when its time is over."""

    def __init__(self, state: SweepState, segment: Segment, token: str, over: OutOfTime) -> None:
        self._state, self._segment, self._token, self._over = state, segment, token, over
        self._renewed = time.monotonic()
        self.lost = False

    def renew(self) -> None:
        """Renew the lease, at most once a second."""
        if not self.lost and time.monotonic() - self._renewed >= _RENEW_SECONDS:
            self._renewed = time.monotonic()
            self.lost = not self._state.renew(self._segment, self._token)

    def is_over(self) -> bool:
        """Whether the step should end here: out of time, or somebody else reads on."""
        self.renew()
        return self.lost or self._over()
