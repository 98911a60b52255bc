"""The picture as SVG: the terminal's layout, drawn with lines and boxes."""

from __future__ import annotations

from xml.sax.saxutils import escape

from reconciler.inspection.graph import Graph
from reconciler.inspection.layout import Layout, Placed, fit, shapes
from reconciler.inspection.theme import SIGNS, Tone, cut, glyph, short_age

_CELL_WIDTH, _CELL_HEIGHT, _MARGIN = 9, 20, 16
_COLUMNS, _MAX_COLUMNS, _MAX_ROWS = 160, 2_000, 400
_EDGE = "#9e9e9e"
_FONT = "ui-monospace, Menlo, Consolas, monospace"


def svg_of(graph: Graph, title: str) -> str:
    """Return a graph as a whole SVG document, which needs nothing from anywhere else.

    A graph too large to look at is folded. One without nodes is an empty picture.
    """
    sizes = shapes(list(graph.nodes.values()))
    for columns in (_COLUMNS, _MAX_COLUMNS):
        layout = fit(graph, sizes, columns, _MAX_ROWS)
        if layout is not None:
            return _document(layout, title)
    raise AssertionError("a folded graph has six steps of a few boxes each")


def _document(layout: Layout, title: str) -> str:
    width = layout.width * _CELL_WIDTH + 2 * _MARGIN
    height = layout.height * _CELL_HEIGHT + 2 * _MARGIN
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" font-family="{_FONT}" font-size="13">'
        ),
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<g stroke="{_EDGE}" stroke-width="1.5" fill="none">',
    ]
    for net in layout.nets:
        for part in net:
            start, end = _centre(part.x1, part.y1), _centre(part.x2, part.y2)
            parts.append(f'<path d="M{start[0]} {start[1]}L{end[0]} {end[1]}"/>')
    parts.append("</g>")
    for box in layout.boxes:
        parts += _box(box, layout)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _centre(x: float, y: float) -> tuple[float, float]:
    return _MARGIN + (x + 0.5) * _CELL_WIDTH, _MARGIN + (y + 0.5) * _CELL_HEIGHT


def _box(box: Placed, layout: Layout) -> list[str]:
    node = box.node
    sign = SIGNS[node.tone]
    x = _MARGIN + box.x * _CELL_WIDTH
    y = _MARGIN + box.y * _CELL_HEIGHT
    width, height = box.width * _CELL_WIDTH, layout.shape.height * _CELL_HEIGHT
    dash = ' stroke-dasharray="4 3"' if node.tone is Tone.GHOST else ""
    age = f" {short_age(node.age_seconds)}" if node.age_seconds is not None else ""
    head = node.head if layout.shape.height > 1 else node.label
    lines = [f"{glyph(node.tone)} {head}", f"{node.state}{age}"]
    if layout.shape.height == 1:
        lines = [" ".join(lines)]
    drawn = [
        (
            f'<rect x="{x}" y="{y + 2}" width="{width}" height="{height - 4}" rx="6" '
            f'fill="{sign.fill}" stroke="{sign.line}" stroke-width="1.5"{dash}/>'
        )
    ]
    room = max(1, box.width - 2)
    first = y + height / 2 - (len(lines) - 1) * _CELL_HEIGHT / 2 + 4.5
    for number, line in enumerate(lines):
        shown = cut(line, room)
        at = first + number * _CELL_HEIGHT
        weight = ' font-weight="600"' if number == 0 else ""
        drawn.append(
            f'<text x="{x + width / 2}" y="{at}" text-anchor="middle" fill="#1f2328"{weight}>'
            f"{escape(shown)}</text>"
        )
    return drawn
