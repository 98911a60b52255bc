"""The metrics, declared once, and the port through which they are counted.

Every metric of ``semantics.md`` stands in ``METRICS`` with all the label values that are known
beforehand, so that each series exists, at zero, from the start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from reconciler.domain.codes import STUCK_CODES, Code
from reconciler.errors import ERROR_KINDS

Kind = Literal["counter", "gauge", "histogram"]

SWEEP_OUTCOMES = ("complete", "incomplete", "overlapped", "failed")
"""How a sweep can end: the label values of ``reconciler_sweeps_total{outcome}``."""

RELEASE_OUTCOMES = (
    "released",
    "adopted",
    "already_released",
    "no_longer_due",
    "claim_in_progress",
    "over_budget",
    "refused",
    "idempotency_conflict",
    "paused",
    "report_only",
    "paced",
    "reinvoked",
    "failed",
)
"""How a release can end: the label values of ``reconciler_releases_total{outcome}``."""

TASK_NAMES = (
    "reconciler.sweep",
    "reconciler.sweep_segment",
    "reconciler.evaluate_orchestration",
    "reconciler.release_child",
)

RECOVERY_CODES = (
    Code.LOST_RELEASE.value,
    Code.LOST_TERMINAL.value,
    Code.LOST_SKIP.value,
    Code.ABANDONED_CLAIM.value,
    Code.UNSTARTED_TASK.value,
    Code.MISSING_TASK_ID.value,
    "unsettled_parent",
)
"""The codes that can be recovered from: those of ``reconciler_recoveries_total{code}``."""

LATENCY_BUCKETS_SECONDS = (30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 86400)
DURATION_BUCKETS_SECONDS = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. ``known``: the label values that exist from the start, by label name."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    known: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    buckets: tuple[float, ...] = ()


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "reconciler_sweeps_total",
            "counter",
            "Sweeps, by how they ended",
            ("outcome",),
            {"outcome": SWEEP_OUTCOMES},
        ),
        Metric(
            "reconciler_sweep_duration_seconds",
            "histogram",
            "How long a sweep took, from its start until its last segment had been read",
            buckets=DURATION_BUCKETS_SECONDS,
        ),
        Metric(
            "reconciler_last_complete_sweep_timestamp_seconds",
            "gauge",
            "When the last sweep that read every segment to its end finished (epoch seconds)",
        ),
        Metric("reconciler_rows_scanned_total", "counter", "Rows read by segment scans"),
        Metric(
            "reconciler_stuck_children",
            "gauge",
            "What is stuck after the last complete sweep, by code",
            ("code",),
            {"code": STUCK_CODES},
        ),
        Metric(
            "reconciler_oldest_stuck_seconds",
            "gauge",
            "Age of the oldest of what is stuck after the last complete sweep, by code",
            ("code",),
            {"code": STUCK_CODES},
        ),
        Metric(
            "reconciler_recoveries_total",
            "counter",
            "Repairs, by the code of what was repaired",
            ("code",),
            {"code": RECOVERY_CODES},
        ),
        Metric(
            "reconciler_recovery_latency_seconds",
            "histogram",
            "From when a child was due until it was repaired",
            buckets=LATENCY_BUCKETS_SECONDS,
        ),
        Metric(
            "reconciler_releases_total",
            "counter",
            "Releases, by how they ended",
            ("outcome",),
            {"outcome": RELEASE_OUTCOMES},
        ),
        Metric(
            "reconciler_duplicates_dropped_total",
            "counter",
            "Tasks that were not enqueued, since the same work was under way",
            ("task",),
            {"task": TASK_NAMES},
        ),
        Metric(
            "reconciler_dynamodb_units_total",
            "counter",
            "Capacity units consumed",
            ("table", "operation"),
        ),
        Metric(
            "reconciler_dynamodb_throttles_total",
            "counter",
            "Requests that were refused for want of capacity",
            ("table",),
        ),
        Metric(
            "reconciler_errors_total",
            "counter",
            "Errors, by kind",
            ("kind",),
            {"kind": ERROR_KINDS},
        ),
    )
}


class Metrics(Protocol):
    """Where metrics are counted. ``name`` is one of ``METRICS``; labels are all of its own."""

    def increment(self, name: str, amount: float = 1.0, **labels: str) -> None:
        """Add to a counter."""

    def set_gauge(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add an observation to a histogram."""


class FlushingMetrics(Metrics, Protocol):
    """Metrics that are written when a unit of work ends."""

    def flush(self) -> bool:
        """Write what was counted; False when it is kept for later."""


class NullMetrics:
    """Counts nothing."""

    def increment(self, name: str, amount: float = 1.0, **labels: str) -> None:
        """Do nothing."""

    def set_gauge(self, name: str, value: float, **labels: str) -> None:
        """Do nothing."""

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Do nothing."""


NULL_METRICS = NullMetrics()
