"""The dashboard, the alerts and the embedded metrics on a real run, with a real Prometheus.

Real workers meet one case of everything that a panel shows. Prometheus scrapes
`reconciler metrics`, and the test runs every query of every panel.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from reconciler.embedded.process import free_port, running
from reconciler.observability.metrics import METRICS, known_series
from reconciler.observability.redis_metrics import read_series
from tests.conftest import Servers
from tests.integration.workers.conftest import celery_over
from tests.support.dashboard import PANELS, expressions, filled_in
from tests.support.emf import emf_lines, values
from tests.support.faulty_endpoint import DENIED, THROTTLED, FaultyEndpoint, faulty_endpoint
from tests.support.processes import ROOT, Celery, until
from tests.support.prometheus import Prometheus, prometheus, tool
from tests.support.world import REPO, World, build_world

pytestmark = [pytest.mark.integration, pytest.mark.workers]

HAPPENS = (
    'reconciler_recoveries_total{code="lost_release"}',
    'reconciler_recoveries_total{code="lost_terminal"}',
    'reconciler_recoveries_total{code="lost_skip"}',
    'reconciler_releases_total{outcome="refused"}',
    'reconciler_stuck_children{code="dangling_dependency"}',
    'reconciler_stuck_children{code="check_failed"}',
    'reconciler_errors_total{kind="access"}',
    "sum(reconciler_sweep_failures_total)",
    'reconciler_duplicates_dropped_total{task="reconciler.sweep"}',
    "sum(reconciler_dynamodb_throttles_total)",
)
"""What the test causes; Prometheus must see each before the panels are judged."""

STEP_SECONDS, BAR = 1.0, "1500ms"
"""The step of a graph, and a window that spans a few more scrapes."""

PAUSED = "reconciler_paused_since_timestamp_seconds"

NOTHING_HAPPENED = {"Waiting messages", "Paused for"}
"""Panels that must show zeros at the end of this run."""


@pytest.fixture
def celery(servers: Servers, broker: str, tmp_path: Path) -> Celery:
    """One endpoint is enough for this test."""
    tool("prometheus")  # skips the test before anything is started
    world = build_world(
        servers.endpoint("moto"),
        SWEEP_INTERVAL_SECONDS="2",
        STRANDED_GRACE_SECONDS="1",
        SWEEP_SEGMENTS="2",
        REPO_TABLE_NAME="{prefix}-Repos",
        METRICS_EMF="true",
    )
    world.put(str(world.settings.repo_table_name), {"repo": {"S": REPO}, "status": {"S": "active"}})
    return celery_over(world, broker, tmp_path)


@contextmanager
def exporter(celery: Celery) -> Iterator[str]:
    """Run ``reconciler metrics`` in its own process; gives its host and port."""
    port = free_port()

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                return b"reconciler_broker_up 1.0" in answer.read()
        except OSError:
            return False

    command = [sys.executable, "-m", "reconciler.cli.main", "metrics", "--port", str(port)]
    log = celery.directory / "metrics.log"
    with running(command, ready=answers, log=log, env=celery.environment, cwd=ROOT):
        yield f"127.0.0.1:{port}"


def seed(world: World, tables: FaultyEndpoint) -> None:
    """Strand one child of each kind: due, doomed, refused, not repairable, unreadable."""
    world.seed({"a": [], "b": ["a"]}, {"a": "released"}, tasks={"a": "COMPLETED"}, age=90)
    world.seed({"a": [], "b": ["a"]}, {"a": "released"}, tasks={"a": "FAILED"}, age=90)
    world.seed({"a": []}, rows={"a": {"repo": {"S": "acme/unknown"}}}, age=90)
    world.seed({"a": ["gone"]}, age=7200)
    tables.fail(DENIED, "Query", table=world.seed({"a": []}, age=3600))
    tables.fail(THROTTLED, "Scan", times=2)


def test_every_panel_shows_what_a_run_has_done(celery: Celery, tmp_path: Path) -> None:
    world = celery.world
    with ExitStack() as stack:
        tables = stack.enter_context(faulty_endpoint(world.endpoint))
        celery.extra["AWS_ENDPOINT_URL"] = tables.url
        target = stack.enter_context(exporter(celery))
        seen = stack.enter_context(prometheus(target, tmp_path))
        until("a first scrape", lambda: seen.query("reconciler_broker_up == 1"))
        started = time.time()
        beats = stack.enter_context(ExitStack())
        beats.enter_context(celery.beat("beat-1"))
        beats.enter_context(celery.beat("beat-2"))
        with celery.worker():
            until("a sweep of nothing", lambda: celery.last(complete=True))
            seed(world, tables)
            for expression in HAPPENS:
                until(expression, lambda: seen.query(f"{expression} > 0"))  # noqa: B023 - at once
            reconciler = world.reconciler()
            reconciler.pause("a test", "tests")
            until("the pause", lambda: seen.query(f"{PAUSED} > 0"))
            reconciler.resume()
            until("the pause to be over", lambda: seen.query(f"{PAUSED} == 0"))
            until(
                "the queues to be empty",
                lambda: seen.query("sum(reconciler_queue_messages) == 0"),
            )
            _judge_panels(seen, target, started)
            _judge_rules(seen)
        beats.close()
        _judge_embedded(celery, tmp_path)
        # With no worker the alert fires. It ends with a worker and a beat.
        stale = 'ALERTS{alertname="ReconcilerSweepStale",alertstate="firing"}'
        until("the alert for a stale sweep", lambda: seen.query(stale))
        with celery.worker(), celery.beat():
            until("the alert to be over", lambda: not seen.query(stale))


def _judge_panels(seen: Prometheus, target: str, started: float) -> None:
    recorded: dict[str, Any] = {}
    now = time.time()
    for panel in (panel for panel in PANELS if panel["type"] != "row"):
        samples: list[float] = []
        for expression in expressions(panel):
            filled = filled_in(expression, job="reconciler", instance=target, rate_interval=BAR)
            found = seen.query_range(filled, started, now, STEP_SECONDS)
            assert found, (panel["title"], filled)
            samples += [float(value) for series in found for _, value in series["values"]]
            recorded.setdefault(panel["title"], []).append(found)
        finite = [value for value in samples if math.isfinite(value)]
        assert finite, panel["title"]
        if panel["title"] not in NOTHING_HAPPENED:
            assert any(value > 0 for value in finite), panel["title"]
        if panel["type"] == "stat":
            filled = filled_in(
                expressions(panel)[0], job="reconciler", instance=target, rate_interval=BAR
            )
            assert len(seen.query(filled)) == 1, f"{panel['title']}: one number"
    kept = os.environ.get("DASHBOARD_DATA")
    if kept:
        Path(kept).write_text(json.dumps(recorded))


def _judge_rules(seen: Prometheus) -> None:
    rules = seen.ask("rules")["groups"][0]["rules"]
    assert rules
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
    assert [rule["lastError"] for rule in rules if rule.get("lastError")] == []


def _judge_embedded(celery: Celery, directory: Path) -> None:
    """The embedded lines must add up to the counts in the broker."""
    logs = [directory / f"{name}.log" for name in ("w1", "beat-1", "beat-2")]
    lines = emf_lines("\n".join(log.read_text() for log in logs))
    counted = read_series(celery.redis, celery.world.settings)
    known = {
        metric.name: set(known_series(metric, celery.world.settings)) for metric in METRICS.values()
    }
    for (name, labels, part), value in counted.items():
        assert labels in known[name], f"{name}{labels} did not exist from the start"
        found = values(lines, name, **dict(labels))
        if METRICS[name].kind == "counter":
            assert sum(found) == pytest.approx(value), (name, labels)
        if part == "sum":
            assert sum(found) == pytest.approx(value), name
            buckets = [key for key in counted if key[:2] == (name, labels) and key[2] != part]
            assert len(found) == sum(counted[bucket] for bucket in buckets), name
    ends = values(lines, "reconciler_covered_as_of_timestamp_seconds", scope="active")
    assert len(set(ends)) > 1
    for code in ("dangling_dependency", "lost_release"):
        assert len(values(lines, "reconciler_stuck_children", code=code)) >= len(ends)
