"""The declarations of all metrics, and the port through which they are recorded.

``METRICS`` holds every metric with its known label values, so that each series exists, at zero,
from the start. ``EXPORTED`` holds those that only the scrape endpoint adds. Tests compare alert
rules and dashboards with these declarations.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Literal

from reconciler.domain.codes import ACTIONABLE, STUCK_CODES, Code, OrchestrationCode
from reconciler.domain.outcomes import RELEASE_OUTCOMES
from reconciler.errors import ERROR_KINDS
from reconciler.settings import Settings

Kind = Literal["counter", "gauge", "histogram"]
Labels = tuple[tuple[str, str], ...]

BOUNDED_CODES = tuple(code.value for code in (*ACTIONABLE, OrchestrationCode.UNSETTLED_PARENT))
"""The codes that the reconciler repairs: label values of ``reconciler_repair_bound_seconds``."""

RECOVERY_CODES = (*BOUNDED_CODES, Code.LOST_UNSKIP.value)
"""The codes of recoveries: label values of ``reconciler_recoveries_total{code}``."""

MODES = ("repair", "report", "paused")
"""The modes: one of these is 1 in ``reconciler_mode{mode}``."""

QUEUES = ("sweep", "release", "reconciler:by-hand")
"""The queues of Celery (``celeryconfig.py``)."""

TABLE_OPERATIONS: Mapping[str, tuple[str, ...]] = {
    "orchestration_table_name": (
        "batch_get_item",
        "delete_item",
        "get_item",
        "put_item",
        "query",
        "scan",
        "transact_write_items",
        "update_item",
    ),
    "task_table_name": ("batch_get_item", "query", "transact_write_items", "update_item"),
    "task_events_table_name": ("query", "transact_write_items"),
    "user_concurrency_table_name": ("get_item",),
    "repo_table_name": ("get_item",),
    "budget_table_name": ("batch_get_item",),
}
"""Setting of a table → operations called on it: labels of ``…_dynamodb_units_total``."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    ``known``: label → the values that exist from the start. ``of_tables``: labels whose values
    depend on the settings (``TABLE_OPERATIONS``).
    """

    name: str
    kind: Kind
    help: str
    known: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    of_tables: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of its labels."""
        return (*self.known, *self.of_tables)


def _counter(name: str, text: str, **known: tuple[str, ...]) -> Metric:
    return Metric(name, "counter", text, known)


def _gauge(name: str, text: str, **known: tuple[str, ...]) -> Metric:
    return Metric(name, "gauge", text, known)


def _histogram(name: str, text: str, buckets: tuple[float, ...]) -> Metric:
    return Metric(name, "histogram", text, buckets=buckets)


def _by_name(*metrics: Metric) -> Mapping[str, Metric]:
    return {metric.name: metric for metric in metrics}


METRICS = _by_name(
    _counter(
        "reconciler_sweeps_total",
        "Sweeps, by how they ended",
        outcome=("complete", "incomplete", "overlapped", "failed"),
    ),
    _histogram(
        "reconciler_sweep_duration_seconds",
        "How long a sweep took, from its start until it had read its last segment",
        (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800),
    ),
    _gauge(
        "reconciler_covered_as_of_timestamp_seconds",
        "Sweeps have checked everything that was overdue at this time (epoch seconds; 0: unknown)",
        scope=("active", "table"),
    ),
    _counter(
        "reconciler_sweep_failures_total",
        "Sweeps in which all or some of the work failed",
        extent=("total", "partial"),
    ),
    _counter("reconciler_rows_scanned_total", "Rows read by segment scans"),
    _gauge(
        "reconciler_mode",
        "1 for the mode of the last sweep, 0 for the others",
        mode=MODES,
    ),
    _gauge(
        "reconciler_paused_since_timestamp_seconds",
        "When repairs were paused, as the last sweep saw it (epoch seconds; 0: not paused)",
    ),
    _gauge("reconciler_stuck_children", "Number known to be stuck, by code", code=STUCK_CODES),
    _gauge(
        "reconciler_oldest_stuck_seconds",
        "Age of the oldest one known to be stuck, by code",
        code=STUCK_CODES,
    ),
    _gauge("reconciler_stuck_work", "Number known to be stuck, except over_budget"),
    _counter(
        "reconciler_recoveries_total",
        "Repairs, by diagnosis code",
        code=RECOVERY_CODES,
    ),
    _histogram(
        "reconciler_recovery_latency_seconds",
        "Time from when a child became due until it was repaired",
        (30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 86400),
    ),
    _counter("reconciler_releases_total", "Releases, by how they ended", outcome=RELEASE_OUTCOMES),
    _counter(
        "reconciler_duplicates_dropped_total",
        "Tasks not enqueued because the same work was already queued or running",
        task=(
            "reconciler.sweep",
            "reconciler.sweep_segment",
            "reconciler.evaluate_orchestration",
            "reconciler.release_child",
        ),
    ),
    Metric(
        "reconciler_dynamodb_units_total",
        "counter",
        "Capacity units consumed",
        of_tables=("table", "operation"),
    ),
    Metric(
        "reconciler_dynamodb_throttles_total",
        "counter",
        "Requests that DynamoDB throttled, completely or in part, including retries",
        of_tables=("table",),
    ),
    _counter("reconciler_errors_total", "Errors, by kind", kind=ERROR_KINDS),
)

EXPORTED = _by_name(
    _gauge("reconciler_broker_up", "1 if the broker could be read, else 0"),
    _gauge("reconciler_queue_messages", "Messages waiting in a queue", queue=QUEUES),
    _gauge(
        "reconciler_sweep_interval_seconds",
        "How often a sweep should run (SWEEP_INTERVAL_SECONDS)",
    ),
    _gauge(
        "reconciler_full_scan_interval_seconds",
        "How often the whole table should be read: with an index FULL_SCAN_INTERVAL_SECONDS, "
        "else SWEEP_INTERVAL_SECONDS",
    ),
    _gauge(
        "reconciler_repair_bound_seconds",
        "Highest age that something stuck reaches while the backstop works, by code",
        code=BOUNDED_CODES,
    ),
)
"""Metrics that only the scrape endpoint adds, about the broker and the settings."""


def kind_of(name: str) -> Kind:
    """Return whether a metric is a counter, a gauge or a histogram."""
    return (METRICS.get(name) or EXPORTED[name]).kind


def known_series(metric: Metric, settings: Settings) -> Iterator[Labels]:
    """Yield the label sets of a metric that exist from the start."""
    known: list[Mapping[str, Iterable[str]]] = [metric.known]
    if metric.of_tables:
        named = ((getattr(settings, name), calls) for name, calls in TABLE_OPERATIONS.items())
        known = [{"table": [table], "operation": calls} for table, calls in named if table]
    labels = sorted(metric.labels)
    for values in known:
        for combination in product(*(values[label] for label in labels)):
            yield tuple(zip(labels, combination, strict=True))


class Metrics:
    """The port for metrics; this implementation drops them.

    ``name`` is one of ``METRICS``, and ``labels`` are all of its labels. Subclasses override
    ``record`` and ``flush``.
    """

    def increment(self, name: str, amount: float = 1.0, **labels: str) -> None:
        """Add to a counter."""
        self.record(name, amount, labels)

    def set_gauge(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        self.record(name, value, labels)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add an observation to a histogram."""
        self.record(name, value, labels)

    def record(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """Add, set or observe a value, depending on the kind of the metric."""

    def flush(self) -> bool:
        """Write the recorded values; False if they are kept for later."""
        return True


NULL_METRICS = Metrics()
