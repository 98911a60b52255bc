"""Embedded metric format, as its specification has it."""

from __future__ import annotations

import io
import json

from reconciler.observability.emf import CombinedMetrics, EmfMetrics


def written(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_declares_its_metric_and_holds_its_value() -> None:
    stream = io.StringIO()
    metrics = EmfMetrics(stream, now=lambda: 1.5)
    metrics.increment("reconciler_recoveries_total", code="lost_release")
    metrics.increment("reconciler_recoveries_total", code="lost_release")
    metrics.flush()
    metrics.flush()
    (line,) = written(stream)
    assert line == {
        "_aws": {
            "Timestamp": 1500,
            "CloudWatchMetrics": [
                {
                    "Namespace": "OrchestrationReconciler",
                    "Dimensions": [["code"]],
                    "Metrics": [{"Name": "reconciler_recoveries_total", "Unit": "Count"}],
                }
            ],
        },
        "code": "lost_release",
        "reconciler_recoveries_total": 2.0,
    }


def test_observations_are_kept_whole_at_most_a_hundred_in_a_line() -> None:
    stream = io.StringIO()
    metrics = CombinedMetrics(EmfMetrics(stream))
    for value in range(150):
        metrics.observe("reconciler_recovery_latency_seconds", float(value))
    assert metrics.flush()
    lengths = [len(line["reconciler_recovery_latency_seconds"]) for line in written(stream)]  # type: ignore[arg-type]
    assert lengths == [100, 50]
