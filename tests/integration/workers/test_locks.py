"""Locks: releases that share a row run one after the other, and nobody waits for ever."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock

import pytest
import redis

from tests.support.processes import run_python
from workers import locks
from workers.locks import PREFIX, Locks

pytestmark = [pytest.mark.integration, pytest.mark.workers]

LONG = 600.0


def locks_on(broker: str) -> Locks:
    return Locks(redis.Redis.from_url(f"{broker}/6"), "here")


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, no lock expires and no waiter gives up."""
    monkeypatch.setattr(locks, "_MAX_WAIT_SECONDS", LONG)
    monkeypatch.setattr(locks, "_EXPIRY_SECONDS", LONG)


@pytest.mark.usefixtures("patient")
def test_a_lock_has_one_holder_at_a_time(broker: str) -> None:
    inside = Lock()
    met: list[bool] = []

    def work(_: int) -> None:
        own = locks_on(broker)
        for _ in range(10):
            with own.lock("orch_1"):
                met.append(not inside.acquire(blocking=False))
                inside.release()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    assert met == [False] * 40


@pytest.mark.usefixtures("patient")
def test_different_locks_do_not_block_each_other(broker: str) -> None:
    with locks_on(broker).lock("orch_1"), locks_on(broker).lock("orch_2"):
        pass


def test_a_waiter_proceeds_after_the_maximum_wait(
    broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leaves the holder's lock alone."""
    monkeypatch.setattr(locks, "_EXPIRY_SECONDS", LONG)
    monkeypatch.setattr(locks, "_MAX_WAIT_SECONDS", 0.1)
    first = locks_on(broker)
    with first.lock("orch_1"):
        with locks_on(broker).lock("orch_1"):
            pass
        assert first._client.exists(f"{PREFIX}here:orch_1"), "the first holder still has it"
    assert not first._client.exists(f"{PREFIX}here:orch_1")


def test_the_lock_of_a_lost_worker_expires(broker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_MAX_WAIT_SECONDS", LONG)
    monkeypatch.setattr(locks, "_EXPIRY_SECONDS", 0.2)
    gone, entered, over = locks_on(broker), Event(), Event()

    def hold() -> None:
        with gone.lock("orch_1"):
            entered.set()
            over.wait(LONG)

    with ThreadPoolExecutor(1) as threads:
        held = threads.submit(hold)
        entered.wait(LONG)
        with locks_on(broker).lock("orch_1"):
            pass
        over.set()
        held.result()  # losing the lock meanwhile is no error


def test_a_lock_is_granted_without_a_broker(broker: str) -> None:
    nowhere = locks_on(broker)
    nowhere._client = redis.Redis(port=1)
    with nowhere.lock("orch_1"):
        pass


RELEASE_SIBLINGS = f"""
import json
from benchmarks import contention
from benchmarks.measured import quieten
from workers import locks
quieten()
locks._MAX_WAIT_SECONDS = locks._EXPIRY_SECONDS = {LONG}
print(json.dumps(contention.run(24, 6, locked=True).to_json()))
"""


def test_simultaneous_releases_of_siblings_do_not_conflict() -> None:
    """Without locks they would conflict on the predecessor, which all of them check."""
    done = run_python("-c", RELEASE_SIBLINGS, environment={})
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["transactions"], found["conflicts"], found["given_up"]) == (24, 0, 0)
