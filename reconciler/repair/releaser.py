"""Release: one child, one atomic transaction, one task.

A claim followed by a create has a crash window between the two, and a create followed by a flip
makes duplicates. Here the row, the task and its events are written together or not at all, under
conditions on the row, on its predecessors and on the task; so whoever comes second, from wherever,
finds a named outcome and not a second task.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from reconciler.domain.codes import Code
from reconciler.domain.identity import task_id_for
from reconciler.domain.model import (
    LONG_AGO,
    TERMINAL_CHILD,
    UNRELEASED,
    Child,
    ChildStatus,
    Orchestration,
    Task,
    moment,
    timestamp,
)
from reconciler.domain.outcomes import Outcome
from reconciler.domain.rows import parse_child
from reconciler.domain.task import Refusal, TaskDraft
from reconciler.errors import TemporaryError
from reconciler.repair.context import Context, Pacer, ReleaseResult
from reconciler.repair.drafter import Drafter
from reconciler.repair.invoker import Invoker
from reconciler.stores.budget import BudgetStore, HeldSlots, Slots
from reconciler.stores.conditions import Action
from reconciler.stores.dynamodb import Cancelled, DynamoDB
from reconciler.stores.orchestrations import OrchestrationStore
from reconciler.stores.tasks import TaskStore

MAX_ACTIONS = 100
"""DynamoDB's limit on the actions of one transaction."""


def audit_metadata(
    child: Child, code: str, before: str, after: str, since: datetime | None, context: Context
) -> dict[str, Any]:
    """Return the typed metadata of an ``orchestration_recovered`` event."""
    metadata: dict[str, Any] = {
        "orchestration_id": {"S": child.orchestration_id},
        "sub_issue_id": {"S": child.sub_issue_id},
        "code": {"S": code},
        "before": {"S": before},
        "after": {"S": after},
        "sweep_id": {"S": context.sweep_id},
    }
    if since is not None:
        metadata["stranded_seconds"] = {"N": f"{stranded_seconds(since, context.now):.3f}"}
    return metadata


def concerned_task(child: Child) -> str:
    """Return the task that a repair of ``child`` concerns: its own, else the one it would get.

    A child that was never released has none; what happened to it is told under the id that every
    releaser of ours would give its task, and does give it when it is released after all.
    """
    return child.task_id or task_id_for(child.idempotency_key, child.created_at)


def known(since: datetime | None) -> str | None:
    """Return a moment as rows have it; None where it is not known."""
    return None if since is None or since == LONG_AGO else timestamp(since)


def stranded_seconds(since: datetime, now: datetime) -> float:
    """Return for how long something has been due, in seconds, never negative."""
    return max(0.0, (now - since).total_seconds())


