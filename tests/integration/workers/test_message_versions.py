"""Old and new versions run side by side during a deployment: a test with recorded messages.

``workers/enqueue.py`` has the rules for changing messages.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from reconciler.observability.redis_metrics import read_series
from reconciler.sweeping.overview import Sweep
from reconciler.sweeping.segments import Scope
from tests.conftest import Servers
from tests.support.broker import Broker
from tests.support.hosts import Fleet
from tests.support.processes import until
from tests.support.record_messages import ORCHESTRATION, RECORDED, SWEEP_ID, sent_by, version
from tests.support.world import RealClock, World, build_world
from workers.messages import OWN_HEADERS
from workers.names import (
    DEPLOYMENT_HEADER,
    EVALUATE,
    RELEASE,
    RELEASE_QUEUE,
    SEGMENT,
    SWEEP,
    SWEEP_QUEUE,
)

pytestmark = [pytest.mark.integration, pytest.mark.workers]

Message = dict[str, Any]


@pytest.fixture
def held_world(servers: Servers) -> World:
    """Tables with an index: some recorded messages come from deployments that use one."""
    world = build_world(
        servers.endpoint("dynamodb_local"),
        SWEEP_INTERVAL_SECONDS="2",
        STRANDED_GRACE_SECONDS="1",
        ACTIVE_INDEX_NAME="ChildStatusIndex",
    )
    world.clock = RealClock()
    return world


def recorded(path: Path) -> dict[str, Message]:
    found: dict[str, Message] = json.loads(path.read_text(encoding="utf-8"))
    return found


def call_of(message: Message) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments that a message carries."""
    args, kwargs, _ = json.loads(base64.b64decode(message["body"]))
    return args, kwargs


def put(fleet: Fleet, message: Message, found: str, **more: Any) -> None:
    """Put a recorded message on its queue, about the orchestration ``found`` of this deployment."""
    args, kwargs = json.loads(json.dumps(call_of(message)).replace(ORCHESTRATION, found))
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    body = base64.b64encode(json.dumps([args, {**kwargs, **more}, embed]).encode()).decode()
    whole = json.loads(json.dumps({**message, "body": body}).replace(ORCHESTRATION, found))
    if DEPLOYMENT_HEADER in whole["headers"]:
        whole["headers"][DEPLOYMENT_HEADER] = fleet.celery.world.settings.deployment_id
    queue = RELEASE_QUEUE if message["headers"]["task"] == RELEASE else SWEEP_QUEUE
    fleet.celery.redis.lpush(queue, json.dumps(whole))


def due(world: World) -> str:
    return world.seed({"a": [], "b": ["a"]}, {"a": "succeeded"})


def stranded(world: World) -> str:
    return world.seed({"a": [], "b": ["a"]}, {"a": "released"}, tasks={"a": "COMPLETED"})


def released(world: World, found: str) -> bool:
    return world.statuses(found)["b"] == "released"


def shape(message: Message) -> Any:
    """Return what a message's version determines: its task, its fields and its headers."""
    args, kwargs = call_of(message)
    places = [sorted(arg) if isinstance(arg, dict) else type(arg).__name__ for arg in args]
    own = sorted(name for name in message["headers"] if name.startswith(OWN_HEADERS))
    return message["headers"]["task"], places, sorted(kwargs), own


def test_the_messages_of_this_version_are_recorded(fleet: Fleet) -> None:
    """A change without a new recording would escape the tests of the next version."""
    messages = recorded(RECORDED / f"{version()}.json")
    assert sorted(messages) == sorted([SWEEP, SEGMENT, EVALUATE, RELEASE])
    sent = sent_by(fleet)
    again = "python -m tests.support.record_messages"
    assert {n: shape(m) for n, m in sent.items()} == {n: shape(m) for n, m in messages.items()}, (
        again
    )


