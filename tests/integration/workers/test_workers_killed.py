"""A worker is killed every six seconds while many children wait: all are released in time."""

from __future__ import annotations

import time
from itertools import pairwise
from statistics import median

import pytest

from tests.conftest import Servers
from tests.integration.workers.conftest import Measured
from tests.support.faults import FaultProxy
from tests.support.hosts import Fleet
from tests.support.processes import until
from tests.support.world import RealClock, World, build_world

pytestmark = [pytest.mark.integration, pytest.mark.workers]

INTERVAL, KILL_EVERY, CHILDREN = 10, 6.0, 204
SWEEP_SECONDS = 45.0
"""What a sweep may take, with 40 ms for each request, on a machine that is busy."""


@pytest.fixture(params=[2, 20], ids=["short grace", "grace of two intervals"])
def held_world(request: pytest.FixtureRequest, servers: Servers, proxy: FaultProxy) -> World:
    """Tables that workers reach through the proxy, and the test directly."""
    world = build_world(
        servers.endpoint("dynamodb_local"),
        SWEEP_INTERVAL_SECONDS=str(INTERVAL),
        STRANDED_GRACE_SECONDS=str(request.param),
        SWEEP_SEGMENTS="4",
        RELEASE_RATE_PER_MINUTE="6000",
    )
    world.endpoint = proxy.url
    world.clock = RealClock()
    return world


@pytest.mark.timeout(600)
def test_kills_every_few_seconds_lose_nothing(
    fleet: Fleet, proxy: FaultProxy, measured: Measured
) -> None:
    world, state = fleet.celery.world, fleet.celery.state
    proxy.delay_seconds = 0.04
    workers = [fleet.worker("w1", concurrency=2), fleet.worker("w2", concurrency=2)]
    fleet.beat("b1")
    fleet.beat("b2")
    until("a complete sweep", lambda: fleet.celery.last(complete=True))
    graph = {"root": [], **{f"c{number}": ["root"] for number in range(3)}}
    found = [world.seed(graph, {"root": "succeeded"}, age=0) for _ in range(CHILDREN // 3)]
    began, kills = time.monotonic(), 0
    waited: dict[tuple[str, str], float] = {}
    while len(waited) < CHILDREN:
        time.sleep(0.5)
        passed = time.monotonic() - began
        assert passed < 300, f"{CHILDREN - len(waited)} children still wait"
        if passed > KILL_EVERY * (kills + 1):
            workers[kills % 2].kill()
            workers[kills % 2].start()
            kills += 1
        for row in world.scan(world.settings.orchestration_table_name):
            if row.get("child_status") == {"S": "released"}:
                key = row["orchestration_id"]["S"], row["sub_issue_id"]["S"]
                waited.setdefault(key, time.monotonic() - began)
    grace = world.settings.stranded_grace_seconds
    late = [seconds - grace for seconds in waited.values()]
    starts = sorted(sweep.started_at for sweep in state.overview().sweeps)
    gaps = [later - earlier for earlier, later in pairwise(starts)]
    measured(
        f"{kills} workers killed, {CHILDREN} children, grace {grace} s: released after it within "
        f"{median(late):.0f} s (median), {max(late):.0f} s at most; longest time between two "
        f"sweeps {max(gaps):.0f} s"
    )
    assert max(late) < 2 * INTERVAL + SWEEP_SECONDS
    assert max(gaps) < 2 * INTERVAL
    keys = [task["idempotency_key"]["S"] for each in found for task in world.tasks(each)]
    assert len(keys) == len(set(keys)) == CHILDREN
