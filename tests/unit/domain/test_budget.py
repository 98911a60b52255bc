"""Which children are released when fewer slots are free than children are due."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from reconciler.domain.budget import Budget, grant
from tests.support.strategies import NOW


def hours_ago(hours: float) -> datetime:
    return NOW - timedelta(hours=hours)


DUE = {"young": hours_ago(1), "old": hours_ago(3), "middle": hours_ago(2)}


def test_without_a_budget_all_children_go_oldest_first() -> None:
    assert grant(None, DUE) == ("old", "middle", "young")


@pytest.mark.parametrize(
    ("room", "granted"),
    [(0, ()), (1, ("old",)), (2, ("old", "middle")), (3, ("old", "middle", "young")), (-1, ())],
)
def test_the_oldest_children_get_the_free_slots(room: int, granted: tuple[str, ...]) -> None:
    assert grant(Budget(room), DUE) == granted


def test_a_tie_goes_to_the_lower_key() -> None:
    at = hours_ago(1)
    assert grant(Budget(1), {"b": at, "a": at}) == ("a",)


@pytest.mark.parametrize(
    ("ahead", "granted"),
    [
        ((hours_ago(4),), ("old",)),  # it takes one slot and leaves the other
        ((hours_ago(4), hours_ago(4)), ()),
        ((hours_ago(2.5),), ("old",)),  # goes before "middle", but not before "old"
        ((hours_ago(3),), ("old",)),  # as old as "old", and older than "middle"
        ((hours_ago(0.5),), ("old", "middle")),  # younger than all: it waits for them
    ],
)
def test_older_children_elsewhere_get_their_slots_first(
    ahead: tuple[datetime, ...], granted: tuple[str, ...]
) -> None:
    assert grant(Budget(2, ahead), DUE) == granted


def test_equally_old_children_elsewhere_do_not_go_first() -> None:
    """Otherwise two orchestrations would give way to each other forever."""
    assert grant(Budget(1, (hours_ago(3),)), DUE) == ("old",)


def test_a_child_whose_try_failed_goes_last() -> None:
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
        (
            Budget(0, (hours_ago(3),)),
            (
                "it is due, and its user has no free slot; "
                "1 in other orchestrations has been due for longer"
            ),
        ),
        (Budget(0, (hours_ago(2),)), "it is due, and its user has no free slot"),
        (
            Budget(0, problem="throttled"),
            "it is due, and its user's slots cannot be read (throttled)",
        ),
    ],
)
def test_a_refusal_says_why_no_slot_is_free(budget: Budget, said: str) -> None:
    """A child elsewhere that has been due for just as long does not count as before this one."""
    assert budget.refusal(hours_ago(2)) == said
