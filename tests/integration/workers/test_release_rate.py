"""The release rate on a real broker: an even pace, and a clock that jumps."""

from __future__ import annotations

import pytest
import redis

from reconciler.settings import Settings
from workers import release_rate
from workers.release_rate import ReleaseRate

pytestmark = [pytest.mark.integration, pytest.mark.workers]


@pytest.fixture
def client(broker: str) -> redis.Redis:
    found = redis.Redis.from_url(f"{broker}/7")
    found.flushdb()
    return found


@pytest.fixture
def rate(broker: str, monkeypatch: pytest.MonkeyPatch, client: redis.Redis) -> ReleaseRate:
    """One release per minute, and nobody waits for a turn."""
    assert client.ping()
    monkeypatch.setattr(release_rate, "_MAX_WAIT_SECONDS", 0.0)
    settings = Settings(
        orchestration_table_name="rows",
        task_table_name="tasks",
        task_events_table_name="events",
        celery_broker_url=f"{broker}/7",
        release_rate_per_minute=1,
    )
    return ReleaseRate(settings)


def test_the_rate_limits_releases(rate: ReleaseRate) -> None:
    assert rate.acquire()
    assert not rate.acquire()


def test_a_window_that_lasts_too_long_is_forgotten(rate: ReleaseRate, client: redis.Redis) -> None:
    """The broker's clock was set back by an hour, so the window would last an hour longer."""
    assert rate.acquire()
    (key,) = client.keys()
    client.expire(key, 60 + 3600)
    assert not rate.acquire()
    assert rate.acquire()


def test_a_window_without_expiry_is_forgotten(rate: ReleaseRate, client: redis.Redis) -> None:
    assert rate.acquire()
    (key,) = client.keys()
    client.persist(key)
    assert not rate.acquire()
    assert rate.acquire()


def test_every_release_passes_without_a_broker() -> None:
    settings = Settings(
        orchestration_table_name="rows",
        task_table_name="tasks",
        task_events_table_name="events",
        celery_broker_url="redis://127.0.0.1:1/0",
        release_rate_per_minute=1,
    )
    assert ReleaseRate(settings).acquire()
