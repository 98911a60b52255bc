"""The picture: every node and edge is there, nothing covers anything, and it always ends."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import combinations
from random import Random
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from reconciler.cli.screens.draw import draw, outline
from reconciler.inspection.explain import graph_of
from reconciler.inspection.graph import Graph, Node, foldings, put_in_layers
from reconciler.inspection.layout import Layout, fit, lay_out, shapes
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


def laid_out(graph: Graph, which: int = 0) -> Layout:
    return lay_out(put_in_layers(graph), shapes(list(graph.nodes.values()))[which])


@given(graphs())
def test_every_node_stands_below_all_that_it_waits_for(graph: Graph) -> None:
    layered = put_in_layers(graph)
    assert sorted(key for layer in layered.layers for key in layer) == sorted(graph.nodes)
    back = set(layered.back)
    for key, names in graph.before.items():
        for name in names:
            if (name, key) not in back:
                assert layered.layer_of[name] < layered.layer_of[key]


@given(graphs(), st.sampled_from([0, 1]))
def test_no_box_covers_another_and_all_are_within(graph: Graph, which: int) -> None:
    layout = laid_out(graph, which)
    assert {box.node.key for box in layout.boxes} == set(graph.nodes)
    for box in layout.boxes:
        assert box.x >= 0
        assert box.x + box.width <= layout.width
        assert box.y + box.height <= layout.height
    for one, other in combinations(layout.boxes, 2):
        apart = one.x + one.width <= other.x or other.x + other.width <= one.x
        assert one.y != other.y or apart


@given(graphs())
def test_edges_run_from_box_to_box_and_never_through_one(graph: Graph) -> None:
    layout = laid_out(graph)
    for net in layout.nets:
        for part in net:
            for box in layout.boxes:
                inside = (
                    box.x < part.x2
                    and part.x1 < box.x + box.width - 1
                    and box.y < part.y2
                    and part.y1 < box.y + box.height - 1
                )
                assert not inside, (part, box)


@given(graphs(), st.integers(20, 120), st.booleans())
def test_what_is_drawn_fits_and_names_everybody(graph: Graph, columns: int, unicode: bool) -> None:  # noqa: FBT001 - drawn by hypothesis
    layout = fit(graph, shapes(list(graph.nodes.values())), columns, 60)
    if layout is None:
        lines = outline(graph, columns, 24, unicode=unicode)
        assert lines
    else:
        lines = draw(layout, unicode=unicode)
        assert all(line.cell_len <= columns for line in lines)
        text = "\n".join(line.plain for line in lines)
        labels = [box.node.label for box in layout.boxes]
        # Without Unicode the sign of multiplication is a letter.
        assert all(label in text or label.replace("\u00d7", "x") in text for label in labels)
    if not unicode:
        assert all(line.plain.isascii() for line in lines)


@given(graphs())
def test_folding_loses_nobody_and_ends(graph: Graph) -> None:
    sizes = []
    for folded in foldings(graph):
        assert sum(node.members for node in folded.nodes.values()) == len(graph.nodes)
        put_in_layers(folded)
        sizes.append(len(folded.nodes))
    assert sizes == sorted(sizes, reverse=True)


def drawn(graph: Mapping[str, list[str]], statuses: Mapping[str, str], columns: int = 98) -> str:
    found = graph_of(view_of(orchestration(graph, statuses)))
    layout = fit(found, shapes(list(found.nodes.values())), columns, 60)
    assert layout is not None
    return "\n".join(line.plain for line in draw(layout))


DIAMOND = """\
          ╭───────────────╮
          │ ✓ ENG-1       │
          │ succeeded  1h │
          ╰───────┬───────╯
        ┌─────────┴─────────┐
