"""The release rate (``RELEASE_RATE_PER_MINUTE``), shared by all workers through the broker."""

from __future__ import annotations

import math
import time
from typing import Any

import redis
from limits import RateLimitItemPerSecond
from limits.storage import storage_from_string
from limits.strategies import FixedWindowRateLimiter

from reconciler.settings import Settings
from workers.broker import SOCKET_SECONDS

_MAX_WAIT_SECONDS = 3.0
_MIN_WAIT_SECONDS = 0.01
_MAX_WINDOW_SECONDS = int(_MAX_WAIT_SECONDS)
"""So that each release gets its turn within the wait, unless a window holds only one."""


class ReleaseRate:
    """Limits the rate of releases over all workers of a deployment.

    Windows are a few seconds long, or as long as one release takes at that rate. So a backlog is
    released at an even pace, not in one burst.
    """

    def __init__(self, settings: Settings) -> None:
        self._name = ("reconciler", "releases", settings.deployment_id)
        self._storage: Any = storage_from_string(
            settings.celery_broker_url,
            socket_timeout=SOCKET_SECONDS,
            socket_connect_timeout=SOCKET_SECONDS,
        )
        self._limiter = FixedWindowRateLimiter(self._storage)
        self._window = _window(settings.release_rate_per_minute)

    def acquire(self) -> bool:
        """Wait for a turn; False if there is none within a few seconds.

        True if the broker is away: releases are safe, and no more work arrives.
        """
        deadline = time.monotonic() + _MAX_WAIT_SECONDS
        while True:
            try:
                if self._limiter.hit(self._window, *self._name):
                    return True
                ends_in = self._window_ends_in()
            except redis.RedisError:
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(ends_in, left))

    def _window_ends_in(self) -> float:
        """Return in how many seconds the window ends.

        Clear a window that ends too late, because the broker's clock has jumped back, or never,
        because we did not begin it.
        """
        key = self._storage.prefixed_key(self._window.key_for(*self._name))
        ends_in = self._storage.storage.pttl(key) / 1000
        if not 0 <= ends_in <= self._window.get_expiry():
            self._limiter.clear(self._window, *self._name)
            return _MIN_WAIT_SECONDS
        return max(_MIN_WAIT_SECONDS, float(ends_in))


def _window(per_minute: int) -> RateLimitItemPerSecond:
    """Return the shortest window that comes nearest to a rate without exceeding it."""
    longest = max(_MAX_WINDOW_SECONDS, math.ceil(60 / per_minute))
    seconds = max(range(1, longest + 1), key=lambda length: (per_minute * length // 60) / length)
    return RateLimitItemPerSecond(per_minute * seconds // 60, seconds)
