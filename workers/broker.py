"""Clients of the broker, and the metrics that are stored there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import redis

from reconciler.observability.emf import CombinedMetrics, EmfMetrics
from reconciler.observability.metrics import Metrics
from reconciler.observability.redis_metrics import RedisMetrics
from reconciler.settings import Settings

SOCKET_SECONDS = 5.0


def broker_client(settings: Settings) -> redis.Redis:
    """Return a client of the broker with timeouts."""
    return redis.Redis.from_url(
        settings.celery_broker_url,
        socket_timeout=SOCKET_SECONDS,
        socket_connect_timeout=SOCKET_SECONDS,
        health_check_interval=10,
    )


def evicting_policy(memory: Mapping[str, Any]) -> str | None:
    """Return the ``maxmemory-policy`` if the broker can evict keys by it; ``memory``: of INFO."""
    policy = str(memory.get("maxmemory_policy", ""))
    # Without a memory limit nothing is evicted.
    limited = int(memory.get("maxmemory") or 0) > 0
    return policy if policy.startswith(("allkeys-", "volatile-")) and limited else None


def metrics_for(settings: Settings, client: redis.Redis) -> Metrics:
    """Return the metrics of a process: in the broker and, if configured, in its output too."""
    metrics = RedisMetrics(client, settings.deployment_id)
    if not settings.metrics_emf:
        return metrics
    return CombinedMetrics(metrics, EmfMetrics(namespace=settings.metrics_namespace))
