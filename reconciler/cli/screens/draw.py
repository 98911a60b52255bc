"""The picture as text for a terminal: boxes or single lines, and edges between them."""

from __future__ import annotations

from itertools import groupby

from rich.cells import cell_len
from rich.text import Text

from reconciler.inspection.graph import Graph, Node, put_in_layers
from reconciler.inspection.layout import Layout, Placed, Segment
from reconciler.inspection.theme import SIGNS, Tone, cut, glyph, short_age

_UP, _DOWN, _LEFT, _RIGHT = 1, 2, 4, 8
_PIECES = {
    _UP | _DOWN: "│",
    _UP: "│",
    _DOWN: "│",
    _LEFT | _RIGHT: "─",
    _LEFT: "─",
    _RIGHT: "─",
    _DOWN | _RIGHT: "┌",
    _DOWN | _LEFT: "┐",
    _UP | _RIGHT: "└",
    _UP | _LEFT: "┘",
    _UP | _DOWN | _RIGHT: "├",
    _UP | _DOWN | _LEFT: "┤",
    _DOWN | _LEFT | _RIGHT: "┬",
    _UP | _LEFT | _RIGHT: "┴",
    _UP | _DOWN | _LEFT | _RIGHT: "┼",
}
_PLAIN = str.maketrans(
    {**dict.fromkeys("┌┐└┘├┤┬┴┼╭╮╰╯", "+"), "│": "|", "─": "-", "…": "~", "\u00d7": "x", "→": ">"}
)
_EDGE = "bright_black"


class _Canvas:
    def __init__(self, width: int, height: int) -> None:
        self.cells: list[list[tuple[str, str]]] = [[(" ", "")] * width for _ in range(height)]

    def put(self, x: int, y: int, text: str, style: str) -> None:
        """Write ``text``, each character one or two cells wide; the second cell stays empty."""
        row = self.cells[y]
        for character in text:
            wide = cell_len(character)
            if wide == 0 or x + wide > len(row):
                continue
            row[x] = (character, style)
            for extra in range(1, wide):
                row[x + extra] = ("", style)
            x += wide

    def lines(self, *, unicode: bool) -> list[Text]:
        lines = []
        for row in self.cells:
            text = Text(no_wrap=True)
            for style, run in groupby(row, key=lambda cell: cell[1]):
                part = "".join(character for character, _ in run)
                text.append(part if unicode else part.translate(_PLAIN), style or None)
            text.rstrip()
            lines.append(text)
        return lines


def draw(layout: Layout, *, unicode: bool = True) -> list[Text]:
    """Draw a layout, one ``Text`` a row."""
    canvas = _Canvas(layout.width, layout.height)
    for character, x, y in _edges(layout.nets):
        canvas.put(x, y, character, _EDGE)
    for box in layout.boxes:
        if layout.shape.boxed:
            _draw_box(canvas, box, layout, unicode=unicode)
        else:
            _draw_line(canvas, box, unicode=unicode)
    return canvas.lines(unicode=unicode)


def _edges(nets: tuple[tuple[Segment, ...], ...]) -> list[tuple[str, int, int]]:
    """Return every edge cell; where two nets cross, the upright one stays whole."""
    drawn: dict[tuple[int, int], int] = {}
    for net in nets:
        cells: dict[tuple[int, int], int] = {}
        for part in net:
            _trace(part, cells)
        for place, bits in cells.items():
            there = drawn.get(place)
            if there is None or bits & (_UP | _DOWN):
                drawn[place] = bits
    return [(_PIECES[bits or _UP], x, y) for (x, y), bits in drawn.items()]


def _trace(part: Segment, cells: dict[tuple[int, int], int]) -> None:
    if part.y1 == part.y2 and part.x1 != part.x2:
        for x in range(part.x1, part.x2 + 1):
            bits = (_LEFT if x > part.x1 else 0) | (_RIGHT if x < part.x2 else 0)
            cells[x, part.y1] = cells.get((x, part.y1), 0) | bits
        return
    for y in range(part.y1, part.y2 + 1):
        cells.setdefault((part.x1, y), 0)
    for y in range(part.y1, part.y2):
        cells[part.x1, y] |= _DOWN
        cells[part.x1, y + 1] |= _UP


