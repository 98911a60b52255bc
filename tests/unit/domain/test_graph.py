"""Who waits for whom: what is on a cycle, what is behind, and what is neither."""

from __future__ import annotations

import pytest

from reconciler.domain.graph import DeadEnds, dependents_of, find_dead_ends, on_cycles, reachable


def test_edges_are_turned_round() -> None:
    assert dependents_of({"b": ["a"], "c": ["a", "b"], "a": []}) == {"a": ["b", "c"], "b": ["c"]}


def test_everything_behind_a_source_is_reached_and_nothing_before_it() -> None:
    dependents = {"a": ["b", "c"], "b": ["d"], "c": ["d"], "x": ["a"]}
    assert reachable(["b"], dependents) == {"b", "d"}
    assert reachable(["a"], dependents) == {"a", "b", "c", "d"}
    assert reachable([], dependents) == set()


def test_a_cycle_that_is_reached_is_gone_round_once() -> None:
    assert reachable(["a"], {"a": ["b"], "b": ["a"]}) == {"a", "b"}


@pytest.mark.parametrize(
    ("pending", "expected"),
    [
        ({"a": [], "b": ["a"], "c": ["a", "b"]}, set()),
        ({"a": ["a"]}, {"a"}),
        ({"a": ["b"], "b": ["a"]}, {"a", "b"}),
        ({"a": ["b"], "b": ["a"], "behind": ["a"], "before": [], "c": ["before"]}, {"a", "b"}),
        ({"a": ["b"], "b": ["a"], "behind": ["a"], "further": ["behind"]}, {"a", "b"}),
        ({"a": ["b", "before"], "b": ["a"], "before": []}, {"a", "b"}),
        ({"a": ["b", "gone"], "b": ["a"], "c": ["gone"]}, {"a", "b"}),
        ({"a": ["a"], "between": ["a"], "b": ["b", "between"]}, {"a", "between", "b"}),
        ({}, set()),
    ],
)
def test_what_is_on_a_cycle_or_between_two(
    pending: dict[str, list[str]], expected: set[str]
) -> None:
    assert on_cycles(pending) == expected


def dead_ends(pending: dict[str, list[str]]) -> DeadEnds:
    """Look at a graph in which only ``going`` can still come to an end by itself."""
    rows = {*pending, "going"}
    return find_dead_ends(pending, dependents_of(pending), rows=rows, going=["going"])


def test_who_waits_for_a_cycle_or_a_missing_row_never_goes_on() -> None:
    found = dead_ends(
        {
            "a": ["b", "going"],
            "b": ["a"],
            "c": ["gone", "going"],
            "behind": ["a"],
            "both": ["a", "gone"],
            "fine": ["going"],
        }
    )
    assert (found.alive, found.on_cycles) == ({"going", "fine"}, {"a", "b"})
    assert found.missing == {"c": "gone", "both": "gone"}
    waits = {key: found.waits_for_cycle(key) for key in ("a", "behind", "both", "c", "fine")}
    assert waits == {"a": True, "behind": True, "both": False, "c": False, "fine": False}


def test_one_on_a_cycle_waits_for_it_whatever_else_is_missing() -> None:
    assert dead_ends({"a": ["a", "gone"]}).waits_for_cycle("a")
