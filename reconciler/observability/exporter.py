"""The scrape endpoint: what the workers counted in the broker, for Prometheus."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from redis.exceptions import RedisError

from reconciler.observability.metrics import METRICS
from reconciler.observability.redis_metrics import SUM, Labels, bound_text, read_series

if TYPE_CHECKING:
    import redis

QUEUES = ("sweep", "release")
Series = dict[tuple[str, Labels, str], float]


class BrokerCollector(Collector):
    """Reads the hash on each scrape. ``reconciler_broker_up`` says whether it could."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def collect(self) -> Iterator[Metric]:
        """Give every family, each of its series at zero or above."""
        up = GaugeMetricFamily("reconciler_broker_up", "Whether the broker could be read")
        try:
            series = read_series(self._client)
            depths = {queue: float(self._client.llen(queue)) for queue in QUEUES}
        except RedisError:
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        queues = GaugeMetricFamily(
            "reconciler_queue_messages", "Messages that wait in a queue", labels=["queue"]
        )
        for queue, depth in depths.items():
            queues.add_metric([queue], depth)
        yield queues
        for name in METRICS:
            yield _family(name, series)


def _family(name: str, series: Series) -> Metric:
    metric = METRICS[name]
    own = {labels for found, labels, _ in series if found == name}
    labelled = sorted(own)
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(name, metric.help, labels=metric.labels)
        for labels in labelled:
            total, buckets = 0.0, []
            for bound in (*metric.buckets, math.inf):
                total += series.get((name, labels, bound_text(bound)), 0.0)
                buckets.append((bound_text(bound), total))
            histogram.add_metric(_values(metric.labels, labels), buckets, series[name, labels, SUM])
        return histogram
    make = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = make(name.removesuffix("_total"), metric.help, labels=metric.labels)
    for labels in labelled:
        family.add_metric(_values(metric.labels, labels), series[name, labels, ""])
    return family


def _values(names: tuple[str, ...], labels: Labels) -> list[str]:
    found = dict(labels)
    return [found[name] for name in names]


def start_exporter(client: redis.Redis, host: str, port: int) -> WSGIServer:
    """Serve ``/metrics`` in a thread; the server's ``shutdown`` ends it."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(BrokerCollector(client))
    server, _ = start_http_server(port, host, registry)
    return server


def serve_for_ever(client: redis.Redis, host: str, port: int) -> None:
    """Serve until the process is ended."""
    start_exporter(client, host, port)
    while True:
        time.sleep(3600)
