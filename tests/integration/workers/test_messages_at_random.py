"""A real worker drops any bad message, stays connected, and does the next task.

``MESSAGE_EXAMPLES`` says how many batches of messages are tried (``make fuzz`` tries many).
"""

from __future__ import annotations

import base64
import json
import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import Servers
from tests.support.broker import Broker, broker_of_its_own
from tests.support.hosts import SOON, Host, fleet_of
from tests.support.processes import Celery, until
from tests.support.world import RealClock, build_world
from tests.unit.hostile.values import texts
from workers.names import EVALUATE, RELEASE, RELEASE_QUEUE, SEGMENT, SWEEP, SWEEP_QUEUE

pytestmark = [pytest.mark.integration, pytest.mark.workers]

EXAMPLES = int(os.environ.get("MESSAGE_EXAMPLES", "60"))
PIDBOX = "/0.celery.pidbox"
CHORD: dict[str, Any] = {"task": "celery.chord", "args": [], "kwargs": {}, "options": {}}
RARE_QUEUE = f"{RELEASE_QUEUE}\x06\x169"
"""Messages of another priority have their own list."""

Put = Callable[[redis.Redis], object]


def envelope(body: Any, **headers: Any) -> dict[str, Any]:
    return {
        "body": base64.b64encode(json.dumps(body).encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers,
        "properties": {
            "correlation_id": None,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": SWEEP_QUEUE},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
            "reply_to": None,
        },
    }


def call(*args: Any, name: str = EVALUATE, task_id: str = "", **kwargs: Any) -> dict[str, Any]:
    """Return a call as Celery sends it."""
    chosen = task_id or str(uuid.uuid4())
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    return envelope(
        [args, kwargs, embed],
        lang="py", task=name, id=chosen, shadow=None, eta=None, expires=None, group=None,
        group_index=None, retries=0, timelimit=[None, None], root_id=chosen, parent_id=None,
        argsrepr="()", kwargsrepr="{}", origin="test", ignore_result=True,
        replaced_task_nesting=0, stamped_headers=None, stamps={},
    )  # fmt: skip


def command(**changes: Any) -> dict[str, Any]:
    """Return a remote-control command as Celery sends it."""
    sound = {
        "method": "ping", "arguments": {}, "destination": None, "pattern": None, "matcher": None,
        "ticket": str(uuid.uuid4()),
        "reply_to": {"exchange": "reply.celery.pidbox", "routing_key": str(uuid.uuid4())},
    }  # fmt: skip
    return envelope({**sound, **changes}, clock=1, expires=0)


ODD: tuple[Any, ...] = (
    None, True, "", "whenever", "2099-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", -1, 0, 1.5,
    10**400, float("nan"), float("inf"), -(10**9), [], [1], [None], {}, {"get": 1}, [[]] * 3, CHORD,
    {"__type__": "bytes", "__value__": 1}, {"__type__": "uuid", "__value__": {}},
    {"__type__": [], "__value__": 1}, "application/x-python-serialize", "gzip", "zlib", "unacked",
    "celery.chord", "celery.chain", "celery.map", "celery.backend_cleanup", "rot13", "\ud800",
)  # fmt: skip
values = st.one_of(
    st.sampled_from(ODD),
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts),
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner)),
        max_leaves=5,
    ),
)
deep = st.sampled_from([b"[" * 100_000 + b"]" * 100_000, b'{"headers":' * 100_000])


