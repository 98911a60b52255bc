"""The clock, which is injected wherever time matters."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from threading import Lock

Clock = Callable[[], datetime]
"""Returns the current time, aware, in UTC."""

_TICK_SECONDS = 1e-5

OutOfTime = Callable[[], bool]
"""Returns whether no time is left to begin anything new. Asked between requests, because the
client's retries may swallow an exception raised during one."""


def never() -> bool:
    """Return False: time never runs out."""
    return False


def after(seconds: float) -> OutOfTime:
    """Return an ``OutOfTime`` that is True after ``seconds``, by the monotonic clock."""
    ends = time.monotonic() + seconds
    return lambda: time.monotonic() >= ends


def never_back(clock: Clock) -> Callable[[], float]:
    """Return a function that gives epoch seconds; if ``clock`` is set back, it advances slowly."""
    lock, latest = Lock(), float("-inf")

    def now() -> float:
        nonlocal latest
        with lock:
            moment = clock().timestamp()
            latest = moment if moment >= latest else latest + _TICK_SECONDS
            return latest

    return now


def utc_now() -> datetime:
    """Return the current time, aware, in UTC."""
    return datetime.now(UTC)
