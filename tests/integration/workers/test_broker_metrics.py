"""Metrics that workers count in the broker, among entries that somebody else wrote."""

from __future__ import annotations

import pytest
import redis
from prometheus_client import CollectorRegistry, generate_latest

from reconciler.observability.exporter import BrokerCollector
from reconciler.observability.redis_metrics import PREFIX, RedisMetrics, field_name, read_series
from reconciler.settings import load_settings

pytestmark = [pytest.mark.integration, pytest.mark.workers]

TABLES = ("ORCHESTRATION_TABLE_NAME", "TASK_TABLE_NAME", "TASK_EVENTS_TABLE_NAME")
SETTINGS = load_settings({name: name.lower() for name in TABLES})
KEY = PREFIX + SETTINGS.deployment_id
ROWS = ("reconciler_rows_scanned_total", (), "")
COMPLETE = ("reconciler_sweeps_total", (("outcome", "complete"),), "")


@pytest.fixture
def client(broker: str) -> redis.Redis:
    found = redis.Redis.from_url(f"{broker}/3")
    found.flushdb()
    return found


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("?", "1"),
        ("[1]", "1"),
        ('[["name"],{},""]', "1"),
        ('["reconciler_sweeps_total",[],""]', "1"),
        ('["reconciler_sweeps_total",{},""]', "1"),
        ('["reconciler_sweeps_total",{"outcome":"complete","host":"a"},""]', "1"),
        ('["reconciler_errors_total",{"kind":5},""]', "1"),
        ('["reconciler_errors_total",{"kind":"new"},"sum"]', "1"),
        ('["reconciler_sweep_duration_seconds",{"mode":"repair"},"1.0"]', "1"),
        pytest.param("[" * 100_000, "1", id="deep"),
        ('["reconciler_errors_total",{"kind":"\\ud800"},""]', "1"),
        (field_name(*COMPLETE), "?"),
    ],
)
def test_a_scrape_ignores_foreign_fields(client: redis.Redis, field: str, value: str) -> None:
    """Another version may count with other labels, and its counts stay in the broker."""
    client.hset(KEY, field, value)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(BrokerCollector(client, SETTINGS))
    said = generate_latest(registry).decode().splitlines()
    assert said.count('reconciler_sweeps_total{outcome="complete"} 0.0') == 1
    assert not [line for line in said if "reconciler_sweeps_total{" in line and "1.0" in line]


def test_a_flush_replaces_a_non_numeric_value(
    client: redis.Redis,
) -> None:
    """The first flush fails, and no later one counts anything twice."""
    client.hset(KEY, field_name(*COMPLETE), "?")
    metrics = RedisMetrics(client, SETTINGS.deployment_id)
    metrics.increment("reconciler_rows_scanned_total", 10)
    metrics.increment("reconciler_sweeps_total", outcome="complete")
    assert not metrics.flush()
    assert metrics.flush()
    assert metrics.flush()
    counted = read_series(client, SETTINGS)
    assert (counted[ROWS], counted[COMPLETE]) == (10.0, 1.0)
