"""The recoveries of the last day, for ``reconciler status`` and ``list --recovered``."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NotRequired

from pydantic import ConfigDict, FiniteFloat, with_config
from typing_extensions import TypedDict

from reconciler.settings import DAY_SECONDS
from reconciler.sweeping.records import read_as
from workers.broker_records import broker_time, record_of

if TYPE_CHECKING:
    import redis
    from redis.client import Pipeline

PREFIX = "reconciler:recoveries:"
MAX_RECOVERIES = 20_000
_MINUTE_SECONDS = 60.0


@with_config(ConfigDict(extra="allow"))
class _Entry(TypedDict):
    """The fields of a recovery; one of another version may have more."""

    orchestration_id: str
    sub_issue_id: str
    code: str
    latency: FiniteFloat | None
    at: FiniteFloat
    display_id: NotRequired[str]
    repo: NotRequired[str]
    user_id: NotRequired[str]
    task_id: NotRequired[str]


class Recoveries:
    """A deployment's recoveries: a sorted set in the broker, by time.

    ``outbox``: collects additions; its owner sends it.
    """

    def __init__(
        self, client: redis.Redis, deployment_id: str, outbox: Pipeline | None = None
    ) -> None:
        self._client = client
        self._key = PREFIX + deployment_id
        self._outbox = outbox
        self._clock: tuple[float, float] | None = None  # the broker's time and the monotonic time

    def add(self, code: str, ids: Mapping[str, str], latency: float | None) -> None:
        """Record a recovery for a day; once a minute, drop older ones.

        ``ids``: the known names of what it concerns.
        """
        pipe = self._outbox if self._outbox is not None else self._client.pipeline()
        at, since = self._clock or (0.0, -_MINUTE_SECONDS)
        trims = time.monotonic() - since >= _MINUTE_SECONDS
        if trims:
            at, since = self._clock = broker_time(self._client), time.monotonic()
        now = at + time.monotonic() - since
        member = json.dumps({**ids, "code": code, "latency": latency, "at": now})
        pipe.zadd(self._key, {member: now})
        if trims:
            pipe.zremrangebyscore(self._key, 0, now - DAY_SECONDS)
            pipe.zremrangebyrank(self._key, 0, -MAX_RECOVERIES - 1)
            pipe.expire(self._key, DAY_SECONDS)
        if self._outbox is None:
            pipe.execute()

    def list_last(self, seconds: float) -> list[dict[str, Any]]:
        """Return the recoveries of the last ``seconds``, by the broker's clock, newest last."""
        now = broker_time(self._client)
        found: Any = self._client.zrangebyscore(self._key, now - seconds, now)
        read = (read_as(_Entry, record_of(entry)) for entry in found)
        return [dict(entry) for entry in read if entry is not None]
