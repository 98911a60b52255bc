"""Pacing of scans, which share the table's capacity with production and give way to it.

Two things slow down reads. An operator can set a ceiling on the units read per second, over all
segments and, with a broker, all workers. And when the table throttles a page, or serves it only
after a retry, pages move further apart and come closer again slowly:

    throttled ──▶ the pause between pages doubles (0.5 s … 8 s)
    read      ──▶ it shrinks by a tenth
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Protocol

from reconciler.clock import OutOfTime

PAGE_UNITS = 128.0
"""What a full page costs: 1 MB, eventually consistent."""

_BASE_PAUSE_SECONDS = 0.5
_MAX_PAUSE_SECONDS = 8.0
_MIN_PAUSE_SECONDS = 0.01
_EASING = 0.9
_SLICE_SECONDS = 1.0
_ROWS_PER_UNIT = 8.0
"""An estimate for rows of 1 KB; the first page corrects it."""


class Allowance(Protocol):
    """A shared allowance of read units per second."""

    def take(self, units: float) -> float:
        """Take ``units`` and return after how many seconds they may be used.

        Negative units are given back.
        """


class LocalAllowance:
    """An allowance for the threads of one process."""

    def __init__(
        self, units_per_second: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._units_per_second = units_per_second
        self._monotonic = monotonic
        self._lock = Lock()
        self._paid_off_at = monotonic()

    def take(self, units: float) -> float:
        """Take ``units``; earlier callers are served first."""
        with self._lock:
            now = self._monotonic()
            starts = max(now, self._paid_off_at)
            self._paid_off_at = starts + units / self._units_per_second
            return starts - now


@dataclass(frozen=True, slots=True)
class Turn:
    """Permission to read one page: granted at a time, for some units and at most so many rows."""

    at: float
    units: float
    limit: int | None


class PagePacer:
    """Paces the pages of one process, over all its segments."""

    def __init__(
        self,
        units_per_second: float | None = None,
        allowance: Allowance | None = None,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ceiling = units_per_second
        if allowance is None and units_per_second is not None:
            allowance = LocalAllowance(units_per_second, monotonic)
        self._allowance = allowance
        self._sleep = sleep
        self._monotonic = monotonic
        self._lock = Lock()
        self._pause = 0.0
        self._not_before = self._backed_off_at = monotonic()
        self._rows_per_unit = _ROWS_PER_UNIT

    def wait(self, out_of_time: OutOfTime) -> Turn | None:
        """Wait until the next page may be read; None if the time is up before that."""
        # At most a second's worth at a time, so that a low ceiling does not cause bursts.
        limited = self._ceiling is not None and self._ceiling < PAGE_UNITS
        units = min(PAGE_UNITS, self._ceiling or PAGE_UNITS)
        with self._lock:
            pause, backed_off_at = self._pause, self._backed_off_at
            starts = max(self._monotonic(), self._not_before)
            self._not_before = starts + pause
            limit = max(1, int(units * self._rows_per_unit)) if limited else None
        if self._allowance is not None:
            starts = max(starts, self._monotonic() + self._allowance.take(units))
        while (left := starts - self._monotonic()) > 0:
            if out_of_time():
                self._take(-units)
                self._give_back(pause, backed_off_at)
                return None
            self._sleep(min(left, _SLICE_SECONDS))
        return Turn(self._monotonic(), units, limit)

    def _give_back(self, pause: float, backed_off_at: float) -> None:
        """Give an unused turn back.

        Otherwise, if steps are shorter than the pause, each would delay the next page further and
        none would ever be read.
        """
        with self._lock:
            # If a page was throttled since then, the time of the next page is right already.
            if self._backed_off_at == backed_off_at:
                self._not_before -= pause

    def read(self, turn: Turn, units: float, rows: int, *, strained: bool = False) -> None:
        """Record a page of ``rows`` read for ``units``; ``strained``: it took a retry."""
        self._take(units - turn.units)
        with self._lock:
            if units and rows:
                self._rows_per_unit = rows / units
            if strained:
                self._back_off(turn)
            else:
                eased = self._pause * _EASING
                self._pause = eased if eased >= _MIN_PAUSE_SECONDS else 0.0

    def throttled(self, turn: Turn) -> None:
        """Record a page that was throttled."""
        self._take(-turn.units)
        with self._lock:
            self._back_off(turn)

    def spend(self, units: float) -> None:
        """Record units that the scan has read besides its pages."""
        self._take(units)

    def _take(self, units: float) -> None:
        if self._allowance is not None and units:
            self._allowance.take(units)

    def _back_off(self, turn: Turn) -> None:
        if turn.at < self._backed_off_at:
            return  # it was under way already when another page was throttled
        self._pause = min(max(self._pause * 2, _BASE_PAUSE_SECONDS), _MAX_PAUSE_SECONDS)
        self._backed_off_at = self._monotonic()
        self._not_before = self._backed_off_at + self._pause
