"""Writing what a process has counted, once in two seconds at most."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock, Timer

FLUSH_SECONDS = 2.0
"""How late what was counted is seen, and how much of it a process loses that is killed."""


class Flusher:
    """Flushes a while after it was asked to, from a thread of its own.

    A release counts a dozen things, and a process ends some dozens of releases in a second. The
    thread lives until then only, so that nothing waits for the next task.
    """

    def __init__(self, flush: Callable[[], object], seconds: float = FLUSH_SECONDS) -> None:
        self._flush = flush
        self._seconds = seconds
        self._lock = Lock()
        self._timer: Timer | None = None

    def soon(self) -> None:
        """Flush within ``seconds``."""
        with self._lock:
            if self._timer is None:
                self._timer = Timer(self._seconds, self.flush)
                self._timer.daemon = True
                self._timer.start()

    def flush(self) -> None:
        """Flush now."""
        with self._lock:
            self._timer = None
        self._flush()
