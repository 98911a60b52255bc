"""The ceiling on the reads of scans, shared by all workers through the broker."""

from __future__ import annotations

import pytest
import redis

from reconciler.embedded.process import free_port
from workers.broker_records import broker_time
from workers.read_allowance import PREFIX, BrokerAllowance

pytestmark = [pytest.mark.integration, pytest.mark.workers]

SLACK_SECONDS = 60.0
"""More than may pass between two calls on a loaded machine, and far less than the waits."""


@pytest.fixture
def client(broker: str) -> redis.Redis:
    found = redis.Redis.from_url(f"{broker}/3")
    found.flushdb()
    return found


def test_workers_share_the_read_allowance(client: redis.Redis) -> None:
    workers = [BrokerAllowance(client, "here", units_per_second=1.0) for _ in range(3)]
    waits = [worker.take(1000.0) for worker in workers]
    assert waits[0] == 0.0
    assert 1000.0 - SLACK_SECONDS < waits[1] <= 1000.0
    assert 2000.0 - SLACK_SECONDS < waits[2] <= 2000.0


def test_returned_units_are_available_to_others(client: redis.Redis) -> None:
    one, other = (BrokerAllowance(client, "here", units_per_second=1.0) for _ in range(2))
    one.take(1000.0)
    one.take(-900.0)
    assert 100.0 - SLACK_SECONDS < other.take(1.0) <= 100.0


def test_the_allowance_key_expires(client: redis.Redis) -> None:
    BrokerAllowance(client, "here", units_per_second=1.0).take(1000.0)
    assert 0 < client.ttl(f"{PREFIX}here") <= 3600


def test_a_clock_set_back_adds_no_wait(client: redis.Redis) -> None:
    """The debt remains, but the hour is not waited for."""
    client.set(f"{PREFIX}here", f"5.0 {broker_time(client) + 3600:.6f}")
    assert BrokerAllowance(client, "here", units_per_second=1.0).take(1.0) == 5.0
    assert BrokerAllowance(client, "here", units_per_second=1.0).take(1.0) <= 6.0


@pytest.mark.parametrize("text", ["", "?", "? ?", "1.0", "1.0 ?"])
def test_a_foreign_value_is_replaced(client: redis.Redis, text: str) -> None:
    client.set(f"{PREFIX}here", text)
    one, other = (BrokerAllowance(client, "here", units_per_second=1.0) for _ in range(2))
    assert one.take(1000.0) <= 1.0
    assert other.take(1.0) > 1000.0 - SLACK_SECONDS, "the allowance is shared"


def test_a_worker_paces_itself_without_the_broker() -> None:
    """It keeps to its own cautious share of the ceiling."""
    away = redis.Redis(port=free_port())
    allowance = BrokerAllowance(away, "here", units_per_second=8.0)
    assert allowance.take(1000.0) == 0.0
    assert 1000.0 - SLACK_SECONDS < allowance.take(1.0) <= 1000.0
