"""A sweep under the lock: how it is renewed, who steps aside, and what is remembered."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from reconciler.errors import StoreUnavailableError, ThrottledError
from reconciler.operations import cron
from reconciler.operations.context import Evaluation, Stuck
from reconciler.operations.counts import Counts
from reconciler.operations.reconciler import Reconciler
from reconciler.stores.sweeps import LEASE_SECONDS, Lease, Recorded, SweepStore
from reconciler.sweeping.cron import CronSweep, run_cron_sweep
from tests.support.world import World


def sweep(world: World, **how: Any) -> CronSweep:
    reconciler = world.reconciler()
    return run_cron_sweep(reconciler, holder="B", segments=1, **how)


def recorded(world: World) -> Recorded:
    found = world.reconciler().sweeps.recorded()
    assert found is not None
    return found


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


def test_it_says_when_the_sweep_ended_to_the_millisecond(world: World) -> None:
    world.clock.forward(0.123_456)
    sweep(world)
    assert recorded(world).last["ended_at"] == round(world.clock().timestamp(), 3)


def test_of_what_is_stuck_four_hundred_are_remembered(world: World) -> None:
    world.seed({f"c{number}": ["gone"] for number in range(401)})
    summary = sweep(world).summary
    assert summary.counts.stuck == {"dangling_dependency": 401}
    assert len(recorded(world).stuck) == 400


def test_the_oldest_come_first_and_before_them_what_is_stuck_for_nobody_knows_how_long(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluated(_: Reconciler, name: str, **__: object) -> Evaluation:
        ages: Sequence[float | None] = (0.0, 90.0, None, 60.0)
        stuck = tuple(Stuck(name, f"{age}", "long_running", "", age) for age in ages)
        return Evaluation(name, None, None, (), Counts(), stuck)

    world.seed({"a": []})
    monkeypatch.setattr(Reconciler, "evaluate", evaluated)
    sweep(world)
    ages = [entry["age_seconds"] for entry in recorded(world).stuck]
    assert ages == [None, 90.0, 60.0, 0.0]


def test_one_that_cannot_be_recorded_was_made_all_the_same_and_the_error_is_counted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def throttled(*_: object) -> None:
        raise ThrottledError("not now")

    monkeypatch.setattr(SweepStore, "record", throttled)
    assert sweep(world).summary.complete
    assert world.metrics.count("reconciler_errors_total", kind="throttled") == 1


@pytest.mark.parametrize("full", [True, False])
def test_without_an_index_nobody_asks_what_earlier_sweeps_have_left(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    full: bool,  # noqa: FBT001
) -> None:
    monkeypatch.setattr(SweepStore, "recorded", lambda _: pytest.fail("asked"))
    assert sweep(world, full=full).summary.complete
