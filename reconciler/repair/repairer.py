"""Repairs other than releases: each one write under the condition that made it right.

What comes back is how it ended and how the row stands now, so that the same pass can go on with
what the repair has made due.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from reconciler.domain.codes import Code
from reconciler.domain.model import (
    LONG_AGO,
    Child,
    ChildStatus,
    Item,
    Orchestration,
    Task,
    moment,
    timestamp,
)
from reconciler.domain.outcomes import Outcome
from reconciler.domain.planning import Adopt, Advance, Nudge, Reinvoke, ResetClaim, Skip
from reconciler.domain.rows import parse_child
from reconciler.domain.task import size_of
from reconciler.repair.context import Context
from reconciler.repair.releaser import (
    MAX_ACTIONS,
    Releaser,
    audit_metadata,
    concerned_task,
    known,
)
from reconciler.stores.conditions import Action
from reconciler.stores.dynamodb import DynamoDB
from reconciler.stores.orchestrations import OrchestrationStore
from reconciler.stores.tasks import TaskStore

RECOVERED = "orchestration_recovered"
_SKIPS_PER_TRANSACTION = MAX_ACTIONS - 2
"""Room for the condition on the cause and for the audit event."""

_SKIPPED_BYTES = 1_500_000
"""Of rows: a transaction holds 4 MB, and each row's dependencies stand in its condition too."""


@dataclass(frozen=True, slots=True)
class Repaired:
    """How a repair ended.

    ``child``: its row as it stands now, as far as the write told; None where the row is gone.
    """

    outcome: Outcome
    child: Child | None
    task: Task | None = None
    detail: str = ""

    @property
    def lost(self) -> bool:
        """Whether somebody else was faster, so that what was read is stale."""
        return self.outcome not in {Outcome.DONE, Outcome.ADOPTED, Outcome.IDEMPOTENCY_CONFLICT}


