"""The alert rules use declared metrics, link to existing sections, and fire as they should."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs.commands import ROOT
from reconciler.domain.codes import STUCK_CODES
from reconciler.observability.metrics import BOUNDED_CODES, METRICS
from tests.support.prometheus import RULES, tool
from tests.support.promql import check_declared
from tests.support.runbook import PAGE, anchors

ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule
    for group in yaml.safe_load((RULES / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
}
CASES: list[dict[str, Any]] = yaml.safe_load((RULES / "alerts_test.yml").read_text())["tests"]
SECTIONS = {
    anchors(f"## {part.partition(chr(10))[0]}")[0]: part for part in PAGE.split("\n## ")[1:]
}
RUNBOOK = "{{ $externalLabels.reconciler_docs }}docs/operating.md#"


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_uses_only_declared_metrics(name: str) -> None:
    assert check_declared(ALERTS[name]["expr"])


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_has_severity_summary_and_runbook_link(name: str) -> None:
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    said = rule["annotations"]
    assert set(said) == {"summary", "description", "runbook_url"}
    assert said["runbook_url"].startswith(RUNBOOK)
    anchor = said["runbook_url"].removeprefix(RUNBOOK)
    assert f"`{name}`" in SECTIONS[anchor].split("\n\n")[1], "its own section, which names it"


@pytest.mark.parametrize("name", ALERTS)
def test_each_alert_fires_and_rests_in_the_cases(name: str) -> None:
    seen = {
        bool(check["exp_alerts"])
        for case in CASES
        for check in case["alert_rule_test"]
        if check["alertname"] == name
    }
    assert seen == {True, False}


def test_every_stuck_code_has_an_alert() -> None:
    """A code is repaired within a bound, needs manual action, or has its own alert."""
    text = "".join(rule["expr"] for rule in ALERTS.values())
    of_a_person = set(re.findall(r"\w+", ALERTS["ReconcilerNeedsAPerson"]["expr"]))
    own = {"quarantined", "over_budget", "refused"}
    assert all(f'"{code}"' in text for code in own)
    covered = set(BOUNDED_CODES) | of_a_person | own | {"check_failed"}
    assert set(STUCK_CODES) - covered == set()
    # A failed check makes its sweep count as failed.
    assert "ReconcilerPartialFailure" in ALERTS


def test_series_in_the_cases_are_declared() -> None:
    for case in CASES:
        for series in case["input_series"]:
            check_declared(series["series"])


def test_promtool_accepts_the_rules_and_their_cases() -> None:
    for arguments in (
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts_test.yml"],
    ):
        done = subprocess.run(
            [tool("promtool"), *arguments], cwd=RULES, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "SUCCESS" in done.stdout


def test_prometheus_scrapes_the_port_that_compose_serves() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    config = yaml.safe_load((RULES / "prometheus.yml").read_text())
    (target,) = config["scrape_configs"][0]["static_configs"][0]["targets"]
    service, _, port = target.partition(":")
    assert f"--port={port}" in compose[service]["command"]


def test_promtool_notices_a_moved_threshold(tmp_path: Path) -> None:
    rules = (RULES / "alerts.yml").read_text()
    moved = rules.replace(
        "> ignoring (scope) 2 * reconciler_sweep", "> ignoring (scope) 4 * reconciler_sweep"
    )
    assert moved != rules
    (tmp_path / "alerts.yml").write_text(moved)
    (tmp_path / "alerts_test.yml").write_text(
        yaml.safe_dump({"rule_files": ["alerts.yml"], "tests": CASES[:1]})
    )
    done = subprocess.run(
        [tool("promtool"), "test", "rules", "alerts_test.yml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "ReconcilerSweepStale" in done.stdout + done.stderr


def test_every_metric_of_trouble_has_an_alert() -> None:
    watched = set().union(*(check_declared(rule["expr"]) for rule in ALERTS.values()))
    trouble = {
        "reconciler_covered_as_of_timestamp_seconds",
        "reconciler_sweep_failures_total",
        "reconciler_stuck_work",
        "reconciler_stuck_children",
        "reconciler_oldest_stuck_seconds",
        "reconciler_dynamodb_throttles_total",
        "reconciler_duplicates_dropped_total",
        "reconciler_paused_since_timestamp_seconds",
        "reconciler_mode",
    }
    assert trouble <= set(METRICS)
    assert trouble <= watched
