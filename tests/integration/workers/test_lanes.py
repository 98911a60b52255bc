"""Lanes: releases that share a row go one after the other, and nobody waits for ever."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock

import pytest
import redis

from reconciler.settings import Settings
from tests.support.processes import run_python
from workers import resources
from workers.resources import LANE_PREFIX, RatePacer

pytestmark = [pytest.mark.integration, pytest.mark.workers]

LONG = 600.0


def pacer(broker: str) -> RatePacer:
    settings = Settings(
        orchestration_table_name="rows",
        task_table_name="tasks",
        task_events_table_name="events",
        celery_broker_url=f"{broker}/6",
    )
    return RatePacer(settings, redis.Redis.from_url(f"{broker}/6"))


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine, nobody goes ahead for having waited, or been in it, too long."""
    monkeypatch.setattr(resources, "_PACE_SECONDS", LONG)
    monkeypatch.setattr(resources, "_LANE_SECONDS", LONG)


@pytest.mark.usefixtures("patient")
def test_one_at_a_time_in_a_lane(broker: str) -> None:
    inside = Lock()
    met: list[bool] = []

    def work(_: int) -> None:
        own = pacer(broker)
        for _ in range(10):
            with own.lane("orch_1"):
                met.append(not inside.acquire(blocking=False))
                inside.release()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    assert met == [False] * 40


@pytest.mark.usefixtures("patient")
def test_another_lane_is_not_waited_for(broker: str) -> None:
    with pacer(broker).lane("orch_1"), pacer(broker).lane("orch_2"):
        pass


def test_who_has_waited_for_long_goes_ahead_and_takes_nobodys_place(
    broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "_LANE_SECONDS", LONG)
    monkeypatch.setattr(resources, "_PACE_SECONDS", 0.1)
    first = pacer(broker)
    with first.lane("orch_1"):
        with pacer(broker).lane("orch_1"):
            pass
        assert first._client.exists(f"{LANE_PREFIX}orch_1"), "still the first one's"
    assert not first._client.exists(f"{LANE_PREFIX}orch_1")


def test_a_lane_whose_holder_is_gone_is_free_again(
    broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "_PACE_SECONDS", LONG)
    monkeypatch.setattr(resources, "_LANE_SECONDS", 0.2)
    gone, entered, over = pacer(broker), Event(), Event()

    def hold() -> None:
        with gone.lane("orch_1"):
            entered.set()
            over.wait(LONG)

    with ThreadPoolExecutor(1) as threads:
        held = threads.submit(hold)
        entered.wait(LONG)
        with pacer(broker).lane("orch_1"):
            pass
        over.set()
        held.result()  # that its place was taken meanwhile is no error of its own


def test_without_a_broker_it_goes_ahead(broker: str) -> None:
    nowhere = pacer(broker)
    nowhere._client = redis.Redis(port=1)
    with nowhere.lane("orch_1"):
        pass


RELEASE_SIBLINGS = f"""
import json
from benchmarks import contention
from benchmarks.measured import quieten
from workers import resources
quieten()
resources._PACE_SECONDS = resources._LANE_SECONDS = {LONG}
print(json.dumps(contention.run(24, 6, lanes=True).to_json()))
"""


def test_siblings_that_are_released_at_once_never_meet() -> None:
    """Where those of the service itself would, on the predecessor that all of them check."""
    done = run_python("-c", RELEASE_SIBLINGS, environment={})
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["transactions"], found["conflicts"], found["given_up"]) == (24, 0, 0)
