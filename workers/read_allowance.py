"""The ceiling on reads of scans (``SCAN_READ_UNITS_PER_SECOND``), shared through the broker."""

from __future__ import annotations

from typing import Any

import redis

from reconciler.stores.read_pacing import LocalAllowance

PREFIX = "reconciler:scan-debt:"
_PROCESSES_UNLESS_KNOWN = 8

_TAKE = """
-- KEYS[1]: "<seconds until all that was taken is paid off> <when that was so>".
-- ARGV: units, units per second. If the clock has jumped back since, no time has passed.
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local debt, at = string.match(redis.call('GET', KEYS[1]) or '0 0', '^(%S+) (%S+)$')
debt, at = tonumber(debt or 0) or 0, tonumber(at or 0) or 0
local wait = math.max(0, debt - math.max(0, now - at))
local owed = wait + tonumber(ARGV[1]) / tonumber(ARGV[2])
redis.call('SET', KEYS[1], string.format('%.6f %.6f', owed, now), 'EX', 3600)
return string.format('%.6f', wait)
"""


class BrokerAllowance:
    """An allowance of read units for all workers of a deployment, by the broker's clock."""

    def __init__(self, client: redis.Redis, deployment_id: str, units_per_second: float) -> None:
        self._key = PREFIX + deployment_id
        self._units_per_second = units_per_second
        self._take = client.register_script(_TAKE)
        # While the broker is away, each process uses a cautious share.
        self._own = LocalAllowance(units_per_second / _PROCESSES_UNLESS_KNOWN)

    def take(self, units: float) -> float:
        """Take ``units`` and return after how many seconds they may be used."""
        try:
            wait_seconds: Any = self._take(keys=[self._key], args=[units, self._units_per_second])
        except redis.RedisError:
            return self._own.take(units)
        return float(wait_seconds)
