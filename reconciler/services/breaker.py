"""A breaker: a service that has just failed to answer is left alone for a few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable

PAUSE_SECONDS = 5.0


class Breaker:
    """Open after a failure: thousands of children may be due, and each would wait in vain."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._closes_at = monotonic()

    @property
    def is_open(self) -> bool:
        """Whether the service is not to be asked now."""
        return self._monotonic() < self._closes_at

    def open(self) -> None:
        """Leave the service alone from now on for ``PAUSE_SECONDS``."""
        self._closes_at = self._monotonic() + PAUSE_SECONDS
