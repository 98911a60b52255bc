"""The picture for a terminal: a tree, with each child on a line below its predecessor.

A child with several predecessors is below the deepest one, and names the others. Large graphs are
folded.
"""

from __future__ import annotations

from rich.text import Text

from reconciler.cli.console import QUIET
from reconciler.inspection.graph import Graph, Node, fold, put_in_layers
from reconciler.inspection.theme import SIGNS, cut, listed

_MIN_COLUMNS = 32
"""Room for the text of the deepest child."""

_MAX_OTHERS = 4
_MAX_LABEL = 36
_MAX_EDGES = 100


def draw(graph: Graph, columns: int, rows: int) -> list[Text]:
    """Return the graph as about ``rows`` lines of at most ``columns`` cells."""
    most = (max(columns, 2 * _MIN_COLUMNS) - _MIN_COLUMNS) // 2
    layered = put_in_layers(fold(graph, rows, _MAX_EDGES, most))
    before, nodes = layered.graph.before, layered.graph.nodes
    below: dict[str | None, list[str]] = {}
    for key in nodes:
        parent = max(before[key], key=layered.layer_of.__getitem__, default=None)
        below.setdefault(parent, []).append(key)
    lines: list[Text] = []

    def add(key: str, lead: str, rest: str, parent: str | None) -> None:
        others = [nodes[name].head for name in before[key] if name != parent]
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
    line = Text.assemble(
        (lead, QUIET),
        (f"{sign.glyph} ", sign.style),
        (cut(node.head, _MAX_LABEL), "bold"),
        (f"  {node.state}", sign.style),
        node.age,
    )
    if others:
        line.append(f"  also after {listed(others, _MAX_OTHERS)}", QUIET)
    if node.title and node.members == 1:
        line.append(f"  {node.title}", QUIET)
    line.truncate(columns, overflow="ellipsis")
    return line
