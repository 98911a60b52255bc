"""The declared metrics, compared with what can be counted."""

from __future__ import annotations

import re
import runpy
from datetime import UTC, datetime
from pathlib import Path

import pytest

from reconciler.domain.codes import Code, OrchestrationCode
from reconciler.errors import ERROR_KINDS
from reconciler.observability.exporter import repair_bounds
from reconciler.observability.metrics import BOUNDED_CODES, EXPORTED, METRICS, QUEUES
from reconciler.repair.counts import Counts
from reconciler.settings import Settings, load_settings
from reconciler.sweeping.summary import SweepSummary, record_sweep
from tests.support.metrics import RecordingMetrics

TABLES = ("ORCHESTRATION_TABLE_NAME", "TASK_TABLE_NAME", "TASK_EVENTS_TABLE_NAME")
NOW = datetime(2026, 6, 9, 12, tzinfo=UTC)
ROOT = Path(__file__).parents[3]
ROOT_KIND = "error"
"""The kind of the base classes, which are never raised themselves."""
NEVER_COUNTED = {"demo", "embedded_server"}
"""Kinds that do not belong to the backstop."""


def test_every_kind_of_error_is_declared() -> None:
    sources = [*ROOT.glob("reconciler/**/*.py"), *ROOT.glob("workers/*.py")]
    declared = re.compile(r'^(?:class .*, kind="(\w+)"[,)]|    kind = "(\w+)"$)', re.MULTILINE)
    found = [pair for source in sources for pair in declared.findall(source.read_text())]
    kinds = {at_class or inside for at_class, inside in found}
    assert kinds - {ROOT_KIND} - NEVER_COUNTED == set(ERROR_KINDS)


def test_only_names_of_counters_end_in_total() -> None:
    for metric in (*METRICS.values(), *EXPORTED.values()):
        assert re.fullmatch(r"reconciler_[a-z_]+", metric.name)
        assert (metric.kind == "counter") is metric.name.endswith("_total")
        assert metric.help
        assert set(metric.known) <= set(metric.labels)


def test_the_queues_are_those_of_celery(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in TABLES:
        monkeypatch.setenv(name, name.lower())
    configured = runpy.run_path(str(ROOT / "celeryconfig.py"))["task_queues"]
    assert tuple(queue.name for queue in configured) == QUEUES


def settings(**given: str) -> Settings:
    return load_settings({**{name: name.lower() for name in TABLES}, **given})


def test_every_repairable_code_has_a_bound() -> None:
    bounds = repair_bounds(settings())
    assert set(bounds) == set(BOUNDED_CODES)
    assert bounds[Code.LOST_RECOVERY] == 120 + 6 * 3600 + (2 + 4) * 300 + 2 * 300
    # I3: grace + interval + the time that a sweep takes, which is an interval at most.
    assert bounds[Code.LOST_RELEASE] == 120 + 2 * 300
    assert bounds[Code.ABANDONED_CLAIM] == 900 + 2 * 300
    # Touched when the grace is over, and again two and then four intervals later.
    assert bounds[OrchestrationCode.UNSETTLED_PARENT] == 120 + (2 + 4) * 300 + 2 * 300
    assert bounds[Code.UNSTARTED_TASK] == 900 + 2 * 300
    off = repair_bounds(settings(SETTLE_MODE="off"))
    assert off[OrchestrationCode.UNSETTLED_PARENT] == 120 + 2 * 300


def test_with_an_index_parents_wait_for_full_scans() -> None:
    """An index shows no parents, so only their bound grows."""
    full = settings(FULL_SCAN_INTERVAL_SECONDS="7200")
    by_index = settings(FULL_SCAN_INTERVAL_SECONDS="7200", ACTIVE_INDEX_NAME="ChildStatusIndex")
    code = OrchestrationCode.UNSETTLED_PARENT
    assert repair_bounds(by_index)[code] == repair_bounds(full)[code] + 7200
    assert {**repair_bounds(by_index), code: 0} == {**repair_bounds(full), code: 0}


@pytest.mark.parametrize(
    ("counts", "complete", "extent"),
    [
        (Counts(), True, None),
        (Counts(errors=2), True, "total"),
        (Counts(errors=2, released=1), True, "partial"),
        (Counts(released=1), False, "partial"),
    ],
)
def test_a_failed_sweep_counts_by_its_extent(
    counts: Counts, extent: str | None, *, complete: bool
) -> None:
    metrics = RecordingMetrics()
    summary = SweepSummary("s", "repair", complete, 1, 1.0, counts)
    record_sweep(summary, metrics, "repair")
    for name in ("total", "partial"):
        assert metrics.count("reconciler_sweep_failures_total", extent=name) == (name == extent)


def test_a_sweep_without_the_switch_sets_no_mode() -> None:
    """It could not read the pause switch."""
    metrics = RecordingMetrics()
    record_sweep(SweepSummary("s", "repair", False, 1, 1.0), metrics, None)  # noqa: FBT003
    assert metrics.gauges == {}


def test_a_report_by_hand_sets_no_mode() -> None:
    metrics = RecordingMetrics()
    counts = Counts(stuck={"lost_release": 2})
    record_sweep(SweepSummary("s", "report", True, 1, 1.0, counts), metrics, None)  # noqa: FBT003
    assert metrics.gauges == {}


def test_a_complete_sweep_sets_the_mode() -> None:
    metrics = RecordingMetrics()
    record_sweep(SweepSummary("s", "repair", True, 1, 1.0), metrics, "report")  # noqa: FBT003
    gauges = {(name, *dict(labels).values()): v for (name, labels), v in metrics.gauges.items()}
    modes = {mode: gauges["reconciler_mode", mode] for mode in ("repair", "report", "paused")}
    assert modes == {"repair": 0, "report": 1, "paused": 0}
    assert gauges["reconciler_paused_since_timestamp_seconds",] == 0
