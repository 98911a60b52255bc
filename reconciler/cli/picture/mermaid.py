"""The picture as Mermaid, for an issue or a wiki."""

from __future__ import annotations

from reconciler.cli.picture.graph import Graph
from reconciler.cli.theme import SIGNS, Tone, glyph, short_age


def mermaid(graph: Graph) -> str:
    """Return the graph as a Mermaid flowchart, each node in the colours of its tone."""
    names = {key: f"n{number}" for number, key in enumerate(graph.nodes)}
    lines = ["flowchart TD"]
    for key, node in graph.nodes.items():
        age = f" {short_age(node.age_seconds)}" if node.age_seconds is not None else ""
        label = _quoted(f"{glyph(node.tone)} {node.label}<br/>{node.state}{age}")
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


def _quoted(label: str) -> str:
    return '"' + label.replace('"', "#quot;") + '"'
