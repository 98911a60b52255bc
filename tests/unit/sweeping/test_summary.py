"""A sweep's summary, and the log line and metrics that it results in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import structlog

from reconciler.domain.codes import BENIGN, STUCK_CODES
from reconciler.repair.counts import INTEGERS, Counts
from reconciler.sweeping.segments import Scope
from reconciler.sweeping.summary import (
    PARTIAL_FAILURE,
    TOTAL_FAILURE,
    SweepSummary,
    record_sweep,
    set_gauges,
)
from tests.support.metrics import RecordingMetrics

COUNTS = Counts(
    rows_scanned=7,
    released=1,
    stuck={"rows_missing": 1, "over_budget": 2},
    oldest_stuck_seconds={"rows_missing": 90.5},
    planned={"skipped": 2, "released": 1},
    read_units=1.26,
    write_units=2.34,
    requests=3,
)
SUMMARY = SweepSummary("s", "repair", complete=True, segments=2, duration_seconds=1.23456)
FULL = replace(SUMMARY, counts=COUNTS)


def record(summary: SweepSummary, repair_mode: str | None = "repair") -> RecordingMetrics:
    metrics = RecordingMetrics()
    with structlog.testing.capture_logs():
        record_sweep(summary, metrics, repair_mode)
    return metrics


def gauges(metrics: RecordingMetrics, name: str) -> dict[str, float]:
    """Return the series of a gauge by the value of its label."""
    return {
        labels[0][1] if labels else "": value
        for (found, labels), value in metrics.gauges.items()
        if found == name
    }


def test_a_summary_shows_actions_and_consumption() -> None:
    assert FULL.to_json() == {
        "sweep_id": "s",
        "mode": "repair",
        "complete": True,
        "segments": 2,
        **dict.fromkeys(INTEGERS, 0),
        "rows_scanned": 7,
        "released": 1,
        "duration_seconds": 1.235,
        "stuck": {"over_budget": 2, "rows_missing": 1},
        "consumed": {"read_units": 1.3, "write_units": 2.3, "requests": 3},
    }


@pytest.mark.parametrize("mode", ["report", "paused"])
def test_without_repairs_the_summary_shows_the_plan(mode: str) -> None:
    assert replace(FULL, mode=mode).to_json()["planned"] == {"released": 1, "skipped": 2}


@pytest.mark.parametrize(
    ("changes", "alarming"),
    [
        ({}, False),
        ({"counts": Counts(stuck=dict.fromkeys(BENIGN, 3))}, False),
        ({"counts": Counts(stuck={"rows_missing": 0})}, False),
        ({"counts": Counts(stuck={"rows_missing": 1})}, True),
        ({"counts": Counts(errors=1)}, True),
        ({"complete": False}, True),
    ],
    ids=["nothing", "nobody's fault", "none of them", "stuck", "errors", "incomplete"],
)
def test_stuck_failed_or_unread_work_is_alarming(
    changes: dict[str, Any], *, alarming: bool
) -> None:
    assert replace(SUMMARY, **changes).alarming is alarming


@pytest.mark.parametrize(
    ("repair_mode", "complete", "told"),
    [("repair", True, True), ("report", True, True), (None, True, False), ("repair", False, True)],
)
def test_only_scheduled_sweeps_set_the_mode(
    repair_mode: str | None, *, complete: bool, told: bool
) -> None:
    metrics = record(replace(FULL, complete=complete), repair_mode)
    assert bool(metrics.gauges) is told
    outcome = "complete" if complete else "incomplete"
    assert metrics.count("reconciler_sweeps_total", outcome=outcome) == 1
    assert metrics.count("reconciler_rows_scanned_total") == 7
    assert metrics.observations == {"reconciler_sweep_duration_seconds": [1.23456]}


def test_gauges_show_coverage_and_what_is_stuck() -> None:
    metrics = RecordingMetrics()
    set_gauges(metrics, {Scope.ACTIVE: 12.3456, Scope.TABLE: 0.0}, COUNTS)
    covered = gauges(metrics, "reconciler_covered_as_of_timestamp_seconds")
    assert covered == {"active": 12.346, "table": 0.0}
    assert gauges(metrics, "reconciler_stuck_work") == {"": 1}
    stuck = gauges(metrics, "reconciler_stuck_children")
    assert stuck == {**dict.fromkeys(STUCK_CODES, 0), "rows_missing": 1, "over_budget": 2}
    oldest = gauges(metrics, "reconciler_oldest_stuck_seconds")
    assert oldest == {**dict.fromkeys(STUCK_CODES, 0.0), "rows_missing": 90.5}


@pytest.mark.parametrize(
    ("paused_since", "repair_mode", "mode", "since"),
    [
        (None, "repair", "repair", 0.0),
        (None, "report", "report", 0.0),
        (5.5, "repair", "paused", 5.5),
    ],
)
def test_gauges_show_mode_and_start_of_pause(
    paused_since: float | None, repair_mode: str, mode: str, since: float
) -> None:
    metrics = record(replace(FULL, mode=repair_mode, paused_since=paused_since), repair_mode)
    modes = gauges(metrics, "reconciler_mode")
    assert modes == {**dict.fromkeys(("repair", "report", "paused"), 0.0), mode: 1.0}
    assert gauges(metrics, "reconciler_paused_since_timestamp_seconds") == {"": since}


@pytest.mark.parametrize(
    ("changes", "level", "error_id", "extent"),
    [
        ({}, "info", None, None),
        ({"counts": Counts(errors=1)}, "error", TOTAL_FAILURE, "total"),
        ({"counts": Counts(errors=1, released=1)}, "warning", PARTIAL_FAILURE, "partial"),
        ({"complete": False}, "warning", PARTIAL_FAILURE, "partial"),
    ],
    ids=["sound", "nothing but errors", "some errors", "incomplete"],
)
def test_a_sweeps_log_level_follows_its_failures(
    changes: dict[str, Any], level: str, error_id: str | None, extent: str | None
) -> None:
    """So do its error id and the counter of failed sweeps."""
    summary = replace(SUMMARY, **changes)
    metrics = RecordingMetrics()
    with structlog.testing.capture_logs() as lines:
        record_sweep(summary, metrics, "repair")
    (line,) = lines
    assert (line["event"], line["log_level"]) == ("orch.sweep.completed", level)
    assert line.get("error_id") == error_id
    assert line.items() >= summary.to_json().items()
    failures = {
        e: metrics.count("reconciler_sweep_failures_total", extent=e) for e in ("total", "partial")
    }
    assert failures == {"total": extent == "total", "partial": extent == "partial"}
