"""Deployments: one worker is told to stop, then all of them in turn. Trap 15."""

from __future__ import annotations

import signal
import time

import pytest

from tests.integration.workers.conftest import Measured
from tests.support.broker import Broker
from tests.support.faults import FaultProxy
from tests.support.hosts import SOON, Fleet
from tests.support.processes import until
from tests.support.world import World
from workers.names import RELEASE

pytestmark = [pytest.mark.integration, pytest.mark.workers]

FAN_OUT = {"a": [], **{f"c{number}": ["a"] for number in range(5)}}


def due(world: World) -> str:
    return world.seed({"a": [], "b": ["a"]}, {"a": "succeeded"})


def released(world: World, found: str) -> bool:
    return world.statuses(found)["b"] == "released"


def test_a_stopping_worker_finishes_its_current_task(
    fleet: Fleet, own_broker: Broker, proxy: FaultProxy, measured: Measured
) -> None:
    """It gives back at once what waits for a retry, before the visibility timeout."""
    world, broker = fleet.celery.world, own_broker.client
    begun, waiting, queued = due(world), due(world), due(world)
    stopping = fleet.worker("stopping")
    with proxy.holding("TransactWriteItems", begun) as held:
        fleet.send(RELEASE, waiting, "b", countdown=4)
        until("the release to wait in the worker", lambda: broker.hlen("unacked") == 1)
        fleet.send(RELEASE, begun, "b")
        held.wait()
        stopping.signal(signal.SIGTERM)
        until("the worker to begin to stop", lambda: "Warm shutdown" in stopping.log)
        fleet.send(RELEASE, queued, "b")
        assert stopping.alive, "the worker waits for its task"
        began = time.monotonic()
    assert stopping.process.wait(60) == 0
    measured(f"told to stop: ended {time.monotonic() - began:.1f} s after its task could go on")
    assert released(world, begun)
    assert not broker.exists("unacked"), "the stopped worker holds no message"
    assert broker.llen("release") == 2
    fleet.worker("other")
    until(
        "another worker to do the rest", lambda: all(released(world, f) for f in (waiting, queued))
    )
    until("all to be acknowledged", lambda: not broker.exists("unacked"))
    assert all(len(world.tasks(found, "b")) == 1 for found in (begun, waiting, queued))


def test_a_worker_killed_while_stopping_loses_nothing(
    fleet: Fleet, own_broker: Broker, proxy: FaultProxy
) -> None:
    """KILL follows TERM after the stop timeout; the visibility timeout brings the task back."""
    world = fleet.celery.world
    found = due(world)
    stopping = fleet.worker("stopping", environment=SOON)
    with proxy.holding("TransactWriteItems", found, after=True) as held:
        fleet.send(RELEASE, found, "b")
        held.wait()
        stopping.signal(signal.SIGTERM)
        until("the worker to begin to stop", lambda: "Warm shutdown" in stopping.log)
        stopping.kill()
        assert released(world, found), "the release is committed, but nobody heard of it"
        other = fleet.worker("other", environment=SOON)
        until("the release to be delivered again", lambda: "already_released" in other.log)
    until("the message to be acknowledged", lambda: not own_broker.client.exists("unacked"))
    assert len(world.tasks(found, "b")) == 1


def test_a_rolling_restart_loses_and_doubles_nothing(
    fleet: Fleet, own_broker: Broker, measured: Measured
) -> None:
    """Hosts restart one at a time while the backlog of an outage is repaired."""
    world, celery = fleet.celery.world, fleet.celery
    names = ["w1", "w2"]
    workers = [fleet.worker(name, concurrency=2) for name in names]
    beats = [fleet.beat("b1"), fleet.beat("b2")]
    loads: list[str] = []
    took: dict[str, float] = {}
    for host in (*workers, *beats):
        # A chain of lost terminals and a fan-out: several tasks for each.
        added = [world.seed(FAN_OUT, {"a": "released"}, tasks={"a": "COMPLETED"}) for _ in range(6)]
        loads += added
        until("the repairs to begin", lambda now=added: any(begun(world, key) for key in now))  # type: ignore[misc]
        took[host.child.name] = host.stop()
        assert host.process.returncode == 0
        host.start()
    until("all to be released", lambda: all(done(world, found) for found in loads))
    ended = (celery.last() or {"ended_at": 0.0})["ended_at"]
    until(
        "a complete sweep afterwards",
        lambda: (celery.last(complete=True) or {"ended_at": 0.0})["ended_at"] > ended,
    )
    until("the queues to be empty", lambda: not own_broker.client.exists("release"))
    tasks = [task["idempotency_key"]["S"] for found in loads for task in world.tasks(found)]
    assert len(tasks) == len(set(tasks)) == len(loads) * len(FAN_OUT)
    stops = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in took.items())
    measured(f"rolling restart under load, told to stop and ended: {stops}")


def begun(world: World, found: str) -> bool:
    return (
        "released" in (statuses := world.statuses(found)).values() and statuses["a"] != "released"
    )


def done(world: World, found: str) -> bool:
    statuses = world.statuses(found)
    return statuses.pop("a") == "succeeded" and set(statuses.values()) == {"released"}
