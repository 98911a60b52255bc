"""Dedup keys on a real broker: who takes one, who gives it back, and what expires. Trap 11."""

from __future__ import annotations

from collections.abc import Iterator

import celery
import pytest

from tests.support.broker import Broker
from tests.support.faults import Fault, FaultProxy
from tests.support.hosts import SOON, Fleet
from tests.support.metrics import RecordingMetrics
from tests.support.processes import until
from tests.support.world import World
from workers.dedup import PREFIX, DedupKeys
from workers.enqueue import Enqueuer
from workers.names import EVALUATE, SWEEP_QUEUE

pytestmark = [pytest.mark.integration, pytest.mark.workers]

LONG = 3600
"""An interval in which nothing expires while a test runs."""


@pytest.fixture
def metrics() -> RecordingMetrics:
    return RecordingMetrics()


@pytest.fixture
def enqueuer(own_broker: Broker, metrics: RecordingMetrics) -> Iterator[Enqueuer]:
    """What puts messages on the queue, from a process that is not a worker."""
    with celery.Celery(broker=f"{own_broker.url}/0", set_as_current=False) as app:
        app.conf.task_default_queue = SWEEP_QUEUE
        yield Enqueuer(app, DedupKeys(own_broker.client), metrics, LONG)


def stranded(world: World) -> str:
    return world.seed({"a": [], "b": ["a"]}, {"a": "released"}, tasks={"a": "COMPLETED"})


def test_a_key_expires_and_only_its_owner_gives_it_back(own_broker: Broker) -> None:
    dedup, client = DedupKeys(own_broker.client), own_broker.client
    first = dedup.take("work", 1)
    assert first is not None
    assert dedup.take("work", LONG) is None
    until("its expiry", lambda: not client.exists(f"{PREFIX}work"))
    second = dedup.take("work", LONG)
    assert second is not None
    assert not dedup.give_back("work", first), "it is somebody else's by now"
    assert dedup.take("work", LONG) is None
    assert dedup.give_back("work", second)
    assert dedup.take("work", LONG) is not None


def test_the_same_work_is_queued_once_and_again_when_it_has_ended(
    fleet: Fleet, own_broker: Broker, enqueuer: Enqueuer, metrics: RecordingMetrics
) -> None:
    world, client = fleet.celery.world, own_broker.client
    found = stranded(world)
    assert enqueuer.evaluate(found, "sweep:1", 1.5)
    assert not enqueuer.evaluate(found, "sweep:1", 1.5)
    assert metrics.count("reconciler_duplicates_dropped_total", task=EVALUATE) == 1
    assert client.llen(SWEEP_QUEUE) == 1
    fleet.worker()
    key = f"{PREFIX}evaluate:{found}"
    until("the key to be given back", lambda: not client.exists(key))
    assert enqueuer.evaluate(found, "sweep:1", 1.5)
    until("the key to be given back again", lambda: not client.exists(key))


def test_a_task_that_is_tried_again_keeps_its_key(
    fleet: Fleet, own_broker: Broker, proxy: FaultProxy, enqueuer: Enqueuer
) -> None:
    world, client = fleet.celery.world, own_broker.client
    found = stranded(world)
    worker = fleet.worker()
    proxy.weather = {Fault.UNAVAILABLE: 1.0}
    assert enqueuer.evaluate(found, "sweep:1", 1.5)
    until("it to be tried again", lambda: "Retry in" in worker.log)
    assert not enqueuer.evaluate(found, "sweep:1", 1.5), "it is still under way"
    proxy.weather = {}
    until("the work to be done", lambda: world.statuses(found)["a"] == "succeeded")
    until("the key to be given back", lambda: not client.exists(f"{PREFIX}evaluate:{found}"))


def test_the_key_of_a_lost_worker_is_given_back_by_whoever_does_its_work(
    fleet: Fleet, own_broker: Broker, proxy: FaultProxy, enqueuer: Enqueuer
) -> None:
    world, client = fleet.celery.world, own_broker.client
    found = stranded(world)
    key = f"{PREFIX}evaluate:{found}"
    lost = fleet.worker("lost", environment=SOON)
    with proxy.holding("Query", found) as held:
        assert enqueuer.evaluate(found, "sweep:1", 1.5)
        held.wait()
        lost.kill()
        assert client.exists(key)
        assert not enqueuer.evaluate(found, "sweep:1", 1.5)
        fleet.worker("other", environment=SOON)
        held.wait(2)
        assert client.exists(key)
    until("the work to be done", lambda: world.statuses(found)["a"] == "succeeded")
    until("the key to be given back", lambda: not client.exists(key))


def test_a_key_whose_message_was_lost_holds_nobody_up_for_longer_than_an_interval(
    fleet: Fleet, own_broker: Broker
) -> None:
    world = fleet.celery.world
    found = stranded(world)
    with celery.Celery(broker=f"{own_broker.url}/0", set_as_current=False) as app:
        app.conf.task_default_queue = SWEEP_QUEUE
        interval = world.settings.sweep_interval_seconds
        Enqueuer(app, DedupKeys(own_broker.client), RecordingMetrics(), interval).evaluate(
            found, "sweep:lost", 1.5
        )
    left = own_broker.client.ttl(f"{PREFIX}evaluate:{found}")
    assert left <= interval
    own_broker.client.delete(SWEEP_QUEUE)
    fleet.worker()
    fleet.beat()
    until("a sweep to repair it", lambda: world.statuses(found)["b"] == "released")
