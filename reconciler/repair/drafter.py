"""Drafting: the task that a release would create, or why it may not be created.

Whatever cannot be asked is an error, and the release waits: unscreened text never reaches an agent,
and no budget is exceeded because it could not be read.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from reconciler.domain.model import Child, Orchestration
from reconciler.domain.monthly_budget import refuse_exhausted
from reconciler.domain.task import Refusal, TaskDraft, draft_task
from reconciler.services.guardrail import Guardrail
from reconciler.stores.monthly_budget import MonthlyBudgetStore
from reconciler.stores.repos import RepoStore


@dataclass(frozen=True, slots=True)
class Drafter:
    """Builds tasks and asks everything that may refuse one."""

    repos: RepoStore
    monthly_budgets: MonthlyBudgetStore | None
    guardrail: Guardrail | None

    def draft(
        self, orchestration: Orchestration, child: Child, now: datetime
    ) -> TaskDraft | Refusal:
        """Build the task of ``child``; reads only, and asks what costs most last.

        Raises:
            TemporaryError: the repo, the monthly budget or the guardrail cannot tell now.
            PermanentError: a table is missing or may not be read.
        """
        draft = draft_task(orchestration, child, now=now)
        if isinstance(draft, Refusal):
            return draft
        return (
            self._ask_repo(draft)
            or self._ask_budget(draft, now)
            or self._ask_guardrail(draft)
            or draft
        )

    def _ask_repo(self, draft: TaskDraft) -> Refusal | None:
        repo = self.repos.read(draft.repo)
        if not repo.onboarded:
            return Refusal(
                f"Repository {draft.repo} is not onboarded (its status is {repo.status}). "
                "Onboard it, then retry this sub-issue."
            )
        draft.item["approval_gate_cap"] = {"N": str(repo.approval_gate_cap)}
        return None

    def _ask_budget(self, draft: TaskDraft, now: datetime) -> Refusal | None:
        if self.monthly_budgets is None:
            return None
        found = self.monthly_budgets.read(draft.item["user_id"]["S"], now)
        if found.team_ids:
            draft.item["team_ids"] = {"L": [{"S": team} for team in found.team_ids]}
        return refuse_exhausted(found)

    def _ask_guardrail(self, draft: TaskDraft) -> Refusal | None:
        if self.guardrail is None or not self.guardrail.blocks(draft.description):
            return None
        return Refusal(
            "The task's description was blocked by the content policy. Reword the sub-issue "
            "or the parent issue, then retry this sub-issue."
        )
