"""A worker describes an orchestration when it is asked to."""

from __future__ import annotations

import json

import pytest
import redis

from reconciler.observability.redis_metrics import read_series
from tests.support.hosts import Fleet
from tests.support.processes import Celery, run_reconciler, until
from tests.support.world import World
from workers.names import BY_HAND_QUEUE, DESCRIBE, MESSAGE_HEADER, MESSAGE_VERSION, SWEEP_QUEUE
from workers.replies import KEEP_SECONDS, PREFIX, answer, new_token, take

pytestmark = [pytest.mark.integration, pytest.mark.workers]


def due(world: World) -> str:
    return world.seed({"a": [], "b": ["a"]}, {"a": "succeeded"})


def ask(celery: Celery, orchestration_id: str, reply_to: str) -> None:
    """Send the question as Flower does."""
    script = f"""
from workers import app
from workers.enqueue import submit
submit(app, {DESCRIBE!r}, "describe:x", {orchestration_id!r}, {reply_to!r})
"""
    Fleet(celery).run(script)


def test_a_worker_describes_what_inspect_prints(celery: Celery) -> None:
    """This changes nothing, and does not wait behind a sweep's backlog, which nobody works off."""
    world = celery.world
    found = due(world)
    celery.redis.lpush(SWEEP_QUEUE, "a backlog")
    before, token = world.everything(), new_token()
    ask(celery, found, token)
    with celery.worker(queues=BY_HAND_QUEUE):
        until("the answer", lambda: celery.redis.exists(PREFIX + token))
    assert 0 < int(str(celery.redis.ttl(PREFIX + token))) <= KEEP_SECONDS
    said = take(celery.redis, token)
    assert said is not None
    printed = json.loads(
        run_reconciler("inspect", found, "--json", environment=celery.environment).stdout
    )
    ages = {"age_seconds", "next_sweep_at", "will"}

    def settled(child: dict[str, object]) -> dict[str, object]:
        return {name: value for name, value in child.items() if name not in ages}

    assert [settled(c) for c in said["view"]["children"]] == [
        settled(c) for c in printed["children"]
    ]
    assert settled({**said["view"], "children": 0}) == settled({**printed, "children": 0})
    assert said["svg"].startswith("<svg ")
    assert world.everything() == before
    # A description counts nothing and logs nothing as stuck.
    assert "orch.sweep" not in (celery.directory / "w1.log").read_text()
    series = read_series(celery.redis, world.settings)
    assert not any(value for (name, *_), value in series.items() if "releases" in name)


def test_an_unknown_orchestration_is_answered_with_an_error(celery: Celery) -> None:
    token = new_token()
    ask(celery, "orch_nowhere", token)
    with celery.worker():
        until("the answer", lambda: celery.redis.exists(PREFIX + token))
    said = {"error": "no orchestration orch_nowhere exists", "kind": "unknown_orchestration"}
    assert take(celery.redis, token) == said


def test_a_worker_refuses_an_invalid_reply_token(celery: Celery) -> None:
    """No message may choose the key that a worker writes to."""
    found = due(celery.world)
    wrong = ["sweep", f"{'0' * 31}g", "../../sweep", ""]
    for reply_to in wrong:
        headers = {MESSAGE_HEADER: MESSAGE_VERSION}
        Fleet(celery).send(DESCRIBE, found, reply_to, headers=headers)
    with celery.worker():
        until("all to be refused", lambda: refused(celery) == len(wrong))
    assert celery.redis.keys(f"{PREFIX}*") == []


def refused(celery: Celery) -> float:
    series = read_series(celery.redis, celery.world.settings)
    return series["reconciler_errors_total", (("kind", "malformed_message"),), ""]


def test_an_answer_is_taken_once(scratch: redis.Redis) -> None:
    token = new_token()
    assert take(scratch, token) is None
    answer(scratch, token, {"view": {}})
    assert take(scratch, token) == {"view": {}}
    assert take(scratch, token) is None
