"""Release: one child, one atomic transaction, one task.

Claiming first and creating the task later leaves a crash window between the two. Creating first and
updating the row later makes duplicates. So the row, the task and its events are written together,
conditional on the row, its predecessors and the task. Whoever comes second gets a named outcome,
never a second task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace

from reconciler.domain.codes import Code
from reconciler.domain.due import EXPIRED, is_expired
from reconciler.domain.model import (
    LONG_AGO,
    TERMINAL_CHILD,
    UNRELEASED,
    Child,
    ChildStatus,
    Item,
    Orchestration,
    Task,
    known_timestamp,
    moment,
    timestamp,
)
from reconciler.domain.outcomes import Outcome
from reconciler.domain.planning import Action, Reinvoke
from reconciler.domain.task import Refusal, TaskDraft
from reconciler.errors import ReconcilerError, TemporaryError
from reconciler.repair.audit import recovered
from reconciler.repair.context import Context, Pacer, RepairResult, name_state
from reconciler.repair.drafter import Drafter
from reconciler.repair.invoker import Invoker
from reconciler.stores.budget import BudgetStore, HeldSlots
from reconciler.stores.conditions import MAX_WRITES, Write
from reconciler.stores.dynamodb import Cancelled, DynamoDB
from reconciler.stores.orchestrations import OrchestrationStore
from reconciler.stores.rows import parse_child, parse_task
from reconciler.stores.tasks import TaskStore

# Labels of the writes whose conditions can fail.
_ROW, _TASK, _SLOT = "row", "task", "slot"


@dataclass(frozen=True, slots=True)
class Releaser:
    """Releases children."""

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
        action: Action,
        context: Context,
        held: HeldSlots | None = None,
    ) -> RepairResult:
        """Release ``child`` if it is due, or adopt its task if there is one already.

        ``orchestration`` must hold the meta row and the child's predecessors, read consistently.
        ``held``: the user's slots, if several children are released in a row.
        """
        if child.status is ChildStatus.RELEASED:
            return self._finish_invoking(child, context)
        not_due = _not_due(orchestration, child, context)
        if not_due is not None:
            return not_due
        # An interrupted releaser may have left a task behind: never create a second one.
        existing = self.tasks.find(child.idempotency_key)
        if existing is not None:
            return self.adopt(orchestration, child, existing, action, context)
        draft = self.drafter.draft(orchestration, child, context.now)
        if isinstance(draft, Refusal):
            return self._refuse(child, draft.reason, action, context)
        # Last, so that a refused child does not use up a permit.
        if context.apply and not self.pacer.acquire():
            detail = "the rate of releases is used up for now"
            return RepairResult(Outcome.PACED, child, detail=detail)
        result = self._commit_in_turn(orchestration, child, draft, action, context, held)
        # Outside the lock: others wait for it, and invoking takes as long as the transaction.
        return self._invoke(result, context) if result.repaired else result

    def _commit_in_turn(
        self,
        orchestration: Orchestration,
        child: Child,
        draft: TaskDraft,
        action: Action,
        context: Context,
        held: HeldSlots | None,
    ) -> RepairResult:
        """Commit under the lock of the row that the release shares with others."""

        def commit(reservation: Write | None) -> RepairResult:
            return self._commit(orchestration, child, draft, reservation, action, context)

        held = held or (HeldSlots(self.budget) if self.budget is not None else None)
        if held is None:
            # Only siblings share a row with it.
            lock = nullcontext() if context.alone else self.pacer.lock(child.orchestration_id)
            with lock:
                return commit(None)
        with self.pacer.lock(draft.user_id):
            return _within_budget(held, draft, child, commit, context)

    def _finish_invoking(self, child: Child, context: Context) -> RepairResult:
        """Invoke the pipeline if a release was interrupted between its commit and the invocation.

        The sweep that made the commit does so at once. Everybody else waits, because the invocation
        may be just under way.
        """
        task = None
        if child.task_id is not None:
            task = self.tasks.read([child.task_id], consistent=True).get(child.task_id)
        already = RepairResult(Outcome.ALREADY_RELEASED, child, task)
        if task is None or not task.unrecorded or self.invoker is None:
            return already
        made_it = task.sweep_id == context.sweep_id
        if not self.invoker.due(task, context.now, made_it=made_it):
            return already
        if context.apply:
            code, since = Code.UNSTARTED_TASK, moment(task.created_at)
            action = Reinvoke(child.sub_issue_id, code, since, task)
            audit = recovered(self.tasks, child, action, "invoked", context, before=task.status)
            if self.invoker.invoke(task, context, audit) is None:
                return already
        return RepairResult(Outcome.REINVOKED, child, task, applied=context.apply)

    def _refuse(self, child: Child, reason: str, action: Action, context: Context) -> RepairResult:
        at, since = timestamp(context.now), action.since or LONG_AGO
        refused, more = replace(action, code=Code.REFUSED), {"reason": reason}
        writes = {
            _ROW: self.orchestrations.set_refused(child, reason, at, since),
            "event": recovered(self.tasks, child, refused, ChildStatus.FAILED, context, more=more),
        }
        lost = self._transact(writes, context)
        if lost is not None:
            return _lost(child, lost)
        # With its old time: the dependents have waited as long, so they are skipped at once.
        failed = child.moved(ChildStatus.FAILED, known_timestamp(action.since))
        return RepairResult(Outcome.REFUSED, failed, detail=reason, applied=context.apply)

    def adopt(
        self,
        orchestration: Orchestration,
        child: Child,
        task: Task,
        action: Action,
        context: Context,
    ) -> RepairResult:
        """Record ``task``, found under the child's key, as the child's own."""
        if task.user_id != orchestration.user_id:
            detail = f"task {task.task_id} of another user holds the idempotency key"
            return RepairResult(Outcome.IDEMPOTENCY_CONFLICT, child, task, detail)
        at, task_id = timestamp(context.now), task.task_id
        writes = {
            _ROW: self.orchestrations.set_adopted(child, task_id, task.branch_name, at),
            "adopted task": self.tasks.expect_task(task),
            "event": recovered(
                self.tasks, child, action, ChildStatus.RELEASED, context, task_id=task_id
            ),
        }
        lost = self._transact(writes, context)
        if lost is not None:
            return _lost(child, lost)
        adopted = child.moved(ChildStatus.RELEASED, at, task_id, task.branch_name)
        return RepairResult(Outcome.ADOPTED, adopted, task, applied=context.apply)

    def _commit(
        self,
        orchestration: Orchestration,
        child: Child,
        draft: TaskDraft,
        reservation: Write | None,
        action: Action,
        context: Context,
    ) -> RepairResult:
        writes = self._writes(child, draft, action, context)
        if reservation is not None:
            writes[_SLOT] = reservation
        # Check them in the transaction: a retry may reset one between our read and our write.
        predecessors = [orchestration.children[key] for key in child.depends_on]
        # Latest successes first: if not all fit, those are the likeliest to change.
        predecessors.sort(key=lambda row: row.updated_at or "", reverse=True)
        for row in predecessors[: MAX_WRITES - len(writes)]:
            label = f"predecessor {row.sub_issue_id}"
            writes[label] = self.orchestrations.expect_succeeded(row)
        lost = self._create(writes, draft, context)
        if lost is not None:
            return _lost(child, lost)
        # With its old time, so that our own release does not restart any grace in this pass.
        released = child.moved(
            ChildStatus.RELEASED, child.updated_at, draft.task_id, draft.branch_name
        )
        return RepairResult(
            Outcome.RELEASED,
            released,
            _created(draft, context),
            applied=context.apply,
            warnings=draft.warnings,
        )

    def _writes(
        self, child: Child, draft: TaskDraft, action: Action, context: Context
    ) -> dict[str, Write]:
        at, task_id = timestamp(context.now), draft.task_id
        created = {"repo": draft.repo, "channel_source": draft.channel_source}
        return {
            _ROW: self.orchestrations.set_released(child, task_id, draft.branch_name, at),
            _TASK: self.tasks.create(draft, context.sweep_id),
            "created": self.tasks.event(task_id, "task_created", created, context.now),
            "event": recovered(
                self.tasks, child, action, ChildStatus.RELEASED, context, task_id=task_id
            ),
        }

    def _transact(self, writes: Mapping[str, Write], context: Context) -> Cancelled | None:
        return self.dynamodb.transact(writes) if context.apply else None

    def _create(
        self, writes: Mapping[str, Write], draft: TaskDraft, context: Context
    ) -> Cancelled | None:
        """Commit a release. If an earlier try of this release was committed, that is a success.

        All releasers derive the same task id; sweep id and time show who created the task.
        """
        try:
            lost = self._transact(writes, context)
        except TemporaryError:
            there = self.tasks.read([draft.task_id], consistent=True).get(draft.task_id)
            if there is None or not _made_by(there, context):
                raise
            return None
        if lost is not None and lost.repeated:
            item = lost.failed.get(_TASK)
            if item and _made_by(parse_task(item), context):
                return None
        return lost

    def _invoke(self, result: RepairResult, context: Context) -> RepairResult:
        """Invoke the pipeline of a new task; a failure does not undo the release."""
        if self.invoker is None or result.task is None:
            return result
        created = replace(result.task, invoked_at=None)
        try:
            self.invoker.invoke(created, context)
        except ReconcilerError as error:
            # Without a record on the task, a later sweep invokes it.
            return replace(result, task=created, detail=str(error), error=error)
        return result


def _within_budget(
    held: HeldSlots,
    draft: TaskDraft,
    child: Child,
    commit: Callable[[Write], RepairResult],
    context: Context,
) -> RepairResult:
    """Commit with a reserved slot; if the slots were not read just now, read them and try again."""
    while True:
        slots = held.open(draft.user_id, prune=context.apply)
        if slots.room <= 0:
            return RepairResult(Outcome.OVER_BUDGET, child, detail=_FULL)
        result = commit(held.reserve(slots, draft.task_id, draft.idempotency_key))
        if result.outcome is Outcome.RELEASED:
            held.use()
        if result.outcome is not Outcome.OVER_BUDGET:
            return result
        held.forget()
        if held.fresh:
            return result


_FULL = "its user has no free slot"


def _not_due(orchestration: Orchestration, child: Child, context: Context) -> RepairResult | None:
    if child.status is ChildStatus.RELEASING:
        return RepairResult(Outcome.CLAIM_IN_PROGRESS, child, detail=_CLAIMED)
    why = _why_not_due(orchestration, child, context)
    return None if why is None else RepairResult(Outcome.NO_LONGER_DUE, child, detail=why)


_CLAIMED = "a releaser has claimed it"


def _why_not_due(orchestration: Orchestration, child: Child, context: Context) -> str | None:
    if child.status not in UNRELEASED or child.problem is not None:
        return child.problem or f"it is {child.raw_status}"
    meta = orchestration.meta
    if meta is None:
        return "it has no meta row"
    if meta.problem is not None:
        return meta.problem
    if is_expired(child, meta, context.now):
        return EXPIRED
    for key, row in orchestration.predecessors_of(child):
        if row is None or row.status is not ChildStatus.SUCCEEDED:
            return name_state(key, row)
    return None


def _made_by(task: Task, context: Context) -> bool:
    return task.sweep_id == context.sweep_id and task.created_at == timestamp(context.now)


def _created(draft: TaskDraft, context: Context) -> Task:
    """Return the task as it is after creation and invocation."""
    at = timestamp(context.now)
    return Task(
        task_id=draft.task_id,
        status="SUBMITTED",
        user_id=draft.user_id,
        idempotency_key=draft.idempotency_key,
        status_since=at,
        branch_name=draft.branch_name,
        sweep_id=context.sweep_id,
        invoked_at=at,
    )


def _lost(child: Child, lost: Cancelled) -> RepairResult:
    """Return the outcome of a transaction that lost a race, by what it found."""
    if _ROW in lost.failed:
        return _moved(child, lost.failed[_ROW])
    if _TASK in lost.failed:
        item = lost.failed[_TASK]
        there = parse_task(item) if item else None
        detail = "its task exists already; it is adopted once the index shows it"
        return RepairResult(Outcome.ALREADY_RELEASED, child, there, detail)
    if _SLOT in lost.failed:
        return RepairResult(Outcome.OVER_BUDGET, child, detail=_FULL)
    return RepairResult(Outcome.NO_LONGER_DUE, child, detail="what it depends on has moved")


def _moved(child: Child, item: Item) -> RepairResult:
    if not item:
        return RepairResult(Outcome.NO_LONGER_DUE, None, detail="its row is gone")
    now = parse_child(item)
    if now.status is ChildStatus.RELEASING:
        return RepairResult(Outcome.CLAIM_IN_PROGRESS, now, detail=_CLAIMED)
    started = now.status is ChildStatus.RELEASED or (
        now.status in TERMINAL_CHILD and now.task_id not in {None, child.task_id}
    )
    outcome = Outcome.ALREADY_RELEASED if started else Outcome.NO_LONGER_DUE
    return RepairResult(outcome, now, detail=f"it is {now.raw_status} now")
