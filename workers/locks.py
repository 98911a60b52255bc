"""Locks in the broker: releases that share a row go one after the other.

Siblings check the same predecessor, and a user's releases change the same row of reservations.
DynamoDB refuses a transaction that meets another on a row, so each would be sent several times. The
lock only saves those retries: correctness never depends on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import redis

PREFIX = "reconciler:lock:"
_EXPIRY_SECONDS = 2.0
"""Frees the lock of a lost worker. Longer than a transaction takes."""

_MAX_WAIT_SECONDS = 3.0
_POLL_SECONDS = 0.02


class Locks:
    """Locks by name, each held by at most one worker of a deployment."""

    def __init__(self, client: redis.Redis, deployment_id: str) -> None:
        self._client = client
        self._prefix = f"{PREFIX}{deployment_id}:"

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold a lock; go ahead without it after a few seconds, or while the broker is away."""
        lock = self._client.lock(
            self._prefix + name,
            timeout=_EXPIRY_SECONDS,
            sleep=_POLL_SECONDS,
            blocking_timeout=_MAX_WAIT_SECONDS,
        )
        try:
            taken = lock.acquire()
        except redis.RedisError:
            taken = False
        try:
            yield
        finally:
            if taken:
                # If it has expired, or the broker is away, there is nothing to release.
                with suppress(redis.RedisError):
                    lock.release()
