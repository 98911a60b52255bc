"""The picture as SVG: the graph in layers, each box below its predecessors.

An edge that passes a layer gets a place of its own there, so that it runs between boxes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean
from xml.sax.saxutils import escape

from rich.cells import cell_len

from reconciler.domain.graph import dependents_of
from reconciler.inspection.graph import Graph, Layered, Node, fold, put_in_layers
from reconciler.inspection.theme import SIGNS, Tone, cut

_MAX_NODES, _MAX_EDGES = 300, 2_000
_ORDER_SWEEPS = 4
_CELL, _MAX_CELLS = 8.2, 28
_BOX_HEIGHT, _LAYER_HEIGHT, _GAP, _MARGIN = 44, 84, 24, 16
_EDGE = "#9e9e9e"
_FONT = "ui-monospace, Menlo, Consolas, monospace"


@dataclass(slots=True)
class _Place:
    """A box, or a point that an edge passes if ``node`` is None; ``x`` is its middle."""

    node: Node | None
    up: tuple[str, ...]
    width: float
    x: float = 0.0
    y: float = 0.0


def svg_of(graph: Graph, title: str) -> str:
    """Return a graph as a self-contained SVG document without a background.

    A graph that is too large is folded.
    """
    layered = put_in_layers(fold(graph, _MAX_NODES, _MAX_EDGES))
    rows, places = _places(layered)
    _order(rows, places)
    width = _arrange(rows, places)
    height = max(0, len(rows) - 1) * _LAYER_HEIGHT + _BOX_HEIGHT + 2 * _MARGIN
    boxes = [part for place in places.values() if place.node for part in _box(place, place.node)]
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height}" '
            f'width="{width:g}" height="{height}" role="img" font-family="{_FONT}" font-size="13">'
        ),
        f"<title>{escape(title)}</title>",
        f'<g stroke="{_EDGE}" stroke-width="1.5" fill="none">',
        *_edges(places),
        "</g>",
        *boxes,
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _places(layered: Layered) -> tuple[list[list[str]], dict[str, _Place]]:
    """Return the rows, with one point in each row for all edges into a box that pass the row."""
    rows = [list(layer) for layer in layered.layers]
    places: dict[str, _Place] = {}
    for key, node in layered.graph.nodes.items():
        by_layer: dict[int, list[str]] = {}
        for name in layered.graph.before.get(key, ()):
            by_layer.setdefault(layered.layer_of[name], []).append(name)
        level = layered.layer_of[key]
        passed: tuple[str, ...] = ()
        for between in range(min(by_layer, default=level) + 1, level):
            point = f"{key}\x00{between}"
            places[point] = _Place(None, (*by_layer.get(between - 1, ()), *passed), 0.0)
            rows[between].append(point)
            passed = (point,)
        cells = min(max(map(cell_len, _lines(node))), _MAX_CELLS)
        width = (cells + 2) * _CELL
        places[key] = _Place(node, (*by_layer.get(level - 1, ()), *passed), width)
    return rows, places


def _order(rows: list[list[str]], places: Mapping[str, _Place]) -> None:
    """Order rows by the mean place of neighbours, down and up again, to reduce crossings."""
    up = {key: place.up for key, place in places.items()}
    down = dependents_of(up)
    for sweep in range(_ORDER_SWEEPS):
        near, passed = (up, rows) if sweep % 2 == 0 else (down, rows[::-1])
        at: dict[str, float] = {}
        for row in passed:
            here = {key: number - len(row) / 2 for number, key in enumerate(row)}
            means = {k: fmean([at[n] for n in near.get(k, ())] or [here[k]]) for k in row}
            row.sort(key=means.__getitem__)
            at |= {key: number - len(row) / 2 for number, key in enumerate(row)}


def _arrange(rows: list[list[str]], places: Mapping[str, _Place]) -> float:
    """Set the coordinates of all places, with centred rows; returns the total width."""
    lengths = [sum(places[key].width + _GAP for key in row) - _GAP for row in rows]
    widest = max(lengths, default=0.0)
    for number, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        x = _MARGIN + (widest - length) / 2
        for key in row:
            places[key].x = x + places[key].width / 2
            places[key].y = _MARGIN + number * _LAYER_HEIGHT
            x += places[key].width + _GAP
    return widest + 2 * _MARGIN


def _edges(places: Mapping[str, _Place]) -> Iterator[str]:
    for place in places.values():
        for above in (places[name] for name in place.up):
            top, bottom = above.y + _BOX_HEIGHT, place.y
            middle = (top + bottom) / 2
            curve = f"C{above.x:g} {middle:g} {place.x:g} {middle:g} {place.x:g} {bottom:g}"
            passes = f"V{bottom + _BOX_HEIGHT:g}" if place.node is None else ""
            yield f'<path d="M{above.x:g} {top:g}{curve}{passes}"/>'


def _lines(node: Node) -> tuple[str, str]:
    return f"{SIGNS[node.tone].glyph} {node.head}", f"{node.state}{node.age}"


def _box(place: _Place, node: Node) -> Iterator[str]:
    sign = SIGNS[node.tone]
    dash = ' stroke-dasharray="4 3"' if node.tone is Tone.GHOST else ""
    yield (
        f'<rect x="{place.x - place.width / 2:g}" y="{place.y:g}" width="{place.width:g}" '
        f'height="{_BOX_HEIGHT}" rx="6" fill="{sign.fill}" stroke="{sign.line}" '
        f'stroke-width="1.5"{dash}/>'
    )
    for number, line in enumerate(_lines(node)):
        weight = "" if number else ' font-weight="600"'
        yield (
            f'<text x="{place.x:g}" y="{place.y + 18 + 18 * number:g}" text-anchor="middle" '
            f'fill="#1f2328"{weight}>{escape(cut(line, _MAX_CELLS))}</text>'
        )