def _draw_box(canvas: _Canvas, box: Placed, layout: Layout, *, unicode: bool) -> None:
    node, sign = box.node, SIGNS[box.node.tone]
    inner = box.width - 4
    right = box.x + box.width - 1
    border = sign.style if node.tone in _LOUD else _EDGE
    canvas.put(box.x, box.y, "╭" + "─" * (box.width - 2) + "╮", border)
    canvas.put(box.x, box.y + 3, "╰" + "─" * (box.width - 2) + "╯", border)
    for row in (1, 2):
        canvas.put(box.x, box.y + row, "│", border)
        canvas.put(right, box.y + row, "│", border)
    canvas.put(box.x + 2, box.y + 1, glyph(node.tone, unicode=unicode), sign.style)
    canvas.put(box.x + 4, box.y + 1, cut(node.head, inner - 2), "bold")
    age = short_age(node.age_seconds) if node.age_seconds is not None else ""
    state = cut(node.state, inner - len(age) - 1 if age else inner)
    canvas.put(box.x + 2, box.y + 2, state, sign.style)
    canvas.put(right - 1 - len(age), box.y + 2, age, "")
    for net in layout.nets:
        for part in net:
            if part.x1 == part.x2 and box.x < part.x1 < right:
                if part.y1 == box.y + box.height - 1:
                    canvas.put(part.x1, part.y1, "┬", border)
                if part.y2 == box.y:
                    canvas.put(part.x1, box.y, "┴", border)


_LOUD = frozenset(tone for tone in SIGNS if tone in {"repair", "alarm", "failed"})


def _draw_line(canvas: _Canvas, box: Placed, *, unicode: bool) -> None:
    node, sign = box.node, SIGNS[box.node.tone]
    canvas.put(box.x, box.y, glyph(node.tone, unicode=unicode), sign.style)
    age = short_age(node.age_seconds) if node.age_seconds is not None else ""
    room = box.width - 2
    label = cut(node.label, room)
    canvas.put(box.x + 2, box.y, label, "bold")
    x = box.x + 3 + cell_len(label)
    state = cut(node.state, max(0, box.x + box.width - x - (len(age) + 1 if age else 0)))
    canvas.put(x, box.y, state, sign.style)
    if age:
        canvas.put(x + cell_len(state) + 1, box.y, age, "")


# -- where no picture fits


_States = dict[tuple[Tone, str], list[Node]]
_NAME_COLUMNS = 14


def outline(graph: Graph, columns: int, rows: int, *, unicode: bool = True) -> list[Text]:
    """Say in lines what stands in each layer: how many in which state. Layers alike share one."""
    layered = put_in_layers(graph)
    runs: list[tuple[int, int, _States]] = []
    for number, layer in enumerate(layered.layers, start=1):
        states: _States = {}
        for key in layer:
            node = layered.graph.nodes[key]
            states.setdefault((node.tone, node.state), []).append(node)
        if runs and runs[-1][2].keys() == states.keys():
            first, _, together = runs.pop()
            for state, nodes in states.items():
                together[state] += nodes
            runs.append((first, number, together))
        else:
            runs.append((number, number, states))
    blocks = [
        _outlined(first, last, states, columns, unicode=unicode) for first, last, states in runs
    ]
    hidden = len(blocks) - rows
    if hidden > 0:
        middle = rows // 2
        steps = f"{runs[middle][0]}-{runs[middle + hidden][1]}"
        blocks[middle : middle + hidden + 1] = [[Text(f"steps {steps} left out", _EDGE)]]
    return [line for block in blocks for line in block]


def _outlined(first: int, last: int, states: _States, columns: int, *, unicode: bool) -> list[Text]:
    name = f"step {first}" if first == last else f"steps {first}-{last}"
    lines = [Text(f"{name:<{_NAME_COLUMNS}}", _EDGE)]
    for (tone, state), nodes in sorted(states.items(), key=lambda entry: -len(entry[1])):
        said = f"{glyph(tone, unicode=unicode)} {len(nodes)} {state}"
        if lines[-1].cell_len + cell_len(said) > columns > _NAME_COLUMNS + cell_len(said):
            lines.append(Text(" " * _NAME_COLUMNS))
        lines[-1].append(said, SIGNS[tone].style).append("   ")
    for line in lines:
        line.rstrip()
    return lines
