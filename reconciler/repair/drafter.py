"""Drafts the task that a release would create, or says why it must not be created.

If a check is unavailable, that is an error and the release waits: unscreened text never reaches an
agent, and no budget is exceeded because it could not be read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from reconciler.domain.model import Child, Orchestration
from reconciler.domain.monthly_budget import refuse_exhausted
from reconciler.domain.task import Refusal, TaskDraft, draft_task, refuse_large_row
from reconciler.services.guardrail import Guardrail
from reconciler.stores.items import size_of
from reconciler.stores.monthly_budget import MonthlyBudgetStore
from reconciler.stores.repos import Repo, RepoStore
from reconciler.stores.rows import parse_source
from reconciler.stores.tasks import task_item


@dataclass(frozen=True, slots=True)
class Drafter:
    """Drafts tasks and runs every check that may refuse one."""

    repos: RepoStore
    monthly_budgets: MonthlyBudgetStore | None
    guardrail: Guardrail | None

    def draft(
        self, orchestration: Orchestration, child: Child, now: datetime
    ) -> TaskDraft | Refusal:
        """Draft the task of ``child``. Only reads; the most expensive check comes last.

        Raises:
            TemporaryError: the repo, the monthly budget or the guardrail is unavailable.
            PermanentError: a table is missing or access to it is denied.
        """
        draft = draft_task(orchestration, child, source=parse_source(orchestration, child), now=now)
        if isinstance(draft, Refusal):
            return draft
        too_large = refuse_large_row(size_of(task_item(draft)))
        if too_large is not None:
            return too_large
        repo = self.repos.read(draft.repo)
        if not repo.onboarded:
            return _refuse_repo(draft.repo, repo)
        draft = replace(draft, approval_gate_cap=repo.approval_gate_cap)
        if self.monthly_budgets is not None:
            found = self.monthly_budgets.read(draft.user_id, now)
            exhausted = refuse_exhausted(found)
            if exhausted is not None:
                return exhausted
            draft = replace(draft, team_ids=found.team_ids)
        return self._ask_guardrail(draft) or draft

    def _ask_guardrail(self, draft: TaskDraft) -> Refusal | None:
        if self.guardrail is None or not self.guardrail.blocks(draft.description):
            return None
        return Refusal(
            "The task's description was blocked by the content policy. Reword the sub-issue "
            "or the parent issue, then retry this sub-issue."
        )


def _refuse_repo(name: str, repo: Repo) -> Refusal:
    return Refusal(
        f"Repository {name} is not onboarded (its status is {repo.status}). "
        "Onboard it, then retry this sub-issue."
    )
