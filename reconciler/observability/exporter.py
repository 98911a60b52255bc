"""The scrape endpoint: serves the workers' metrics in the broker to Prometheus."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from redis.exceptions import RedisError

from reconciler.domain.codes import Code, OrchestrationCode
from reconciler.observability.emf import EmfMetrics
from reconciler.observability.metrics import EXPORTED, METRICS, QUEUES, Labels
from reconciler.observability.metrics import Metric as Declared
from reconciler.observability.redis_metrics import SUM, Series, bound_text, read_series
from reconciler.observability.scrape_server import ScrapeServer
from reconciler.settings import Settings

if TYPE_CHECKING:
    import redis

_EMF_SECONDS = 60.0
"""CloudWatch's own resolution."""

_FAMILIES: dict[str, type[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}


class BrokerCollector(Collector):
    """Reads the broker on each scrape.

    If that fails, ``reconciler_broker_up`` is 0 and all metrics stored in the broker are missing.
    """

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._client = client
        self._settings = settings

    def collect(self) -> Iterator[Metric]:
        """Yield every metric, with all known series."""
        interval = float(self._settings.sweep_interval_seconds)
        yield _gauge("reconciler_sweep_interval_seconds", {"": interval})
        if self._settings.active_index_name is not None:
            interval = float(self._settings.full_scan_interval_seconds)
        yield _gauge("reconciler_full_scan_interval_seconds", {"": interval})
        yield _gauge("reconciler_repair_bound_seconds", repair_bounds(self._settings))
        try:
            series = read_series(self._client, self._settings)
            depths = queue_depths(self._client)
        except RedisError:
            yield _gauge("reconciler_broker_up", {"": 0.0})
            return
        yield _gauge("reconciler_broker_up", {"": 1.0})
        yield _gauge("reconciler_queue_messages", depths)
        for name in METRICS:
            yield _family(name, series)


def queue_depths(client: redis.Redis) -> dict[str, float]:
    """Return queue → number of waiting messages.

    Raises:
        RedisError: the broker cannot be reached.
    """
    return {queue: float(client.llen(queue)) for queue in QUEUES}


_TOUCHES = 3
"""If so many touches of a task have no effect, a person should check the live reconciler."""


def repair_bounds(settings: Settings) -> dict[str, float]:
    """Return code → highest age in seconds of a stuck entry while the backstop works.

    This is the wait before the first repair, plus further tries, plus two intervals: for the
    sweep that finds it, and for the time that this takes. Unsettled parents are found only by a
    scan of the table, which takes longer with an index.
    """
    interval = settings.sweep_interval_seconds
    grace = settings.stranded_grace_seconds
    # The first try is at once, the next ones after 2, 4, … intervals.
    waits = sum(2**attempt for attempt in range(1, _TOUCHES))
    touches = interval * waits if settings.settle_mode == "nudge" else 0
    unseen = settings.full_scan_interval_seconds if settings.active_index_name is not None else 0
    acted_on = {
        Code.LOST_RELEASE: grace,
        Code.LOST_TERMINAL: grace,
        Code.LOST_SKIP: grace,
        Code.ABANDONED_CLAIM: settings.claim_timeout_seconds,
        Code.UNSTARTED_TASK: settings.task_start_timeout_seconds,
        Code.MISSING_TASK_ID: grace,
        Code.LOST_RECOVERY: grace + settings.full_scan_interval_seconds + touches,
        OrchestrationCode.UNSETTLED_PARENT: grace + unseen + touches,
    }
    return {code.value: float(seconds + 2 * interval) for code, seconds in acted_on.items()}


def _gauge(name: str, values: Mapping[str, float]) -> Metric:
    """Make a gauge of ``EXPORTED``; ``values``: by its only label, or by "" if it has none."""
    declared = EXPORTED[name]
    family = GaugeMetricFamily(name, declared.help, labels=declared.labels)
    for label, value in values.items():
        family.add_metric([label] if declared.labels else [], value)
    return family


def _family(name: str, series: Series) -> Metric:
    metric = METRICS[name]
    family = _FAMILIES[metric.kind](name.removesuffix("_total"), metric.help, labels=metric.labels)
    for labels in sorted({labels for found, labels, _ in series if found == name}):
        values = [dict(labels)[label] for label in metric.labels]
        if isinstance(family, HistogramMetricFamily):
            buckets = _buckets(metric, labels, series)
            family.add_metric(values, buckets, series[name, labels, SUM])
        else:
            family.add_metric(values, series[name, labels, ""])
    return family


def _buckets(metric: Declared, labels: Labels, series: Series) -> list[tuple[str, float]]:
    """Return the cumulative buckets of a histogram."""
    bounds = [bound_text(bound) for bound in (*metric.buckets, math.inf)]
    totals = accumulate(series.get((metric.name, labels, bound), 0.0) for bound in bounds)
    return list(zip(bounds, totals, strict=True))


def start_exporter(client: redis.Redis, settings: Settings, host: str, port: int) -> ScrapeServer:
    """Serve ``/metrics`` in a thread; the server's ``shutdown`` ends it.

    Raises:
        OSError: the address cannot be listened on.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(BrokerCollector(client, settings))
    return ScrapeServer(partial(generate_latest, registry), CONTENT_TYPE_LATEST, host, port)


def serve_for_ever(client: redis.Redis, settings: Settings, host: str, port: int) -> None:
    """Serve for ever; with ``METRICS_EMF``, write the depth of the queues each minute.

    Raises:
        OSError: the address cannot be listened on.
    """
    start_exporter(client, settings, host, port)
    emf = EmfMetrics(namespace=settings.metrics_namespace)
    while True:
        if settings.metrics_emf:
            write_depths(client, emf)
        time.sleep(_EMF_SECONDS)


def write_depths(client: redis.Redis, emf: EmfMetrics) -> None:
    """Write the depth of the queues, for autoscaling; nothing while the broker is away."""
    with suppress(RedisError):
        for queue, depth in queue_depths(client).items():
            emf.set_gauge("reconciler_queue_messages", depth, queue=queue)
    emf.flush()
