"""Pacing in tests: a clock that only sleeping moves, and how far apart a pacer keeps its pages."""

from __future__ import annotations

from reconciler.stores.read_pacing import PagePacer, Turn


class SleepingClock:
    """Monotonic time that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time go by."""
        self.now += seconds


def turn(pacer: PagePacer) -> Turn:
    """Wait for leave to read a page, however long that takes."""
    found = pacer.wait(lambda: False)
    assert found is not None
    return found


def pause_of(pacer: PagePacer) -> float:
    """Return how many seconds apart the table keeps pages at present."""
    first, second = turn(pacer), turn(pacer)
    return round(second.at - first.at, 6)
