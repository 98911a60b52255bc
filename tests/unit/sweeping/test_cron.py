"""A sweep under the lock: renewals, a second sweep, and what is recorded."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from reconciler.errors import StoreUnavailableError, ThrottledError
from reconciler.stores.sweeps import LEASE_SECONDS, Lease, SweepStore
from reconciler.sweeping import cron
from reconciler.sweeping.cron import CronSweep, recorded_state, run_cron_sweep
from reconciler.sweeping.segments import Scope
from reconciler.sweeping.state import SweepState
from tests.support.world import World


def sweep(world: World, **how: Any) -> CronSweep:
    reconciler = world.reconciler()
    return run_cron_sweep(reconciler, holder="B", segments=1, **how)


# -- the lock


class Beats:
    """An event whose ``wait`` is in vain ``in_vain`` times, and never takes any time."""

    waits: list[float]
    in_vain = 0

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        return len(self.waits) > self.in_vain

    def set(self) -> None:
        """Do nothing: the waits end by themselves."""


def renewals(
    world: World, monkeypatch: pytest.MonkeyPatch, answers: Sequence[bool | Exception]
) -> tuple[list[float], int]:
    """Sweep with these answers to renewals; return the waits and the number of renewals."""
    left = list(answers)
    waits: list[float] = []

    def renew(_store: SweepStore, _owner: str, _now: object) -> bool:
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    beats = type("Counted", (Beats,), {"waits": waits, "in_vain": len(answers)})
    monkeypatch.setattr(cron, "Event", beats)
    monkeypatch.setattr(SweepStore, "renew", renew)
    assert sweep(world).summary.complete
    return waits, len(answers) - len(left)


def test_the_lock_is_renewed_three_times_per_lease(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A renewal that fails does not stop the next, so two may fail before the lock expires."""
    waits, renewed = renewals(world, monkeypatch, [True, StoreUnavailableError("x"), True])
    assert waits == [LEASE_SECONDS / 3] * 4
    assert renewed == 3


def test_a_lost_lock_is_not_renewed_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    waits, renewed = renewals(world, monkeypatch, [True, False, True])
    assert (len(waits), renewed) == (2, 2)


def test_a_second_sweep_stops_and_names_the_first(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It changes nothing, and it is counted as overlapped."""
    found = world.seed({"a": []})
    expires = world.clock() + timedelta(seconds=60)
    lease = Lease("A", "2026-06-09T12:00:00.000Z", expires)
    monkeypatch.setattr(SweepStore, "take", lambda *_, **__: lease)
    said = sweep(world).to_json()
    assert said["stepped_aside"] == {
        "holder": "A",
        "since": "2026-06-09T12:00:00.000Z",
        "expires": expires.isoformat(),
    }
    assert (said["complete"], said["segments"], said["duration_seconds"]) == (False, 0, 0.0)
    assert world.metrics.count("reconciler_sweeps_total", outcome="overlapped") == 1
    assert world.statuses(found) == {"a": "blocked"}
    assert world.reconciler().sweeps.recorded() is None


def test_only_a_forced_sweep_ignores_the_lock(world: World) -> None:
    world.reconciler().sweeps.take("token", "A", world.clock())
    assert sweep(world).lease is not None
    forced = sweep(world, force=True)
    assert (forced.lease, forced.summary.complete) == (None, True)


def test_a_sweep_with_the_lock_names_no_holder(world: World) -> None:
    assert "stepped_aside" not in sweep(world).to_json()


# -- the record


def test_a_sweep_that_cannot_be_recorded_still_completes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is counted."""

    def throttled(*_: object) -> None:
        raise ThrottledError("not now")

    monkeypatch.setattr(SweepStore, "record", throttled)
    assert sweep(world).summary.complete
    assert world.metrics.count("reconciler_errors_total", kind="throttled") == 1


def test_an_oversized_state_is_recorded_without_details(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`status` still shows the sweep, and the next one reads the whole table."""
    world.seed({"a": ["gone"]})
    whole = SweepStore.record

    def record(store: SweepStore, state: str) -> bool:
        return "known" not in json.loads(state) and whole(store, state)

    monkeypatch.setattr(SweepStore, "record", record)
    summary = sweep(world).summary
    assert summary.counts.stuck == {"dangling_dependency": 1}
    now = world.clock().timestamp()
    seen = SweepState(recorded_state(world.reconciler().sweeps, lambda: now)).overview()
    assert [found.sweep_id for found in seen.sweeps] == [summary.sweep_id]
    assert seen.known == {}
    assert seen.covered_as_of(Scope.TABLE) == now, "`health` would call it unknown"


def test_only_a_full_sweep_reads_the_whole_table(make_world: Callable[..., World]) -> None:
    """If there is an index, the table is read in rotation."""
    world = make_world(ACTIVE_INDEX_NAME="Active", FULL_SCAN_INTERVAL_SECONDS="600")
    world.clock.forward(600 - world.clock().timestamp() % 600)
    read = []
    for full in ({}, {}, {"full": True}):
        read.append(sweep(world, **full).summary.segments)
        world.clock.forward(10)
    assert read == [2, 1, 2], "one of the index, and one of the table"


@pytest.mark.parametrize(
    "state",
    [
        {"known": 5},
        {"known": {"orch_x": {"waiting": 5}}},
        {"known": {"orch_x": {"stuck": [{}]}}},
        {"layout": {"table": {}}},
        {"layout": {"table": {"total": 1}}, "segments:table:1": {"0": {"mark": "x"}}},
        {"covered": {"table": {}}},
        {"sweeps": {"inline:x": {"sweep_id": "inline:x"}}},
    ],
)
def test_a_malformed_record_is_replaced(world: World, state: dict[str, Any]) -> None:
    """The sweep treats it as absent and writes a new one."""
    store = world.reconciler().sweeps
    store.record(json.dumps(state))
    assert sweep(world).summary.complete
    now = world.clock().timestamp()
    seen = SweepState(recorded_state(store, lambda: now)).overview()
    assert [found.complete for found in seen.sweeps] == [True]
    assert seen.known == {}
