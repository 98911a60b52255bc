"""The checks that may refuse a task: the cheapest comes first, and a refusal ends them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest

from reconciler.domain import task as task_module
from reconciler.domain.monthly_budget import MonthlyBudget, MonthlyBudgets
from reconciler.domain.task import Refusal, TaskDraft
from reconciler.repair.drafter import Drafter
from reconciler.stores.items import size_of
from reconciler.stores.repos import Repo
from reconciler.stores.rows import parse_orchestration
from reconciler.stores.tasks import task_item
from tests.support.strategies import NOW, ORCHESTRATION_ID

EXHAUSTED = MonthlyBudget("USER#u", Decimal(5), Decimal(5), hard_stop=True)


@dataclass
class Asked:
    """A repo, a user's budgets and a guardrail whose answers the test sets."""

    repo: Repo = field(default_factory=lambda: Repo(True, "active", 7))  # noqa: FBT003 - a field
    teams: tuple[str, ...] = ()
    budgets: tuple[MonthlyBudget, ...] = ()
    blocked: bool = False
    calls: list[Any] = field(default_factory=list)

    def drafter(self) -> Drafter:
        asked: Any = self
        return Drafter(repos=Repos(self), monthly_budgets=Budgets(self), guardrail=asked)  # type: ignore[arg-type]

    def blocks(self, text: str) -> bool:
        self.calls.append(("guardrail", text))
        return self.blocked


@dataclass
class Repos:
    asked: Asked

    def read(self, repo: str) -> Repo:
        self.asked.calls.append(("repo", repo))
        return self.asked.repo


@dataclass
class Budgets:
    asked: Asked

    def read(self, user_id: str, now: datetime) -> MonthlyBudgets:
        self.asked.calls.append(("budget", user_id, now))
        return MonthlyBudgets("2026-06", self.asked.teams, self.asked.budgets)


def draft(asked: Asked, key: str = "b", drafter: Drafter | None = None) -> TaskDraft | Refusal:
    row = {"orchestration_id": {"S": ORCHESTRATION_ID}, "repo": {"S": "acme/shop"}}
    child: dict[str, Any] = {
        "child_status": {"S": "blocked"},
        "depends_on": {"L": []},
        "title": {"S": "Do it"},
    }
    meta = {**row, "sub_issue_id": {"S": "#meta"}, "platform_user_id": {"S": "u"}}
    whole = parse_orchestration(
        ORCHESTRATION_ID, [meta, {**row, "sub_issue_id": {"S": key}, **child}]
    )
    assert whole is not None
    return (drafter or asked.drafter()).draft(whole, whole.children[key], NOW)


def test_a_draft_holds_the_answers_of_all_checks() -> None:
    asked = Asked(teams=("growth", "ops"))
    made = draft(asked)
    assert isinstance(made, TaskDraft)
    assert made.approval_gate_cap == 7
    assert made.team_ids == ("growth", "ops")
    assert asked.calls == [("repo", "acme/shop"), ("budget", "u", NOW), ("guardrail", "Do it")]


def test_checks_that_are_not_configured_are_skipped() -> None:
    asked = Asked(blocked=True, budgets=(EXHAUSTED,))
    bare = Drafter(repos=Repos(asked), monthly_budgets=None, guardrail=None)  # type: ignore[arg-type]
    made = draft(asked, drafter=bare)
    assert isinstance(made, TaskDraft)
    assert made.team_ids == ()
    assert asked.calls == [("repo", "acme/shop")]


def test_an_oversized_row_is_refused_first(monkeypatch: pytest.MonkeyPatch) -> None:
    made = draft(Asked())
    assert isinstance(made, TaskDraft)
    size = size_of(task_item(replace(made, approval_gate_cap=50)))
    monkeypatch.setattr(task_module, "MAX_ROW_BYTES", size)
    assert isinstance(draft(Asked()), TaskDraft)
    monkeypatch.setattr(task_module, "MAX_ROW_BYTES", size - 1)
    asked = Asked()
    refused = draft(asked)
    assert isinstance(refused, Refusal)
    assert f"{size} bytes" in refused.reason
    assert asked.calls == []


@pytest.mark.parametrize(
    ("key", "asked", "reason", "calls"),
    [
        ("b c", Asked(), "idempotency key", 0),
        ("b", Asked(repo=Repo(False, "removed", 50)), "not onboarded (its status is removed)", 1),  # noqa: FBT003
        ("b", Asked(budgets=(EXHAUSTED,)), "monthly budget for 2026-06", 2),
        ("b", Asked(blocked=True), "content policy", 3),
    ],
)
def test_a_refusal_ends_the_checks(key: str, asked: Asked, reason: str, calls: int) -> None:
    refused = draft(asked, key)
    assert isinstance(refused, Refusal)
    assert reason in refused.reason
    assert "retry" in refused.reason
    assert len(asked.calls) == calls
