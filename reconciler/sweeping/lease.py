"""The lease that lets one worker read a segment."""

from __future__ import annotations

import time

from reconciler.clock import OutOfTime
from reconciler.sweeping.segments import Segment
from reconciler.sweeping.state import SweepState

_RENEW_SECONDS = 1.0


class LeaseHolder:
    """Renews a segment's lease while it is read, and tells when the step should end."""

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
        """Whether the step should end: it is out of time or has lost its lease."""
        self.renew()
        return self.lost or self._over()
