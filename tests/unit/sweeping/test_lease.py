"""The lease of a segment: how often it is renewed, and when it ends a step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import pytest

from reconciler.sweeping import lease as module
from reconciler.sweeping.lease import LeaseHolder
from reconciler.sweeping.segments import Scope, Segment

SEGMENT = Segment(Scope.TABLE, 0, 1)


class State:
    """Answers each renewal in turn, and counts them."""

    def __init__(self, answers: Sequence[bool] = ()) -> None:
        self._answers: Iterator[bool] = iter(answers)
        self.renewals = 0

    def renew(self, segment: Segment, token: str) -> bool:
        assert (segment, token) == (SEGMENT, "reader")
        self.renewals += 1
        return next(self._answers)


class Timer:
    """A clock that is set by hand."""

    seconds = 50.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def timer(monkeypatch: pytest.MonkeyPatch) -> Timer:
    found = Timer()
    monkeypatch.setattr(module, "time", found)
    return found


def holder(state: State, *, out_of_time: bool = False) -> LeaseHolder:
    return LeaseHolder(cast("Any", state), SEGMENT, "reader", lambda: out_of_time)


def test_renewals_are_at_least_a_second_apart(timer: Timer) -> None:
    state = State([True, True])
    lease = holder(state)
    renewals = []
    for seconds in (50.0, 50.75, 51.0, 51.75, 52.0):
        timer.seconds = seconds
        lease.renew()
        renewals.append(state.renewals)
    assert renewals == [0, 0, 1, 1, 2]
    assert not lease.lost


def test_a_lost_lease_ends_the_step_for_good(timer: Timer) -> None:
    """If the reader took the lease back, two readers would read the same rows."""
    state = State([False, True])
    lease = holder(state)
    assert not lease.is_over()
    timer.seconds += 1
    assert lease.is_over()
    timer.seconds += 1
    assert lease.is_over()
    assert state.renewals == 1


@pytest.mark.usefixtures("timer")
def test_a_step_ends_when_its_time_is_over() -> None:
    lease = holder(State(), out_of_time=True)
    assert lease.is_over()
    assert not lease.lost
