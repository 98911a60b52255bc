"""The clock: injected wherever time matters, so that what is decided has none of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from threading import Lock

Clock = Callable[[], datetime]
"""Returns the present moment, aware, in UTC."""

_TICK_SECONDS = 1e-5

OutOfTime = Callable[[], bool]
"""Says whether no time is left to begin anything else. Asked between requests, since an exception
that is raised in the middle of one may be swallowed by the client's retries."""


def never() -> bool:
    """Return False: there is always time left."""
    return False


def after(seconds: float) -> OutOfTime:
    """Return what says so once ``seconds`` have passed, by the monotonic clock."""
    ends = time.monotonic() + seconds
    return lambda: time.monotonic() >= ends


def never_back(clock: Clock) -> Callable[[], float]:
    """Return what tells epoch seconds by ``clock``, and goes on slowly where that is set back."""
    lock, latest = Lock(), float("-inf")

    def now() -> float:
        nonlocal latest
        with lock:
            moment = clock().timestamp()
            latest = moment if moment >= latest else latest + _TICK_SECONDS
            return latest

    return now


def utc_now() -> datetime:
    """Return the present moment, aware, in UTC."""
    return datetime.now(UTC)
