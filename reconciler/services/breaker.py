"""A circuit breaker: a service that did not answer is left alone for a few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable

PAUSE_SECONDS = 5.0


class Breaker:
    """Opens after a failure, because otherwise each of thousands of due children would wait."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._closes_at = monotonic()

    @property
    def is_open(self) -> bool:
        """Whether the service must not be called now."""
        return self._monotonic() < self._closes_at

    def open(self) -> None:
        """Leave the service alone for ``PAUSE_SECONDS``."""
        self._closes_at = self._monotonic() + PAUSE_SECONDS
