"""Two deployments on one broker (field failure 27): neither does or counts the other's work.

Without the mark on keys and messages, a sweep was *complete* although it had read only a part of
its rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from reconciler.observability.redis_metrics import read_series
from reconciler.sweeping.segments import NEVER, Scope
from tests.conftest import Servers
from tests.support.broker import Broker
from tests.support.hosts import Fleet, fleet_of
from tests.support.processes import Celery, run_reconciler, until
from tests.support.world import World, build_world
from workers.names import EVALUATE

pytestmark = [pytest.mark.integration, pytest.mark.workers]

ORCHESTRATIONS = 2


def deployment(servers: Servers, broker: Broker, directory: Path) -> Celery:
    """Return Celery for a deployment with its own tables."""
    directory.mkdir()
    world = build_world(
        servers.endpoint("moto"),
        SWEEP_INTERVAL_SECONDS="2",
        STRANDED_GRACE_SECONDS="1",
        SWEEP_SEGMENTS="3",
    )
    return Celery(world, broker.url, directory)


def strand(world: World) -> list[str]:
    return [
        world.seed({"a": [], "b": ["a"]}, {"a": "released"}, tasks={"a": "COMPLETED"})
        for _ in range(ORCHESTRATIONS)
    ]


@pytest.fixture
def two(servers: Servers, own_broker: Broker, tmp_path: Path) -> Iterator[tuple[Fleet, Fleet]]:
    first = deployment(servers, own_broker, tmp_path / "first")
    second = deployment(servers, own_broker, tmp_path / "second")
    with fleet_of(first) as one, fleet_of(second) as other:
        yield one, other


def until_released(world: World, orchestration_id: str) -> None:
    until("b to be released", lambda: world.statuses(orchestration_id)["b"] == "released")


def refused(fleet: Fleet) -> float:
    series = read_series(fleet.celery.redis, fleet.celery.world.settings)
    return series["reconciler_errors_total", (("kind", "other_deployment"),), ""]


def covered(fleet: Fleet) -> bool:
    return fleet.celery.state.overview().covered_as_of(Scope.ACTIVE) != NEVER


def test_deployments_ignore_each_others_work(two: tuple[Fleet, Fleet]) -> None:
    """Neither does the other's work or counts it as done, and the doctor names the other."""
    stranded = [strand(fleet.celery.world) for fleet in two]
    one, other = two
    one.beat("beat1")
    other.beat("beat2")
    w2 = other.worker("w2")
    for found in stranded[1]:
        until_released(other.celery.world, found)
    until("a sweep to be complete", partial(covered, other))
    # The beats ask at different times, and the one worker took all their messages.
    until("two messages of the other deployment to be counted", lambda: refused(other) >= 2)
    assert w2.log.count("other_deployment") == 1, "it is logged once, not for each message"
    assert not covered(one), "nobody has read its tables"
    assert {one.celery.world.statuses(found)["b"] for found in stranded[0]} == {"blocked"}

    one.worker("w1")
    for found in stranded[0]:
        until_released(one.celery.world, found)
    until("a sweep to be complete", partial(covered, one))
    until("the other's messages to be counted", partial(refused, one))
    for fleet, own in zip(two, stranded, strict=True):
        assert {len(fleet.celery.world.tasks(each, "b")) for each in own} == {1}

    done = run_reconciler("doctor", "--json", environment=one.celery.environment)
    named = [check for check in json.loads(done.stdout)["checks"] if check["subject"] == "tables"]
    (finding,) = [check for check in named if check["level"] == "failure"]
    assert other.celery.world.settings.orchestration_table_name in finding["found"]
    assert "w2@" in finding["found"]


def test_messages_for_renamed_tables_are_dropped(
    two: tuple[Fleet, Fleet],
) -> None:
    """A roll-out changes table names; the old workers are gone, but their messages remain."""
    before, after = two
    (old, *_), (new, *_) = (strand(fleet.celery.world) for fleet in two)
    before.run(
        "from workers import app\n"
        "from workers.enqueue import submit\n"
        f"submit(app, {EVALUATE!r}, 'evaluate:{old}', {old!r})"
    )
    before.beat("old-beat").stop()
    after.worker("new")
    until("the old messages to be dropped", lambda: refused(after) >= 1)
    assert after.celery.world.statuses(new)["b"] == "blocked", (
        "nobody has asked for a sweep of the new tables"
    )
    after.beat("new-beat")
    until_released(after.celery.world, new)
    assert before.celery.world.statuses(old)["b"] == "blocked"
