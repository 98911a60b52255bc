"""One repair pass with a budget: which children get slots, and when the budget is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from reconciler.errors import ThrottledError
from reconciler.repair import drafter as drafting
from reconciler.stores.budget import BudgetStore
from tests.support.world import USER, World
from tests.unit.repair.test_releaser import context
from tests.unit.repair.test_repair_pass import break_on, evaluate, outcomes

MakeWorld = Callable[..., World]


@pytest.fixture
def budgeted(make_world: MakeWorld) -> World:
    return make_world(
        USER_CONCURRENCY_TABLE_NAME="{prefix}-Users", MAX_CONCURRENT_TASKS_PER_USER="2"
    )


def test_reports_and_repairs_respect_the_budget(budgeted: World) -> None:
    found = budgeted.seed({"a": [], "b": [], "c": []})
    for apply in (False, True):
        evaluation = evaluate(budgeted, found, apply=apply)
        assert [o for _, _, o in outcomes(evaluation)] == ["released", "released"]
        assert evaluation.counts.stuck.get("over_budget") == 1
    names = {row["orchestration_id"]["S"] for row in budgeted.scan(budgeted.tables[0])}
    assert f"reconciler#budget#{USER}" in names


def test_an_unreadable_budget_stops_only_releases(
    budgeted: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = budgeted.seed({"a": [], "b": [], "f": [], "g": ["f"]}, {"f": "failed"})
    break_on(monkeypatch, BudgetStore, "open", ThrottledError("no capacity"))
    evaluation = evaluate(budgeted, found)
    assert outcomes(evaluation) == [("skip", "g", "done")]
    assert evaluation.counts.errors == 1
    assert evaluation.counts.stuck == {"over_budget": 2}
    assert {"no capacity" in child.reason for child in evaluation.children} == {True}


def test_a_report_changes_no_reservation(budgeted: World) -> None:
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


@pytest.mark.parametrize("setting", [{"repair_mode": "report"}, {"repair_only_repos": {"x/y"}}])
@pytest.mark.parametrize("readable", [True, False])
def test_a_withheld_orchestration_leaves_no_notes(
    budgeted: World,
    monkeypatch: pytest.MonkeyPatch,
    setting: dict[str, Any],
    readable: bool,  # noqa: FBT001
) -> None:
    """Nothing is planned, since no slot is free; but "b" waits, and the failure of "a" is over."""
    found = budgeted.seed({"a": [], "b": []})
    failures = budgeted.reconciler().evaluator.failures
    failures.hold_against(found, {"a": ValueError("x")}, context(budgeted))
    budgeted.change(found, "a", updated_at=budgeted.ago(1800))
    active = {"user_id": {"S": USER}, "active_count": {"N": "2"}}
    budgeted.put(str(budgeted.settings.user_concurrency_table_name), active)
    if not readable:
        break_on(monkeypatch, BudgetStore, "open", ThrottledError("no capacity"))
    before = budgeted.everything()
    evaluation = budgeted.reconciler(**setting).evaluate(found, sweep_id="sweep-1")
    assert evaluation.counts.stuck == {"over_budget": 2}
    assert budgeted.everything() == before


def test_the_budget_is_read_only_for_due_children(
    budgeted: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = budgeted.seed({"a": [], "b": ["a"]}, {"a": "released"}, tasks={"a": "RUNNING"})
    break_on(monkeypatch, BudgetStore, "open", ValueError("read"))
    assert evaluate(budgeted, found).actions == ()


def test_the_budget_is_read_once_per_pass(budgeted: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed release does not change that."""
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
def test_an_adopted_task_takes_no_slot(
    budgeted: World,
    apply: bool,  # noqa: FBT001
) -> None:
    """Its dependent becomes due and still gets one of the two slots."""
    found = budgeted.seed({"a": [], "b": ["a"], "c": []})
    budgeted.task(found, "a", "COMPLETED")
    evaluation = evaluate(budgeted, found, apply=apply)
    assert outcomes(evaluation) == [
        ("release", "a", "adopted"),
        ("release", "c", "released"),
        ("advance", "a", "done"),
        ("release", "b", "released"),
    ]


def test_an_unknown_due_time_waits_as_the_oldest(
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


def test_a_failed_waiting_note_stops_no_release(
    budgeted: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts as an error; a report writes no note."""
    found = budgeted.seed({"a": [], "b": [], "c": []})
    break_on(monkeypatch, BudgetStore, "note_waiting", ThrottledError("x"))
    evaluation = evaluate(budgeted, found)
    assert (evaluation.counts.released, evaluation.counts.errors) == (2, 1)
    assert evaluate(budgeted, found, apply=False).counts.errors == 0
