"""Graphs of thousands of children: no recursion and no quadratic cost, in any shape."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import StringIO
from unittest.mock import patch

import pytest
from rich.console import Console

from reconciler.cli.screens.inspect import render
from reconciler.domain.diagnosis import Diagnosis, Evidence, diagnose
from reconciler.domain.model import Child, ChildStatus, Meta, Orchestration, moment
from reconciler.domain.planning import plan
from reconciler.inspection.explain import graph_of, to_json
from reconciler.inspection.mermaid import mermaid
from reconciler.inspection.svg import svg_of
from reconciler.inspection.views import shown
from tests.support.strategies import NOW, ORCHESTRATION_ID, POLICY, ago
from tests.unit.cli.views import orchestration as seen
from tests.unit.cli.views import view_of

MANY = 3000
Before = Callable[[int], tuple[int, ...]]

SHAPES: dict[str, Before] = {
    "chain": lambda n: (n - 1,) if n else (),
    "cycle": lambda n: ((n - 1) % MANY,),
    "chain behind a cycle": lambda n: (n - 1,) if n > 3 else ((n - 1) % 3,) if n < 3 else (2,),
    "star": lambda n: (0,) if n else (),
    "funnel": lambda n: tuple(range(n)) if n == MANY - 1 else (),
    "each on itself": lambda n: (n,),
    "ladder": lambda n: (n - 2, n - 1) if n > 1 else (),
    "all dangling": lambda _: (MANY + 1,),
}


def orchestration(before: Before, first: ChildStatus) -> Orchestration:
    children = {}
    for number in range(MANY):
        status = first if number == 0 else ChildStatus.BLOCKED
        after = tuple(f"s{key}" for key in before(number))
        key = f"s{number}"
        children[key] = Child(
            ORCHESTRATION_ID, key, status, status.value, after, updated_at=ago(9000)
        )
    meta = Meta(ORCHESTRATION_ID, MANY, "u", "r", ago(9000), ago(9000), settled=False)
    return Orchestration(ORCHESTRATION_ID, meta, children)


def diagnosed(whole: Orchestration) -> Diagnosis:
    found = diagnose(whole, Evidence(), POLICY, NOW)
    plan(whole, found, Evidence(), POLICY, NOW)
    return found


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("first", [ChildStatus.BLOCKED, ChildStatus.FAILED])
def test_any_shape_is_diagnosed_in_linear_time(shape: str, first: ChildStatus) -> None:
    """Parsed times are counted, because their number does not depend on the machine."""
    whole = orchestration(SHAPES[shape], first)
    alive = sum(not child.terminal for child in whole.children.values())
    with patch("reconciler.domain.diagnosis.moment", wraps=moment) as read:
        assert len(diagnosed(whole).children) == alive
    assert read.call_count < 10 * MANY


def test_a_failed_head_skips_its_chain_in_order() -> None:
    whole = orchestration(SHAPES["chain"], ChildStatus.FAILED)
    found = diagnosed(whole)
    actions = plan(whole, found, Evidence(), POLICY, NOW).actions
    assert [action.sub_issue_id for action in actions] == [f"s{n}" for n in range(1, MANY)]


def test_every_child_of_a_cycle_gets_its_code() -> None:
    found = diagnosed(orchestration(SHAPES["cycle"], ChildStatus.BLOCKED))
    assert {child.code.value for child in found.children.values()} == {"dependency_cycle"}


@pytest.mark.parametrize("shape", ["chain", "cycle", "star"])
def test_inspect_draws_large_graphs_in_every_form(shape: str) -> None:
    graph = {f"s{n}": [f"s{key}" for key in SHAPES[shape](n)] for n in range(MANY)}
    view = shown(view_of(seen(graph)))
    assert svg_of(graph_of(view), "title").startswith("<svg")
    assert mermaid(graph_of(view)).startswith("flowchart")
    out = Console(width=100, file=StringIO())
    out.print(render(view, out, NOW))
    assert json.dumps(to_json(view))
