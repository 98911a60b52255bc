"""The state of sweeps on a real broker: its script, its records and its claims."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from reconciler.sweeping import segments
from reconciler.sweeping.known_stuck import Finding
from reconciler.sweeping.records import MemoryRecords, Records
from reconciler.sweeping.segments import NEVER, Scope, Segment
from reconciler.sweeping.state import SweepState
from tests.support.schedules import Schedule
from workers.broker_records import COMPARE_AND_SET, PREFIX, BrokerRecords
from workers.recoveries import PREFIX as RECOVERIES
from workers.recoveries import Recoveries
from workers.sweeping import state_of

pytestmark = [pytest.mark.integration, pytest.mark.workers]

KEY = f"{PREFIX}here:known"


@pytest.mark.parametrize(
    ("stored", "expected", "new", "done", "left"),
    [
        (None, "", "b", 1, b"b"),
        (b"a", "a", "b", 1, b"b"),
        (b"a", "", "b", 0, b"a"),
        (b"a", "x", "b", 0, b"a"),
        (None, "x", "b", 0, None),
        (b"a", "a", "", 1, None),
    ],
)
def test_the_script_writes_only_unchanged_values(
    scratch: redis.Redis, stored: bytes | None, expected: str, new: str, done: int, left: bytes
) -> None:
    if stored is not None:
        scratch.hset(KEY, "o", stored)
    script = scratch.register_script(COMPARE_AND_SET)
    assert script(keys=[KEY], args=["o", expected, new, 0]) == done
    assert scratch.hget(KEY, "o") == left
    assert scratch.ttl(KEY) in {-1, -2}


def test_only_reports_by_hand_expire(scratch: redis.Redis) -> None:
    for report in (None, "sweep:by-hand-1"):
        BrokerRecords(scratch, "here", report).update("known", "o", lambda _old, _now: {"a": 1})
        BrokerRecords(scratch, "here", report).add("counts:s", {"released": 1})
    expires = {key: scratch.ttl(key) > 0 for key in scratch.keys()}  # noqa: SIM118 - not a dict
    assert len(expires) == 4
    assert all(found is (b"report" in key) for key, found in expires.items())


def test_a_report_by_hand_replaces_no_finding(scratch: redis.Redis) -> None:
    """This holds for a report on a single orchestration."""
    settings = SimpleNamespace(repair_mode="repair", deployment_id="here")
    resources: Any = SimpleNamespace(settings=settings, client=scratch, outbox=None)
    state = state_of(resources, "sweep:1", report=False)
    state.nominate("o", Scope.TABLE, NEVER, state.now(), None)
    report = state_of(resources, None, report=True)
    report.evaluated("o", Finding(report.now()), 60)
    assert state.known("o").waiting


@pytest.mark.parametrize(
    "stored",
    [b"", b"?", b"\xff\xfe", b"null", b"[]", b"7", b"{", pytest.param(b"[" * 100_000, id="deep")],
)
def test_an_invalid_record_is_overwritten(scratch: redis.Redis, stored: bytes) -> None:
    """A foreign value in one field must not end every later sweep."""
    records = BrokerRecords(scratch, "here")
    scratch.hset(KEY, mapping={"o": stored, b"\xff": stored})
    scratch.rpush(f"{PREFIX}here:counts:s", stored, b'{"released": "?"}', b'{"released": 1e999}')
    records.add("counts:s", {"released": 1})
    assert records.read("known") == [{}]
    assert records.get("known", "o") is None
    assert records.update("known", "o", lambda old, _now: {"a": 1, **(old or {})}) == {"a": 1}
    assert records.read("known") == [{"o": {"a": 1}}]
    assert records.numbers("counts:s") == {"released": 1}


def test_foreign_entries_among_recoveries_are_skipped(scratch: redis.Redis) -> None:
    """They would hide all recoveries of a day from ``status``, ``list --recovered`` and Flower."""
    recoveries = Recoveries(scratch, "here")
    ids = {"orchestration_id": "o", "sub_issue_id": "a"}
    recoveries.add("lost_release", ids, 1.0)
    (ours,) = recoveries.list_last(60)
    assert (ours["code"], ours["orchestration_id"]) == ("lost_release", "o")
    others = [b"?", b"\xff", b"7", b"{}"]
    odd: list[dict[str, Any]] = [{"at": "?"}, {"at": float("-inf")}, {"repo": 5}]
    others += [json.dumps({**ours, **changed}).encode() for changed in odd]
    scratch.zadd(f"{RECOVERIES}here", dict.fromkeys(others, ours["at"]))
    assert recoveries.list_last(60) == [ours]


@pytest.fixture(params=["memory", "broker"])
def records(request: pytest.FixtureRequest, scratch: redis.Redis) -> Records:
    ticks = iter(range(1000, 10**9))
    found: dict[str, Callable[[], Records]] = {
        "memory": lambda: MemoryRecords(lambda: float(next(ticks)) / 1000),
        "broker": lambda: BrokerRecords(scratch, "here"),
    }
    return found[request.param]()


def test_simultaneous_updates_lose_nothing(records: Records) -> None:
    def add(_: int) -> None:
        records.update("k", "n", lambda old, _now: {"n": (old or {"n": 0})["n"] + 1})
        records.add("c", {"n": 0.5})

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(add, range(200)))
    assert records.get("k", "n") == {"n": 200}
    assert records.numbers("c") == {"n": 100.0}
    assert records.read("k", "none") == [{"n": {"n": 200}}, {}]
    records.update("k", "n", lambda _old, _now: None)
    assert records.get("k", "n") is None


def test_a_segment_has_one_reader_at_a_time(records: Records) -> None:
    state, segment = SweepState(records), Segment(Scope.TABLE, 0, 1)
    assert state.take(segment, "a", state.now()) is None, (
        "the segment belongs to another number of segments"
    )
    state.set_total(Scope.TABLE, 1)
    since = state.now()
    assert state.take(segment, "a", since) is not None
    assert state.take(segment, "b", since) is None
    assert not state.renew(segment, "b")
    assert not state.finish(segment, "b")
    assert state.renew(segment, "a")
    assert state.finish(segment, "a")
    assert state.overview().covered_as_of(Scope.ACTIVE) >= since
    assert state.take(segment, "b", since) is None, "the segment has been read since then"
    assert state.take(segment, "b", state.now()) is not None


def test_changing_the_segment_count_keeps_the_watermark(records: Records) -> None:
    state, segment = SweepState(records), Segment(Scope.TABLE, 0, 1)
    state.set_total(Scope.TABLE, 1)
    assert state.overview().covered_as_of(Scope.TABLE) == NEVER
    state.take(segment, "a", state.now())
    state.finish(segment, "a")
    covered = state.overview().covered_as_of(Scope.TABLE)
    assert covered > NEVER
    state.set_total(Scope.TABLE, 2)
    assert state.overview().covered_as_of(Scope.TABLE) == covered
    for number in range(2):
        half = Segment(Scope.TABLE, number, 2)
        state.take(half, "a", state.now())
        assert state.overview().covered_as_of(Scope.TABLE) == covered
        state.finish(half, "a")
    assert state.overview().covered_as_of(Scope.TABLE) > covered


@pytest.fixture
def short_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases that often expire while a segment is read."""
    monkeypatch.setattr(segments, "LEASE_SECONDS", 0.15)


@pytest.mark.usefixtures("short_leases")
def test_claims_cover_only_what_was_looked_at(scratch: redis.Redis) -> None:
    """Like ``tests/unit/sweeping/test_claims.py``, but on the broker and with its clock."""
    covered = 0
    for seed in range(6):
        scratch.flushdb()
        schedule = Schedule(SweepState(BrokerRecords(scratch, "here")), seed, scratch.flushdb)
        for _ in range(500):
            schedule.step()
            schedule.check()
        covered += schedule.covered
    assert covered > 100, "schedules in which nothing is ever covered prove nothing"
