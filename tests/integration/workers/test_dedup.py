"""Dedup keys on a real broker: who takes them, who gives them back, and what expires. Trap 11."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import celery
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

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
"""An interval so long that nothing expires during a test."""


@pytest.fixture
def metrics() -> RecordingMetrics:
    return RecordingMetrics()


@pytest.fixture
def deployment_id(fleet: Fleet) -> str:
    return fleet.celery.world.settings.deployment_id


@pytest.fixture
def enqueuer(fleet: Fleet, own_broker: Broker, metrics: RecordingMetrics) -> Iterator[Enqueuer]:
    """An enqueuer in a process that is not a worker."""
    with celery.Celery(broker=f"{own_broker.url}/0", set_as_current=False) as app:
        app.conf.task_default_queue = SWEEP_QUEUE
        settings = fleet.celery.world.settings.model_copy(update={"sweep_interval_seconds": LONG})
        dedup = DedupKeys(own_broker.client, settings.deployment_id)
        yield Enqueuer(app, dedup, metrics, settings)


def take(keys: DedupKeys, work: str, ttl_seconds: int) -> str | None:
    """Return the key's token, None if it is taken."""
    return keys.take([work], ttl_seconds).get(work)


def stranded(world: World) -> str:
    return world.seed({"a": [], "b": ["a"]}, {"a": "released"}, tasks={"a": "COMPLETED"})


def test_only_the_owner_gives_a_key_back(own_broker: Broker) -> None:
    """Once a key has expired, somebody else can take it, and the earlier token is worthless."""
    dedup, client = DedupKeys(own_broker.client, "here"), own_broker.client
    first = take(dedup, "work", 1)
    assert first is not None
    assert take(dedup, "work", LONG) is None
    until("the key to expire", lambda: not client.exists(f"{PREFIX}here:work"))
    second = take(dedup, "work", LONG)
    assert second is not None
    assert not dedup.give_back("work", first), "the key belongs to somebody else by now"
    assert take(dedup, "work", LONG) is None
    assert dedup.give_back("work", second)
    assert take(dedup, "work", LONG) is not None


class Torn(redis.Connection):
    """Sends commands and loses as many answers as ``lost`` says.

    ``deaf``: after that it cannot even send.
    """

    lost = 0
    deaf = False
    _ours = False

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:  # noqa: FBT001, FBT002 - redis-py's
        sent = b"".join([command] if isinstance(command, bytes) else command)
        self._ours = b"$3\r\nSET\r\n" in sent or b"$4\r\nEVAL\r\n" in sent
        if self._ours and Torn.deaf and not Torn.lost:
            raise redis.ConnectionError("the broker is away")
        super().send_packed_command(command, check_health)  # type: ignore[no-untyped-call]

    def read_response(self, *args: Any, **options: Any) -> Any:
        answer = super().read_response(*args, **options)
        if self._ours and Torn.lost:
            Torn.lost -= 1
            self.disconnect()  # type: ignore[no-untyped-call]
            raise redis.ConnectionError("the answer is lost")
        return answer


@pytest.fixture(params=[0])
def torn(own_broker: Broker, request: pytest.FixtureRequest) -> Iterator[DedupKeys]:
    """Dedup keys over such a connection, scripts loaded; the parameter is the number of retries."""
    Torn.lost, Torn.deaf = 0, False
    options: dict[str, Any] = {
        "connection_class": Torn,
        "retry": Retry(NoBackoff(), request.param),
    }
    with redis.ConnectionPool.from_url(f"{own_broker.url}/0", **options) as pool:
        dedup = DedupKeys(redis.Redis(connection_pool=pool), "here")
        token = take(dedup, "first", LONG)
        assert token is not None
        assert dedup.give_back("first", token)
        yield dedup
    Torn.lost, Torn.deaf = 0, False


@pytest.mark.parametrize("torn", [2], indirect=True)
def test_a_retried_take_recognises_its_own_token(torn: DedupKeys, own_broker: Broker) -> None:
    """The client lost the first answer and asks again by itself."""
    Torn.lost = 1
    token = take(torn, "work", LONG)
    assert token is not None
    assert own_broker.client.get(f"{PREFIX}here:work") == token.encode()
    assert take(torn, "work", LONG) is None


def test_a_lost_answer_gives_the_key_back(torn: DedupKeys, own_broker: Broker) -> None:
    Torn.lost = 1
    with pytest.raises(redis.ConnectionError):
        take(torn, "work", LONG)
    assert not own_broker.client.exists(f"{PREFIX}here:work")


def test_a_key_is_given_back_after_an_outage(torn: DedupKeys, own_broker: Broker) -> None:
    """The next request to the broker gives back the key whose answer was lost."""
    Torn.lost, Torn.deaf = 1, True
    with pytest.raises(redis.ConnectionError):
        take(torn, "work", LONG)
    assert own_broker.client.exists(f"{PREFIX}here:work"), "nobody could give it back yet"
    Torn.deaf = False
    assert take(torn, "other work", LONG) is not None
    assert not own_broker.client.exists(f"{PREFIX}here:work")