@dataclass(frozen=True, slots=True)
class Repairer:
    """Carries out what was planned; with ``context.apply`` False, only says what would come."""

    dynamodb: DynamoDB
    orchestrations: OrchestrationStore
    tasks: TaskStore
    releaser: Releaser

    def advance(self, child: Child, action: Advance, context: Context) -> Repaired:
        """Set a released child to what its terminal task says (I4: only if it still runs it).

        The row as returned bears the moment at which the task finished: from then on its
        dependents are due.
        """
        task = action.task
        if context.apply:
            metadata = audit_metadata(
                child, action.code, child.raw_status, task.outcome, action.since, context
            )
            at = timestamp(context.now)
            lost = self.dynamodb.transact(
                [
                    self.orchestrations.set_outcome(child, task, at),
                    self.tasks.event(task.task_id, RECOVERED, metadata, context.now),
                ]
            )
            if lost is not None:
                return _lost(lost.reasons[0].item)
        return Repaired(Outcome.DONE, child.moved(task.outcome, task.finished_at), task)

    def skip(
        self,
        cause: Child,
        children: Sequence[Child],
        actions: Sequence[Skip],
        concerned: str,
        context: Context,
    ) -> list[Repaired]:
        """Skip the dependents of ``cause``, as many at once as a transaction takes.

        One that somebody else has moved is left out, and the others are tried again.
        ``concerned`` is the task whose failure they are skipped for.
        """
        results: dict[str, Repaired] = {}
        for pending in _together(zip(children, actions, strict=True)):
            while pending:
                lost = self._skip_together(cause, pending, concerned, context)
                for child in list(pending):
                    if lost is None:
                        skipped = child.moved(ChildStatus.SKIPPED, known(pending[child].since))
                        results[child.sub_issue_id] = Repaired(Outcome.DONE, skipped)
                    elif child.sub_issue_id in lost:
                        results[child.sub_issue_id] = lost[child.sub_issue_id]
                    else:
                        continue
                    del pending[child]
        return [results[child.sub_issue_id] for child in children]

    def _skip_together(
        self, cause: Child, pending: dict[Child, Skip], concerned: str, context: Context
    ) -> dict[str, Repaired] | None:
        """Return None when all were skipped, else those that were not, and why."""
        if not context.apply:
            return None
        at = timestamp(context.now)
        transaction: list[Action] = [self.orchestrations.expect_failure(cause)]
        transaction.extend(
            self.orchestrations.set_skipped(child, at, action.since or LONG_AGO)
            for child, action in pending.items()
        )
        first, action = next(iter(pending.items()))
        metadata = audit_metadata(
            first, action.code, first.raw_status, ChildStatus.SKIPPED, action.since, context
        )
        # One event for all of them: one each would double what a large closure costs.
        metadata["skipped"] = {
            "M": {child.sub_issue_id: {"S": child.raw_status} for child in pending}
        }
        transaction.append(self.tasks.event(concerned, RECOVERED, metadata, context.now))
        lost = self.dynamodb.transact(transaction)
        if lost is None:
            return None
        if lost.reasons[0].condition_failed:
            detail = f"its predecessor {cause.sub_issue_id} has been retried"
            return {
                child.sub_issue_id: Repaired(Outcome.LOST_RACE, child, detail=detail)
                for child in pending
            }
        return {
            child.sub_issue_id: _lost(reason.item)
            for child, reason in zip(pending, lost.reasons[1:], strict=False)
            if reason.condition_failed
        }

    def adopt(
        self, orchestration: Orchestration, child: Child, action: Adopt, context: Context
    ) -> Repaired:
        """Make the task that an interrupted releaser left the child's own."""
        task = action.task
        result = self.releaser.adopt(orchestration, child, task, action.since, action.code, context)
        if result.outcome is not Outcome.ADOPTED:
            return Repaired(result.outcome, result.row or child, task, result.detail)
        at = timestamp(context.now)
        adopted = child.moved(ChildStatus.RELEASED, at, task.task_id, task.branch_name)
        return Repaired(Outcome.ADOPTED, adopted, task)

    def reset_claim(self, child: Child, action: ResetClaim, context: Context) -> Repaired:
        """Set an abandoned claim back to ``ready``.

        The row as returned bears the time of the claim: it has been due since before that.
        """
        if context.apply:
            at = timestamp(context.now)
            transaction = [self.orchestrations.set_claim_reset(child, at)]
            metadata = audit_metadata(
                child, action.code, child.raw_status, ChildStatus.READY, action.since, context
            )
            transaction.append(
                self.tasks.event(concerned_task(child), RECOVERED, metadata, context.now)
            )
            lost = self.dynamodb.transact(transaction)
            if lost is not None:
                return _lost(lost.reasons[0].item)
            # Its next write asks for the row as it is now, not as it was claimed.
            item = {**child.item, "child_status": {"S": "ready"}, "updated_at": {"S": at}}
            child = replace(child, item=item)
        return Repaired(Outcome.DONE, child.moved(ChildStatus.READY, child.updated_at))

    def reinvoke(self, child: Child, action: Reinvoke, context: Context) -> Repaired:
        """Invoke the pipeline of a task that has not started, if a fresh read says so.

        Raises:
            PipelineUnavailableError: it was not accepted, or nobody knows whether it was.
        """
        task_id = action.task.task_id
        if not context.apply:
            return Repaired(Outcome.DONE, child, action.task)
        invoker = self.releaser.invoker
        task = self.tasks.read_all([task_id])[task_id]
        invoked = None
        if task is not None and invoker is not None and invoker.due(task, context.now):
            audit = audit_metadata(
                child, action.code, task.status, "invoked", action.since, context
            )
            invoked = invoker.invoke(task, context, audit)
        if invoked is None:
            detail = "its task has started, or somebody else has just invoked it"
            return Repaired(Outcome.LOST_RACE, child, task, detail)
        return Repaired(Outcome.DONE, child, invoked)

    def unskip(self, orchestration: Orchestration, child: Child, context: Context) -> Repaired:
        """Set a skipped child back to ``blocked``, while no predecessor is failed or skipped.

        The orchestration is open again with it, as after a recovery by the platform.
        """
        if context.apply:
            at = timestamp(context.now)
            before = [orchestration.children[key] for key in child.depends_on]
            metadata = audit_metadata(
                child,
                Code.LOST_UNSKIP,
                child.raw_status,
                ChildStatus.BLOCKED,
                moment(child.updated_at),
                context,
            )
            transaction = [
                self.orchestrations.set_unskipped(child, at),
                self.orchestrations.set_reopened(child.orchestration_id, at),
                self.tasks.event(concerned_task(child), RECOVERED, metadata, context.now),
            ]
            room = MAX_ACTIONS - len(transaction)
            transaction += [self.orchestrations.expect_no_failure(row) for row in before[:room]]
            lost = self.dynamodb.transact(transaction)
            if lost is not None:
                detail = "it, or what it depends on, has just changed"
                return Repaired(Outcome.LOST_RACE, child, detail=detail)
        return Repaired(Outcome.DONE, child.moved(ChildStatus.BLOCKED, timestamp(context.now)))

    def nudge(
        self, orchestration: Orchestration, child: Child, action: Nudge, context: Context
    ) -> Repaired:
        """Touch a finished task, so that the live reconciler sees its end once more.

        Only while the child and the orchestration are as they were read: a person's fix or a retry
        in between would be undone by the task's verdict.
        """
        if context.apply:
            metadata = audit_metadata(
                child, action.code, child.raw_status, "nudged", action.since, context
            )
            lost = self.dynamodb.transact(
                [
                    self.tasks.set_nudged(action.task, context.now),
                    self.tasks.event(action.task.task_id, RECOVERED, metadata, context.now),
                    self.orchestrations.expect_row(child),
                    self.orchestrations.expect_meta(orchestration),
                ]
            )
            if lost is not None:
                return Repaired(
                    Outcome.LOST_RACE, child, detail="somebody else has just changed it"
                )
        return Repaired(Outcome.DONE, child, action.task)


def _together(skips: Iterable[tuple[Child, Skip]]) -> Iterator[dict[Child, Skip]]:
    """Cut up what is to be skipped, by what a transaction takes: of actions, and of bytes."""
    group: dict[Child, Skip] = {}
    size = 0
    for child, action in skips:
        more = size_of(child.item)
        if group and (len(group) == _SKIPS_PER_TRANSACTION or size + more > _SKIPPED_BYTES):
            yield group
            group, size = {}, 0
        group[child] = action
        size += more
    if group:
        yield group


def _lost(item: Item) -> Repaired:
    """Somebody else was faster; ``item`` is what stood there, empty when nothing did."""
    if not item:
        return Repaired(Outcome.LOST_RACE, None, detail="its row is gone")
    row = parse_child(item)
    return Repaired(Outcome.LOST_RACE, row, detail=f"it is {row.raw_status} now")
