"""Who may go when fewer slots are free than children are due."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from reconciler.domain.budget import Budget, grant
from tests.support.strategies import NOW


def hours_ago(hours: float) -> datetime:
    return NOW - timedelta(hours=hours)


DUE = {"young": hours_ago(1), "old": hours_ago(3), "middle": hours_ago(2)}


def test_without_a_budget_all_go_the_oldest_first() -> None:
    assert grant(None, DUE) == ("old", "middle", "young")


@pytest.mark.parametrize(
    ("room", "granted"),
    [(0, ()), (1, ("old",)), (2, ("old", "middle")), (3, ("old", "middle", "young")), (-1, ())],
)
def test_as_many_go_as_there_is_room(room: int, granted: tuple[str, ...]) -> None:
    assert grant(Budget(room), DUE) == granted


def test_of_two_that_are_equally_old_the_same_goes_each_time() -> None:
    at = hours_ago(1)
    assert grant(Budget(1), {"b": at, "a": at}) == ("a",)


@pytest.mark.parametrize(
    ("ahead", "granted"),
    [
        ((hours_ago(4),), ("old",)),  # one slot is that one's, the other is left
        ((hours_ago(4), hours_ago(4)), ()),
        ((hours_ago(2.5),), ("old",)),  # goes before "middle", and not before "old"
        ((hours_ago(3),), ("old",)),  # as old as "old", and older than "middle"
        ((hours_ago(0.5),), ("old", "middle")),  # younger than all: it waits for them
    ],
)
def test_who_has_waited_for_longer_elsewhere_goes_first(
    ahead: tuple[datetime, ...], granted: tuple[str, ...]
) -> None:
    assert grant(Budget(2, ahead), DUE) == granted


def test_who_has_waited_just_as_long_elsewhere_does_not_go_before() -> None:
    """Else neither of two orchestrations would ever give way to the other."""
    assert grant(Budget(1, (hours_ago(3),)), DUE) == ("old",)


def test_one_whose_last_try_failed_goes_behind_the_others() -> None:
    assert grant(Budget(2), DUE, last={"old"}) == ("middle", "young")
    assert grant(None, DUE, last={"old"}) == ("middle", "young", "old")


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (Budget(0), "it is due, and its user has no free slot"),
        (Budget(0, taken="2 of 2"), "it is due, and its user has no free slot: 2 of 2"),
        (
            Budget(0, (hours_ago(4), hours_ago(3), hours_ago(2), hours_ago(1), hours_ago(0.5))),
            (
                "it is due, and its user has no free slot; "
                "2 in other orchestrations have been due for longer"
            ),
        ),
        (Budget(0, (hours_ago(2),)), "it is due, and its user has no free slot"),
        (
            Budget(0, problem="throttled"),
            "it is due, and its user's slots cannot be read (throttled)",
        ),
    ],
)
def test_why_there_is_no_slot_is_said(budget: Budget, said: str) -> None:
    """What is due just as long elsewhere, since two hours ago, is not before it."""
    assert budget.refusal(hours_ago(2)) == said