def test_work_can_be_taken_after_a_lost_answer(torn: DedupKeys, own_broker: Broker) -> None:
    Torn.lost, Torn.deaf = 1, True
    with pytest.raises(redis.ConnectionError):
        take(torn, "work", LONG)
    Torn.deaf = False
    token = take(torn, "work", LONG)
    assert token is not None
    assert own_broker.client.get(f"{PREFIX}here:work") == token.encode()


def test_a_key_that_lives_too_long_is_replaced(own_broker: Broker) -> None:
    """The broker's clock was set back by an hour, so the key would live an hour longer."""
    dedup, client = DedupKeys(own_broker.client, "here"), own_broker.client
    client.set(f"{PREFIX}here:work", "somebody", ex=60 + 3600)
    assert take(dedup, "work", 60) is not None
    assert take(dedup, "work", 60) is None
    assert 0 < client.ttl(f"{PREFIX}here:work") <= 60


def test_the_same_work_is_queued_once(
    fleet: Fleet,
    own_broker: Broker,
    enqueuer: Enqueuer,
    metrics: RecordingMetrics,
    deployment_id: str,
) -> None:
    """It can be queued again after it has ended."""
    world, client = fleet.celery.world, own_broker.client
    found = stranded(world)
    assert enqueuer.evaluate(found, "sweep:1", 1.5)
    assert not enqueuer.evaluate(found, "sweep:1", 1.5)
    assert metrics.count("reconciler_duplicates_dropped_total", task=EVALUATE) == 1
    assert client.llen(SWEEP_QUEUE) == 1
    fleet.worker()
    key = f"{PREFIX}{deployment_id}:evaluate:{found}"
    until("the key to be given back", lambda: not client.exists(key))
    assert enqueuer.evaluate(found, "sweep:1", 1.5)
    until("the key to be given back again", lambda: not client.exists(key))


def test_a_retried_task_keeps_its_key(
    fleet: Fleet, own_broker: Broker, proxy: FaultProxy, enqueuer: Enqueuer, deployment_id: str
) -> None:
    world, client = fleet.celery.world, own_broker.client
    found = stranded(world)
    worker = fleet.worker()
    proxy.weather = {Fault.UNAVAILABLE: 1.0}
    assert enqueuer.evaluate(found, "sweep:1", 1.5)
    until("the task to be retried", lambda: "Retry in" in worker.log)
    assert not enqueuer.evaluate(found, "sweep:1", 1.5), "the task is still under way"
    proxy.weather = {}
    until("the work to be done", lambda: world.statuses(found)["a"] == "succeeded")
    until(
        "the key to be given back",
        lambda: not client.exists(f"{PREFIX}{deployment_id}:evaluate:{found}"),
    )


def test_a_redelivered_task_gives_the_key_back(
    fleet: Fleet, own_broker: Broker, proxy: FaultProxy, enqueuer: Enqueuer, deployment_id: str
) -> None:
    """The worker that ran the task first was killed."""
    world, client = fleet.celery.world, own_broker.client
    found = stranded(world)
    key = f"{PREFIX}{deployment_id}:evaluate:{found}"
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


def test_the_key_of_a_lost_message_expires_soon(
    fleet: Fleet, own_broker: Broker, deployment_id: str
) -> None:
    """It lives for an interval at most, and a sweep repairs the orchestration."""
    world = fleet.celery.world
    found = stranded(world)
    with celery.Celery(broker=f"{own_broker.url}/0", set_as_current=False) as app:
        app.conf.task_default_queue = SWEEP_QUEUE
        dedup = DedupKeys(own_broker.client, deployment_id)
        Enqueuer(app, dedup, RecordingMetrics(), world.settings).evaluate(found, "sweep:lost", 1.5)
    left = own_broker.client.ttl(f"{PREFIX}{deployment_id}:evaluate:{found}")
    assert left <= world.settings.sweep_interval_seconds
    own_broker.client.delete(SWEEP_QUEUE)
    fleet.worker()
    fleet.beat()
    until("a sweep to repair the orchestration", lambda: world.statuses(found)["b"] == "released")


def test_a_foreign_key_counts_as_taken(
    own_broker: Broker,
) -> None:
    """A foreign key that would outlive every key of ours is replaced."""
    keys = DedupKeys(own_broker.client, "here")
    own_broker.client.set(f"{PREFIX}here:work", b"\xff\xfe", ex=5)
    assert take(keys, "work", LONG) is None
    own_broker.client.set(f"{PREFIX}here:work", b"\xff\xfe", ex=2 * LONG)
    assert take(keys, "work", LONG), "the foreign key would outlive every key of ours"


def test_a_key_without_an_expiry_is_replaced(own_broker: Broker) -> None:
    keys = DedupKeys(own_broker.client, "here")
    own_broker.client.set(f"{PREFIX}here:work", "a token of nobody's")
    assert take(keys, "work", LONG)
