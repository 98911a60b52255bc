"""Workers are killed one after the other while many children wait; all are released in time."""

from __future__ import annotations

import time
from collections.abc import Callable
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


@pytest.fixture(params=[2, 20], ids=["short grace", "grace of two intervals"])
def held_world(request: pytest.FixtureRequest, servers: Servers, proxy: FaultProxy) -> World:
    """Tables that workers reach through the proxy and the test reaches directly."""
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


def strand(world: World) -> list[str]:
    """Strand as many children as the test needs; returns their orchestrations."""
    graph = {"root": [], **{f"c{number}": ["root"] for number in range(3)}}
    return [world.seed(graph, {"root": "succeeded"}, age=0) for _ in range(CHILDREN // 3)]


def waits(world: World, found: list[str], meanwhile: Callable[[float], None]) -> list[float]:
    """Return how many seconds each child waited beyond the grace, once all are released."""
    began = time.monotonic()
    waited: dict[tuple[str, str], float] = {}
    while len(waited) < CHILDREN:
        time.sleep(0.5)
        passed = time.monotonic() - began
        assert passed < 300, f"{CHILDREN - len(waited)} children still wait"
        meanwhile(passed)
        for row in world.scan(world.settings.orchestration_table_name):
            key = row["orchestration_id"]["S"], row["sub_issue_id"]["S"]
            if key[0] in found and row.get("child_status") == {"S": "released"}:
                waited.setdefault(key, time.monotonic() - began)
    return [seconds - world.settings.stranded_grace_seconds for seconds in waited.values()]


@pytest.mark.timeout(900)
def test_kills_every_few_seconds_lose_nothing(
    fleet: Fleet, proxy: FaultProxy, measured: Measured
) -> None:
    world, state = fleet.celery.world, fleet.celery.state
    proxy.delay_seconds = 0.04
    workers = [fleet.worker("w1", concurrency=2), fleet.worker("w2", concurrency=2)]
    fleet.beat("b1")
    fleet.beat("b2")
    until("a complete sweep", lambda: fleet.celery.last(complete=True))
    undisturbed = strand(world)
    # How long the work takes on this machine; the bound below depends on it.
    floor = waits(world, undisturbed, lambda _: None)
    starting: list[float] = []

    def kill(passed: float) -> None:
        if passed > KILL_EVERY * (len(starting) + 1):
            host = workers[len(starting) % 2]
            host.kill()
            killed = time.monotonic()
            host.start()
            starting.append(time.monotonic() - killed)

    found = strand(world)
    late = waits(world, found, kill)
    starts = sorted(sweep.started_at for sweep in state.overview().sweeps)
    gaps = [later - earlier for earlier, later in pairwise(starts)]
    measured(
        f"{len(starting)} workers killed, away for {sum(starting):.0f} s, {CHILDREN} children, "
        f"grace {world.settings.stranded_grace_seconds} s: released after it within "
        f"{median(late):.0f} s (median), {max(late):.0f} s at most; undisturbed within "
        f"{median(floor):.0f} s, {max(floor):.0f} s; longest time between two sweeps "
        f"{max(gaps):.0f} s"
    )
    # Two intervals and the time of a sweep, which has half of the workers while one is away.
    assert max(late) < 2 * INTERVAL + 2 * max(floor) + sum(starting)
    assert max(gaps) < 2 * INTERVAL
    keys = [
        task["idempotency_key"]["S"] for each in undisturbed + found for task in world.tasks(each)
    ]
    assert len(keys) == len(set(keys)) == 2 * CHILDREN
