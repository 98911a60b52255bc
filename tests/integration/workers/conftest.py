"""Celery on a real broker, over tables at a real endpoint."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from reconciler.clock import utc_now
from tests.support.processes import Celery
from tests.support.world import Clock, World, build_world


class RealClock(Clock):
    """The time of day: worker processes have no other."""

    def __call__(self) -> datetime:
        return utc_now()


@pytest.fixture
def live_world(endpoint: str) -> World:
    """Tables for real processes: a short interval, and the time of day."""
    world = build_world(
        endpoint, SWEEP_INTERVAL_SECONDS="2", STRANDED_GRACE_SECONDS="1", SWEEP_SEGMENTS="2"
    )
    world.clock = RealClock()
    return world


@pytest.fixture
def celery(live_world: World, broker: str, tmp_path: Path) -> Celery:
    """Celery on an empty broker."""
    found = Celery(live_world, broker, tmp_path)
    found.redis.flushall()
    return found
