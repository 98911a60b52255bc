"""The matrix: each small graph, beside each set of two or three actors, every order, every crash.

A sweep of ours is always one of them: without it, nothing of ours is under test. What stands at
the start gives each actor of a set something to do: a retry finds a child that has failed and what
was skipped behind it, a cancellation a task that runs, everybody a task whose event was lost.
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
    """What all depends on: running where it can be cancelled, failed where it can be retried."""
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
    """One leg can be retried, and the other be cancelled, or end with its event lost."""
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
    """Return one cell: a graph, with a sweep and those ``beside`` it, and two faults unless said.

    The widest graph has one beside two more who release.
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
        # What the time to live has taken away ends nowhere.
        converges="time to live" not in beside,
        retries="retry" in beside,
    )


def _none_counts(_key: str, _tasks: frozenset[str]) -> bool:
    """No task may stand beside another, and none is taken away: a second one is enough."""
    return False


def _shows_theirs_alone(key: str, tasks: frozenset[str]) -> bool:
    """A second one of ours is enough; one of ours beside one of theirs is not."""
    return bool(tasks) and task_id_for(key, timestamp(LONG_BEFORE)) not in tasks


def sets() -> list[tuple[str, ...]]:
    """Return every set of one or two who act beside a sweep."""
    return [beside for count in (1, 2) for beside in combinations(OTHERS, count)]


_RELEASERS = frozenset({"second sweep", "live", "older live"})


def _is_wide(graph: str, beside: tuple[str, ...]) -> bool:
    """Whether three release children of the widest graph: more states than a build has time for."""
    return graph == "fan-out" and len(_RELEASERS.intersection(beside)) > 1


def cells() -> list[Scenario]:
    """Return the matrix as every build explores it."""
    return [cell(graph, *of) for graph in GRAPHS for of in sets() if not _is_wide(graph, of)]


def large_cells() -> list[Scenario]:
    """Return what is left of it."""
    return [cell(graph, *of) for graph in GRAPHS for of in sets() if _is_wide(graph, of)]
