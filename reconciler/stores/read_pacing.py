"""Pacing of a scan: it shares the table's capacity with production, and gives way to it.

Two things hold a page up. A ceiling, which an operator sets: what may be read in a second, over
all segments and, where a broker is shared, over all workers. And the table itself: when it refuses
a page, or lets one through only at the second attempt, pages stand further apart, and come closer
again slowly, so that they find out what is left and do not run into it again and again.

    refused ──▶ the pause between pages doubles (0.5 s … 8 s)
    read    ──▶ it shrinks by a tenth
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

_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 8.0
_LEAST_PAUSE_SECONDS = 0.01
_EASING = 0.9
_SLICE_SECONDS = 1.0
_ROWS_PER_UNIT = 8.0
"""Of rows of 1 KB; what it really is, the first page tells."""


class Allowance(Protocol):
    """Read units that may be consumed in a second, shared by whoever takes from it."""

    def take(self, units: float) -> float:
        """Take ``units`` and return in how many seconds they may be consumed.

        Negative units are given back.
        """


class LocalAllowance:
    """An allowance of the threads of one process."""

    def __init__(
        self, units_per_second: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._units_per_second = units_per_second
        self._monotonic = monotonic
        self._lock = Lock()
        self._paid_off_at = monotonic()

    def take(self, units: float) -> float:
        """Take ``units``; those who came before are served first."""
        with self._lock:
            now = self._monotonic()
            starts = max(now, self._paid_off_at)
            self._paid_off_at = starts + units / self._units_per_second
            return starts - now


@dataclass(frozen=True, slots=True)
class Turn:
    """Leave to read one page: since when, what was set aside for it, and of how many rows."""

    at: float
    units: float
    limit: int | None


class PagePacer:
    """Spaces the pages that one process reads, over all of its segments."""

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
        """Wait until the next page may be read; None when the time is over before that."""
        # Less than a second's worth at a time: a low ceiling must not be kept in bursts.
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
        """Let others have a turn that was not used.

        Or where a step is shorter than the pause, each would put the next page off further, and
        none would ever be read.
        """
        with self._lock:
            # A refusal since then has put the next page where it belongs.
            if self._backed_off_at == backed_off_at:
                self._not_before -= pause

    def read(self, turn: Turn, units: float, rows: int, *, strained: bool = False) -> None:
        """Take note of a page of ``rows`` that was read for ``units``.

        ``strained``: it did not go through at once.
        """
        self._take(units - turn.units)
        with self._lock:
            if units and rows:
                self._rows_per_unit = rows / units
            if strained:
                self._back_off(turn)
            else:
                eased = self._pause * _EASING
                self._pause = eased if eased >= _LEAST_PAUSE_SECONDS else 0.0

    def throttled(self, turn: Turn) -> None:
        """Take note of a page that was refused for want of capacity."""
        self._take(-turn.units)
        with self._lock:
            self._back_off(turn)

    def spend(self, units: float) -> None:
        """Take note of what the scan has read beside its pages."""
        self._take(units)

    def _take(self, units: float) -> None:
        if self._allowance is not None and units:
            self._allowance.take(units)

    def _back_off(self, turn: Turn) -> None:
        if turn.at < self._backed_off_at:
            return  # several were under way at once: one refusal, told several times
        self._pause = min(max(self._pause * 2, _FIRST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
        self._backed_off_at = self._monotonic()
        self._not_before = self._backed_off_at + self._pause
