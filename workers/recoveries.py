"""The recoveries of the last day, for ``reconciler status``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from workers.broker_records import broker_time

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
        now = broker_time(self._client)
        member = json.dumps({**ids, "code": code, "latency": latency, "at": now})
        with self._client.pipeline(transaction=False) as pipe:
            pipe.zadd(KEY, {member: now})
            pipe.zremrangebyscore(KEY, 0, now - DAY_SECONDS)
            pipe.zremrangebyrank(KEY, 0, -MAX_RECOVERIES - 1)
            pipe.expire(KEY, DAY_SECONDS)
            pipe.execute()

    def list_last(self, seconds: float) -> list[dict[str, Any]]:
        """Return the recoveries of the last ``seconds`` by the broker's clock, the newest last."""
        now = broker_time(self._client)
        found: Any = self._client.zrangebyscore(KEY, now - seconds, now)
        return [json.loads(entry) for entry in found]
