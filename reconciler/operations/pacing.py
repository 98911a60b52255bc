"""Pacing of a scan: it shares the table's capacity with production, and gives way to it."""

from __future__ import annotations

import time
from collections.abc import Callable

_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 8.0


class PagePacer:
    """Keeps a scan below a ceiling of read units per second, and backs off when it is throttled.

    The pause after a throttled page doubles; after each page that went through it halves, until
    the ceiling alone holds again.
    """

    def __init__(
        self,
        units_per_second: float | None,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._units_per_second = units_per_second
        self._sleep = sleep
        self._monotonic = monotonic
        self._pause = 0.0
        self._not_before = monotonic()

    def wait(self) -> None:
        """Wait until the next page may be read."""
        left = self._not_before - self._monotonic()
        if left > 0:
            self._sleep(left)

    def read(self, units: float) -> None:
        """Take note of a page that was read for ``units``."""
        self._pause = self._pause / 2 if self._pause > _FIRST_PAUSE_SECONDS else 0.0
        share = units / self._units_per_second if self._units_per_second else 0.0
        self._not_before = self._monotonic() + max(share, self._pause)

    def throttled(self) -> None:
        """Take note of a page that was refused for want of capacity."""
        self._pause = min(max(self._pause * 2, _FIRST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
        self._not_before = self._monotonic() + self._pause
