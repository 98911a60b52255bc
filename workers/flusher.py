"""Writes the metrics of a process, at most once every two seconds."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock, Timer

FLUSH_SECONDS = 2.0
"""The delay of metrics, and how much of them a killed process loses."""


class Flusher:
    """Flushes with a delay, in a thread of its own, so that metrics never wait for the next task.

    A release increments a dozen metrics, and a process completes dozens of releases per second.
    """

    def __init__(self, flush: Callable[[], object]) -> None:
        self._flush = flush
        self._lock = Lock()
        self._timer: Timer | None = None

    def soon(self) -> None:
        """Flush within ``FLUSH_SECONDS``."""
        with self._lock:
            if self._timer is None:
                self._timer = Timer(FLUSH_SECONDS, self.flush)
                self._timer.daemon = True
                self._timer.start()

    def flush(self) -> None:
        """Flush now."""
        with self._lock:
            self._timer = None
        self._flush()
