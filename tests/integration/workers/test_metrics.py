"""Metrics that are counted in the broker and served to Prometheus."""

from __future__ import annotations

import io
import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from reconciler.embedded.process import free_port
from reconciler.observability.emf import EmfMetrics
from reconciler.observability.exporter import start_exporter, write_depths
from reconciler.observability.metrics import EXPORTED, METRICS, Metric, known_series
from reconciler.observability.redis_metrics import PREFIX, RedisMetrics
from reconciler.settings import Settings, load_settings
from tests.support.emf import emf_lines, values
from tests.support.processes import run_reconciler

pytestmark = [pytest.mark.integration, pytest.mark.workers]


@pytest.fixture
def client(broker: str) -> redis.Redis:
    found = redis.Redis.from_url(f"{broker}/3")
    found.flushdb()
    return found


TABLES = {
    "ORCHESTRATION_TABLE_NAME": "orchestrations",
    "TASK_TABLE_NAME": "tasks",
    "TASK_EVENTS_TABLE_NAME": "events",
    "USER_CONCURRENCY_TABLE_NAME": "users",
}
SETTINGS = load_settings(TABLES)
Scraped = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scraped(client: redis.Redis, settings: Settings = SETTINGS) -> Scraped:
    port = free_port()
    server = start_exporter(client, settings, "127.0.0.1", port)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            text = answer.read().decode()
    finally:
        server.shutdown()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def family(metric: Metric, found: Scraped) -> dict[tuple[tuple[str, str], ...], float]:
    name = f"{metric.name}_count" if metric.kind == "histogram" else metric.name
    return {labels: value for (series, labels), value in found.items() if series == name}


def test_every_metric_exists_at_zero_from_the_start(client: redis.Redis) -> None:
    found = scraped(client)
    for metric in METRICS.values():
        expected = dict.fromkeys(known_series(metric, SETTINGS), 0.0)
        assert expected, metric.name
        assert family(metric, found) == expected, metric.name
    for metric in EXPORTED.values():
        assert family(metric, found).keys() == set(known_series(metric, SETTINGS)), metric.name
    assert found["reconciler_sweep_interval_seconds", ()] == 300
    assert found["reconciler_dynamodb_throttles_total", (("table", "users"),)] == 0


def test_the_full_scan_interval_depends_on_the_index(client: redis.Redis) -> None:
    """Without an index every sweep is a full scan, whatever FULL_SCAN_INTERVAL_SECONDS says."""
    name = "reconciler_full_scan_interval_seconds"
    every = {"FULL_SCAN_INTERVAL_SECONDS": "7200"}
    assert scraped(client, load_settings({**TABLES, **every}))[name, ()] == 300
    by_index = load_settings({**TABLES, **every, "ACTIVE_INDEX_NAME": "ChildStatusIndex"})
    found = scraped(client, by_index)
    assert found[name, ()] == 7200
    assert found["reconciler_sweep_interval_seconds", ()] == 300


def test_the_exporter_leaves_out_unknown_metrics(client: redis.Redis) -> None:
    """Another version that shares the broker may count metrics that this version does not know."""
    client.hset(PREFIX + SETTINGS.deployment_id, '["reconciler_of_tomorrow_total",{},""]', "1")
    assert "reconciler_of_tomorrow_total" not in {name for name, _ in scraped(client)}


@contextmanager
def mute() -> Iterator[int]:
    """A port that accepts connections and never answers: a broker that stalls."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(8)
        yield int(listening.getsockname()[1])


@pytest.mark.parametrize("how", ["refuses", "stalls"])
def test_the_exporter_reports_an_unreachable_broker(how: str) -> None:
    """Apart from that it serves only what follows from the settings."""
    with mute() as port:
        url = f"redis://127.0.0.1:{free_port() if how == 'refuses' else port}/0"
        away = redis.Redis.from_url(url, socket_timeout=0.2, socket_connect_timeout=0.2)
        found = scraped(away)
    assert found["reconciler_broker_up", ()] == 0
    said = {name for name, _ in found}
    assert said == {
        "reconciler_broker_up",
        "reconciler_sweep_interval_seconds",
        "reconciler_full_scan_interval_seconds",
        "reconciler_repair_bound_seconds",
    }


def test_the_metrics_command_reports_a_taken_port(broker: str) -> None:
    with mute() as port:
        environment = {"CELERY_BROKER_URL": f"{broker}/3", **TABLES}
        done = run_reconciler("metrics", "--port", str(port), environment=environment)
    assert done.returncode == 2
    assert "cannot listen on" in done.stderr.splitlines()[-1]


def test_counts_of_many_clients_add_up(client: redis.Redis) -> None:
    def count() -> None:
        metrics = RedisMetrics(client, SETTINGS.deployment_id)
        for _ in range(50):
            metrics.increment("reconciler_recoveries_total", code="lost_skip")
            metrics.observe("reconciler_recovery_latency_seconds", 100.0)
            metrics.flush()

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = scraped(client)
    assert found["reconciler_recoveries_total", (("code", "lost_skip"),)] == 400
    assert found["reconciler_recovery_latency_seconds_bucket", (("le", "60.0"),)] == 0
    assert found["reconciler_recovery_latency_seconds_bucket", (("le", "120.0"),)] == 400
    assert found["reconciler_recovery_latency_seconds_sum", ()] == 40_000


def test_counts_survive_a_broker_outage(client: redis.Redis) -> None:
    away = redis.Redis.from_url(f"redis://127.0.0.1:{free_port()}/0")
    metrics = RedisMetrics(away, SETTINGS.deployment_id)
    metrics.increment("reconciler_rows_scanned_total", 7)
    assert not metrics.flush()
    metrics._client = client
    assert metrics.flush()
    assert scraped(client)["reconciler_rows_scanned_total", ()] == 7


def test_an_outdated_gauge_replaces_no_newer_one(client: redis.Redis) -> None:
    """A process that has nothing to do for hours after an outage sent what it knew before."""
    away = redis.Redis.from_url(f"redis://127.0.0.1:{free_port()}/0")
    idle = RedisMetrics(away, SETTINGS.deployment_id)
    idle.set_gauge("reconciler_stuck_work", 7)
    assert not idle.flush()
    busy = RedisMetrics(client, SETTINGS.deployment_id)
    busy.set_gauge("reconciler_stuck_work", 3)
    assert busy.flush()
    idle._client = client
    assert idle.flush()
    assert scraped(client)["reconciler_stuck_work", ()] == 3


def test_queue_depths_are_written_for_cloudwatch(client: redis.Redis) -> None:
    client.lpush("release", "one", "another")
    stream = io.StringIO()
    write_depths(client, EmfMetrics(stream))
    lines = emf_lines(stream.getvalue())
    assert values(lines, "reconciler_queue_messages", queue="release") == [2]
    assert values(lines, "reconciler_queue_messages", queue="sweep") == [0]


def test_an_unreachable_broker_gives_no_queue_depth() -> None:
    stream = io.StringIO()
    away = redis.Redis(host="127.0.0.1", port=free_port(), socket_connect_timeout=1)
    write_depths(away, EmfMetrics(stream))
    assert stream.getvalue() == ""
