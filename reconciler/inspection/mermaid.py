"""The picture as Mermaid, for an issue or a wiki."""

from __future__ import annotations

from reconciler.inspection.graph import Graph, fold
from reconciler.inspection.theme import SIGNS, Tone, cut

_MAX_NODES, _MAX_EDGES = 150, 400
"""Mermaid refuses more than 500 edges or 50,000 characters."""

_MAX_LABEL = 60
_LOOKALIKES = str.maketrans(
    {
        '"': "\u201d",
        "<": "\u2039",
        ">": "\u203a",
        "`": "\u02cb",
        "&": "\uff06",
        ";": "\uff1b",
        "\\": "\u29f5",
    }
)
"""Replaces characters that could be markup, since Mermaid renders its entities unreliably."""


def mermaid(graph: Graph) -> str:
    """Return the graph as a Mermaid flowchart, folded to Mermaid's limits."""
    graph = fold(graph, _MAX_NODES, _MAX_EDGES)
    names = {key: f"n{number}" for number, key in enumerate(graph.nodes)}
    lines = ["flowchart TD"]
    for key, node in graph.nodes.items():
        head = f"{SIGNS[node.tone].glyph} {_escaped(node.head)}"
        label = f'"{head}<br/>{_escaped(node.state)}{node.age}"'
        lines.append(f"  {names[key]}[{label}]:::{node.tone.value}")
    for key, before in graph.before.items():
        lines += [f"  {names[name]} --> {names[key]}" for name in before]
    used = {node.tone for node in graph.nodes.values()}
    lines += [
        f"  classDef {tone.value} fill:{SIGNS[tone].fill},stroke:{SIGNS[tone].line},color:#1f2328"
        for tone in Tone
        if tone in used
    ]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return cut(text, _MAX_LABEL).translate(_LOOKALIKES)
