"""Metrics counted in the broker, so that they add up over prefork workers and hosts.

Metrics inside prefork processes undercount, and files of dead processes stay behind. Counters in
one hash are incremented atomically and need no shared file. Each unit of work buffers its counts
and writes them in one round trip. While the broker is away the buffer is kept.
"""

from __future__ import annotations

import json
import math
from threading import Lock
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from reconciler.observability.metrics import METRICS, Labels, Metric, known_series
from reconciler.settings import Settings

if TYPE_CHECKING:
    import redis

PREFIX = "reconciler:metrics:"
SUM, COUNT = "sum", "count"


def field_name(name: str, labels: Labels, part: str = "") -> str:
    """Return the hash field of a series; ``part`` is a bucket's bound, ``sum`` or ``count``."""
    return json.dumps([name, dict(labels), part], separators=(",", ":"))


class RedisMetrics:
    """The metrics port, on a hash in the broker. Call ``flush`` when a unit of work ends."""

    def __init__(self, client: redis.Redis, deployment_id: str) -> None:
        self._client = client
        self._key = PREFIX + deployment_id
        self._lock = Lock()
        self._added: dict[str, float] = {}
        self._set: dict[str, float] = {}

    def increment(self, name: str, amount: float = 1.0, **labels: str) -> None:
        """Add to a counter."""
        self._add(field_name(name, _labels(METRICS[name], labels)), amount)

    def set_gauge(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        field = field_name(name, _labels(METRICS[name], labels))
        with self._lock:
            self._set[field] = value

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add an observation to a histogram."""
        metric = METRICS[name]
        sorted_labels = _labels(metric, labels)
        bound = next((b for b in metric.buckets if value <= b), math.inf)
        for part, amount in ((bound_text(bound), 1.0), (SUM, value), (COUNT, 1.0)):
            self._add(field_name(name, sorted_labels, part), amount)

    def _add(self, field: str, amount: float) -> None:
        with self._lock:
            self._added[field] = self._added.get(field, 0.0) + amount

    def flush(self) -> bool:
        """Write what was counted; False when the broker is away, and it is kept for later."""
        with self._lock:
            added, self._added = self._added, {}
            gauges, self._set = self._set, {}
        if not added and not gauges:
            return True
        try:
            with self._client.pipeline(transaction=True) as pipe:
                for field, amount in added.items():
                    pipe.hincrbyfloat(self._key, field, amount)
                if gauges:
                    pipe.hset(self._key, mapping={f: repr(v) for f, v in gauges.items()})
                pipe.execute()
        except RedisError:
            with self._lock:
                for field, amount in added.items():
                    self._added[field] = self._added.get(field, 0.0) + amount
                self._set = {**gauges, **self._set}
            return False
        return True


def _labels(metric: Metric, labels: dict[str, str]) -> Labels:
    if set(labels) != set(metric.labels):
        raise ValueError(f"{metric.name} has the labels {metric.labels}, not {tuple(labels)}")
    return tuple(sorted((name, str(value)) for name, value in labels.items()))


def bound_text(bound: float) -> str:
    """Return a bucket's upper bound as Prometheus writes it."""
    return "+Inf" if math.isinf(bound) else repr(float(bound))


def read_series(client: redis.Redis, settings: Settings) -> dict[tuple[str, Labels, str], float]:
    """Return every series that was ever counted, and at zero those that are known beforehand."""
    series: dict[tuple[str, Labels, str], float] = {}
    for metric in METRICS.values():
        parts = [""]
        if metric.kind == "histogram":
            parts = [*(bound_text(b) for b in (*metric.buckets, math.inf)), SUM, COUNT]
        for labels in known_series(metric, settings):
            series.update({(metric.name, labels, part): 0.0 for part in parts})
    stored: dict[bytes, bytes] = client.hgetall(PREFIX + settings.deployment_id)  # type: ignore[assignment]
    for field, value in stored.items():
        name, labels, part = json.loads(field)
        if name not in METRICS:
            continue  # of another version, which shares the broker
        series[name, tuple(sorted(labels.items())), part] = float(value)
    return series
