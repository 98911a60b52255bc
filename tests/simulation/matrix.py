"""The matrix: each small graph with each set of two or three actors, in every order, with crashes.

One of the actors is always a sweep of ours, which is under test. The initial rows give each actor
something to do: a retry finds a failed child and the children skipped behind it, a cancellation
finds a running task, and the others find a task whose event was lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import combinations

from reconciler.domain.identity import task_id_for
from reconciler.domain.model import timestamp
from tests.simulation.actors import ActorSpec
from tests.simulation.others import cancellation, live, older_live, removal, retry
from tests.simulation.world import LONG_BEFORE, Node, Scenario, sweep

LAGGING = frozenset({"IdempotencyIndex"})
DONE = Node("succeeded", task="COMPLETED")
ENDED = Node("released", task="COMPLETED")
RUNNING = Node("released", task="RUNNING")
FAILED = Node("failed", task="FAILED")

OTHERS = ("second sweep", "live", "older live", "retry", "cancellation", "time to live")
"""Who may act beside a sweep."""

Start = tuple[Mapping[str, Node], Mapping[str, ActorSpec]]


def _pair(beside: frozenset[str]) -> Start:
    first = _first(beside)
    nodes = {"a": first, "b": Node("skipped" if first is FAILED else "blocked", "a")}
    return nodes, _actors(event="a", cancelled="a", retried=("a", "b"), leaf="b")


def _chain(beside: frozenset[str]) -> Start:
    first = _first(beside)
    behind = "skipped" if first is FAILED else "blocked"
    nodes = {"a": first, "b": Node(behind, "a"), "c": Node(behind, "b")}
    return nodes, _actors(event="a", cancelled="a", retried=("a", "b", "c"), leaf="c")


def _first(beside: frozenset[str]) -> Node:
    """Return the first child: running to be cancelled, failed to be retried, or else ended."""
    if "cancellation" in beside:
        return RUNNING
    return FAILED if "retry" in beside else ENDED


def _diamond(beside: frozenset[str]) -> Start:
    left, right = _legs(beside)
    last = Node("skipped" if left is FAILED else "blocked", "bc")
    nodes = {"a": DONE, "b": replace(left, after="a"), "c": replace(right, after="a"), "d": last}
    return nodes, _actors(event="c", cancelled="c", retried=("b", "d"), leaf="d")


def _fan_out(beside: frozenset[str]) -> Start:
    left, right = _legs(beside)
    if "retry" not in beside and "cancellation" not in beside:
        nodes = {"a": ENDED, **{name: Node("blocked", "a") for name in "bcd"}}
        return nodes, _actors(event="a", cancelled="a", retried=("a",), leaf="d")
    nodes = {
        "a": DONE,
        "b": replace(left, after="a"),
        "c": replace(right, after="a"),
        "d": Node("blocked", "a"),
    }
    return nodes, _actors(event="c", cancelled="c", retried=("b",), leaf="d")


def _legs(beside: frozenset[str]) -> tuple[Node, Node]:
    """Return two legs: one can be retried; the other can be cancelled or has lost its event."""
    return (
        FAILED if "retry" in beside else ENDED,
        RUNNING if "cancellation" in beside else ENDED,
    )


def _actors(
    event: str, cancelled: str, retried: tuple[str, ...], leaf: str
) -> Mapping[str, ActorSpec]:
    return {
        "second sweep": sweep(2),
        "live": live(event, number=1),
        "older live": older_live(event, number=2),
        "retry": retry(*retried),
        "cancellation": cancellation(cancelled),
        "time to live": removal("#meta", leaf),
    }


GRAPHS: Mapping[str, Callable[[frozenset[str]], Start]] = {
    "pair": _pair,
    "chain": _chain,
    "diamond": _diamond,
    "fan-out": _fan_out,
}


def cell(graph: str, *beside: str, faults: int | None = None) -> Scenario:
    """Return one cell: a graph with a sweep and the actors ``beside`` it, with two faults.

    The widest graph has only one fault if two of these actors release children.
    """
    nodes, actors = GRAPHS[graph](frozenset(beside))
    return Scenario(
        f"{graph}: sweep, {', '.join(beside)}",
        nodes,
        [sweep(1), *(actors[name] for name in beside)],
        faults if faults is not None else 1 if _is_wide(graph, beside) else 2,
        LAGGING,
        one_task="older live" not in beside,
        lookups_count=_shows_theirs_alone if "older live" in beside else _none_counts,
        # A removed child has no end.
        converges="time to live" not in beside,
        retries="retry" in beside,
    )


def _none_counts(_key: str, _tasks: frozenset[str]) -> bool:
    """No second task may exist and no task is removed, so a second one is always a violation."""
    return False


def _shows_theirs_alone(key: str, tasks: frozenset[str]) -> bool:
    """A second task of ours is a violation; one of ours together with one of theirs is not."""
    return bool(tasks) and task_id_for(key, timestamp(LONG_BEFORE)) not in tasks


def sets() -> list[tuple[str, ...]]:
    """Return every set of one or two actors beside a sweep."""
    return [beside for count in (1, 2) for beside in combinations(OTHERS, count)]


_RELEASERS = frozenset({"second sweep", "live", "older live"})


def _is_wide(graph: str, beside: tuple[str, ...]) -> bool:
    """Whether three actors release children of the widest graph."""
    return graph == "fan-out" and len(_RELEASERS.intersection(beside)) > 1


def _is_large(graph: str, beside: tuple[str, ...]) -> bool:
    """Whether a cell takes minutes: two actors beside the sweep release children or remove rows."""
    return graph == "fan-out" and len((_RELEASERS | {"time to live"}).intersection(beside)) > 1


def cells() -> list[Scenario]:
    """Return the part of the matrix that every build explores."""
    return [cell(graph, *of) for graph in GRAPHS for of in sets() if not _is_large(graph, of)]


def large_cells() -> list[Scenario]:
    """Return the rest of the matrix."""
    return [cell(graph, *of) for graph in GRAPHS for of in sets() if _is_large(graph, of)]