@dataclass(frozen=True, slots=True)
class Releaser:
    """Releases children; every collaborator is injected."""

    dynamodb: DynamoDB
    orchestrations: OrchestrationStore
    tasks: TaskStore
    drafter: Drafter
    budget: BudgetStore | None
    invoker: Invoker | None
    pacer: Pacer

    def release(
        self,
        orchestration: Orchestration,
        child: Child,
        since: datetime | None,
        code: str,
        context: Context,
        held: HeldSlots | None = None,
    ) -> ReleaseResult:
        """Release ``child``, as it was read, if it is due; adopt its task if there is one already.

        ``orchestration`` must hold the meta row and the child's predecessors, read consistently.
        ``held``: the user's slots, where several children are released one after the other.

        Raises:
            TemporaryError: nothing was changed; to be tried again.
            PermanentError: a store rejects what was asked of it.
        """
        not_due = self._not_due(orchestration, child, context)
        if not_due is not None:
            return not_due
        existing = self.tasks.find(child.idempotency_key)
        if existing is not None:
            return self.adopt(orchestration, child, existing, since, code, context)
        draft = self.drafter.draft(orchestration, child, context.now)
        if isinstance(draft, Refusal):
            return self._refuse(child, draft.reason, since, context)
        if context.apply and not self.pacer.acquire():
            return ReleaseResult(Outcome.PACED, detail="the rate of releases is used up for now")
        held = held or (HeldSlots(self.budget) if self.budget is not None else None)

        def commit(slots: Slots | None) -> ReleaseResult:
            return self._commit(orchestration, child, draft, slots, since, code, context)

        user_id = orchestration.meta.user_id if orchestration.meta is not None else None
        if held is None or user_id is None:
            with self.pacer.lock(orchestration.orchestration_id):
                return commit(None)
        with self.pacer.lock(user_id):
            return self._within_budget(held, user_id, commit, context)

    @staticmethod
    def _within_budget(
        held: HeldSlots,
        user_id: str,
        commit: Callable[[Slots], ReleaseResult],
        context: Context,
    ) -> ReleaseResult:
        """Commit with a reservation; slots that were read a while ago get a second chance."""
        while True:
            slots = held.open(user_id, prune=context.apply)
            if slots.room <= 0:
                return ReleaseResult(Outcome.OVER_BUDGET, detail=f"{user_id} has no free slot")
            result = commit(slots)
            if result.outcome is Outcome.RELEASED:
                held.use()
            if result.outcome is not Outcome.OVER_BUDGET:
                return result
            held.forget()
            if held.fresh:
                return result

    def _not_due(
        self, orchestration: Orchestration, child: Child, context: Context
    ) -> ReleaseResult | None:
        if child.status is ChildStatus.RELEASED:
            return self._finish_invoking(child, context)
        if child.status is ChildStatus.RELEASING:
            return ReleaseResult(Outcome.CLAIM_IN_PROGRESS, detail="a releaser has claimed it")
        if child.status not in UNRELEASED or child.problem is not None:
            detail: str = child.problem or f"it is {child.raw_status}"
            return ReleaseResult(Outcome.NO_LONGER_DUE, child.task_id, detail=detail)
        meta = orchestration.meta
        if meta is None or meta.problem is not None:
            detail = (meta and meta.problem) or "it has no meta row"
            return ReleaseResult(Outcome.NO_LONGER_DUE, detail=detail)
        if any(ttl is not None and ttl <= context.now.timestamp() for ttl in (child.ttl, meta.ttl)):
            detail = "its row's time to live is over, so it gets no new work"
            return ReleaseResult(Outcome.NO_LONGER_DUE, detail=detail)
        for key in child.depends_on:
            predecessor = orchestration.children.get(key)
            if predecessor is None or predecessor.status is not ChildStatus.SUCCEEDED:
                state = "missing" if predecessor is None else predecessor.raw_status
                return ReleaseResult(Outcome.NO_LONGER_DUE, detail=f"predecessor {key} is {state}")
        return None

    def _finish_invoking(self, child: Child, context: Context) -> ReleaseResult:
        """Finish a release of ours that was interrupted between its commit and the invocation."""
        task = None
        if child.task_id is not None:
            task = self.tasks.read([child.task_id], consistent=True).get(child.task_id)
        already = ReleaseResult(
            Outcome.ALREADY_RELEASED, child.task_id, child.branch_name, task=task
        )
        if task is None or not task.unrecorded or self.invoker is None:
            return already
        if not self.invoker.due(task, context.now):
            return already
        if context.apply:
            audit = audit_metadata(
                child, "unstarted_task", task.status, "invoked", moment(task.created_at), context
            )
            if self.invoker.invoke(task, context, audit) is None:
                return already
        return ReleaseResult(Outcome.REINVOKED, task.task_id, task=task, applied=context.apply)

    def _refuse(
        self, child: Child, reason: str, since: datetime | None, context: Context
    ) -> ReleaseResult:
        if context.apply:
            metadata = audit_metadata(
                child, Code.REFUSED, child.raw_status, ChildStatus.FAILED, since, context
            )
            metadata["reason"] = {"S": reason}
            lost = self.dynamodb.transact(
                [
                    self.orchestrations.set_refused(
                        child, reason, timestamp(context.now), since or LONG_AGO
                    ),
                    self.tasks.event(
                        concerned_task(child), "orchestration_recovered", metadata, context.now
                    ),
                ]
            )
            if lost is not None:
                return self._lost(child, lost, 0)
        return ReleaseResult(Outcome.REFUSED, detail=reason, applied=context.apply)

    def adopt(
        self,
        orchestration: Orchestration,
        child: Child,
        task: Task,
        since: datetime | None,
        code: str,
        context: Context,
    ) -> ReleaseResult:
        """Make ``task``, found under the child's key, its own; never another user's."""
        meta = orchestration.meta
        if meta is None or task.user_id != meta.user_id:
            detail = f"task {task.task_id} of another user holds the idempotency key"
            return ReleaseResult(
                Outcome.IDEMPOTENCY_CONFLICT, task.task_id, detail=detail, task=task
            )
        result = ReleaseResult(
            Outcome.ADOPTED, task.task_id, task.branch_name, task=task, applied=context.apply
        )
        if not context.apply:
            return result
        at = timestamp(context.now)
        metadata = audit_metadata(
            child, code, child.raw_status, ChildStatus.RELEASED, since, context
        )
        lost = self.dynamodb.transact(
            [
                self.orchestrations.set_adopted(child, task.task_id, task.branch_name, at),
                self.tasks.expect_task(task),
                self.tasks.event(task.task_id, "orchestration_recovered", metadata, context.now),
            ]
        )
        return result if lost is None else self._lost(child, lost, 0)

    def _commit(
        self,
        orchestration: Orchestration,
        child: Child,
        draft: TaskDraft,
        slots: Slots | None,
        since: datetime | None,
        code: str,
        context: Context,
    ) -> ReleaseResult:
        if not context.apply:
            task = self._created(draft, context)
            return ReleaseResult(
                Outcome.RELEASED, draft.task_id, draft.branch_name, task=task, applied=False
            )
        actions = self._actions(child, draft, slots, since, code, context)
        own = len(actions)
        predecessors = [orchestration.children[key] for key in child.depends_on]
        # The youngest successes first: should there be too many, those are the likeliest to move.
        predecessors.sort(key=lambda row: row.updated_at or "", reverse=True)
        checks = [
            self.orchestrations.expect_succeeded(row) for row in predecessors[: MAX_ACTIONS - own]
        ]
        lost = self.dynamodb.transact([*actions, *checks])
        if lost is not None and not self._committed_before(lost, draft, context):
            return self._lost(child, lost, own, draft.task_id, slots)
        return self._committed(draft, context)

    @staticmethod
    def _committed_before(lost: Cancelled, draft: TaskDraft, context: Context) -> bool:
        """Whether an earlier try of this very transaction created the task that stands there.

        Every releaser of ours derives the same task id; the sweep and the time tell them apart.
        """
        there = lost.reasons[1].item
        ours = {"reconciler_sweep_id": {"S": context.sweep_id}, **draft.item}
        return lost.repeated and all(
            there.get(name) == ours[name] for name in ("reconciler_sweep_id", "created_at")
        )

    def _actions(
        self,
        child: Child,
        draft: TaskDraft,
        slots: Slots | None,
        since: datetime | None,
        code: str,
        context: Context,
    ) -> list[Action]:
        at = timestamp(context.now)
        created = {"repo": {"S": draft.repo}, "channel_source": {"S": draft.channel_source}}
        metadata = audit_metadata(
            child, code, child.raw_status, ChildStatus.RELEASED, since, context
        )
        event = self.tasks.event
        actions = [
            self.orchestrations.set_released(child, draft.task_id, draft.branch_name, at),
            self.tasks.create(draft, {"reconciler_sweep_id": {"S": context.sweep_id}}),
            event(draft.task_id, "task_created", created, context.now),
            event(draft.task_id, "orchestration_recovered", metadata, context.now),
        ]
        if slots is not None and self.budget is not None:
            actions.append(self.budget.reserve(slots, draft.task_id, draft.idempotency_key))
        return actions

    def _committed(self, draft: TaskDraft, context: Context) -> ReleaseResult:
        failed: TemporaryError | None = None
        task = self._created(draft, context)
        if self.invoker is not None:
            created = replace(task, invoked_at=None)
            try:
                self.invoker.invoke(created, context)
            except TemporaryError as error:
                # The release stands. Without a record on the task, a later sweep invokes it.
                failed, task = error, created
        return ReleaseResult(
            Outcome.RELEASED,
            draft.task_id,
            draft.branch_name,
            str(failed or ""),
            task,
            warnings=draft.warnings,
            error=failed,
        )

    @staticmethod
    def _created(draft: TaskDraft, context: Context) -> Task:
        """The task as it stands once it has been created and invoked."""
        at = timestamp(context.now)
        return Task(
            task_id=draft.task_id,
            status="SUBMITTED",
            idempotency_key=draft.idempotency_key,
            status_since=at,
            branch_name=draft.branch_name,
            ours=True,
            invoked_at=at,
        )

    def _lost(
        self,
        child: Child,
        lost: Cancelled,
        own: int,
        task_id: str | None = None,
        slots: Slots | None = None,
    ) -> ReleaseResult:
        """Read a cancelled transaction: the first reason that failed says who was faster."""
        row = lost.reasons[0]
        if row.condition_failed:
            if not row.item:
                return ReleaseResult(Outcome.NO_LONGER_DUE, detail="its row is gone")
            now = parse_child(row.item)
            if now.status is ChildStatus.RELEASING:
                detail = "a releaser has claimed it"
                return ReleaseResult(Outcome.CLAIM_IN_PROGRESS, detail=detail, row=now)
            started = now.status is ChildStatus.RELEASED or (
                now.status in TERMINAL_CHILD and now.task_id not in {None, child.task_id}
            )
            outcome = Outcome.ALREADY_RELEASED if started else Outcome.NO_LONGER_DUE
            return ReleaseResult(
                outcome, now.task_id, detail=f"it is {now.raw_status} now", row=now
            )
        failed = [i for i, reason in enumerate(lost.reasons) if reason.condition_failed]
        if own and failed[0] == 1:
            detail = f"task {task_id} exists already; it is adopted when its index shows it"
            return ReleaseResult(Outcome.ALREADY_RELEASED, task_id, detail=detail)
        if slots is not None and failed[0] == own - 1:
            return ReleaseResult(Outcome.OVER_BUDGET, detail=f"{slots.user_id} has no free slot")
        return ReleaseResult(Outcome.NO_LONGER_DUE, detail="what it depends on has moved")
