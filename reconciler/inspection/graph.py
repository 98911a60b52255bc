"""Graphs in layers: safe with cycles, and folded if they are too large to look at.

Nothing here is recursive, because there are chains of thousands of children.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from graphlib import TopologicalSorter
from itertools import groupby

from reconciler.domain.graph import dependents_of
from reconciler.inspection.theme import Tone, short_age

FOLD_AT_LEAST = 3
"""The smallest number of nodes that are put into one box."""

_STEPS = (24, 12, 6)
"""As a last resort, a graph with too many layers is cut into so many steps."""

_ENDLESS = 1_000_000


@dataclass(frozen=True, slots=True)
class Node:
    """One box: a child, or several similar ones (``members`` > 1)."""

    key: str
    label: str
    state: str
    tone: Tone
    title: str = ""
    age_seconds: float | None = None
    members: int = 1

    @property
    def head(self) -> str:
        """The first line of its box: the label, and for several the first and last names."""
        return f"{self.label} {self.title}" if self.members > 1 else self.label

    @property
    def age(self) -> str:
        """Its age with a leading blank, or an empty string."""
        return "" if self.age_seconds is None else f" {short_age(self.age_seconds)}"


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes by key, each with its predecessors. Layouts keep their order if possible."""

    nodes: Mapping[str, Node]
    before: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Layered:
    """A graph's layers, from the roots on.

    ``back``: the edges (from, to) that close a cycle, which are described but not drawn.
    """

    graph: Graph
    layers: tuple[tuple[str, ...], ...]
    back: tuple[tuple[str, str], ...] = ()
    layer_of: Mapping[str, int] = field(default_factory=dict)


def put_in_layers(graph: Graph) -> Layered:
    """Put each node into the layer after its deepest predecessor."""
    back = _closing_edges(graph)
    left_out = set(back)
    before = {
        key: tuple(
            name
            for name in graph.before.get(key, ())
            if name in graph.nodes and (name, key) not in left_out
        )
        for key in graph.nodes
    }
    position = {key: number for number, key in enumerate(graph.nodes)}
    sorter = TopologicalSorter(before)
    sorter.prepare()
    layers: list[tuple[str, ...]] = []
    while sorter.is_active():
        # All nodes that are ready at the same time form a layer.
        ready = sorter.get_ready()
        layers.append(tuple(sorted(ready, key=position.__getitem__)))
        sorter.done(*ready)
    layer_of = {key: number for number, layer in enumerate(layers) for key in layer}
    return Layered(replace(graph, before=before), tuple(layers), back, layer_of)


def _closing_edges(graph: Graph) -> tuple[tuple[str, str], ...]:
    """Return edges (predecessor, node) whose removal breaks all cycles, by depth-first search."""
    closing: list[tuple[str, str]] = []
    seen: set[str] = set()
    path: set[str] = set()
    steps = [(root, True) for root in reversed(tuple(graph.nodes))]
    while steps:
        key, enters = steps.pop()
        if not enters:
            path.remove(key)
        elif key not in seen:
            seen.add(key)
            path.add(key)
            names = [name for name in graph.before.get(key, ()) if name in graph.nodes]
            closing += [(name, key) for name in names if name in path]
            steps += [(key, False), *((name, True) for name in reversed(names))]
    return tuple(closing)


def fold(graph: Graph, max_nodes: int, max_edges: int, max_layers: int = _ENDLESS) -> Graph:
    """Return the graph, folded only as far as the limits require.

    Fold siblings of the same state first. Then fold all nodes of one state in a layer, then in
    successive layers with the same states, and finally in a few steps of several layers. If even
    that exceeds the limits, return the smallest.
    """
    folded = graph
    for folded in _foldings(graph):
        edges = sum(map(len, folded.before.values()))
        fits = len(folded.nodes) <= max_nodes and edges <= max_edges
        if fits and len(put_in_layers(folded).layers) <= max_layers:
            break
    return folded


def _foldings(graph: Graph) -> Iterator[Graph]:
    yield graph
    siblings = _fold(graph, _sibling_key(graph))
    yield siblings
    layered = put_in_layers(siblings)
    yield _fold_steps(layered, range(len(layered.layers)))
    alike = groupby(layered.layers, lambda layer: {_state(siblings.nodes[key]) for key in layer})
    steps = [number for number, (_, group) in enumerate(alike) for _ in group]
    yield _fold_steps(layered, steps)
    for most in _STEPS:
        yield _fold_steps(layered, [number * most // (steps[-1] + 1) for number in steps])


def _state(node: Node) -> tuple[Tone, str]:
    return node.tone, node.state


def _fold_steps(layered: Layered, steps: Sequence[int]) -> Graph:
    """Fold all nodes of one state in a step; ``steps``: the step of each layer.

    Drop edges within a step, which may run both ways between two boxes.
    """
    step = {key: steps[layer] for key, layer in layered.layer_of.items()}
    merged = _fold(layered.graph, lambda node: (step[node.key], _state(node)), at_least=2)
    # A box has the key, and so the step, of its first node.
    before = {
        key: tuple(name for name in names if step[name] < step[key])
        for key, names in merged.before.items()
    }
    return replace(merged, before=before)


def _sibling_key(graph: Graph) -> Callable[[Node], Hashable]:
    after = dependents_of(graph.before)
    return lambda node: (
        _state(node),
        frozenset(graph.before.get(node.key, ())),
        frozenset(after.get(node.key, ())),
    )


def _fold(graph: Graph, kind: Callable[[Node], Hashable], at_least: int = FOLD_AT_LEAST) -> Graph:
    """Put nodes of one kind into one box, if there are enough of them."""
    groups: dict[Hashable, list[Node]] = {}
    for node in graph.nodes.values():
        groups.setdefault(kind(node), []).append(node)
    boxes = dict(graph.nodes)
    owner = {key: key for key in graph.nodes}
    for group in groups.values():
        if len(group) >= at_least:
            box = boxes[group[0].key] = _box(group)
            owner.update((node.key, box.key) for node in group)
    before: dict[str, dict[str, None]] = {}
    for key, names in graph.before.items():
        into = before.setdefault(owner[key], {})
        into.update((owner.get(name, name), None) for name in names)
        into.pop(owner[key], None)
    order = dict.fromkeys(owner.values())
    return Graph(
        {key: boxes[key] for key in order}, {key: tuple(names) for key, names in before.items()}
    )


def _box(group: Sequence[Node]) -> Node:
    ages = [node.age_seconds for node in group if node.age_seconds is not None]
    oldest = max(ages) if len(ages) == len(group) else None
    names = [node.title if node.members > 1 else node.label for node in group]
    shown = f"{names[0].partition(' … ')[0]} … {names[-1].rpartition(' … ')[2]}"
    members = sum(node.members for node in group)
    first = group[0]
    return Node(first.key, f"{members} \u00d7", first.state, first.tone, shown, oldest, members)