@st.composite
def changed(draw: st.DrawFn, sound: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return a valid message with one field, at any depth, replaced or removed."""
    message = sound()
    place = message
    for _ in range(draw(st.integers(0, 3))):
        inner = [key for key, value in place.items() if isinstance(value, dict)]
        if not inner:
            break
        place = place[draw(st.sampled_from(inner))]
    name = draw(st.one_of(st.sampled_from(sorted(place) or ["x"]), texts))
    if draw(st.booleans()) or name not in place:
        place[name] = draw(values)
    else:
        del place[name]
    return message


bodies = values.map(lambda body: {**call(), "body": body})
calls = st.builds(
    lambda args, kwargs, embed, name: {
        **call(name=name),
        "body": json.dumps([args, kwargs, embed]),
        "properties": {**call()["properties"], "body_encoding": None},
    },
    values,
    values,
    st.one_of(values, st.dictionaries(st.sampled_from(["callbacks", "chord", "chain"]), values)),
    st.sampled_from([EVALUATE, RELEASE, SEGMENT, SWEEP, "celery.map", "celery.chord", "os.system"]),
)
commands = st.builds(
    lambda name, value: command(**{name: value}),
    st.sampled_from(["method", "arguments", "destination", "pattern", "ticket", "reply_to"]),
    st.one_of(values, st.sampled_from(["shutdown", "pool_shrink", "cancel_consumer", "conf"])),
)


def raw(messages: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    """Return the messages as bytes: whole, cut short, or not messages at all."""
    whole = messages.map(lambda message: json.dumps(message).encode())
    cut = whole.flatmap(lambda text: st.integers(0, len(text)).map(lambda end: text[:end]))
    return st.one_of(whole, whole, whole, cut, st.binary(max_size=40), deep)


def unacknowledged(tag: str, text: bytes) -> Put:
    """Return a function that adds an entry to the messages that a lost worker left."""

    def put(broker: redis.Redis) -> None:
        broker.hset("unacked", tag, text)
        broker.zadd("unacked_index", {tag: 1})

    return put


tasks = st.one_of(changed(call), bodies, calls)
left = st.tuples(tasks, values, values).map(list)
poison: st.SearchStrategy[Put] = st.one_of(
    st.builds(
        lambda queue, text: lambda broker: broker.lpush(queue, text),
        st.sampled_from([SWEEP_QUEUE, RELEASE_QUEUE, RARE_QUEUE]),
        raw(tasks),
    ),
    raw(st.one_of(changed(command), commands)).map(
        lambda text: lambda broker: broker.publish(PIDBOX, text)
    ),
    st.builds(unacknowledged, st.uuids().map(str), raw(left)),
)


@dataclass
class Target:
    """A worker that gets the messages, and its broker."""

    worker: Host
    broker: Broker

    def works(self) -> None:
        """Queue one more task behind all others, and check that it is done and nothing is left."""
        task_id = str(uuid.uuid4())
        sound = call("orch_" + "0" * 32, task_id=task_id)
        sound["headers"]["ignore_result"] = False
        self.broker.client.lpush(SWEEP_QUEUE, json.dumps(sound))
        results = redis.Redis.from_url(f"{self.broker.url}/1")

        def ended() -> bool:
            assert self.worker.alive, self.worker.log[-2000:]
            stored: Any = results.get(f"celery-task-meta-{task_id}")
            # FAILURE counts too: the task names an orchestration that does not exist.
            return stored is not None and json.loads(stored)["status"] in {"SUCCESS", "FAILURE"}

        until("the next task to be done", ended, 30.0)
        keys = ("unacked", "unacked_index", SWEEP_QUEUE, RELEASE_QUEUE)
        until("nothing to be left", lambda: not self.broker.client.exists(*keys), 30.0)


@pytest.fixture(scope="module")
def target(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    directory = tmp_path_factory.mktemp("poisoned")
    world = build_world(servers.endpoint("moto"), SWEEP_INTERVAL_SECONDS="300")
    world.clock = RealClock()
    with (
        broker_of_its_own(directory / "broker") as broker,
        fleet_of(Celery(world, broker.url, directory)) as fleet,
    ):
        yield Target(fleet.worker(environment=SOON), broker)


@pytest.mark.parametrize("key", [SWEEP_QUEUE, RARE_QUEUE, "unacked", "unacked_index"])
def test_a_key_of_the_wrong_type_is_dropped(target: Target, key: str) -> None:
    """It costs one connection and the message in transit, not every later one too."""
    target.broker.client.set(key, "x")
    target.broker.client.lpush(RELEASE_QUEUE, json.dumps(call(name=EVALUATE)))
    until("the key to be gone", lambda: target.broker.client.type(key) != b"string")
    target.works()
    assert target.worker.log.count(target.worker.ready) == 1, "it is still the same process"


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.lists(poison, min_size=1, max_size=8))
def test_no_message_ends_or_disconnects_a_worker(target: Target, messages: list[Put]) -> None:
    if not target.worker.alive:  # the previous example ended it, and is being shrunk
        target.worker.start()
    log = len(target.worker.log)
    for put in messages:
        put(target.broker.client)
    target.works()
    news = target.worker.log[log:]
    assert "Connection to broker lost" not in news
    assert target.worker.ready not in news, "it is still the same process"
