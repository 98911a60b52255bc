"""The state of sweeps in the broker: a hash for each kind of record, and the broker's own clock.

One script is all that needs to be atomic: it replaces a field of a hash unless somebody else has
changed it meanwhile. What a record becomes is decided in ``reconciler.sweeping``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from reconciler.sweeping.records import Change, Record

if TYPE_CHECKING:
    import redis

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
    """Records in the broker.

    ``namespace``: of one report by hand; its records are forgotten after an hour.
    """

    def __init__(self, client: redis.Redis, namespace: str = "") -> None:
        self._client = client
        self._prefix = f"{PREFIX}{namespace}:" if namespace else PREFIX
        self._expires = REPORT_SECONDS if namespace else 0
        self._compare_and_set = client.register_script(COMPARE_AND_SET)

    def now(self) -> float:
        """Return the broker's time."""
        return broker_time(self._client)

    def read(self, *kinds: str) -> list[dict[str, Record]]:
        """Return all records of these kinds by name, as they were at one moment."""
        with self._client.pipeline(transaction=True) as pipe:
            for kind in kinds:
                pipe.hgetall(self._prefix + kind)
            found: list[Any] = pipe.execute()
        return [
            {name.decode(): json.loads(value) for name, value in stored.items()} for stored in found
        ]

    def get(self, kind: str, name: str) -> Record | None:
        """Return one record, None where there is none."""
        stored: Any = self._client.hget(self._prefix + kind, name)
        return None if stored is None else dict(json.loads(stored))

    def update(self, kind: str, name: str, change: Change) -> Record | None:
        """Replace a record atomically and return the new one."""
        key = self._prefix + kind
        while True:
            with self._client.pipeline(transaction=False) as pipe:
                pipe.hget(key, name)
                pipe.time()
                stored, clock = pipe.execute()
            old = None if stored is None else dict(json.loads(stored))
            new = change(old, _seconds(clock))
            if new is old:
                return old
            value = "" if new is None else json.dumps(new, separators=(",", ":"))
            args = [name, stored or "", value, self._expires]
            if self._compare_and_set(keys=[key], args=args):
                return new

    def drop(self, kind: str, names: Iterable[str] | None = None) -> None:
        """Delete these records, or all of the kind."""
        if names is None:
            self._client.delete(self._prefix + kind)
        elif names := list(names):
            self._client.hdel(self._prefix + kind, *names)

    def add(self, kind: str, amounts: Mapping[str, float]) -> None:
        """Add to numbers by name."""
        with self._client.pipeline(transaction=False) as pipe:
            for name, amount in amounts.items():
                pipe.hincrbyfloat(self._prefix + kind, name, amount)
            if self._expires:
                pipe.expire(self._prefix + kind, self._expires)
            pipe.execute()

    def numbers(self, kind: str) -> dict[str, float]:
        """Return what has been added up by name."""
        stored: Any = self._client.hgetall(self._prefix + kind)
        return {name.decode(): float(value) for name, value in stored.items()}


def records_of(client: redis.Redis, report_id: str | None = None) -> BrokerRecords:
    """Return the records of all sweeps; ``report_id``: those of one report by hand instead."""
    return BrokerRecords(client, f"report:{report_id}" if report_id is not None else "")


def broker_time(client: redis.Redis) -> float:
    """Return the time by the broker's clock, in epoch seconds.

    Raises:
        redis.exceptions.RedisError: the broker cannot be reached.
    """
    return _seconds(client.time())


def _seconds(clock: Any) -> float:  # noqa: ANN401 - redis: seconds and microseconds
    return float(clock[0]) + float(clock[1]) / 1_000_000
