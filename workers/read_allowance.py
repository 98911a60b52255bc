"""The ceiling on what scans read (``SCAN_READ_UNITS_PER_SECOND``), shared through the broker."""

from __future__ import annotations

from typing import Any

import redis

from reconciler.stores.read_pacing import LocalAllowance

KEY = "reconciler:scan-paid-off-at"
_PROCESSES_UNLESS_KNOWN = 8

_TAKE = """
-- KEYS[1]: when all that was taken so far is paid off. ARGV: units, units per second.
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local starts = math.max(now, tonumber(redis.call('GET', KEYS[1]) or '0'))
local paid_off = starts + tonumber(ARGV[1]) / tonumber(ARGV[2])
redis.call('SET', KEYS[1], string.format('%.6f', paid_off), 'EX', 3600)
return string.format('%.6f', starts - now)
"""


class BrokerAllowance:
    """An allowance of read units that all workers share, by the broker's clock."""

    def __init__(self, client: redis.Redis, units_per_second: float) -> None:
        self._units_per_second = units_per_second
        self._take = client.register_script(_TAKE)
        # While the broker is away, each process keeps to a cautious share.
        self._own = LocalAllowance(units_per_second / _PROCESSES_UNLESS_KNOWN)

    def take(self, units: float) -> float:
        """Take ``units`` and return in how many seconds they may be consumed."""
        try:
            wait_seconds: Any = self._take(keys=[KEY], args=[units, self._units_per_second])
        except redis.RedisError:
            return self._own.take(units)
        return float(wait_seconds)
