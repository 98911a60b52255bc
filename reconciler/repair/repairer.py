"""Repairs other than releases. Every write is conditional on the state that justified it.

A result holds the outcome and the updated row, so that the same pass can go on from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from reconciler.domain.model import (
    LONG_AGO,
    Child,
    ChildStatus,
    Item,
    Orchestration,
    known_timestamp,
    timestamp,
)
from reconciler.domain.outcomes import Outcome
from reconciler.domain.planning import (
    Action,
    Adopt,
    Advance,
    Nudge,
    Reinvoke,
    Release,
    ResetClaim,
    Skip,
    Unskip,
)
from reconciler.errors import DEFECTS, ReconcilerError, describe_error, lasting
from reconciler.repair.audit import recovered
from reconciler.repair.context import Context, RepairResult
from reconciler.repair.releaser import Releaser
from reconciler.stores.budget import HeldSlots
from reconciler.stores.conditions import MAX_WRITES, Write
from reconciler.stores.dynamodb import Cancelled, DynamoDB
from reconciler.stores.items import size_of
from reconciler.stores.orchestrations import OrchestrationStore
from reconciler.stores.rows import parse_child, with_written
from reconciler.stores.tasks import TaskStore

_ROW, _CAUSE = "row", "cause"

_SKIPS_PER_TRANSACTION = MAX_WRITES - 2
"""The other two are the condition on the cause and the audit event."""

_SKIPPED_BYTES = 1_500_000
"""A transaction holds 4 MB, and a row's dependencies are repeated in its condition."""


