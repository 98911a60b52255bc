"""Readers, messages or the whole state are lost: what it costs, and what reports it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable

import pytest

from reconciler.sweeping.segments import NEVER, Scope
from tests.conftest import Servers
from tests.integration.workers.conftest import Measured
from tests.support.broker import Broker
from tests.support.faults import FaultProxy
from tests.support.hosts import Fleet
from tests.support.processes import run_reconciler, until
from tests.support.world import RealClock, World, build_world

pytestmark = [pytest.mark.integration, pytest.mark.workers]

INTERVAL = 6
SEGMENTS = 4


@pytest.fixture
def held_world(servers: Servers, proxy: FaultProxy) -> World:
    """Tables that workers reach through the proxy and the test reaches directly."""
    world = build_world(
        servers.endpoint("dynamodb_local"),
        SWEEP_INTERVAL_SECONDS=str(INTERVAL),
        STRANDED_GRACE_SECONDS="1",
        SWEEP_SEGMENTS=str(SEGMENTS),
    )
    world.endpoint = proxy.url
    world.clock = RealClock()
    return world


def asked(fleet: Fleet, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the reconciler."""
    return run_reconciler(*arguments, environment=fleet.celery.environment)


def covered(fleet: Fleet) -> float:
    return fleet.celery.state.overview().covered_as_of(Scope.ACTIVE)


def covered_since(fleet: Fleet, at: float) -> Callable[[], bool]:
    return lambda: covered(fleet) > at


def recover(fleet: Fleet, measured: Measured, what: str) -> float:
    """Strand a child; returns how many seconds its release took."""
    world = fleet.celery.world
    found = world.seed({"a": [], "b": ["a"]}, {"a": "succeeded"}, age=2)
    began = time.monotonic()
    until("the release", lambda: world.statuses(found)["b"] == "released")
    took = time.monotonic() - began
    assert len(world.tasks(found, "b")) == 1
    measured(f"{what}: released after {took:.1f} s at an interval of {INTERVAL} s")
    return took


def test_another_worker_takes_over_from_a_stopped_reader(
    fleet: Fleet, proxy: FaultProxy, measured: Measured
) -> None:
    """A SIGSTOP comes in the middle of a page; the segment is read again after the lease."""
    stopped = fleet.worker("w1", concurrency=1)
    with proxy.holding("Scan") as held:
        fleet.beat()
        held.wait(1)
        whole = [stopped.pid, *stopped.pool()]
        for pid in whole:
            os.kill(pid, signal.SIGSTOP)
        fleet.worker("w2")
        held.let_go()
    began = time.time()
    until("all to be covered", covered_since(fleet, began - 1))
    recover(fleet, measured, "a reader stopped")
    for pid in whole:
        os.kill(pid, signal.SIGCONT)
    recover(fleet, measured, "the reader goes on")


def test_health_reports_that_all_workers_were_killed(
    fleet: Fleet, own_broker: Broker, proxy: FaultProxy, measured: Measured
) -> None:
    """They die in the middle of their pages, with their messages; a restart recovers all work."""
    workers = [fleet.worker("w1"), fleet.worker("w2")]
    fleet.beat()
    until("all to be covered", lambda: covered(fleet) != NEVER)
    with proxy.holding("Scan") as held:
        held.wait(2)
        for worker in workers:
            worker.kill()
        reached = covered(fleet)
        health = until("health to be bad", lambda: unhealthy(fleet))
        said = health.stdout.strip()
        assert said.startswith("unhealthy: active work is covered as of ")
        status = asked(fleet, "status", "--json")
        assert status.returncode == 1
        state = json.loads(status.stdout)
        assert (state["healthy"], state["workers"]) == (False, [])
        assert covered(fleet) == reached, "nothing makes the coverage look fresher"
    # Without this the broker would redeliver the lost messages.
    own_broker.client.delete("unacked", "unacked_index")
    for worker in workers:
        worker.start()
    recover(fleet, measured, "all workers killed")
    until("all to be covered", covered_since(fleet, reached))
    assert asked(fleet, "health").returncode == 0


def unhealthy(fleet: Fleet) -> subprocess.CompletedProcess[str] | None:
    found = asked(fleet, "health")
    return found if found.returncode == 1 else None


@pytest.mark.parametrize("what", ["queue purged", "broker flushed", "messages revoked"])
def test_sweeps_recover_from_lost_messages(
    fleet: Fleet, own_broker: Broker, proxy: FaultProxy, measured: Measured, what: str
) -> None:
    """The release comes within two intervals and the time of a sweep."""
    worker = fleet.worker("w1", concurrency=1)
    fleet.beat()
    until("all to be covered", lambda: covered(fleet) != NEVER)
    client = own_broker.client
    with proxy.holding("Scan") as held:
        held.wait(1)
        queued = until("segments to be queued", lambda: client.lrange("sweep", 0, -1))
        if what == "queue purged":
            client.delete("sweep")
        elif what == "broker flushed":
            client.flushdb()
            assert covered(fleet) == NEVER, "the coverage is unknown, not fresh"
        else:
            ids = [json.loads(raw)["headers"]["id"] for raw in queued]
            fleet.run(f"from workers import app; app.control.revoke({ids!r})")
        began = time.time()
    assert recover(fleet, measured, what) < 2 * INTERVAL + 20
    until("all to be covered", covered_since(fleet, began))
    assert worker.alive
    assert "Traceback" not in worker.log
