"""The state of sweeps in the broker: a hash for each kind of record, and the broker's own clock.

Only one step needs a script: it replaces a field of a hash unless somebody else has changed it
meanwhile. ``reconciler.sweeping`` decides what a record becomes.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import FiniteFloat

from reconciler.sweeping.records import Change, Record, read_as

if TYPE_CHECKING:
    import redis
    from redis.client import Pipeline

PREFIX = "reconciler:state:"
REPORT_SECONDS = 3600

COMPARE_AND_SET = """
-- KEYS[1]: hash. ARGV: field, expected value, new value, seconds to expire in.
-- An empty value stands for a field that does not exist; 0 seconds for no expiry.
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then
  return 0
end
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
end
if ARGV[4] ~= '0' then
  redis.call('EXPIRE', KEYS[1], ARGV[4])
end
return 1
"""


class BrokerRecords:
    """Records of a deployment in the broker.

    ``report_id``: of a report by hand, whose records expire after an hour.
    ``outbox``: collects counts; the caller sends it when a task ends.
    """

    def __init__(
        self,
        client: redis.Redis,
        deployment_id: str,
        report_id: str | None = None,
        outbox: Pipeline | None = None,
    ) -> None:
        self._client = client
        self._outbox = outbox
        report = "" if report_id is None else f"report:{report_id}:"
        self._prefix = f"{PREFIX}{deployment_id}:{report}"
        self._expires = 0 if report_id is None else REPORT_SECONDS
        self._compare_and_set = client.register_script(COMPARE_AND_SET)
        self._unchanged: dict[tuple[str, str], tuple[bytes | None, float]] = {}

    def now(self) -> float:
        """Return the broker's time."""
        return broker_time(self._client)

    def read(self, *kinds: str) -> list[dict[str, Record]]:
        """Return all records of these kinds by name, as they were at one moment."""
        with self._client.pipeline(transaction=True) as pipe:
            for kind in kinds:
                pipe.hgetall(self._prefix + kind)
            found: list[Any] = pipe.execute()
        return [_records(stored) for stored in found]

    def get(self, kind: str, name: str) -> Record | None:
        """Return one record, None if there is none."""
        stored: Any = self._client.hget(self._prefix + kind, name)
        return record_of(stored)

    def update(self, kind: str, name: str, change: Change) -> Record | None:
        """Replace a record atomically and return the new one.

        If the last call read this record and did not change it, it is not read again. If somebody
        else has changed it meanwhile, the compare-and-set fails, and then it is read.
        """
        key = self._prefix + kind
        kept, self._unchanged = self._unchanged.get((key, name)), {}
        while True:
            stored, ahead = kept or self._read_one(key, name)
            old = record_of(stored)
            new = change(old, time.monotonic() + ahead)
            if new is not old:
                value = "" if new is None else json.dumps(new, separators=(",", ":"))
                args = [name, stored or "", value, self._expires]
                if self._compare_and_set(keys=[key], args=args):
                    return new
            elif kept is None:
                self._unchanged = {(key, name): (stored, ahead)}
                return old
            kept = None

    def _read_one(self, key: str, name: str) -> tuple[bytes | None, float]:
        """Return a record, and how far the broker's clock is ahead of the monotonic one."""
        with self._client.pipeline(transaction=False) as pipe:
            pipe.hget(key, name)
            pipe.time()
            stored, clock = pipe.execute()
        return stored, _seconds(clock) - time.monotonic()

    def drop(self, kind: str, names: Iterable[str] | None = None) -> None:
        """Delete these records, or all of the kind."""
        if names is None:
            self._client.delete(self._prefix + kind)
        elif names := list(names):
            self._client.hdel(self._prefix + kind, *names)

    def add(self, kind: str, amounts: Mapping[str, float]) -> None:
        """Add to numbers by name.

        Each call appends to a list, and reading adds up. So each task sends one command.
        """
        if not amounts:
            return
        key = self._prefix + kind
        pipe = self._outbox if self._outbox is not None else self._client.pipeline()
        pipe.rpush(key, json.dumps(dict(amounts), separators=(",", ":")))
        if self._expires:
            pipe.expire(key, self._expires)
        if self._outbox is None:
            pipe.execute()

    def numbers(self, kind: str) -> dict[str, float]:
        """Return the sums by name."""
        listed: Any = self._client.lrange(self._prefix + kind, 0, -1)
        total = Counter[str]()
        for amounts in listed:
            total.update(read_as(dict[str, FiniteFloat], record_of(amounts)) or {})
        return dict(total)


def record_of(stored: bytes | None) -> Record | None:
    """Read a record; anything else counts as absent, so that it is overwritten."""
    try:
        found = json.loads(stored or b"null")
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _records(stored: Mapping[bytes, bytes]) -> dict[str, Record]:
    found = {name.decode(errors="replace"): record_of(value) for name, value in stored.items()}
    return {name: record for name, record in found.items() if record is not None}


def broker_time(client: redis.Redis) -> float:
    """Return the time by the broker's clock, in epoch seconds.

    Raises:
        redis.exceptions.RedisError: the broker cannot be reached.
    """
    return _seconds(client.time())


def _seconds(clock: Any) -> float:  # noqa: ANN401 - redis: seconds and microseconds
    return float(clock[0]) + float(clock[1]) / 1_000_000
