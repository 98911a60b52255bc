"""Metrics counted in the broker, and served for Prometheus."""

from __future__ import annotations

import threading
import urllib.request

import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from reconciler.embedded.process import free_port
from reconciler.observability.exporter import start_exporter
from reconciler.observability.metrics import METRICS
from reconciler.observability.redis_metrics import RedisMetrics

pytestmark = [pytest.mark.integration, pytest.mark.workers]


@pytest.fixture
def client(broker: str) -> redis.Redis:
    found = redis.Redis.from_url(f"{broker}/3")
    found.flushdb()
    return found


def scraped(client: redis.Redis) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    port = free_port()
    server = start_exporter(client, "127.0.0.1", port)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            text = answer.read().decode()
    finally:
        server.shutdown()
        server.server_close()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_metric_exists_at_zero_from_the_start(client: redis.Redis) -> None:
    found = scraped(client)
    for metric in METRICS.values():
        if metric.labels and not metric.known:
            continue  # its label values are the tables' own names
        name = f"{metric.name}_count" if metric.kind == "histogram" else metric.name
        series = [labels for series_name, labels in found if series_name == name]
        expected = 1
        for values in metric.known.values():
            expected *= len(values)
        assert len(series) == expected, metric.name
        assert all(found[name, labels] == 0 for labels in series)


def test_counts_of_many_processes_add_up(client: redis.Redis) -> None:
    def count() -> None:
        metrics = RedisMetrics(client)
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


def test_what_is_counted_while_the_broker_is_away_is_kept(client: redis.Redis) -> None:
    away = redis.Redis(host="127.0.0.1", port=free_port())
    metrics = RedisMetrics(away)
    metrics.increment("reconciler_rows_scanned_total", 7)
    assert not metrics.flush()
    metrics._client = client
    assert metrics.flush()
    assert scraped(client)["reconciler_rows_scanned_total", ()] == 7
