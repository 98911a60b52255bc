"""Pacing in tests: a clock that only sleeping moves, and the pause between a pacer's pages."""

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
        """Let time pass."""
        self.now += seconds


def turn(pacer: PagePacer) -> Turn:
    """Wait for permission to read a page, however long that takes."""
    found = pacer.wait(lambda: False)
    assert found is not None
    return found


def pause_of(pacer: PagePacer) -> float:
    """Return the present pause between the pages of the table, in seconds."""
    first, second = turn(pacer), turn(pacer)
    return round(second.at - first.at, 6)
