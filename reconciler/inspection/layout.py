"""Places and ways: where each box of a layered graph stands, and how its edges run.

Coordinates are character cells, from the top left; the same layout is drawn as text and as SVG.
Edges that share their whole set of predecessors run as one *net*: a bar with stems. Nets never
share a cell along their way; where two cross, one passes under the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from rich.cells import cell_len

from reconciler.inspection.graph import Graph, Layered, Node, foldings, put_in_layers
from reconciler.inspection.theme import short_age

_ORDER_SWEEPS = 8
_PLACE_SWEEPS = 6
_TOO_MANY_TO_ORDER = 400
_TOO_MANY_TO_DRAW = 600

_WIDEST_BOX = 27
_WIDEST_FOLDED = 33
_NARROWEST_BOX = 17

_CLOSE = 2
"""Columns within which a single edge runs straight down rather than to the middle."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How boxes are drawn: ``boxed`` with a border and two lines, else one line and no border.

    ``width`` is in cells, of a node; ``gap``: cells between neighbours.
    """

    boxed: bool
    width: Callable[[Node], int]
    gap: int

    @property
    def height(self) -> int:
        """Rows that a node takes."""
        return 4 if self.boxed else 1

    def anchor(self, width: int) -> int:
        """Return the column, within a node, at which an edge meets it."""
        return width // 2 if self.boxed else 0


@dataclass(frozen=True, slots=True)
class Placed:
    """A node and its place: ``x``, ``y`` is its top left cell."""

    node: Node
    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Segment:
    """A straight piece of an edge, both ends included; x1 ≤ x2 and y1 ≤ y2."""

    x1: int
    y1: int
    x2: int
    y2: int


@dataclass(frozen=True, slots=True)
class Layout:
    """A drawing: its size in cells, boxes, and the nets, each a tuple of segments."""

    width: int
    height: int
    shape: Shape
    boxes: tuple[Placed, ...]
    nets: tuple[tuple[Segment, ...], ...]
    back: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class _Item:
    """A node in its row, or a point that an edge passes on its way over several layers."""

    key: str
    node: Node | None
    width: int
    anchor: int
    up: tuple[str, ...]
    x: float = 0.0  # of the anchor
    column: int = 0  # the same, settled


def shapes(nodes: list[Node]) -> tuple[Shape, Shape]:
    """Return the two ways to draw ``nodes``: boxes of one width, and single lines.

    A box that stands for several is wider where it has to be: it bears two names.
    """
    longest = max((_room(node) for node in nodes), default=0)
    width = min(max(longest + 4, _NARROWEST_BOX), _WIDEST_BOX) | 1

    def box(node: Node) -> int:
        if node.members == 1:
            return width
        return min(max(_room(node) + 4, width), max(width, _WIDEST_FOLDED)) | 1

    return (
        Shape(boxed=True, width=box, gap=3),
        Shape(boxed=False, width=lambda node: min(cell_len(_one_line(node)), 40), gap=3),
    )


def _room(node: Node) -> int:
    return max(cell_len(line) for line in _lines(node))


def _lines(node: Node) -> tuple[str, str]:
    age = f" {short_age(node.age_seconds)}" if node.age_seconds is not None else ""
    return f"x {node.head}", f"{node.state}{age}"


def _one_line(node: Node) -> str:
    age = f" {short_age(node.age_seconds)}" if node.age_seconds is not None else ""
    return f"x {node.label} {node.state}{age}"


def fit(graph: Graph, shapes: Sequence[Shape], columns: int, rows: int) -> Layout | None:
    """Return the first layout within ``columns`` by ``rows``, or None when nothing fits.

    Less folded comes before more folded, and the earlier of ``shapes`` before the later.
    """
    for folded in foldings(graph):
        if len(folded.nodes) > _TOO_MANY_TO_DRAW:
            continue
        layered = put_in_layers(folded)
        for shape in shapes:
            if len(layered.layers) * (shape.height + 1) - 1 > rows:
                continue
            widest = max((_packed(row, folded, shape) for row in layered.layers), default=0)
            if widest > columns:
                continue
            layout = lay_out(layered, shape)
            if layout.width <= columns and layout.height <= rows:
                return layout
    return None


def _packed(row: Sequence[str], graph: Graph, shape: Shape) -> int:
    return sum(shape.width(graph.nodes[key]) + shape.gap for key in row) - shape.gap


def lay_out(layered: Layered, shape: Shape) -> Layout:
    """Place every node and edge of a layered graph."""
    rows, items = _rows(layered, shape)
    _order(rows, items)
    _place(rows, items, shape.gap)
    left = min((item.column - item.anchor for item in items.values()), default=0)
    for item in items.values():
        item.column -= left
    boxes: list[Placed] = []
    nets: list[tuple[Segment, ...]] = []
    y = 0
    for index, row in enumerate(rows):
        for key in row:
            item = items[key]
            if item.node is None:
                nets.append((Segment(item.column, y, item.column, y + shape.height - 1),))
            else:
                x = item.column - item.anchor
                boxes.append(Placed(item.node, x, y, item.width, shape.height))
        y += shape.height
        if index + 1 < len(rows):
            wires, depth = _wire(rows[index + 1], items, y)
            nets.extend(wires)
            y += depth
    width = max((item.column - item.anchor + item.width for item in items.values()), default=0)
    return Layout(width, y, shape, tuple(boxes), tuple(nets), layered.back)


def _rows(layered: Layered, shape: Shape) -> tuple[list[list[str]], dict[str, _Item]]:
    """Return the rows, with a point on each row that an edge passes.

    Edges into one node share their points: they run together as soon as they can.
    """
    rows = [list(layer) for layer in layered.layers]
    items: dict[str, _Item] = {}
    for key, node in layered.graph.nodes.items():
        names = layered.graph.before.get(key, ())
        level = layered.layer_of[key]
        by_layer: dict[int, list[str]] = {}
        for name in names:
            by_layer.setdefault(layered.layer_of[name], []).append(name)
        carried: list[str] = []
        for between in range(min(by_layer, default=level) + 1, level):
            point = f"{key}\x00{between}"
            up = (*by_layer.get(between - 1, ()), *carried)
            items[point] = _Item(point, None, 1, 0, up)
            rows[between].append(point)
            carried = [point]
        width = shape.width(node)
        up = (*by_layer.get(level - 1, ()), *carried)
        items[key] = _Item(key, node, width, shape.anchor(width), up)
    return rows, items


# -- the order within each row


def _order(rows: list[list[str]], items: Mapping[str, _Item]) -> None:
    """Order each row by the mean place of its neighbours, back and forth; keep the best."""
    if len(items) > _TOO_MANY_TO_ORDER:
        return
    down = _downwards(items)
    best, fewest = [list(row) for row in rows], _crossings(rows, items)
    for sweep in range(_ORDER_SWEEPS):
        if fewest == 0:
            break
        forwards = sweep % 2 == 0
        sequence = range(1, len(rows)) if forwards else range(len(rows) - 2, -1, -1)
        for index in sequence:
            other = rows[index - 1] if forwards else rows[index + 1]
            place = {key: at for at, key in enumerate(other)}
            near = {key: items[key].up if forwards else down.get(key, ()) for key in rows[index]}
            here = {key: at for at, key in enumerate(rows[index])}
            means = {key: _mean((place[name] for name in near[key]), here[key]) for key in here}
            rows[index].sort(key=means.__getitem__)
        crossings = _crossings(rows, items)
        if crossings < fewest:
            best, fewest = [list(row) for row in rows], crossings
    rows[:] = best


def _downwards(items: Mapping[str, _Item]) -> dict[str, tuple[str, ...]]:
    down: dict[str, list[str]] = {}
    for item in items.values():
        for name in item.up:
            down.setdefault(name, []).append(item.key)
    return {key: tuple(names) for key, names in down.items()}


def _mean(values: Iterable[float], otherwise: float) -> float:
    listed = list(values)
    return sum(listed) / len(listed) if listed else otherwise


def _crossings(rows: list[list[str]], items: Mapping[str, _Item]) -> int:
    total = 0
    for upper, lower in pairwise(rows):
        place = {key: at for at, key in enumerate(upper)}
        ends = [(place[name], at) for at, key in enumerate(lower) for name in items[key].up]
        ends.sort()
        total += sum(
            1 for at, (a, b) in enumerate(ends) for c, d in ends[at + 1 :] if a < c and b > d
        )
    return total


# -- the column of each


def _place(rows: list[list[str]], items: Mapping[str, _Item], gap: int) -> None:
    """Pull each item to the mean of its neighbours, as far as the room in its row allows."""
    down = _downwards(items)
    for row in rows:
        at = 0.0
        for key in row:
            items[key].x = at + items[key].anchor
            at += items[key].width + gap
        for key in row:
            items[key].x -= (at - gap) / 2
    for sweep in range(_PLACE_SWEEPS):
        forwards = sweep % 2 == 0
        for row in rows if forwards else reversed(rows):
            wanted = [
                _mean(
                    (items[n].x for n in (items[key].up if forwards else down.get(key, ()))),
                    items[key].x,
                )
                for key in row
            ]
            _settle(row, wanted, items, gap)
    for row in rows:
        for key in row:
            items[key].column = round(items[key].x)
        # Rounding may have pushed two neighbours into each other.
        for one, other in pairwise(row):
            least = items[one].column + _apart(items[one], items[other], gap)
            items[other].column = max(items[other].column, least)


def _apart(one: _Item, other: _Item, gap: int) -> int:
    return one.width - one.anchor + gap + other.anchor


def _settle(row: list[str], wanted: list[float], items: Mapping[str, _Item], gap: int) -> None:
    """Put a row's items as near to where they are wanted as order and room allow.

    Least squares under "each at least so far right of its neighbour": with the distances taken
    off, that is isotonic regression, solved exactly by pooling neighbours that violate it.
    """
    offsets = [0.0]
    for one, other in pairwise(row):
        offsets.append(offsets[-1] + _apart(items[one], items[other], gap))
    pools: list[tuple[float, int]] = []
    for target, offset in zip(wanted, offsets, strict=True):
        mean, size = target - offset, 1
        while pools and pools[-1][0] > mean:
            other_mean, other_size = pools.pop()
            mean = (mean * size + other_mean * other_size) / (size + other_size)
            size += other_size
        pools.append((mean, size))
    settled = [mean for mean, size in pools for _ in range(size)]
    for key, place, offset in zip(row, settled, offsets, strict=True):
        items[key].x = place + offset


# -- the ways


@dataclass(slots=True)
class _Net:
    """Edges that share their set of predecessors: columns where they leave and where they end."""

    parents: tuple[str, ...]
    children: list[str]
    tops: list[int]
    ends: list[int]

    @property
    def low(self) -> int:
        return min(*self.tops, *self.ends)

    @property
    def high(self) -> int:
        return max(*self.tops, *self.ends)

    @property
    def straight(self) -> bool:
        return self.low == self.high


def _wire(
    lower: list[str], items: Mapping[str, _Item], y: int
) -> tuple[list[tuple[Segment, ...]], int]:
    """Run the edges between two rows, from row ``y`` on; return them and how many rows it took.

    Stems reach into the nodes' own outermost rows, so that nothing hangs loose.
    """
    nets = _nets(lower, items)
    bars = _bars(nets)
    depth = max(bars.values(), default=0) + 1
    wires: list[tuple[Segment, ...]] = []
    for index, net in enumerate(nets):
        if net.straight:
            wires.append((Segment(net.low, y - 1, net.low, y + depth),))
            continue
        bar = y + bars[index]
        parts = [Segment(net.low, bar, net.high, bar)]
        parts += [Segment(x, y - 1, x, bar) for x in net.tops]
        parts += [Segment(x, bar, x, y + depth) for x in net.ends]
        wires.append(tuple(parts))
    return wires, depth


def _nets(lower: list[str], items: Mapping[str, _Item]) -> list[_Net]:
    by_parents: dict[frozenset[str], _Net] = {}
    for key in lower:
        if items[key].up:
            net = by_parents.setdefault(frozenset(items[key].up), _Net(items[key].up, [], [], []))
            net.children.append(key)
    nets = list(by_parents.values())
    leaving: dict[str, list[_Net]] = {}
    for net in nets:
        for parent in net.parents:
            leaving.setdefault(parent, []).append(net)
    tops: dict[int, _Net] = {}
    for parent, outgoing in leaving.items():
        outgoing.sort(key=lambda net: _mean((items[c].column for c in net.children), 0))
        for net, column in zip(outgoing, _ports(items[parent], len(outgoing)), strict=True):
            net.tops.append(column)
            tops[column] = net
    for net in nets:
        net.ends.extend(_end(items[child], net, tops) for child in net.children)
    return nets


def _ports(item: _Item, count: int) -> list[int]:
    """Return ``count`` columns at which edges leave a node, spread about its anchor."""
    left = item.column - item.anchor
    inner = (
        range(left + 1, left + item.width - 1) if item.anchor else range(left, left + item.width)
    )
    if count == 1 or not inner:
        return [item.column] * count
    if item.anchor == 0:
        return [inner[min(2 * at, len(inner) - 1)] for at in range(count)]
    step = max(1, min(4, (len(inner) - 1) // (count - 1)))
    first = item.column - step * (count - 1) // 2
    return [min(max(first + step * at, inner[0]), inner[-1]) for at in range(count)]


def _end(item: _Item, net: _Net, tops: Mapping[int, _Net]) -> int:
    """Return the column at which a net meets a node below: clear of where others leave above."""
    if item.node is None:
        return item.column
    left = item.column - item.anchor
    inner = (
        range(left + 1, left + item.width - 1) if item.anchor else range(left, left + item.width)
    )
    alone = len(net.tops) == len(net.children) == 1
    if alone and abs(net.tops[0] - item.column) <= _CLOSE and net.tops[0] in inner:
        return net.tops[0]
    for away in (0, 1, -1, 2, -2, 3, -3):
        column = item.column + away
        if column in inner and tops.get(column, net) is net:
            return column
    return item.column


def _bars(nets: Sequence[_Net]) -> dict[int, int]:
    """Give each net that turns a row for its bar.

    No two in one row may touch, and one that comes down where another ends must turn above it.
    """
    turning = [at for at, net in enumerate(nets) if not net.straight]
    above: dict[int, set[int]] = {
        at: {
            other for other in turning if other != at and set(nets[other].tops) & set(nets[at].ends)
        }
        for at in turning
    }
    bars: dict[int, int] = {}
    taken: list[list[tuple[int, int]]] = []
    left = sorted(turning, key=lambda at: (nets[at].low, nets[at].high))
    while left:
        ready = next((at for at in left if above[at] <= bars.keys()), left[0])
        left.remove(ready)
        net = nets[ready]
        row = max((bars[other] + 1 for other in above[ready] if other in bars), default=0)
        while row < len(taken) and any(
            net.low <= high + 1 and low <= net.high + 1 for low, high in taken[row]
        ):
            row += 1
        while row >= len(taken):
            taken.append([])
        taken[row].append((net.low, net.high))
        bars[ready] = row
    return bars
