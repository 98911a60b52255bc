"""The recoveries of the last day, for ``reconciler status``."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import redis

KEY = "reconciler:recoveries"
DAY_SECONDS = 86_400
MAX_RECOVERIES = 20_000


class Recoveries:
    """A sorted set in the broker, by time."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def add(self, code: str, ids: Mapping[str, str], latency: float | None) -> None:
        """Remember a recovery for a day."""
        now = time.time()
        member = json.dumps({**ids, "code": code, "latency": latency, "at": now})
        with self._client.pipeline(transaction=False) as pipe:
            pipe.zadd(KEY, {member: now})
            pipe.zremrangebyscore(KEY, 0, now - DAY_SECONDS)
            pipe.zremrangebyrank(KEY, 0, -MAX_RECOVERIES - 1)
            pipe.expire(KEY, DAY_SECONDS)
            pipe.execute()

    def list_since(self, at: float) -> list[dict[str, Any]]:
        """Return the recoveries since ``at`` (epoch seconds), the newest last."""
        found: Any = self._client.zrangebyscore(KEY, at, "+inf")
        return [json.loads(entry) for entry in found]
