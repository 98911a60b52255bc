"""Celery on a real broker, over tables at a real endpoint."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from tests.conftest import Servers
from tests.support.broker import Broker, broker_of_its_own
from tests.support.faults import FaultProxy, fault_proxy
from tests.support.hosts import Fleet, fleet_of
from tests.support.processes import Celery
from tests.support.world import RealClock, World, build_world

# The environment that the workers' module needs when it is imported.
for _name in ("ORCHESTRATION_TABLE_NAME", "TASK_TABLE_NAME", "TASK_EVENTS_TABLE_NAME"):
    os.environ.setdefault(_name, _name.lower())


@pytest.fixture
def scratch(broker: str) -> redis.Redis:
    """An empty database of a broker that no worker uses."""
    client = redis.Redis.from_url(f"{broker}/5")
    client.flushdb()
    return client


@pytest.fixture
def live_world(endpoint: str) -> World:
    """Tables for real processes, with a short interval and the real time."""
    world = build_world(
        endpoint, SWEEP_INTERVAL_SECONDS="2", STRANDED_GRACE_SECONDS="1", SWEEP_SEGMENTS="2"
    )
    world.clock = RealClock()
    return world


@pytest.fixture
def celery(live_world: World, broker: str, tmp_path: Path) -> Celery:
    """Celery on an empty broker."""
    return celery_over(live_world, broker, tmp_path)


def celery_over(world: World, broker: str, directory: Path) -> Celery:
    """Return Celery over these tables, with the real time, on a broker emptied for it."""
    world.clock = RealClock()
    found = Celery(world, broker, directory)
    found.redis.flushall()
    return found


# -- for tests that break things: their own broker, endpoint and hosts


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[Broker]:
    """A broker that the test may stop."""
    with broker_of_its_own(tmp_path / "broker") as found:
        yield found


@pytest.fixture
def proxy(servers: Servers) -> Iterator[FaultProxy]:
    """DynamoDB Local behind a proxy that can hold requests."""
    with fault_proxy(servers.endpoint("dynamodb_local")) as found:
        yield found


@pytest.fixture
def held_world(servers: Servers, proxy: FaultProxy) -> World:
    """Tables that workers reach through the proxy and the test reaches directly."""
    world = build_world(
        servers.endpoint("dynamodb_local"),
        SWEEP_INTERVAL_SECONDS="2",
        STRANDED_GRACE_SECONDS="1",
        SWEEP_SEGMENTS="2",
    )
    world.endpoint = proxy.url
    world.clock = RealClock()
    return world


@pytest.fixture
def fleet(held_world: World, own_broker: Broker, tmp_path: Path) -> Iterator[Fleet]:
    """Hosts that the test may kill, on ``own_broker`` and ``held_world``."""
    with fleet_of(Celery(held_world, own_broker.url, tmp_path)) as found:
        yield found


# -- measurements, shown at the end of the run


Measured = Callable[[str], None]
_PROPERTY = "measured"


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Measured:
    """Record a line for the end of the run; the test's report carries it between processes."""

    def say(line: str) -> None:
        request.node.user_properties.append((_PROPERTY, line))

    return say


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    said = [
        line
        for report in terminalreporter.getreports("passed")
        for name, line in report.user_properties
        if name == _PROPERTY and report.when == "call"
    ]
    if said:
        terminalreporter.section("measured")
        for line in said:
            terminalreporter.write_line(str(line))
