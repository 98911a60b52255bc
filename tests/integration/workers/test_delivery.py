"""Which messages are delivered, how often, and under which id: traps 1, 2, 3, 7, 8 and 9."""

from __future__ import annotations

import json
import os
import re
import signal
from datetime import UTC, datetime
from typing import Any

import celery
import pytest
import redis

from tests.support.broker import Broker
from tests.support.faults import FaultProxy
from tests.support.hosts import SOON, Fleet
from tests.support.processes import until
from tests.support.world import World
from workers.limits import WORKER_LOST_COUNTDOWN_SECONDS
from workers.messages import MAX_RETRIES
from workers.names import EVALUATE, RELEASE, SWEEP

pytestmark = [pytest.mark.integration, pytest.mark.workers]


def stranded(world: World) -> str:
    return world.seed({"a": [], "b": ["a"]}, {"a": "released"}, tasks={"a": "COMPLETED"})


def due(world: World) -> str:
    return world.seed({"a": [], "b": ["a"]}, {"a": "succeeded"})


def released(world: World, found: str) -> bool:
    return world.statuses(found)["b"] == "released"


def all_done(broker: Broker) -> bool:
    """Whether nothing is queued or unacknowledged."""
    return not any(broker.client.exists(key) for key in ("sweep", "release", "unacked"))


def backend(broker: Broker) -> redis.Redis:
    return redis.Redis.from_url(f"{broker.url}/1")


def results(broker: Broker) -> dict[str, str]:
    """Return the state of every result that is stored, by task id."""
    prefix = "celery-task-meta-"
    keys: Any = backend(broker).keys(f"{prefix}*")
    stored: Any = [backend(broker).get(key) for key in keys]
    return {
        key.decode().removeprefix(prefix): json.loads(said)["status"]
        for key, said in zip(keys, stored, strict=True)
    }


# -- ids


def test_an_expired_or_revoked_id_stays_usable(fleet: Fleet, own_broker: Broker) -> None:
    """Trap 1: Celery drops an id that expired or was revoked, and our ids are deterministic.

    So anybody could keep a sweep from running. We refuse both, and the id still works.
    """
    world = fleet.celery.world
    found = stranded(world)
    worker = fleet.worker()
    with celery.Celery(broker=f"{own_broker.url}/0", set_as_current=False) as app:
        app.control.revoke(f"evaluate:{found}:1")
    until("the command to be refused", lambda: worker.log.count("orch.message.refused") == 1)
    passed = datetime(2026, 1, 1, tzinfo=UTC)
    fleet.send(EVALUATE, found, task_id=f"evaluate:{found}:1", expires=passed)
    until("the message to be refused", lambda: worker.log.count("orch.message.refused") == 2)
    until("the message to be gone", lambda: all_done(own_broker))
    assert not released(world, found)
    fleet.send(EVALUATE, found, task_id=f"evaluate:{found}:1")
    until("the same id to be taken", lambda: released(world, found))


def test_a_stored_success_drops_no_work(
    fleet: Fleet, own_broker: Broker, proxy: FaultProxy
) -> None:
    """Traps 2 and 3: Only sweeps keep results, and the id of a sweep is used once.

    With an earlier SUCCESS under its id, Celery would acknowledge and drop the task of a lost
    worker, and show it as done.
    """
    world = fleet.celery.world
    found = due(world)
    name = f"release:{found}_b:7"
    kept: dict[str, Any] = {
        "status": "SUCCESS",
        "result": {},
        "task_id": name,
        "traceback": None,
        "children": [],
    }
    backend(own_broker).set(f"celery-task-meta-{name}", json.dumps(kept))
    worker = fleet.worker()
    with proxy.holding("TransactWriteItems", found) as held:
        fleet.send(RELEASE, found, "b", task_id=name)
        held.wait()
        os.kill(worker.pool()[0], signal.SIGKILL)
        until("the release to be retried", lambda: held.arrived >= 2)
    until("the release", lambda: released(world, found))
    until("the message to be acknowledged", lambda: all_done(own_broker))
    assert len(world.tasks(found, "b")) == 1
    backend(own_broker).flushdb()
    for number in (1, 2):
        fleet.send(RELEASE, found, "b", task_id=f"release:{found}_b:{number}")
        fleet.send(SWEEP, task_id=f"sweep:{number}")
        until("the sweep", lambda n=number: f"sweep:{n}" in results(own_broker))  # type: ignore[misc]
    until("all to be done", lambda: all_done(own_broker))
    assert results(own_broker) == {"sweep:1": "SUCCESS", "sweep:2": "SUCCESS"}


