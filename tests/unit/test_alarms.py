"""The CloudWatch alarms are valid, use metrics that are written, and match the alerts."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cfnlint.decode
import pytest

from docs.commands import ROOT
from reconciler.observability.emf import EmfMetrics
from reconciler.repair.counts import Counts
from reconciler.settings import load_settings
from reconciler.sweeping.segments import Scope
from reconciler.sweeping.summary import SweepSummary, record_sweep, set_gauges
from tests.support.emf import emf_lines, values
from tests.support.runbook import anchors
from tests.unit.test_alerts import ALERTS

TEMPLATE = ROOT / "deploy" / "cloudwatch" / "alarms.yaml"
DECODED = json.loads(json.dumps(cfnlint.decode.decode(str(TEMPLATE))[0]))
ALARMS: dict[str, dict[str, Any]] = {
    name: resource["Properties"] for name, resource in DECODED["Resources"].items()
}
ONLY_A_SCRAPE_KNOWS = {"NeverSwept", "Absent", "BrokerUnreachable"}
"""Each of these problems leads to ``SweepStale``, which treats missing data as breaching."""
OF_SILENCE = {"SweepStale", "TableStale"}
"""Alarms that treat missing data as breaching: they fire if no data comes."""
ONLY_HERE = {"ClaimsOverBound", "RowsMissing"}
"""Parts of ``StuckOverBound`` and ``NeedsAPerson``: an alarm can have one bound and ten metrics."""


def metrics_of(alarm: dict[str, Any]) -> Iterator[tuple[str, dict[str, str], Any]]:
    """Yield the name, the dimensions and the period of each metric of an alarm."""
    if "MetricName" in alarm:
        dimensions = {d["Name"]: d["Value"] for d in alarm.get("Dimensions", ())}
        yield alarm["MetricName"], dimensions, alarm["Period"]
    for part in alarm.get("Metrics", ()):
        if "MetricStat" in part:
            metric = part["MetricStat"]["Metric"]
            dimensions = {d["Name"]: d["Value"] for d in metric.get("Dimensions", ())}
            yield metric["MetricName"], dimensions, part["MetricStat"]["Period"]


def written() -> list[dict[str, Any]]:
    """Return what a worker writes when it starts, and when it ends a sweep."""
    stream = io.StringIO()
    metrics = EmfMetrics(stream)
    tables = ("ORCHESTRATION_TABLE_NAME", "TASK_TABLE_NAME", "TASK_EVENTS_TABLE_NAME")
    metrics.declare(load_settings({name: name.lower() for name in tables}))
    metrics.flush()
    summary = SweepSummary("s", "repair", True, 1, 1.0, Counts())  # noqa: FBT003
    record_sweep(summary, metrics, "repair")
    set_gauges(metrics, dict.fromkeys(Scope, 12.0), Counts())
    metrics.flush()
    return emf_lines(stream.getvalue())


def test_cfn_lint_accepts_the_alarms() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "cfn-lint", "--info", str(TEMPLATE)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_metric_is_written_with_its_dimensions() -> None:
    lines = written()
    for name, alarm in ALARMS.items():
        found = list(metrics_of(alarm))
        assert 0 < len(found) <= 10, name
        for metric, dimensions, _ in found:
            assert values(lines, metric, **dimensions), (name, metric, dimensions)


@pytest.mark.parametrize("name", ALARMS)
def test_an_alarm_is_valid_and_links_its_runbook(name: str) -> None:
    alarm = ALARMS[name]
    text = alarm["AlarmDescription"]["Fn::Sub"]
    severity, _, _ = text.partition(":")
    assert severity in {"critical", "warning", "info"}
    anchor = text.rpartition("${RunbookUrl}#")[2]
    assert anchor in anchors()
    longest = 24 * 3600
    for _, _, period in metrics_of(alarm):
        given = isinstance(period, dict)
        seconds = DECODED["Parameters"][period["Ref"]]["MaxValue"] if given else period
        assert seconds % 60 == 0
        assert seconds * alarm["EvaluationPeriods"] <= longest
    assert alarm.get("DatapointsToAlarm", 1) <= alarm["EvaluationPeriods"]
    expected = "breaching" if name in OF_SILENCE else "notBreaching"
    assert alarm["TreatMissingData"] == expected


def test_the_alarms_match_the_alerts() -> None:
    alerts = {name.removeprefix("Reconciler") for name in ALERTS}
    assert set(ALARMS) - ONLY_HERE == alerts - ONLY_A_SCRAPE_KNOWS
    for name, alarm in ALARMS.items():
        if name not in ONLY_HERE:
            severity = ALERTS[f"Reconciler{name}"]["labels"]["severity"]
            assert alarm["AlarmDescription"]["Fn::Sub"].startswith(f"{severity}:")


def test_an_expression_uses_all_its_metrics() -> None:
    for name, alarm in ALARMS.items():
        parts = {part["Id"]: part for part in alarm.get("Metrics", ())}
        if not parts:
            continue
        returned = [part for part in parts.values() if part["ReturnData"]]
        assert len(returned) == 1, name
        used = returned[0]["Expression"]
        assert all(part in used for part in parts if part != returned[0]["Id"]), name