@dataclass(frozen=True, slots=True)
class Repairer:
    """Carries out planned actions; with ``context.apply`` False, only returns what would happen."""

    dynamodb: DynamoDB
    orchestrations: OrchestrationStore
    tasks: TaskStore
    releaser: Releaser

    def repair(
        self,
        orchestration: Orchestration,
        action: Action,
        context: Context,
        held: HeldSlots | None = None,
    ) -> RepairResult:
        """Carry out any action except a skip.

        ``held``: the user's slots, if several children are released in a row.
        """
        child = orchestration.children[action.sub_issue_id]
        match action:
            case Advance():
                return self.advance(child, action, context)
            case Adopt():
                return self.releaser.adopt(orchestration, child, action.task, action, context)
            case ResetClaim():
                return self.reset_claim(child, action, context)
            case Reinvoke():
                return self.reinvoke(child, action, context)
            case Nudge():
                return self.nudge(orchestration, child, action, context)
            case Release():
                return self.releaser.release(orchestration, child, action, context, held)
        raise TypeError(f"no repair is known for {action.verb}")

    def _transact(self, writes: Mapping[str, Write], context: Context) -> Cancelled | None:
        return self.dynamodb.transact(writes) if context.apply else None

    def advance(self, child: Child, action: Advance, context: Context) -> RepairResult:
        """Set a released child to the outcome of its task (I4: only if the row still names it).

        The returned row has the time at which the task finished: its dependents are due since then.
        """
        task = action.task
        writes = {
            _ROW: self.orchestrations.set_outcome(child, task, timestamp(context.now)),
            "event": recovered(self.tasks, child, action, task.outcome, context),
        }
        lost = self._transact(writes, context)
        if lost is not None:
            return _lost(lost.failed[_ROW])
        return RepairResult(Outcome.DONE, child.moved(task.outcome, task.finished_at), task)

    def skip(
        self, cause: Child, group: dict[Child, Skip], concerned: str, context: Context
    ) -> dict[Child, RepairResult]:
        """Skip dependents of ``cause``, one of the groups of ``fit_together``, in one transaction.

        If somebody else has changed a child, the others are tried again without it. Failures are
        returned as results. ``concerned``: id of the task whose failure is the reason.
        """
        results: dict[Child, RepairResult] = {}
        pending = group
        while pending:
            results |= self._try_to_skip(cause, pending, concerned, context)
            pending = {c: action for c, action in pending.items() if c not in results}
        return results

    def _try_to_skip(
        self, cause: Child, pending: dict[Child, Skip], concerned: str, context: Context
    ) -> dict[Child, RepairResult]:
        """Skip them together; if a row is at fault, skip them one by one."""
        try:
            return self._skip_together(cause, pending, concerned, context)
        except (ReconcilerError, *DEFECTS) as error:
            if len(pending) == 1 or not lasting(error):
                detail = describe_error(error)
                return {
                    c: RepairResult(Outcome.FAILED, detail=detail, error=error) for c in pending
                }
        # One of the rows is at fault: try each alone.
        results: dict[Child, RepairResult] = {}
        for child, action in pending.items():
            results |= self._try_to_skip(cause, {child: action}, concerned, context)
        return results

    def _skip_together(
        self, cause: Child, pending: dict[Child, Skip], concerned: str, context: Context
    ) -> dict[Child, RepairResult]:
        """Return the results of all, or only of those that made the transaction fail."""
        lost = self._transact(self._skips(cause, pending, concerned, context), context)
        if lost is None:
            return {
                child: RepairResult(
                    Outcome.DONE, child.moved(ChildStatus.SKIPPED, known_timestamp(action.since))
                )
                for child, action in pending.items()
            }
        if _CAUSE in lost.failed:
            detail = f"its predecessor {cause.sub_issue_id} has been retried"
            return {c: RepairResult(Outcome.LOST_RACE, c, detail=detail) for c in pending}
        there = {child: lost.failed.get(_dependent(child)) for child in pending}
        return {child: _lost(item) for child, item in there.items() if item is not None}

    def _skips(
        self, cause: Child, pending: dict[Child, Skip], concerned: str, context: Context
    ) -> dict[str, Write]:
        at = timestamp(context.now)
        writes = {
            _dependent(child): self.orchestrations.set_skipped(child, at, action.since or LONG_AGO)
            for child, action in pending.items()
        }
        writes[_CAUSE] = self.orchestrations.expect_failure(cause)
        # One event for all: one each would double the cost of a large closure.
        first, action = next(iter(pending.items()))
        skipped = {child.sub_issue_id: child.raw_status for child in pending}
        writes["event"] = recovered(
            self.tasks,
            first,
            action,
            ChildStatus.SKIPPED,
            context,
            task_id=concerned,
            more={"skipped": skipped},
        )
        return writes

    def reset_claim(self, child: Child, action: ResetClaim, context: Context) -> RepairResult:
        """Set an abandoned claim back to ``ready``.

        The returned row has the time of the claim: it was due even before that.
        """
        at = timestamp(context.now)
        writes = {
            _ROW: self.orchestrations.set_claim_reset(child, at),
            "event": recovered(self.tasks, child, action, ChildStatus.READY, context),
        }
        lost = self._transact(writes, context)
        if lost is not None:
            return _lost(lost.failed[_ROW])
        # The condition of the next write must match the row as just written.
        child = with_written(child, child_status=ChildStatus.READY, updated_at=at)
        return RepairResult(Outcome.DONE, child.moved(ChildStatus.READY, child.updated_at))

    def reinvoke(self, child: Child, action: Reinvoke, context: Context) -> RepairResult:
        """Read the task again, and invoke its pipeline if it has not started.

        Raises:
            PipelineUnavailableError: it was not accepted, or it is unknown whether it was.
        """
        if not context.apply:
            return RepairResult(Outcome.DONE, child, action.task)
        task_id = action.task.task_id
        invoker = self.releaser.invoker
        # What this pass has read may be some seconds old.
        task = self.tasks.read_all([task_id])[task_id]
        invoked = None
        if task is not None and invoker is not None and invoker.due(task, context.now):
            audit = recovered(self.tasks, child, action, "invoked", context, before=task.status)
            invoked = invoker.invoke(task, context, audit)
        if invoked is None:
            detail = "its task has started, or somebody else has just invoked it"
            return RepairResult(Outcome.LOST_RACE, child, task, detail)
        return RepairResult(Outcome.DONE, child, invoked)

    def unskip(
        self, orchestration: Orchestration, action: Unskip, context: Context
    ) -> RepairResult:
        """Set a skipped child back to ``blocked``, if no predecessor is failed or skipped.

        This also reopens the orchestration, as a recovery by the platform does.
        """
        child = orchestration.children[action.sub_issue_id]
        at = timestamp(context.now)
        writes = {
            _ROW: self.orchestrations.set_unskipped(child, at),
            "meta": self.orchestrations.set_reopened(child.orchestration_id, at),
            "event": recovered(self.tasks, child, action, ChildStatus.BLOCKED, context),
        }
        for key in child.depends_on[: MAX_WRITES - len(writes)]:
            row = orchestration.children[key]
            writes[f"predecessor {key}"] = self.orchestrations.expect_no_failure(row)
        if self._transact(writes, context) is not None:
            detail = "it or one of its predecessors has just changed"
            return RepairResult(Outcome.LOST_RACE, child, detail=detail, applied=False)
        return RepairResult(Outcome.DONE, child.moved(ChildStatus.BLOCKED, at))

    def nudge(
        self, orchestration: Orchestration, child: Child, action: Nudge, context: Context
    ) -> RepairResult:
        """Touch a finished task, so that the live reconciler processes its end again.

        Only if the child and the meta row have not changed since they were read: the live
        reconciler would undo a manual fix or a retry made in between.
        """
        task_id = action.task.task_id
        writes = {
            "task": self.tasks.set_nudged(action.task, context.now),
            "event": recovered(self.tasks, child, action, "nudged", context, task_id=task_id),
            _ROW: self.orchestrations.expect_row(child),
            "meta": self.orchestrations.expect_meta(orchestration),
        }
        if self._transact(writes, context) is not None:
            detail = "somebody else has just changed it"
            return RepairResult(Outcome.LOST_RACE, child, detail=detail)
        return RepairResult(Outcome.DONE, child, action.task)


def fit_together(skips: Iterable[tuple[Child, Skip]]) -> Iterator[dict[Child, Skip]]:
    """Split skips into groups that fit into one transaction."""
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


def _dependent(child: Child) -> str:
    return f"dependent {child.sub_issue_id}"


def _lost(item: Item) -> RepairResult:
    """Return the result of a lost race; ``item`` is the row found, empty if there is none."""
    if not item:
        return RepairResult(Outcome.LOST_RACE, None, detail="its row is gone")
    row = parse_child(item)
    return RepairResult(Outcome.LOST_RACE, row, detail=f"it is {row.raw_status} now")
