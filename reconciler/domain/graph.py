"""Passes over the dependency graph, each linear in nodes and edges."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DeadEnds:
    """Which waiting children can still go on and which never will.

    ``missing``: key → a predecessor without a row. ``behind_cycles`` includes ``on_cycles``.
    """

    alive: Collection[str]
    missing: Mapping[str, str]
    on_cycles: Collection[str]
    behind_cycles: Collection[str]

    def waits_for_cycle(self, key: str) -> bool:
        """Whether to blame a cycle: it is on one, or behind one without a missing predecessor."""
        return key in self.on_cycles or (key in self.behind_cycles and key not in self.missing)


def find_dead_ends(
    pending: Mapping[str, Iterable[str]],
    dependents: Mapping[str, Iterable[str]],
    *,
    rows: Container[str],
    going: Iterable[str],
) -> DeadEnds:
    """Separate children that wait for something possible from those that wait for ever.

    ``pending``: what each still waits for. ``going``: what can still finish by itself.
    """
    missing = {
        key: gone
        for key, waits in pending.items()
        if (gone := next((p for p in waits if p not in rows), None)) is not None
    }
    cyclic = on_cycles(pending)
    alive = reachable(going, dependents, without=cyclic | missing.keys())
    return DeadEnds(alive, missing, cyclic, reachable(cyclic, dependents))


def dependents_of(waits: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """Invert the edges: from the predecessors of each to the dependents of each."""
    dependents: dict[str, list[str]] = {}
    for key, predecessors in waits.items():
        for predecessor in predecessors:
            dependents.setdefault(predecessor, []).append(key)
    return dependents


def reachable(
    sources: Iterable[str],
    dependents: Mapping[str, Iterable[str]],
    without: Container[str] = frozenset(),
) -> set[str]:
    """Return the sources and everything behind them, except through ``without``."""
    seen = set(sources)
    queue = deque(seen)
    while queue:
        for key in dependents.get(queue.popleft(), ()):
            if key not in seen and key not in without:
                seen.add(key)
                queue.append(key)
    return seen


def on_cycles(pending: Mapping[str, Iterable[str]]) -> set[str]:
    """Return the keys that are on a cycle, or between two cycles.

    Repeatedly removes nodes without predecessors, then those without dependents. What remains has
    a cycle on both sides. Not recursive, since graphs have thousands of children.
    """
    behind_cycles = _peel(pending)
    return set(_peel(dependents_of(behind_cycles)))


def _peel(waits: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """Repeatedly remove what waits for nothing; return the rest and its edges."""
    left = _within(waits)
    dependents = dependents_of(left)
    counts = {key: len(names) for key, names in left.items()}
    free = deque(key for key, count in counts.items() if count == 0)
    while free:
        key = free.popleft()
        del left[key]
        for dependent in dependents.get(key, ()):
            counts[dependent] -= 1
            if counts[dependent] == 0:
                free.append(dependent)
    return _within(left)


def _within(waits: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """Drop the edges to nodes that do not wait themselves."""
    return {key: [name for name in names if name in waits] for key, names in waits.items()}
