"""The dependency graph: cycles, dead ends, and children that can still go on."""

from __future__ import annotations

import pytest

from reconciler.domain.graph import DeadEnds, dependents_of, find_dead_ends, on_cycles, reachable


def test_dependents_are_the_reversed_edges() -> None:
    assert dependents_of({"b": ["a"], "c": ["a", "b"], "a": []}) == {"a": ["b", "c"], "b": ["c"]}


def test_only_what_depends_on_a_source_is_reachable() -> None:
    dependents = {"a": ["b", "c"], "b": ["d"], "c": ["d"], "x": ["a"]}
    assert reachable(["b"], dependents) == {"b", "d"}
    assert reachable(["a"], dependents) == {"a", "b", "c", "d"}
    assert reachable([], dependents) == set()


def test_a_reachable_cycle_is_walked_once() -> None:
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
def test_cycles_include_the_children_between_them(
    pending: dict[str, list[str]], expected: set[str]
) -> None:
    assert on_cycles(pending) == expected


def dead_ends(pending: dict[str, list[str]]) -> DeadEnds:
    """Find the dead ends of a graph in which only ``going`` can finish by itself."""
    rows = {*pending, "going"}
    return find_dead_ends(pending, dependents_of(pending), rows=rows, going=["going"])


def test_cycles_and_missing_rows_are_dead_ends() -> None:
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


def test_a_child_on_a_cycle_waits_for_it() -> None:
    """A missing predecessor does not change that."""
    assert dead_ends({"a": ["a", "gone"]}).waits_for_cycle("a")
