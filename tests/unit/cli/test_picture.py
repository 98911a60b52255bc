"""The picture contains every node, nothing in it overlaps, and drawing always ends."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from itertools import combinations
from random import Random
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from reconciler.cli.screens.tree import draw
from reconciler.inspection.explain import graph_of
from reconciler.inspection.graph import Graph, Node, fold, put_in_layers
from reconciler.inspection.mermaid import mermaid
from reconciler.inspection.svg import svg_of
from reconciler.inspection.theme import Tone, cut
from reconciler.inspection.views import shown
from tests.unit.cli.views import orchestration, view_of

TONES = (Tone.DONE, Tone.WAITING, Tone.REPAIR, Tone.ALARM)


@st.composite
def graphs(draw_: st.DrawFn, most: int = 12) -> Graph:
    """Any graph: cycles, loops, edges that pass over layers, several components."""
    size = draw_(st.integers(1, most))
    keys = [f"k{number}" for number in range(size)]
    before = {
        key: tuple(draw_(st.lists(st.sampled_from(keys), max_size=3, unique=True))) for key in keys
    }
    tones = {key: draw_(st.sampled_from(TONES)) for key in keys}
    nodes = {
        key: Node(key, f"ENG-{number}", tones[key].value, tones[key], age_seconds=60.0)
        for number, key in enumerate(keys)
    }
    return Graph(nodes, before)


@given(graphs())
def test_every_node_is_below_its_predecessors(graph: Graph) -> None:
    layered = put_in_layers(graph)
    assert sorted(key for layer in layered.layers for key in layer) == sorted(graph.nodes)
    back = set(layered.back)
    for key, names in graph.before.items():
        for name in names:
            if (name, key) not in back:
                assert layered.layer_of[name] < layered.layer_of[key]


@given(graphs(), st.integers(50, 120))
def test_a_drawing_fits_and_names_each_node_once(graph: Graph, columns: int) -> None:
    lines = draw(graph, columns, 60)
    assert all(line.cell_len <= columns for line in lines)
    assert len(lines) <= len(graph.nodes)
    if columns >= 2 * len(graph.nodes) + 32:  # with fewer columns a line may be summed up
        shown = fold(graph, 60, 100).nodes.values()
        heads = Counter(node.head for node in shown)
        text = [line.plain.partition("  also after")[0] for line in lines]
        for head, count in heads.items():
            assert sum(f" {head}  " in f"{line}  " for line in text) == count


@given(graphs())
def test_boxes_of_the_svg_do_not_overlap(graph: Graph) -> None:
    root = ET.fromstring(svg_of(graph, "t"))  # noqa: S314 - our own
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    boxes = [
        [float(box.attrib[name]) for name in ("x", "y", "width", "height")]
        for box in root.iter("{http://www.w3.org/2000/svg}rect")
    ]
    assert len(boxes) == len(fold(graph, 300, 2_000).nodes)
    for x, y, wide, high in boxes:
        assert 0 <= x <= x + wide <= width
        assert 0 <= y <= y + high <= height
    for one, other in combinations(boxes, 2):
        beside = one[0] + one[2] <= other[0] or other[0] + other[2] <= one[0]
        assert one[1] != other[1] or beside


@given(graphs())
def test_folding_loses_no_node_and_terminates(graph: Graph) -> None:
    sizes = []
    for most in range(len(graph.nodes), 0, -1):
        folded = fold(graph, most, 1_000)
        assert sum(node.members for node in folded.nodes.values()) == len(graph.nodes)
        put_in_layers(folded)
        sizes.append(len(folded.nodes))
    assert sizes == sorted(sizes, reverse=True)


def drawn(graph: Mapping[str, list[str]], statuses: Mapping[str, str], columns: int = 98) -> str:
    found = graph_of(view_of(orchestration(graph, statuses)))
    return "\n".join(line.plain for line in draw(found, columns, 40))


DIAMOND = """\
✓ ENG-1  succeeded 1h  Do a
├ ✓ ENG-2  succeeded 1h  Do b
│ └ ▲ ENG-4  lost_skip 1h  also after ENG-3  Do d
└ ✗ ENG-3  failed 1h  Do c"""


def test_a_diamond_is_drawn_as_a_tree() -> None:
    found = drawn(
        {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]},
        {"a": "succeeded", "b": "succeeded", "c": "failed"},
    )
    assert found == DIAMOND


def test_siblings_are_grouped_by_state() -> None:
    graph: dict[str, list[str]] = {"root": [], **{f"c{n}": ["root"] for n in range(50)}}
    done = {"root": "succeeded", **{f"c{n}": "succeeded" for n in range(30)}}
    text = drawn(graph, done, columns=78)
    assert "✓ 30 \u00d7 ENG-2 … ENG-31" in text
    assert "▲ 20 \u00d7 ENG-32 … ENG-51" in text


def test_a_chain_of_thousands_is_three_lines() -> None:
    graph = {f"c{n}": [f"c{n - 1}"] if n else [] for n in range(3000)}
    assert drawn(graph, {f"c{n}": "succeeded" for n in range(1500)}).splitlines() == [
        "✓ 1500 \u00d7 ENG-1 … ENG-1500  succeeded 1h",
        "└ ▲ ENG-1501  lost_release 1h  Do c1500",
        "  └ ○ 1499 \u00d7 ENG-1502 … ENG-3000  waiting 1h",
    ]


def tangled(size: int) -> Graph:
    """Return hundreds of layers in which hardly two nodes have the same neighbours."""
    dice = Random(1)  # noqa: S311 - shapes, not secrets
    graph = {
        f"c{n}": [f"c{before}" for before in {dice.randrange(max(0, n - 40), n) for _ in "abc"}]
        if n
        else []
        for n in range(size)
    }
    states = ("succeeded", "succeeded", "failed", "released", "skipped")
    return graph_of(view_of(orchestration(graph, {key: dice.choice(states) for key in graph})))


def test_a_large_graph_is_folded_by_layers() -> None:
    graph = tangled(3000)
    lines = draw(graph, 80, 40)
    assert len(lines) <= 40
    assert max(line.cell_len for line in lines) <= 80
    assert sum(int(line.plain.partition(" \u00d7")[0].split()[-1]) for line in lines) == 3000
    assert svg_of(graph, "large").count("<rect") <= 300


@pytest.mark.parametrize(
    ("text", "cells", "expected"),
    [
        ("short", 10, "short"),
        ("a long title", 8, "a long…"),
        ("30 \u00d7 ENG-2 … ENG-31", 13, "30 \u00d7 ENG-2…"),
        ("日本語の題名", 7, "日本語…"),
        ("abc", 0, ""),
    ],
)
def test_text_is_cut_by_cells(text: str, cells: int, expected: str) -> None:
    assert cut(text, cells) == expected
    assert cell_len(cut(text, cells)) <= max(cells, 0)


# -- SVG and Mermaid

HOSTILE = (
    '\x1b[2J"]; click n0 "javascript:alert(1)" <script>alert(1)</script> `x` #quot; &amp; \u202e'
)


def hostile() -> Graph:
    rows = {"a": {"display_id": {"S": HOSTILE}, "title": {"S": HOSTILE}}}
    return graph_of(shown(view_of(orchestration({"a": [], "b": ["a"]}, rows=rows))))


def test_svg_shows_hostile_markup_as_text() -> None:
    graph = hostile()
    document = svg_of(graph, f"Orchestration {HOSTILE!r} <&>")
    root = ET.fromstring(document)  # noqa: S314 - our own
    kinds = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert kinds == {"svg", "title", "rect", "g", "path", "text"}
    assert "\x1b" not in document


@given(graphs(30))
def test_mermaid_declares_each_named_node_once(graph: Graph) -> None:
    text = mermaid(graph)
    assert text.startswith("flowchart TD\n")
    declared = re.findall(r"^  (n\d+)\[\"", text, re.MULTILINE)
    assert len(declared) == len(set(declared))
    used = set(re.findall(r"^  (n\d+) --> n\d+$", text, re.MULTILINE))
    used |= set(re.findall(r"^  n\d+ --> (n\d+)$", text, re.MULTILINE))
    assert used <= set(declared)
    line = re.compile(
        r'flowchart TD|  n\d+\["[^"<>`\\\x00-\x1f]*<br/>[^"<>`\\]*"\]:::\w+|  n\d+ --> n\d+'
        r"|  classDef \w+ fill:#\w+,stroke:#\w+,color:#\w+"
    )
    assert all(line.fullmatch(found) for found in text.splitlines())


def test_mermaid_shows_hostile_markup_as_text() -> None:
    text = mermaid(hostile())
    labels = [line for line in text.splitlines() if '["' in line]
    assert len(labels) == 2
    assert all(re.fullmatch(r'  n\d\["[^"<>`\x1b]*<br/>[^"<>`]*"\]:::\w+', line) for line in labels)


def test_mermaid_stays_within_its_size_limits() -> None:
    text = mermaid(tangled(3000))
    assert len(text) < 50_000
    assert text.count(" --> ") < 500
