"""What each worker process holds: made once in it, after the fork, and used by all its tasks."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import redis
from celery import signals
from limits import RateLimitItemPerSecond
from limits.storage import storage_from_string
from limits.strategies import FixedWindowRateLimiter

from reconciler.composition import build_reconciler
from reconciler.observability.emf import CombinedMetrics, EmfMetrics
from reconciler.observability.metrics import FlushingMetrics
from reconciler.observability.redis_metrics import RedisMetrics
from reconciler.repair.reconciler import Reconciler
from reconciler.settings import Settings, load_settings
from reconciler.stores.read_pacing import LocalAllowance
from workers.gate import Gate
from workers.recoveries import Recoveries

_SOCKET_SECONDS = 5.0
_PACE_SECONDS = 3.0
_PACE_POLL_SECONDS = 0.25
LANE_PREFIX = "reconciler:lane:"
_LANE_SECONDS = 2.0
"""After which a lane is free again, should whoever was in it be gone: a transaction takes less."""

_LANE_POLL_SECONDS = 0.02


def broker_client(settings: Settings) -> redis.Redis:
    """Return a client of the broker with bounded waits."""
    return redis.Redis.from_url(
        settings.celery_broker_url,
        socket_timeout=_SOCKET_SECONDS,
        socket_connect_timeout=_SOCKET_SECONDS,
        health_check_interval=10,
    )


@contextmanager
def broker_metrics() -> Iterator[RedisMetrics]:
    """Metrics for a process that does no work of its own: a worker's main one, or a beat.

    It makes nothing that a process forked off it later could inherit.
    """
    client = broker_client(load_settings())
    metrics = RedisMetrics(client)
    try:
        yield metrics
    finally:
        metrics.flush()
        client.close()


def metrics_of(settings: Settings, client: redis.Redis) -> FlushingMetrics:
    """Return where a process counts: in the broker and, by setting, in its output too."""
    metrics = RedisMetrics(client)
    if not settings.metrics_emf:
        return metrics
    return CombinedMetrics(metrics, EmfMetrics(namespace=settings.metrics_namespace))


class RatePacer:
    """Lets releases through at a rate, over all workers; waits a few seconds for a turn.

    In windows of a second, or of as many as one release takes, so that a backlog goes at an even
    pace and not in one burst. Those that share a row go one after the other.
    """

    def __init__(self, settings: Settings, client: redis.Redis) -> None:
        self._client = client
        per_minute = settings.release_rate_per_minute
        self._limiter = FixedWindowRateLimiter(
            storage_from_string(
                settings.celery_broker_url,
                socket_timeout=_SOCKET_SECONDS,
                socket_connect_timeout=_SOCKET_SECONDS,
            )
        )
        self._item = (
            RateLimitItemPerSecond(per_minute // 60)
            if per_minute >= 60  # noqa: PLR2004 - seconds of a minute
            else RateLimitItemPerSecond(1, math.ceil(60 / per_minute))
        )

    def acquire(self) -> bool:
        """Take a turn; False when there is none within a few seconds.

        A broker that is away lets it through: the release is safe, and the broker will not bring
        many more.
        """
        deadline = time.monotonic() + _PACE_SECONDS
        while True:
            try:
                if self._limiter.hit(self._item, "reconciler", "releases"):
                    return True
            except redis.RedisError:
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(_PACE_POLL_SECONDS)

    @contextmanager
    def lane(self, name: str) -> Iterator[None]:
        """Keep other workers out of a lane; without a broker, or after a few seconds, go ahead."""
        lock = self._client.lock(
            f"{LANE_PREFIX}{name}",
            timeout=_LANE_SECONDS,
            sleep=_LANE_POLL_SECONDS,
            blocking_timeout=_PACE_SECONDS,
        )
        try:
            taken = lock.acquire()
        except redis.RedisError:
            taken = False
        try:
            yield
        finally:
            if taken:
                # Should it be gone by now, or the broker, it has been given up already.
                with suppress(redis.RedisError):
                    lock.release()


_TAKE = """
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local starts = math.max(now, tonumber(redis.call('GET', KEYS[1]) or '0'))
local paid_off = starts + tonumber(ARGV[1]) / tonumber(ARGV[2])
redis.call('SET', KEYS[1], string.format('%.6f', paid_off), 'EX', 3600)
return string.format('%.6f', starts - now)
"""
ALLOWANCE_KEY = "reconciler:scan-paid-off-at"
_PROCESSES_UNLESS_KNOWN = 8


class BrokerAllowance:
    """An allowance of read units that all workers share; by the broker's clock."""

    def __init__(self, client: redis.Redis, units_per_second: float) -> None:
        self._units_per_second = units_per_second
        self._take = client.register_script(_TAKE)
        # While the broker is away, a cautious share of it.
        self._own = LocalAllowance(units_per_second / _PROCESSES_UNLESS_KNOWN)

    def take(self, units: float) -> float:
        """Take ``units`` and return in how many seconds they may be consumed."""
        try:
            waits: Any = self._take(keys=[ALLOWANCE_KEY], args=[units, self._units_per_second])
        except redis.RedisError:
            return self._own.take(units)
        return float(waits)


@dataclass(frozen=True, slots=True)
class Resources:
    """The reconciler and the broker's parts of one process."""

    settings: Settings
    reconciler: Reconciler
    metrics: FlushingMetrics
    gate: Gate
    recoveries: Recoveries
    client: redis.Redis


_made: dict[int, Resources] = {}


def resources() -> Resources:
    """Return this process's resources, made when they are first asked for.

    Raises:
        SettingsError: the settings make no sense.
    """
    found = _made.get(os.getpid())
    if found is None:
        # Whatever a parent made must not be used on this side of the fork.
        _made.clear()
        found = _made[os.getpid()] = _make(load_settings())
    return found


def _make(settings: Settings) -> Resources:
    client = broker_client(settings)
    metrics = metrics_of(settings, client)
    ceiling = settings.scan_read_units_per_second
    return Resources(
        settings=settings,
        reconciler=build_reconciler(
            settings,
            metrics=metrics,
            pacer=RatePacer(settings, client),
            allowance=BrokerAllowance(client, ceiling) if ceiling is not None else None,
        ),
        metrics=metrics,
        gate=Gate(client),
        recoveries=Recoveries(client),
        client=client,
    )


@signals.worker_process_init.connect
def _in_each_process(**_: Any) -> None:  # noqa: ANN401 - Celery's
    resources()


@signals.worker_ready.connect
def _declare(**_: Any) -> None:  # noqa: ANN401 - Celery's
    """Once for each worker, and not in each of its processes."""
    settings = load_settings()
    if settings.metrics_emf:
        metrics = EmfMetrics(namespace=settings.metrics_namespace)
        metrics.declare(settings)
        metrics.flush()


@signals.worker_process_shutdown.connect
def _flush(**_: Any) -> None:  # noqa: ANN401 - Celery's
    found = _made.get(os.getpid())
    if found is not None:
        found.metrics.flush()
