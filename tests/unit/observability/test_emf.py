"""Embedded metric format, as its specification describes it."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime

from reconciler.observability.emf import CombinedMetrics, EmfMetrics
from reconciler.observability.metrics import METRICS, known_series
from reconciler.repair.counts import Counts
from reconciler.settings import load_settings
from reconciler.sweeping.segments import Scope
from reconciler.sweeping.summary import SweepSummary, record_sweep, set_gauges
from tests.support.emf import emf_lines, values

TABLES = {
    "ORCHESTRATION_TABLE_NAME": "orchestrations",
    "TASK_TABLE_NAME": "tasks",
    "TASK_EVENTS_TABLE_NAME": "events",
}


def test_a_line_declares_and_holds_its_metric() -> None:
    stream = io.StringIO()
    metrics = EmfMetrics(stream, now=lambda: 1.5, namespace="Ours")
    metrics.increment("reconciler_recoveries_total", code="lost_release")
    metrics.increment("reconciler_recoveries_total", code="lost_release")
    metrics.flush()
    metrics.flush()
    (line,) = emf_lines(stream.getvalue())
    assert line == {
        "_aws": {
            "Timestamp": 1500,
            "CloudWatchMetrics": [
                {
                    "Namespace": "Ours",
                    "Dimensions": [["code"], []],
                    "Metrics": [{"Name": "reconciler_recoveries_total", "Unit": "Count"}],
                }
            ],
        },
        "code": "lost_release",
        "reconciler_recoveries_total": 2.0,
    }


def test_metrics_with_equal_labels_share_a_line() -> None:
    """Only counters are also given without labels, to be added up."""
    stream = io.StringIO()
    metrics = EmfMetrics(stream)
    metrics.set_gauge("reconciler_stuck_children", 3, code="lost_skip")
    metrics.set_gauge("reconciler_oldest_stuck_seconds", 60.5, code="lost_skip")
    metrics.increment("reconciler_recoveries_total", code="lost_skip")
    metrics.increment("reconciler_recoveries_total", code="lost_terminal")
    metrics.flush()
    lines = emf_lines(stream.getvalue())
    assert len(lines) == 2
    assert values(lines, "reconciler_recoveries_total") == [1, 1]
    assert values(lines, "reconciler_stuck_children", code="lost_skip") == [3]
    assert values(lines, "reconciler_stuck_children") == []
    assert values(lines, "reconciler_oldest_stuck_seconds", code="lost_skip") == [60.5]


def test_a_line_holds_at_most_a_hundred_observations() -> None:
    """No observation is lost."""
    stream = io.StringIO()
    metrics = CombinedMetrics(EmfMetrics(stream))
    for value in range(250):
        metrics.observe("reconciler_recovery_latency_seconds", float(value))
    assert metrics.flush()
    lines = emf_lines(stream.getvalue())
    assert len(lines) == 3
    assert sorted(values(lines, "reconciler_recovery_latency_seconds")) == list(range(250))


def test_every_counter_exists_at_zero_from_the_start() -> None:
    settings = load_settings(TABLES)
    stream = io.StringIO()
    metrics = EmfMetrics(stream)
    metrics.declare(settings)
    metrics.flush()
    lines = emf_lines(stream.getvalue())
    for metric in METRICS.values():
        for labels in known_series(metric, settings):
            expected = [0.0] if metric.kind == "counter" else []
            assert values(lines, metric.name, **dict(labels)) == expected, (metric.name, labels)


def test_a_sweep_sets_every_gauge_once() -> None:
    settings = load_settings(TABLES)
    stream = io.StringIO()
    metrics = EmfMetrics(stream)
    counts = Counts(stuck={"lost_release": 2, "over_budget": 5})
    since = datetime(2026, 6, 9, 12, tzinfo=UTC)
    summary = SweepSummary("s", "paused", True, 1, 1.0, counts, since.timestamp())  # noqa: FBT003
    record_sweep(summary, metrics, "repair")
    set_gauges(metrics, dict.fromkeys(Scope, 12.0), counts)
    metrics.flush()
    lines = emf_lines(stream.getvalue())
    for metric in METRICS.values():
        if metric.kind == "gauge":
            for labels in known_series(metric, settings):
                assert len(values(lines, metric.name, **dict(labels))) == 1, (metric.name, labels)
    assert values(lines, "reconciler_stuck_work") == [2]
    assert values(lines, "reconciler_mode", mode="paused") == [1]
    assert values(lines, "reconciler_mode", mode="repair") == [0]
    assert values(lines, "reconciler_paused_since_timestamp_seconds") == [since.timestamp()]


def test_each_line_is_one_write() -> None:
    class Pipe(io.StringIO):
        def write(self, text: str) -> int:
            json.loads(text)
            assert text.endswith("\n")
            return super().write(text)

    metrics = EmfMetrics(Pipe())
    metrics.increment("reconciler_rows_scanned_total", 7)
    assert metrics.flush()