# -- lost workers


def test_the_task_of_a_killed_process_is_retried(
    fleet: Fleet, own_broker: Broker, proxy: FaultProxy
) -> None:
    """Trap 7: The retry comes long before the visibility timeout, which is two minutes here."""
    world = fleet.celery.world
    found = due(world)
    worker = fleet.worker()
    with proxy.holding("TransactWriteItems", found) as held:
        fleet.send(RELEASE, found, "b")
        held.wait()
        os.kill(worker.pool()[0], signal.SIGKILL)
        held.wait(2)
    until("the release", lambda: released(world, found))
    until("the message to be acknowledged", lambda: all_done(own_broker))
    assert f"Retry in {WORKER_LOST_COUNTDOWN_SECONDS}s" in worker.log
    assert held.arrived == 2
    assert worker.alive
    assert len(world.tasks(found, "b")) == 1


def test_the_task_of_a_killed_worker_is_redelivered(
    fleet: Fleet, own_broker: Broker, proxy: FaultProxy
) -> None:
    """Trap 7: The redelivery comes right after the visibility timeout.

    With Celery's default intervals it took 91 to 101 s.
    """
    world = fleet.celery.world
    found = due(world)
    lost = fleet.worker("lost", environment=SOON)
    with proxy.holding("TransactWriteItems", found) as held:
        fleet.send(RELEASE, found, "b")
        held.wait()
        lost.kill()
        fleet.worker("other", environment=SOON)
        held.wait(2, timeout_seconds=60.0)
    until("the release", lambda: released(world, found))
    until("the message to be acknowledged", lambda: all_done(own_broker))
    assert len(world.tasks(found, "b")) == 1


def test_a_poison_task_stops_at_the_retry_limit(
    fleet: Fleet, own_broker: Broker, proxy: FaultProxy
) -> None:
    """Trap 9: Each retry is counted; a rejected task would be redelivered for ever."""
    world = fleet.celery.world
    poison, other = due(world), due(world)
    worker = fleet.worker()
    with proxy.holding("TransactWriteItems", poison) as held:
        fleet.send(RELEASE, poison, "b")
        for run in range(1, MAX_RETRIES + 2):
            held.wait(run)
            os.kill(worker.pool()[0], signal.SIGKILL)
        until("the task to be given up", lambda: all_done(own_broker))
        assert held.arrived == MAX_RETRIES + 1
        fleet.send(RELEASE, other, "b")
        until("another to be released", lambda: released(world, other))
        assert held.arrived == MAX_RETRIES + 1
    assert worker.alive


# -- twice at once


def test_simultaneous_releases_make_one_task(
    fleet: Fleet, own_broker: Broker, proxy: FaultProxy
) -> None:
    """Trap 8: Celery does not deduplicate, and a lost connection redelivers. The write does it."""
    world = fleet.celery.world
    found = due(world)
    worker = fleet.worker(concurrency=2)
    with proxy.holding("TransactWriteItems", found) as held:
        fleet.send(RELEASE, found, "b", task_id="release:the-same:1")
        held.wait()
        # The broker delivers the task again while it runs.
        own_broker.drop_clients()
        held.wait(2)
        fleet.send(RELEASE, found, "b", task_id="release:the-same:1")
    until("the release", lambda: released(world, found))
    until("all three to have run", lambda: worker.log.count("] succeeded in") >= 3)
    until("all to be acknowledged", lambda: all_done(own_broker))
    outcomes = re.findall(r"succeeded in [^{]*{'outcome': '(\w+)'", worker.log)
    assert sorted(outcomes) == ["already_released", "already_released", "released"]
    assert len(world.tasks(found, "b")) == 1
