"""The metrics, declared once, and the port through which they are counted.

Every metric stands in ``METRICS`` with all the label values that are known
beforehand, so that each series exists, at zero, from the start. What the scrape endpoint adds of
its own stands in ``EXPORTED``. Alert rules and dashboards are held to these declarations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from reconciler.domain.codes import ACTIONABLE, STUCK_CODES, Code, OrchestrationCode
from reconciler.domain.outcomes import RELEASE_OUTCOMES
from reconciler.errors import ERROR_KINDS
from reconciler.settings import Settings

Kind = Literal["counter", "gauge", "histogram"]
Labels = tuple[tuple[str, str], ...]

SWEEP_OUTCOMES = ("complete", "incomplete", "overlapped", "failed")
"""How a sweep can end: the label values of ``reconciler_sweeps_total{outcome}``."""

SCOPES = ("active", "table")
"""What coverage is of: active work, and the whole table. Without an index they are the same."""

TASK_NAMES = (
    "reconciler.sweep",
    "reconciler.sweep_segment",
    "reconciler.evaluate_orchestration",
    "reconciler.release_child",
)

BOUNDED_CODES = tuple(code.value for code in (*ACTIONABLE, OrchestrationCode.UNSETTLED_PARENT))
"""The codes that the reconciler repairs by itself: those of ``reconciler_repair_bound_seconds``."""

RECOVERY_CODES = (*BOUNDED_CODES, Code.LOST_UNSKIP.value)
"""The codes that can be recovered from: those of ``reconciler_recoveries_total{code}``."""

MODES = ("repair", "report", "paused")
"""What it may do at the moment: one of these is 1 in ``reconciler_mode{mode}``."""

EXTENTS = ("total", "partial")
"""How much of a sweep failed: as ``RECONCILER_TOTAL_FAILURE`` and ``…_PARTIAL_FAILURE`` say it."""

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
"""Setting → what is called on the table that it names: labels of ``…_dynamodb_units_total``."""

LATENCY_BUCKETS_SECONDS = (30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 86400)
DURATION_BUCKETS_SECONDS = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    ``known``: the label values that exist from the start, by label. ``of_tables``: labels whose
    values follow from the settings (``TABLE_OPERATIONS``).
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
    _counter("reconciler_sweeps_total", "Sweeps, by how they ended", outcome=SWEEP_OUTCOMES),
    _histogram(
        "reconciler_sweep_duration_seconds",
        "How long a sweep took, from its start until its last segment had been read",
        DURATION_BUCKETS_SECONDS,
    ),
    _gauge(
        "reconciler_covered_as_of_timestamp_seconds",
        "Whatever was overdue by then has been looked at (epoch seconds; 0: unknown)",
        scope=SCOPES,
    ),
    _counter(
        "reconciler_sweep_failures_total",
        "Sweeps in which everything that was tried failed, or some of it",
        extent=EXTENTS,
    ),
    _counter("reconciler_rows_scanned_total", "Rows read by segment scans"),
    _gauge(
        "reconciler_mode",
        "1 for what the last sweep was allowed to do, 0 for the others",
        mode=MODES,
    ),
    _gauge(
        "reconciler_paused_since_timestamp_seconds",
        "Since when repairs are paused, as the last sweep found it (epoch seconds; 0: not)",
    ),
    _gauge("reconciler_stuck_children", "What is known to be stuck, by code", code=STUCK_CODES),
    _gauge(
        "reconciler_oldest_stuck_seconds",
        "Age of the oldest of what is known to be stuck, by code",
        code=STUCK_CODES,
    ),
    _gauge("reconciler_stuck_work", "All that is known to be stuck, over_budget left out"),
    _counter(
        "reconciler_recoveries_total",
        "Repairs, by the code of what was repaired",
        code=RECOVERY_CODES,
    ),
    _histogram(
        "reconciler_recovery_latency_seconds",
        "From when a child was due until it was repaired",
        LATENCY_BUCKETS_SECONDS,
    ),
    _counter("reconciler_releases_total", "Releases, by how they ended", outcome=RELEASE_OUTCOMES),
    _counter(
        "reconciler_duplicates_dropped_total",
        "Tasks that were not enqueued, since the same work was under way",
        task=TASK_NAMES,
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
        "Requests that were refused, in whole or in part, for want of capacity; each retry too",
        of_tables=("table",),
    ),
    _counter("reconciler_errors_total", "Errors, by kind", kind=ERROR_KINDS),
)

EXPORTED = _by_name(
    _gauge("reconciler_broker_up", "Whether the broker could be read"),
    _gauge("reconciler_queue_messages", "Messages that wait in a queue", queue=QUEUES),
    _gauge(
        "reconciler_sweep_interval_seconds",
        "How often a sweep should run (SWEEP_INTERVAL_SECONDS)",
    ),
    _gauge(
        "reconciler_full_scan_interval_seconds",
        "How often the whole table should be read: FULL_SCAN_INTERVAL_SECONDS with an index, "
        "else as often as a sweep runs",
    ),
    _gauge(
        "reconciler_repair_bound_seconds",
        "How old what is stuck under a code can get while the backstop does its work",
        code=BOUNDED_CODES,
    ),
)
"""What only the scrape endpoint gives: facts about the broker, and from the settings."""


def kind_of(name: str) -> Kind:
    """Return whether a metric is a counter, a gauge or a histogram."""
    return (METRICS.get(name) or EXPORTED[name]).kind


def known_series(metric: Metric, settings: Settings) -> Iterator[Labels]:
    """Return the label sets of a metric that exist from the start."""
    if not metric.labels:
        yield ()
    elif metric.of_tables:
        yield from _series_of_tables(metric, settings)
    else:
        (label,) = metric.labels
        for value in metric.known[label]:
            yield ((label, value),)


def _series_of_tables(metric: Metric, settings: Settings) -> Iterator[Labels]:
    for setting, operations in TABLE_OPERATIONS.items():
        table = getattr(settings, setting)
        if table is None:
            continue
        if "operation" in metric.of_tables:
            yield from ((("operation", each), ("table", table)) for each in operations)
        else:
            yield (("table", table),)


class Metrics:
    """Where metrics are counted; by itself nowhere.

    ``name`` is one of ``METRICS``, and ``labels`` are all of its own. What counts overrides
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
        """Take what is added, set or observed, by the kind of the metric."""

    def flush(self) -> bool:
        """Write what was counted, at the end of a unit of work; False when it is kept for later."""
        return True


NULL_METRICS = Metrics()
