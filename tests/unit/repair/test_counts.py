"""Counts add up over pages, hosts and versions; of two ages, the older one is kept."""

from __future__ import annotations

import json

import pytest

from reconciler.domain.outcomes import Outcome
from reconciler.repair.counts import INTEGERS, REPAIRS, Counts, counted_as
from reconciler.stores.dynamodb import Consumed


def test_new_counts_are_zero() -> None:
    assert Counts().flatten() == {}
    assert {getattr(Counts(), name) for name in INTEGERS} == {0}
    assert (Counts().read_units, Counts().write_units, Counts().requests) == (0.0, 0.0, 0)


def test_counts_add_up_and_keep_the_oldest_ages() -> None:
    ones = dict.fromkeys(INTEGERS, 1)
    left = Counts(
        **ones,
        stuck={"a": 1, "b": 2},
        oldest_stuck_seconds={"a": 5.0, "b": 7.0},
        planned={"released": 1},
        read_units=0.5,
        write_units=1.5,
        requests=2,
    )
    right = Counts(
        **dict.fromkeys(INTEGERS, 2),
        stuck={"b": 3, "c": 4},
        oldest_stuck_seconds={"b": 6.0, "c": 0.25},
        planned={"released": 2, "skipped": 1},
        read_units=1.0,
        write_units=2.0,
        requests=3,
    )
    assert left + right == Counts(
        **dict.fromkeys(INTEGERS, 3),
        stuck={"a": 1, "b": 5, "c": 4},
        oldest_stuck_seconds={"a": 5.0, "b": 7.0, "c": 0.25},
        planned={"released": 3, "skipped": 1},
        read_units=1.5,
        write_units=3.5,
        requests=5,
    )


def test_consumed_capacity_is_added() -> None:
    counts = Counts(released=1, requests=1).with_consumed(Consumed(1.5, 2.5, 3))
    assert counts == Counts(released=1, read_units=1.5, write_units=2.5, requests=4)


def test_only_changes_count_as_repairs() -> None:
    assert REPAIRS == (
        "released", "adopted", "advanced", "skipped", "claims_reset", "refused", "reinvoked",
        "nudged",
    )  # fmt: skip
    numbered = {name: 10**place for place, name in enumerate(INTEGERS)}
    assert Counts(**numbered).repairs == sum(numbered[name] for name in REPAIRS)


def test_flat_counts_are_read_back_ignoring_later_names() -> None:
    counts = Counts(released=2, planned={"skipped": 3}, read_units=0.5, requests=4)
    flat = json.loads(json.dumps(counts.flatten()))
    assert flat == {"released": 2, "planned:skipped": 3, "read_units": 0.5, "requests": 4}
    assert Counts.from_flat({**flat, "of a later version": 1}) == counts


@pytest.mark.parametrize(
    ("verb", "outcome", "expected"),
    [
        ("advance", Outcome.DONE, "advanced"),
        ("skip", Outcome.DONE, "skipped"),
        ("adopt", Outcome.ADOPTED, "adopted"),
        ("reset claim", Outcome.DONE, "claims_reset"),
        ("reinvoke", Outcome.DONE, "reinvoked"),
        ("nudge", Outcome.DONE, "nudged"),
        ("skip", Outcome.LOST_RACE, None),
        ("release", Outcome.RELEASED, "released"),
        ("release", Outcome.ADOPTED, "adopted"),
        ("release", Outcome.REFUSED, "refused"),
        ("release", Outcome.REINVOKED, "reinvoked"),
        ("release", Outcome.OVER_BUDGET, None),
        ("release", Outcome.DONE, None),
        ("release", Outcome.FAILED, "errors"),
        ("advance", Outcome.FAILED, "errors"),
    ],
)
def test_each_outcome_counts_at_most_once(
    verb: str, outcome: Outcome, expected: str | None
) -> None:
    assert counted_as(verb, outcome) == expected
