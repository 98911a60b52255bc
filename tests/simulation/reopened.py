"""Cells in which a person or the platform reopens an orchestration that looked finished.

Everything is terminal at the start, and the roll-up has been posted. Each kind of reopening runs
with one sweep, with two sweeps, and with a sweep and a live reconciler that hears of it too. As in
the matrix there is no grace; in the cells with a grace, nothing may be done within it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from tests.simulation.actors import ActorSpec
from tests.simulation.matrix import DONE, FAILED, LAGGING
from tests.simulation.others import live, time_passes
from tests.simulation.reopenings import cascade, extension, fix, whole_retry
from tests.simulation.world import Node, Scenario, sim_settings, sweep

SKIPPED = Node("skipped")
GRACE_SECONDS = 120

Nodes = Mapping[str, Node]


def _graph(after: Mapping[str, str], failed: str = "") -> Nodes:
    """Return the children of a graph; ``failed`` failed, and the children behind it are skipped."""
    nodes: dict[str, Node] = {}
    for name, before in after.items():
        behind = any(nodes[other].status != "succeeded" for other in before)
        node = FAILED if name == failed else SKIPPED if behind else DONE
        nodes[name] = replace(node, after=before)
    return nodes


GRAPHS: Mapping[str, Mapping[str, str]] = {
    "pair": {"a": "", "b": "a"},
    "chain": {"a": "", "b": "a", "c": "b"},
    "diamond": {"a": "", "b": "a", "c": "a", "d": "bc"},
    "fan-out": {"a": "", "b": "a", "c": "a", "d": "a"},
}
_CHANGED = {"pair": "a", "chain": "a", "diamond": "b", "fan-out": "a"}
"""The child that failed, or that a person changes."""


def _fixed(graph: str) -> tuple[Nodes, ActorSpec]:
    nodes = _graph(GRAPHS[graph], failed=_CHANGED[graph])
    skipped = [name for name, node in nodes.items() if node.status == "skipped"]
    return nodes, fix(_CHANGED[graph], *skipped)


def _retried(graph: str) -> tuple[Nodes, ActorSpec]:
    return _graph(GRAPHS[graph], failed=_CHANGED[graph]), whole_retry()


def _extended(graph: str) -> tuple[Nodes, ActorSpec]:
    nodes = _graph(GRAPHS[graph])
    return nodes, extension("x", after=max(nodes))


def _extended_by_two(graph: str) -> tuple[Nodes, ActorSpec]:
    nodes = _graph(GRAPHS[graph])
    return nodes, extension("x", "y", after=max(nodes))


def _cascading(graph: str) -> tuple[Nodes, ActorSpec]:
    nodes = _graph(GRAPHS[graph])
    source = _CHANGED[graph]
    return nodes, cascade(source, *(name for name, node in nodes.items() if source in node.after))


REOPENED: Mapping[str, Callable[[str], tuple[Nodes, ActorSpec]]] = {
    "fix": _fixed,
    "retry of all": _retried,
    "extension": _extended,
    "extension by two": _extended_by_two,
    "cascade": _cascading,
}
BESIDE: Sequence[tuple[str, ...]] = ((), ("second sweep",), ("live",))

_SHAPES: Mapping[str, Sequence[str]] = {
    "fix": tuple(GRAPHS),
    "retry of all": tuple(GRAPHS),
    "extension": ("pair",),  # the graph before the added children does not matter
    "extension by two": ("pair",),
    "cascade": ("pair", "fan-out"),
}


def cell(graph: str, kind: str, *beside: str, settled: bool = True) -> Scenario:
    """Return one cell: a graph that is reopened beside a sweep, and maybe one more actor.

    ``settled`` False: it has finished, but its roll-up was lost.
    """
    nodes, actor = REOPENED[kind](graph)
    others = {"second sweep": sweep(2), "live": live(number=2)}
    name = ", ".join((f"{graph}: sweep", kind, *beside))
    return Scenario(
        name if settled else f"{name}, roll-up lost",
        nodes,
        [sweep(1), actor, *(others[name] for name in beside)],
        1 if beside else 2,
        LAGGING,
        retries=kind in {"fix", "retry of all"},
        settled=settled,
    )


def graced_cell(graph: str, kind: str) -> Scenario:
    """Return a cell in which the sweep must leave everything alone until the grace is over."""
    nodes, actor = REOPENED[kind](graph)
    graced = sim_settings(stranded_grace_seconds=GRACE_SECONDS)
    return Scenario(
        f"{graph}: {kind}, within the grace",
        nodes,
        [sweep(1, graced), actor, time_passes(GRACE_SECONDS)],
        1,
        LAGGING | {"UserStatusIndex"},
        retries=kind in {"fix", "retry of all"},
        settings=graced,
        settled=True,
        left_alone=True,
    )


def _is_large(scenario: Scenario) -> bool:
    """Whether a cell has too many states for every build."""
    return scenario.name.startswith("fan-out: sweep, fix, ")


def _all_cells() -> list[Scenario]:
    shapes = [(graph, kind) for kind, graphs in _SHAPES.items() for graph in graphs]
    return [
        *(cell(*shape, *beside) for shape in shapes for beside in BESIDE),
        *(graced_cell(*shape) for shape in shapes),
        *(cell("pair", kind, settled=False) for kind in REOPENED),
    ]


def cells() -> list[Scenario]:
    """Return the cells that every build explores."""
    return [scenario for scenario in _all_cells() if not _is_large(scenario)]


def large_cells() -> list[Scenario]:
    """Return the other cells."""
    return [scenario for scenario in _all_cells() if _is_large(scenario)]
