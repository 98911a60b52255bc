"""Un-skipping by hand: which children are un-skipped, in which order, and which stay skipped."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.repair.context import ActionOutcome
from reconciler.repair.unskip import unskip_with_dependents
from tests.support.world import World
from tests.unit.repair.test_releaser import context, whole

GRAPH = {"a": [], "b": ["a"], "c": ["b"], "d": ["b"], "e": ["c", "d"]}
SKIPPED = {"a": "succeeded", **dict.fromkeys("bcde", "skipped")}


def unskip(world: World, found: str, key: str, *, apply: bool = True) -> list[ActionOutcome]:
    read = whole(world, found)
    repairer = world.reconciler().evaluator.parts.repairer
    given = context(world, apply=apply)
    return unskip_with_dependents(read, read.children[key], repairer, given)


def test_an_unskip_includes_each_dependent_once(world: World) -> None:
    found = world.seed(GRAPH, SKIPPED)
    done = unskip(world, found, "b")
    assert [(action.sub_issue_id, action.outcome) for action in done] == [
        (key, "done") for key in "bcde"
    ]
    assert {action.code for action in done} == {"lost_unskip"}
    assert {action.stranded_seconds for action in done} == {None}
    assert world.statuses(found) == {"a": "succeeded", **dict.fromkeys("bcde", "blocked")}


def test_a_report_plans_every_unskip_and_writes_nothing(world: World) -> None:
    found = world.seed(GRAPH, SKIPPED)
    planned = unskip(world, found, "b", apply=False)
    assert [action.sub_issue_id for action in planned] == [*"bcde"]
    assert not any(action.applied for action in planned)
    assert world.statuses(found)["b"] == "skipped"


def test_a_dependent_behind_another_failure_stays_skipped(world: World) -> None:
    graph = {**GRAPH, "f": [], "g": ["b", "f"]}
    found = world.seed(graph, {**SKIPPED, "f": "failed", "g": "skipped", "d": "ready"})
    assert [action.sub_issue_id for action in unskip(world, found, "b")] == ["b", "c", "e"]
    statuses = world.statuses(found)
    assert (statuses["g"], statuses["d"]) == ("skipped", "ready")


def test_an_unrelated_skipped_child_stays_skipped(world: World) -> None:
    """The command names one child, and another one needs its own command."""
    found = world.seed({**GRAPH, "x": ["a"]}, {**SKIPPED, "x": "skipped"})
    assert [action.sub_issue_id for action in unskip(world, found, "b")] == [*"bcde"]
    assert world.statuses(found)["x"] == "skipped"


@pytest.mark.parametrize(
    ("statuses", "detail"),
    [
        ({"b": "blocked"}, "it is blocked, not skipped"),
        ({"b": "skipped", "a": "failed"}, "predecessor a is failed"),
        ({"b": "skipped", "a": "skipped"}, "predecessor a is skipped"),
    ],
)
def test_an_impossible_unskip_states_its_reason(
    world: World, statuses: dict[str, str], detail: str
) -> None:
    """It changes nothing."""
    found = world.seed({"a": [], "b": ["a"]}, statuses)
    before = world.everything()
    (left,) = unskip(world, found, "b")
    assert (left.outcome, left.detail, left.applied) == ("no_longer_due", detail, False)
    assert world.everything() == before


def test_unreadable_dependencies_prevent_the_unskip(world: World) -> None:
    torn = {"depends_on": {"S": "a"}}
    found = world.seed({"a": [], "b": ["a"]}, {"a": "failed", "b": "skipped"}, rows={"b": torn})
    (left,) = unskip(world, found, "b")
    assert (left.outcome, left.detail) == (
        "no_longer_due", "depends_on is missing or is not a list"
    )  # fmt: skip
    assert world.statuses(found)["b"] == "skipped"


def test_a_missing_predecessor_prevents_the_unskip(world: World) -> None:
    found = world.seed({"b": ["gone"]}, {"b": "skipped"})
    (left,) = unskip(world, found, "b")
    assert (left.outcome, left.detail) == ("no_longer_due", "predecessor gone is missing")


def test_a_lost_race_stops_the_unskip(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dependents then stay skipped."""
    found = world.seed(GRAPH, SKIPPED)
    sound = world.client.transact_write_items

    def overtaken(**request: Any) -> Any:
        world.change(found, "b", child_status="ready", updated_at=world.ago(0))
        return sound(**request)

    monkeypatch.setattr(world.client, "transact_write_items", overtaken)
    (lost,) = unskip(world, found, "b")
    assert (lost.outcome, lost.applied) == ("lost_race", False)
    assert world.statuses(found)["c"] == "skipped"
