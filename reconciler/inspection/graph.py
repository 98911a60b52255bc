"""Graphs in layers: safe on cycles, and folded when there is more than anyone could look at.

Nothing here is recursive: chains of thousands of children are met.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from reconciler.inspection.theme import Tone

FOLD_AT_LEAST = 3
"""As many nodes as this stand in one box; two are shown as they are."""

_STEPS = (24, 12, 6)
"""Into how many steps a graph is cut at last, when it has too many layers to be drawn."""


@dataclass(frozen=True, slots=True)
class Node:
    """One box: a child, or several of the same kind (``members`` > 1)."""

    key: str
    label: str
    state: str
    tone: Tone
    title: str = ""
    age_seconds: float | None = None
    members: int = 1

    @property
    def head(self) -> str:
        """The first line of its box: the label, and of several the names of the first and last."""
        return f"{self.label} {self.title}" if self.members > 1 else self.label


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes by key, each with its predecessors, in an order that is kept wherever it can be."""

    nodes: Mapping[str, Node]
    before: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Layered:
    """A graph's layers, from the roots on.

    ``back`` has the edges (from, to) that close a cycle: they are left out of the layers, and told
    in words.
    """

    graph: Graph
    layers: tuple[tuple[str, ...], ...]
    back: tuple[tuple[str, str], ...] = ()
    layer_of: Mapping[str, int] = field(default_factory=dict)


def put_in_layers(graph: Graph) -> Layered:
    """Give each node the layer behind its deepest predecessor (longest path from a root)."""
    back = _closing_edges(graph)
    closing = set(back)
    before = {
        key: tuple(p for p in names if p in graph.nodes and (p, key) not in closing)
        for key, names in graph.before.items()
    }
    after: dict[str, list[str]] = {key: [] for key in graph.nodes}
    for key, names in before.items():
        for name in names:
            after[name].append(key)
    left = {key: len(before.get(key, ())) for key in graph.nodes}
    layer_of = dict.fromkeys(graph.nodes, 0)
    queue = deque(key for key, count in left.items() if count == 0)
    while queue:
        key = queue.popleft()
        for follower in after[key]:
            layer_of[follower] = max(layer_of[follower], layer_of[key] + 1)
            left[follower] -= 1
            if left[follower] == 0:
                queue.append(follower)
    rows: list[list[str]] = [[] for _ in range(max(layer_of.values(), default=-1) + 1)]
    for key in graph.nodes:
        rows[layer_of[key]].append(key)
    acyclic = replace(graph, before=before)
    return Layered(acyclic, tuple(tuple(row) for row in rows), back, layer_of)


def _closing_edges(graph: Graph) -> tuple[tuple[str, str], ...]:
    """Return the edges (predecessor, node) whose removal leaves no cycle, by depth-first search."""
    closing: list[tuple[str, str]] = []
    state: dict[str, int] = {}  # absent: not seen; 1: on the path; 2: done
    for root in graph.nodes:
        if root in state:
            continue
        state[root] = 1
        path = [(root, iter(graph.before.get(root, ())))]
        while path:
            key, names = path[-1]
            for name in names:
                if name not in graph.nodes:
                    continue
                if state.get(name) == 1:
                    closing.append((name, key))
                elif name not in state:
                    state[name] = 1
                    path.append((name, iter(graph.before.get(name, ()))))
                    break
            else:
                state[key] = 2
                path.pop()
    return tuple(closing)


def fold(
    graph: Graph, max_nodes: int, max_edges: int | None = None, *, by_layers: bool = True
) -> Graph:
    """Return the graph in as few boxes as are wanted, folded no further than that needs.

    First siblings of the same state come together. Then, ``by_layers``, everything of one state in
    one layer does, and at last in one of a few steps of several layers. Where even that is too
    much, it is the smallest there is.
    """
    folded = graph
    for folded in _foldings(graph, by_layers=by_layers):
        edges = sum(len(names) for names in folded.before.values())
        if len(folded.nodes) <= max_nodes and (max_edges is None or edges <= max_edges):
            break
    return folded


def _foldings(graph: Graph, *, by_layers: bool) -> Iterator[Graph]:
    """Yield the graph, then ever more folded ones."""
    yield graph
    folded = _fold(graph, _sibling_key(graph))
    yield folded
    layers = len(put_in_layers(folded).layers) if by_layers else 0
    for most in (layers, *_STEPS):
        if 0 < most <= layers:
            folded = _fold_steps(folded, most)
            yield folded


def _fold_steps(graph: Graph, most: int) -> Graph:
    """Cut the layers into ``most`` steps, and put everything of one state in a step together.

    Edges within a step are left out: they may run both ways between two boxes.
    """
    layered = put_in_layers(graph)
    total = len(layered.layers)
    step = {key: layer * most // total for key, layer in layered.layer_of.items()}
    groups: dict[Hashable, list[Node]] = {}
    for node in graph.nodes.values():
        groups.setdefault((step[node.key], node.tone, node.state), []).append(node)
    merged = _merge(layered.graph, groups.values(), at_least=2)
    # A box bears the key of its first node, and so stands in that one's step.
    before = {
        key: tuple(name for name in names if step[name] < step[key])
        for key, names in merged.before.items()
    }
    return replace(merged, before=before)


def _sibling_key(graph: Graph) -> Callable[[Node], Hashable]:
    after: dict[str, set[str]] = {}
    for key, names in graph.before.items():
        for name in names:
            after.setdefault(name, set()).add(key)
    return lambda node: (
        node.tone,
        node.state,
        frozenset(graph.before.get(node.key, ())),
        frozenset(after.get(node.key, ())),
    )


def _fold(graph: Graph, kind: Callable[[Node], Hashable]) -> Graph:
    """Put nodes of one kind into one box, where there are enough of them."""
    groups: dict[Hashable, list[Node]] = {}
    for node in graph.nodes.values():
        groups.setdefault(kind(node), []).append(node)
    return _merge(graph, groups.values())


def _merge(graph: Graph, groups: Iterable[Sequence[Node]], at_least: int = FOLD_AT_LEAST) -> Graph:
    owner: dict[str, str] = {}
    boxes: dict[str, Node] = {}
    for group in groups:
        if len(group) < at_least:
            for node in group:
                owner[node.key], boxes[node.key] = node.key, node
            continue
        box = _box(group)
        boxes[box.key] = box
        owner.update((node.key, box.key) for node in group)
    before: dict[str, dict[str, None]] = {key: {} for key in boxes}
    for key, names in graph.before.items():
        for name in names:
            into = owner.get(name, name)
            if into != owner[key]:
                before[owner[key]][into] = None
    order = {owner[key]: None for key in graph.nodes}
    return Graph(
        {key: boxes[key] for key in order}, {key: tuple(names) for key, names in before.items()}
    )


def _box(group: Sequence[Node]) -> Node:
    ages = [node.age_seconds for node in group]
    oldest = (
        None if any(age is None for age in ages) else max(age for age in ages if age is not None)
    )
    names = [node.title if node.members > 1 else node.label for node in group]
    shown = f"{names[0].partition(' … ')[0]} … {names[-1].rpartition(' … ')[2]}"
    members = sum(node.members for node in group)
    first = group[0]
    return Node(first.key, f"{members} \u00d7", first.state, first.tone, shown, oldest, members)
