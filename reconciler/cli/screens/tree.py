"""The picture for a terminal: a tree, each child on a line below what it waits for.

A child that waits for several stands below the one that is furthest behind, and names the others.
What is too large for that is summed up by layers.
"""

from __future__ import annotations

from itertools import groupby

from rich.text import Text

from reconciler.cli.console import QUIET
from reconciler.inspection.graph import Graph, Layered, Node, fold, put_in_layers
from reconciler.inspection.theme import SIGNS, Tone, cut, short_age

_MIN_COLUMNS = 32
"""Room for a line that is indented as far as the deepest child."""

_NAME_COLUMNS, _MAX_STEPS = 17, 24
_MAX_OTHERS = 4
_MAX_LABEL = 36

_Steps = tuple[int, dict[tuple[Tone, str], list[Node]]]
"""The number of a layer, and its nodes by tone and state."""


def draw(graph: Graph, columns: int, rows: int) -> list[Text]:
    """Return the graph in lines of at most ``columns`` cells; about ``rows`` of them."""
    layered = put_in_layers(fold(graph, rows, by_layers=False))
    deepest = 2 * len(layered.layers) + _MIN_COLUMNS
    if len(layered.graph.nodes) > rows or deepest > max(columns, 2 * _MIN_COLUMNS):
        return outline(graph, columns, min(rows, _MAX_STEPS))
    return _tree(layered, columns)


def _tree(layered: Layered, columns: int) -> list[Text]:
    before, nodes = layered.graph.before, layered.graph.nodes
    below: dict[str | None, list[str]] = {}
    for key in nodes:
        parent = max(before.get(key, ()), key=layered.layer_of.__getitem__, default=None)
        below.setdefault(parent, []).append(key)
    lines: list[Text] = []

    def add(key: str, lead: str, rest: str, parent: str | None) -> None:
        others = [nodes[name].head for name in before.get(key, ()) if name != parent]
        lines.append(_line(nodes[key], lead, others, columns))
        followers = below.get(key, [])
        for number, follower in enumerate(followers, start=1):
            last = number == len(followers)
            branch, stem = ("└ ", "  ") if last else ("├ ", "│ ")
            add(follower, rest + branch, rest + stem, key)

    for root in below.get(None, []):
        add(root, "", "", None)
    return lines


def _line(node: Node, lead: str, others: list[str], columns: int) -> Text:
    sign = SIGNS[node.tone]
    age = f" {short_age(node.age_seconds)}" if node.age_seconds is not None else ""
    line = Text.assemble(
        (lead, QUIET),
        (f"{sign.glyph} ", sign.style),
        (cut(node.head, _MAX_LABEL), "bold"),
        (f"  {node.state}", sign.style),
        age,
    )
    if others:
        left = len(others) - _MAX_OTHERS
        more = f" and {left} more" if left > 0 else ""
        line.append(f"  also after {', '.join(others[:_MAX_OTHERS])}{more}", QUIET)
    if node.title and node.members == 1:
        line.append(f"  {node.title}", QUIET)
    line.truncate(columns, overflow="ellipsis")
    return line


# -- where no tree fits


def outline(graph: Graph, columns: int, rows: int) -> list[Text]:
    """Say in lines what stands in each layer: how many in which state. Layers alike share one."""
    layered = put_in_layers(graph)
    steps: list[_Steps] = []
    for number, layer in enumerate(layered.layers, start=1):
        states: dict[tuple[Tone, str], list[Node]] = {}
        for key in layer:
            node = layered.graph.nodes[key]
            states.setdefault((node.tone, node.state), []).append(node)
        steps.append((number, states))
    alike = [list(group) for _, group in groupby(steps, key=lambda step: step[1].keys())]
    blocks = [_outlined(group, columns) for group in alike]
    hidden = len(blocks) - rows
    if hidden > 0:
        middle = rows // 2
        first, last = alike[middle][0][0], alike[middle + hidden][-1][0]
        blocks[middle : middle + hidden + 1] = [[Text(f"steps {first}-{last} left out", QUIET)]]
    return [line for block in blocks for line in block]


def _outlined(group: list[_Steps], columns: int) -> list[Text]:
    first, last = group[0][0], group[-1][0]
    name = f"step {first}" if first == last else f"steps {first}-{last}"
    found = {kind: [node for _, states in group for node in states[kind]] for kind in group[0][1]}
    lines = [Text(f"{name:<{_NAME_COLUMNS}}", QUIET)]
    for (tone, state), nodes in sorted(found.items(), key=lambda entry: -len(entry[1])):
        which = cut(nodes[0].label, _MAX_LABEL) if len(nodes) == 1 else str(len(nodes))
        said = f"{SIGNS[tone].glyph} {which} {state}   "
        if lines[-1].cell_len > _NAME_COLUMNS and lines[-1].cell_len + len(said) > columns:
            lines.append(Text(" " * _NAME_COLUMNS))
        lines[-1].append(said, SIGNS[tone].style)
    for line in lines:
        line.rstrip()
    return lines
