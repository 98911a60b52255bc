"""The scrape endpoint: what the workers counted in the broker, for Prometheus."""

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
from reconciler.observability.redis_metrics import SUM, bound_text, read_series
from reconciler.observability.scrape_server import ScrapeServer
from reconciler.settings import Settings

if TYPE_CHECKING:
    import redis

_EMF_SECONDS = 60.0
"""CloudWatch's own resolution."""

Series = dict[tuple[str, Labels, str], float]


class BrokerCollector(Collector):
    """Reads the hash on each scrape.

    ``reconciler_broker_up`` says whether it could; when it could not, everything that stands in
    the broker is missing, and nothing is made up.
    """

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._client = client
        self._settings = settings

    def collect(self) -> Iterator[Metric]:
        """Give every family, each of its series at zero or above."""
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
    """Return queue → how many messages wait in it.

    Raises:
        RedisError: the broker cannot be asked.
    """
    return {queue: float(client.llen(queue)) for queue in QUEUES}


_TOUCHES = 3
"""After so many touches of a task that nobody acted on, a person should look at the receiver."""


def repair_bounds(settings: Settings) -> dict[str, float]:
    """Return code → how old what is stuck under it can get while the backstop does its work.

    From when it is first acted on, and for as long as it is tried again, two intervals more: the
    sweep that finds it, and one for the time that this takes. What is older has not been mended.
    A parent that nobody settled is found by a full scan alone, which with an index
    is not each sweep.
    """
    interval = settings.sweep_interval_seconds
    grace = settings.stranded_grace_seconds
    # Tried at once, then after pauses of two, four, … times the first wait.
    waits = sum(2**attempt for attempt in range(1, _TOUCHES))
    nudged = settings.settle_mode == "nudge"
    start = settings.task_start_timeout_seconds
    unseen = settings.full_scan_interval_seconds if settings.active_index_name is not None else 0
    acted_on = {
        Code.LOST_RELEASE: grace,
        Code.LOST_TERMINAL: grace,
        Code.LOST_SKIP: grace,
        Code.ABANDONED_CLAIM: settings.claim_timeout_seconds,
        Code.UNSTARTED_TASK: start,
        Code.MISSING_TASK_ID: grace,
        Code.LOST_RECOVERY: grace
        + settings.full_scan_interval_seconds
        + (interval * waits if nudged else 0),
        OrchestrationCode.UNSETTLED_PARENT: grace + unseen + (interval * waits if nudged else 0),
    }
    return {code.value: float(seconds + 2 * interval) for code, seconds in acted_on.items()}


def _gauge(name: str, values: Mapping[str, float]) -> Metric:
    """Make a gauge of ``EXPORTED``; ``values`` by its one label, or by "" where it has none."""
    declared = EXPORTED[name]
    family = GaugeMetricFamily(name, declared.help, labels=declared.labels)
    for label, value in values.items():
        family.add_metric([label] if declared.labels else [], value)
    return family


def _family(name: str, series: Series) -> Metric:
    metric = METRICS[name]
    known = sorted({labels for found, labels, _ in series if found == name})
    values = {labels: [dict(labels)[label] for label in metric.labels] for labels in known}
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(name, metric.help, labels=metric.labels)
        for labels, said in values.items():
            buckets = _buckets(metric, labels, series)
            histogram.add_metric(said, buckets, series[name, labels, SUM])
        return histogram
    make = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = make(name.removesuffix("_total"), metric.help, labels=metric.labels)
    for labels, said in values.items():
        family.add_metric(said, series[name, labels, ""])
    return family


def _buckets(metric: Declared, labels: Labels, series: Series) -> list[tuple[str, float]]:
    """Return the buckets of a histogram, each with what the smaller ones hold besides."""
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
    """Serve until the process is ended; with ``METRICS_EMF``, write the queues' depth each minute.

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
    """Write how many messages wait, for autoscaling; nothing while the broker is away."""
    with suppress(RedisError):
        for queue, depth in queue_depths(client).items():
            emf.set_gauge("reconciler_queue_messages", depth, queue=queue)
    emf.flush()