@pytest.mark.parametrize("path", sorted(RECORDED.glob("*.json")), ids=lambda path: path.stem)
@pytest.mark.parametrize("from_the_next", [False, True], ids=["as sent", "with more fields"])
def test_messages_of_another_version_are_understood(
    fleet: Fleet, path: Path, *, from_the_next: bool
) -> None:
    """Earlier versions: as sent. The next version: with fields that nobody knows yet."""
    world, celery, messages = fleet.celery.world, fleet.celery, recorded(path)
    more = {"a_new_field": {"of": ["the", "next"]}} if from_the_next else {}
    if from_the_next:
        (place,), kwargs = call_of(messages[SEGMENT])
        body = [[{**place, "a_new_place": 5}], kwargs, {}]
        messages[SEGMENT]["body"] = base64.b64encode(json.dumps(body).encode()).decode()
    worker = fleet.worker()

    evaluated = stranded(world)
    put(fleet, messages[EVALUATE], evaluated, **more)
    until("the evaluation and its release", lambda: released(world, evaluated))

    found = due(world)
    put(fleet, messages[RELEASE], found, **more)
    until("the release", lambda: released(world, found))

    read = stranded(world)
    celery.state.set_total(Scope.TABLE, 1)
    one = {"table": (0,)}, {"table": 1}
    celery.state.begin(Sweep(SWEEP_ID, "repair", celery.state.now(), *one))
    put(fleet, messages[SEGMENT], read, **more)
    until("the segment and its release", lambda: released(world, read))
    until("the end of its sweep", lambda: (celery.last() or {}).get("sweep_id") == SWEEP_ID)

    # A sweep that is requested right after another one began does nothing.
    later = celery.state.now() + world.settings.sweep_interval_seconds
    until("the next interval", lambda: celery.state.now() > later)
    swept = stranded(world)
    put(fleet, messages[SWEEP], swept, **more)
    until("the sweep and its release", lambda: released(world, swept))
    sweep_id = call_of(messages[SWEEP])[1]["sweep_id"]
    last = until(
        "the end of the sweep", lambda: (s := celery.last()) and s["sweep_id"] == sweep_id and s
    )
    assert last["complete"]
    assert "Traceback" not in worker.log
    assert refused(fleet) == 0


def refused(fleet: Fleet) -> float:
    """Return how many malformed messages were counted."""
    series = read_series(fleet.celery.redis, fleet.celery.world.settings)
    return series["reconciler_errors_total", (("kind", "malformed_message"),), ""]


def test_a_misspelt_argument_is_refused(fleet: Fleet) -> None:
    """By hand, with ``report`` misspelt: ignoring it would repair what was only to be looked at."""
    world = fleet.celery.world
    found = stranded(world)
    before = world.everything()
    fleet.worker()
    fleet.send(EVALUATE, found, kwargs={"reprot": True})
    until("the message to be refused", lambda: refused(fleet) == 1)
    assert world.everything() == before


def test_an_unknown_task_is_dropped(fleet: Fleet, own_broker: Broker) -> None:
    """A change that old workers must not ignore gets a new task name; a sweep does its work."""
    world = fleet.celery.world
    found = due(world)
    message = recorded(RECORDED / f"{version()}.json")[RELEASE]
    message["headers"]["task"] = "reconciler.release_child_with_care"
    worker = fleet.worker()
    put(fleet, message, found)
    until("the message to be dropped", lambda: refused(fleet) == 1)
    until("the queue to be empty", lambda: not own_broker.client.exists(SWEEP_QUEUE, "unacked"))
    assert not released(world, found)
    assert worker.alive
    fleet.send(SWEEP, task_id="sweep:8")
    until("the next sweep to find the work", lambda: released(world, found))
    assert len(world.tasks(found, "b")) == 1


def test_an_invalid_sweep_id_is_only_refused(fleet: Fleet) -> None:
    """It is its sender's fault, so no sweep has failed."""
    worker = fleet.worker()
    fleet.send(SWEEP, kwargs={"sweep_id": 7})
    until("the message to be refused", lambda: refused(fleet) == 1)
    assert "orch.message.refused" in worker.log
    assert "orch.sweep.failed" not in worker.log
