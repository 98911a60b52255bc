"""A sweep under the lock: how it is renewed, who steps aside, and what is remembered."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from reconciler.errors import StoreUnavailableError, ThrottledError
from reconciler.stores.sweeps import LEASE_SECONDS, Lease, SweepStore
from reconciler.sweeping import cron
from reconciler.sweeping.cron import CronSweep, recorded_state, run_cron_sweep
from reconciler.sweeping.state import SweepState
from tests.support.world import World


def sweep(world: World, **how: Any) -> CronSweep:
    reconciler = world.reconciler()
    return run_cron_sweep(reconciler, holder="B", segments=1, **how)


# -- the lock


class Beats:
    """An event that is waited for in vain so many times; nothing waits for a clock."""

    waits: list[float]
    in_vain = 0

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        return len(self.waits) > self.in_vain

    def set(self) -> None:
        """It is over."""


def renewals(
    world: World, monkeypatch: pytest.MonkeyPatch, answers: Sequence[bool | Exception]
) -> tuple[list[float], int]:
    """Sweep while the lock is to be renewed; returns what was waited for, and how often it was."""
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


def test_the_lock_is_renewed_so_often_that_two_renewals_may_fail(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits, renewed = renewals(world, monkeypatch, [True, StoreUnavailableError("x"), True])
    assert waits == [LEASE_SECONDS / 3] * 4
    assert renewed == 3


def test_one_that_was_taken_over_is_not_renewed_any_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits, renewed = renewals(world, monkeypatch, [True, False, True])
    assert (len(waits), renewed) == (2, 2)


def test_who_steps_aside_does_nothing_and_says_who_is_at_work(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_one_that_steps_not_aside_says_nothing_of_anybody(world: World) -> None:
    assert "stepped_aside" not in sweep(world).to_json()


# -- the record


def test_one_that_cannot_be_recorded_was_made_all_the_same_and_the_error_is_counted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def throttled(*_: object) -> None:
        raise ThrottledError("not now")

    monkeypatch.setattr(SweepStore, "record", throttled)
    assert sweep(world).summary.complete
    assert world.metrics.count("reconciler_errors_total", kind="throttled") == 1


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
def test_a_record_in_another_form_counts_as_none_and_is_written_anew(
    world: World, state: dict[str, Any]
) -> None:
    store = world.reconciler().sweeps
    store.record(json.dumps(state))
    assert sweep(world).summary.complete
    now = world.clock().timestamp()
    seen = SweepState(recorded_state(store, lambda: now)).overview()
    assert [found.complete for found in seen.sweeps] == [True]
    assert seen.known == {}
