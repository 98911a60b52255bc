"""The broker goes away, stops answering, or comes back empty: traps 4, 5, 6, 10, 12 and 13.

A proxy in front of the tables holds a real request of a real task.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import redis

from tests.support.broker import Broker, broker_of_its_own, relay_to
from tests.support.faults import FaultProxy
from tests.support.hosts import SOON, UNGUARDED, Fleet, fleet_of
from tests.support.processes import Celery, until
from tests.support.world import World
from workers.names import EVALUATE, SWEEP

pytestmark = [pytest.mark.integration, pytest.mark.workers]


def stranded(world: World) -> str:
    return world.seed({"a": [], "b": ["a"]}, {"a": "released"}, tasks={"a": "COMPLETED"})


def repaired(world: World, found: str) -> bool:
    return world.statuses(found) == {"a": "succeeded", "b": "released"}


def outage_with_a_task_in_flight(
    fleet: Fleet, broker: Broker, proxy: FaultProxy, *, slots: int
) -> str:
    """Stop the broker while a task waits for a table; returns the task's orchestration."""
    found = stranded(fleet.celery.world)
    fleet.worker(concurrency=slots, environment=SOON)
    with proxy.holding("Query", found) as held:
        fleet.send(EVALUATE, found)
        held.wait()
        broker.stop()
        until("the worker to notice", lambda: "onnection" in fleet.hosts["w1"].log)
    return found


@pytest.mark.parametrize("slots", [1, 2], ids=["all slots busy", "a slot free"])
def test_a_worker_survives_an_outage_during_a_task(
    fleet: Fleet, own_broker: Broker, proxy: FaultProxy, slots: int
) -> None:
    """Traps 4 and 5, with the guard: the worker stays, and the unacknowledged task runs again."""
    world, before = fleet.celery.world, proxy.requests["Query"]
    found = outage_with_a_task_in_flight(fleet, own_broker, proxy, slots=slots)
    worker = fleet.hosts["w1"]
    own_broker.start()
    until("the work to be done", lambda: repaired(world, found))
    until("the task to be acknowledged", lambda: not own_broker.client.exists("unacked"))
    assert worker.alive
    assert worker.log.count(worker.ready) == 1, "it is still the same process"
    assert proxy.requests["Query"] > before + 1
    assert len(world.tasks(found, "b")) == 1


def test_an_unguarded_worker_exits_during_an_outage(
    held_world: World, own_broker: Broker, proxy: FaultProxy, tmp_path: Path
) -> None:
    """Trap 4: The exit code is 1. When this test fails, the guard is no longer needed."""
    celery = Celery(held_world, own_broker.url, tmp_path)
    with fleet_of(celery, UNGUARDED) as fleet:
        found = outage_with_a_task_in_flight(fleet, own_broker, proxy, slots=2)
        worker = fleet.hosts["w1"]
        until("the worker to exit", lambda: not worker.alive)
        assert worker.process.returncode == 1
        assert "AttributeError" in worker.log
        own_broker.start()
        worker.start()
        until("the work to be done again", lambda: repaired(held_world, found))
    assert len(held_world.tasks(found, "b")) == 1


def test_a_worker_survives_a_half_open_connection(
    held_world: World, own_broker: Broker, tmp_path: Path
) -> None:
    """Trap 6: The connection loses a message, and the next sweep does the lost work."""
    found = stranded(held_world)
    broker = own_broker.client
    with relay_to(own_broker.port) as relay:
        celery = Celery(held_world, f"redis://127.0.0.1:{relay.port}", tmp_path)
        with fleet_of(celery) as fleet:
            worker = fleet.worker()
            relay.go_deaf()
            fleet.send(EVALUATE, found, broker=own_broker.url)
            until("the message to be popped", lambda: not broker.llen("sweep"))
            assert not broker.exists("unacked"), "the message is in no queue, and nobody holds it"
            assert held_world.statuses(found)["b"] == "blocked"
            fleet.send(SWEEP, task_id="sweep:1", broker=own_broker.url)
            until("the sweep to repair the orchestration", lambda: repaired(held_world, found))
            assert worker.alive


PUBLISH_SECONDS = 30.0
"""Two attempts with two waits of five seconds each, and a pause, on a busy machine."""

PUBLISH = """
import json, time
from redis import Redis
from workers import app
from workers.enqueue import BrokerUnavailableError, Enqueuer
from workers.dedup import DedupKeys
from reconciler.observability.metrics import NULL_METRICS
from reconciler.settings import load_settings
# The key must still be there when it is looked for, however slow the machine is.
settings = load_settings().model_copy(update={{"sweep_interval_seconds": 300}})
dedup = DedupKeys(Redis.from_url({dedup!r}), "here")
began, said = time.monotonic(), ""
try:
    Enqueuer(app, dedup, NULL_METRICS, settings).evaluate("orch_1", "sweep:1", 1.5)
except BrokerUnavailableError as error:
    said = error.kind
print(json.dumps({{"error": said, "seconds": time.monotonic() - began}}))
"""


@pytest.mark.parametrize("stalled", [False, True], ids=["down", "stalled"])
def test_a_failed_publish_returns_its_dedup_key(
    fleet: Fleet, broker: str, tmp_path: Path, *, stalled: bool
) -> None:
    """Trap 10: It fails soon. Without our settings a stalled broker blocks a publish for ever."""
    keys = redis.Redis.from_url(f"{broker}/5")
    keys.flushdb()
    script = PUBLISH.format(dedup=f"{broker}/5")
    with broker_of_its_own(tmp_path / "away") as away:
        if stalled:
            away.freeze()
        else:
            away.stop()
        said = json.loads(fleet.run(script, CELERY_BROKER_URL=f"{away.url}/0"))
        if stalled:
            away.thaw()
    assert said["error"] == "broker_unavailable"
    assert said["seconds"] < PUBLISH_SECONDS
    assert keys.keys("reconciler:dedup:*") == []
    # With a broker that answers, the same script takes the key: so the first run tried to.
    assert json.loads(fleet.run(script))["error"] == ""
    assert keys.keys("reconciler:dedup:*") == [b"reconciler:dedup:here:evaluate:orch_1"]


def test_sweeps_resume_after_the_broker_is_emptied(fleet: Fleet, own_broker: Broker) -> None:
    """Traps 12 and 13: One beat is killed; the other survives an outage that loses all data."""
    world, celery = fleet.celery.world, fleet.celery
    worker, killed, left = fleet.worker(), fleet.beat("beat-1"), fleet.beat("beat-2")
    first = until("a complete sweep", lambda: celery.last(complete=True))
    killed.kill()
    until(
        "another complete sweep",
        lambda: (celery.last(complete=True) or first)["ended_at"] > first["ended_at"],
    )
    worker.stop()
    found = stranded(world)
    fleet.send(EVALUATE, found)
    assert own_broker.client.llen("sweep") >= 1
    own_broker.stop()
    until("the beat to notice", lambda: "broker" in left.log)
    own_broker.empty()
    own_broker.start()
    assert own_broker.client.dbsize() <= 3, "nothing but what the beat has put there since"
    worker.start()
    until("the next sweep to repair the orchestration", lambda: repaired(world, found))
    assert left.alive
    assert len(world.tasks(found, "b")) == 1