╭───────┴───────╮   ╭───────┴───────╮
│ ✓ ENG-2       │   │ ✗ ENG-3       │
│ succeeded  1h │   │ failed     1h │
╰───────┬───────╯   ╰───────┬───────╯
        └─────────┬─────────┘
          ╭───────┴───────╮
          │ ▲ ENG-4       │
          │ lost_skip  1h │
          ╰───────────────╯"""


def test_a_diamond_as_it_is_seen() -> None:
    found = drawn(
        {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]},
        {"a": "succeeded", "b": "succeeded", "c": "failed"},
    )
    assert found == DIAMOND


def test_fifty_siblings_stand_in_one_box_for_each_state() -> None:
    graph: dict[str, list[str]] = {"root": [], **{f"c{n}": ["root"] for n in range(50)}}
    done = {"root": "succeeded", **{f"c{n}": "succeeded" for n in range(30)}}
    text = drawn(graph, done, columns=78)
    assert "✓ 30 \u00d7 ENG-2 … ENG-31" in text
    assert "▲ 20 \u00d7 ENG-32 … ENG-51" in text


def test_a_chain_of_thousands_is_three_boxes() -> None:
    graph = {f"c{n}": [f"c{n - 1}"] if n else [] for n in range(3000)}
    text = drawn(graph, {f"c{n}": "succeeded" for n in range(1500)})
    assert "1500 \u00d7 ENG-1 … ENG-1500" in text
    assert "▲ ENG-1501" in text
    assert "1499 \u00d7 ENG-1502 … ENG-3000" in text


def tangled(size: int) -> Graph:
    """Hundreds of layers, and hardly two nodes alike in what is before and behind them."""
    dice = Random(1)  # noqa: S311 - shapes, not secrets
    graph = {
        f"c{n}": [f"c{before}" for before in {dice.randrange(max(0, n - 40), n) for _ in "abc"}]
        if n
        else []
        for n in range(size)
    }
    states = ("succeeded", "succeeded", "failed", "released", "skipped")
    return graph_of(view_of(orchestration(graph, {key: dice.choice(states) for key in graph})))


def test_what_is_too_large_for_a_terminal_is_told_in_lines_and_drawn_as_svg() -> None:
    graph = tangled(3000)
    sizes = shapes(list(graph.nodes.values()))
    assert svg_of(graph, "large").count("<rect") > 5
    lines = outline(graph, 80, 24)
    assert 1 < len(lines) <= 3 * 24
    assert "left out" in "\n".join(line.plain for line in lines)
    layout = fit(graph, sizes, 2_000, 400)
    assert layout is not None
    members = sum(box.node.members for box in layout.boxes)
    assert members == 3000


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


# -- for other places

HOSTILE = (
    '\x1b[2J"]; click n0 "javascript:alert(1)" <script>alert(1)</script> `x` #quot; &amp; \u202e'
)


def hostile() -> Graph:
    rows = {"a": {"display_id": {"S": HOSTILE}, "title": {"S": HOSTILE}}}
    return graph_of(shown(view_of(orchestration({"a": [], "b": ["a"]}, rows=rows))))


def test_svg_is_whole_and_shows_markup_as_text() -> None:
    graph = hostile()
    document = svg_of(graph, f"Orchestration {HOSTILE!r} <&>")
    root = ET.fromstring(document)  # noqa: S314 - our own
    kinds = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert kinds == {"svg", "title", "rect", "g", "path", "text"}
    assert "\x1b" not in document


@given(graphs(30))
def test_mermaid_declares_each_node_once_and_names_no_other(graph: Graph) -> None:
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


def test_mermaid_takes_what_is_hostile_as_text() -> None:
    text = mermaid(hostile())
    labels = [line for line in text.splitlines() if '["' in line]
    assert len(labels) == 2
    assert all(re.fullmatch(r'  n\d\["[^"<>`\x1b]*<br/>[^"<>`]*"\]:::\w+', line) for line in labels)


def test_mermaid_keeps_within_what_mermaid_takes() -> None:
    text = mermaid(tangled(3000))
    assert len(text) < 50_000
    assert text.count(" --> ") < 500
