"""Metrics in the broker, which add up over prefork workers and hosts.

Metrics inside prefork processes undercount, and shared files of dead processes stay behind. So the
counters are in one hash, where increments are atomic. Each unit of work buffers its values and
writes them in one round trip; while the broker is away counts are kept.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING

from redis.exceptions import RedisError, ResponseError

from reconciler.observability.metrics import METRICS, Labels, Metric, Metrics, known_series
from reconciler.settings import Settings

if TYPE_CHECKING:
    import redis

PREFIX = "reconciler:metrics:"
SUM = "sum"

Series = dict[tuple[str, Labels, str], float]
"""Name, labels and part → value."""


def field_name(name: str, labels: Labels, part: str) -> str:
    """Return the hash field of a series; ``part``: a bucket's bound, ``sum`` or ""."""
    return json.dumps([name, dict(labels), part], separators=(",", ":"))


class RedisMetrics(Metrics):
    """Metrics in a hash in the broker, which ``flush`` writes."""

    def __init__(self, client: redis.Redis, deployment_id: str) -> None:
        self._client = client
        self._key = PREFIX + deployment_id
        self._lock = Lock()
        self._added: dict[str, float] = {}
        self._set: dict[str, float] = {}

    def record(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """Buffer a value until the next ``flush``.

        Raises:
            ValueError: the metric has other labels.
        """
        metric = METRICS[name]
        if set(labels) != set(metric.labels):
            raise ValueError(f"{name} has the labels {metric.labels}, not {tuple(labels)}")
        ordered = tuple(sorted((label, str(said)) for label, said in labels.items()))
        parts = {"": value}
        if metric.kind == "histogram":
            bound = next((b for b in metric.buckets if value <= b), math.inf)
            parts = {bound_text(bound): 1.0, SUM: value}
        fields = {field_name(name, ordered, part): amount for part, amount in parts.items()}
        with self._lock:
            if metric.kind == "gauge":
                self._set.update(fields)
            else:
                self._add(fields)

    def _add(self, fields: Mapping[str, float]) -> None:
        for field, amount in fields.items():
            self._added[field] = self._added.get(field, 0.0) + amount

    def flush(self) -> bool:
        """Write the buffer; False if counts are kept for later, because the broker is away."""
        with self._lock:
            added, self._added = self._added, {}
            gauges, self._set = self._set, {}
        try:
            with self._client.pipeline(transaction=True) as pipe:
                for field, amount in added.items():
                    pipe.hincrbyfloat(self._key, field, amount)
                if gauges:
                    pipe.hset(self._key, mapping={f: repr(v) for f, v in gauges.items()})
                answers = pipe.execute(raise_on_error=False)
        except RedisError:
            # Not the gauges: others may have set them by the time that the broker is back.
            self._keep(added)
            return False
        refused = {
            field: amount
            for (field, amount), answer in zip(added.items(), answers, strict=False)
            if isinstance(answer, ResponseError)
        }
        if refused:
            # These fields hold no number, so we did not write them. Delete and retry only these.
            self._keep(refused)
            with suppress(RedisError):
                self._client.hdel(self._key, *refused)
        return not refused

    def _keep(self, added: Mapping[str, float]) -> None:
        with self._lock:
            self._add(added)


def bound_text(bound: float) -> str:
    """Return a bucket's upper bound in Prometheus's format."""
    return "+Inf" if math.isinf(bound) else repr(float(bound))


def read_series(client: redis.Redis, settings: Settings) -> Series:
    """Return all stored series, and all known ones, at zero by default."""
    series: Series = {}
    for metric in METRICS.values():
        for labels in known_series(metric, settings):
            series.update({(metric.name, labels, part): 0.0 for part in _parts(metric)})
    stored: dict[bytes, bytes] = client.hgetall(PREFIX + settings.deployment_id)  # type: ignore[assignment]
    for field, value in stored.items():
        found = _series_of(field)
        if found is not None:
            with suppress(ValueError):  # not written by us
                series[found] = float(value)
    return series


def _parts(metric: Metric) -> list[str]:
    if metric.kind != "histogram":
        return [""]
    return [*(bound_text(b) for b in (*metric.buckets, math.inf)), SUM]


def _series_of(field: bytes) -> tuple[str, Labels, str] | None:
    """Parse a hash field; None if it is unknown, since another version may have other metrics."""
    try:
        name, labels, part = json.loads(field)
        metric, ordered = METRICS[name], tuple(sorted(labels.items()))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
    # Printable, since a lone surrogate cannot be encoded.
    texts = all(isinstance(said, str) and said.isprintable() for said in labels.values())
    known = texts and set(labels) == set(metric.labels) and part in _parts(metric)
    return (name, ordered, part) if known else None
