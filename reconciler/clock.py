"""The clock: injected wherever time matters, so that what is decided has none of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]
"""Returns the present moment, aware, in UTC."""


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


def utc_now() -> datetime:
    """Return the present moment, aware, in UTC."""
    return datetime.now(UTC)
