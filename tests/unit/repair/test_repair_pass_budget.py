"""One pass under a budget: who gets a slot, and what is read for that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from reconciler.errors import ThrottledError
from reconciler.repair import drafter as drafting
from reconciler.stores.budget import BudgetStore
from tests.support.world import USER, World
from tests.unit.repair.test_repair_pass import break_on, evaluate, outcomes

MakeWorld = Callable[..., World]


@pytest.fixture
def budgeted(make_world: MakeWorld) -> World:
    return make_world(
        USER_CONCURRENCY_TABLE_NAME="{prefix}-Users", MAX_CONCURRENT_TASKS_PER_USER="2"
    )


def test_a_report_plans_no_more_releases_than_there_are_slots(budgeted: World) -> None:
    found = budgeted.seed({"a": [], "b": [], "c": []})
    for apply in (False, True):
        evaluation = evaluate(budgeted, found, apply=apply)
        assert [o for _, _, o in outcomes(evaluation)] == ["released", "released"]
        assert evaluation.counts.stuck.get("over_budget") == 1
    names = {row["orchestration_id"]["S"] for row in budgeted.scan(budgeted.tables[0])}
    assert f"reconciler#budget#{USER}" in names


def test_a_budget_that_cannot_be_read_holds_up_only_what_needs_a_slot(
    budgeted: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = budgeted.seed({"a": [], "b": [], "f": [], "g": ["f"]}, {"f": "failed"})
    break_on(monkeypatch, BudgetStore, "open", ThrottledError("no capacity"))
    evaluation = evaluate(budgeted, found)
    assert outcomes(evaluation) == [("skip", "g", "done")]
    assert evaluation.counts.errors == 1
    assert evaluation.counts.stuck == {"over_budget": 2}
    assert {"no capacity" in child.reason for child in evaluation.children} == {True}


def test_a_report_leaves_the_reservations_as_they_are(budgeted: World) -> None:
    table = budgeted.tables[0]
    found = budgeted.seed({"a": []})
    row = {
        "orchestration_id": {"S": f"reconciler#budget#{USER}"},
        "sub_issue_id": {"S": "reconciler#budget"},
        "reservations": {"SS": ["T-ADMITTED"]},
    }
    budgeted.put(table, row)
    before = budgeted.everything()
    assert outcomes(evaluate(budgeted, found, apply=False)) == [("release", "a", "released")]
    assert budgeted.everything() == before


def test_the_budget_is_read_only_where_something_is_due(
    budgeted: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = budgeted.seed({"a": [], "b": ["a"]}, {"a": "released"}, tasks={"a": "RUNNING"})
    break_on(monkeypatch, BudgetStore, "open", ValueError("read"))
    assert evaluate(budgeted, found).actions == ()


def test_the_budget_is_read_once_whatever_comes_of_it(
    budgeted: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = budgeted.seed({"a": []})
    read = BudgetStore.open
    reads: list[str] = []

    def counted(self: BudgetStore, user_id: str, *, prune: bool = True) -> Any:
        reads.append(user_id)
        return read(self, user_id, prune=prune)

    monkeypatch.setattr(BudgetStore, "open", counted)
    break_on(monkeypatch, drafting, "draft_task", ThrottledError("x"))
    assert outcomes(evaluate(budgeted, found)) == [("release", "a", "failed")]
    assert reads == [USER]


@pytest.mark.parametrize("apply", [True, False])
def test_a_task_that_is_adopted_takes_no_slot_from_what_it_makes_due(
    budgeted: World,
    apply: bool,  # noqa: FBT001
) -> None:
    found = budgeted.seed({"a": [], "b": ["a"], "c": []})
    budgeted.task(found, "a", "COMPLETED")
    evaluation = evaluate(budgeted, found, apply=apply)
    assert outcomes(evaluation) == [
        ("release", "a", "adopted"),
        ("release", "c", "released"),
        ("advance", "a", "done"),
        ("release", "b", "released"),
    ]


def test_who_has_been_due_for_nobody_knows_how_long_waits_as_the_oldest(
    budgeted: World,
) -> None:
    undated = {"updated_at": {"NULL": True}}
    rows = dict.fromkeys("abc", undated)
    found = budgeted.seed({"a": [], "b": [], "c": []}, rows=rows, meta=undated)
    assert evaluate(budgeted, found).counts.stuck == {"over_budget": 1}
    (row,) = [
        row
        for row in budgeted.scan(budgeted.tables[0])
        if row["orchestration_id"]["S"] == f"reconciler#budget#{USER}"
    ]
    assert row[f"waiting:{found}_c"]["S"].startswith("0001-01-01T")


def test_that_nobody_could_be_told_who_waits_is_an_error_and_no_more(
    budgeted: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = budgeted.seed({"a": [], "b": [], "c": []})
    break_on(monkeypatch, BudgetStore, "note_waiting", ThrottledError("x"))
    evaluation = evaluate(budgeted, found)
    assert (evaluation.counts.released, evaluation.counts.errors) == (2, 1)
    assert evaluate(budgeted, found, apply=False).counts.errors == 0
