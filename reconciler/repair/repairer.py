"""Repairs other than releases: each one write under the condition that made it right.

What comes back is how it ended and how the row stands now, so that the same pass can go on with
what the repair has made due.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
"""Room for the condition on the cause and for the audit event."""

_SKIPPED_BYTES = 1_500_000
"""Of rows: a transaction holds 4 MB, and each row's dependencies stand in its condition too."""


@dataclass(frozen=True, slots=True)
class Repairer:
    """Carries out what was planned; with ``context.apply`` False, only says what would come."""

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
        """Carry out any action but a skip on its child, as ``orchestration`` has it.

        ``held``: the user's slots, where several children are released one after the other.
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
        """Commit, or only plan to."""
        return self.dynamodb.transact(writes) if context.apply else None

    def advance(self, child: Child, action: Advance, context: Context) -> RepairResult:
        """Set a released child to what its terminal task says (I4: only if it still runs it).

        The row as returned bears the moment at which the task finished: from then on its
        dependents are due.
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
        self,
        cause: Child,
        children: Sequence[Child],
        actions: Sequence[Skip],
        concerned: str,
        context: Context,
    ) -> list[RepairResult]:
        """Skip the dependents of ``cause``, as many at once as a transaction takes.

        One that somebody else has moved is left out, and the others are tried again. What fails is
        in the results.
        ``concerned`` is the task whose failure they are skipped for.
        """
        results: dict[Child, RepairResult] = {}
        for group in _together(zip(children, actions, strict=True)):
            pending = group
            while pending:
                results |= self._try_to_skip(cause, pending, concerned, context)
                pending = {c: action for c, action in pending.items() if c not in results}
            error = results[next(reversed(group))].error
            if error is not None and not lasting(error):
                # An outage: the rest would fare no better.
                rest = RepairResult(Outcome.FAILED, detail=describe_error(error), error=error)
                return [results.get(child, rest) for child in children]
        return [results[child] for child in children]

    def _try_to_skip(
        self, cause: Child, pending: dict[Child, Skip], concerned: str, context: Context
    ) -> dict[Child, RepairResult]:
        """Skip them; a failure is of those that it concerns, and of no others."""
        try:
            return self._skip_together(cause, pending, concerned, context)
        except (ReconcilerError, *DEFECTS) as error:
            if len(pending) == 1 or not lasting(error):
                detail = describe_error(error)
                return {
                    c: RepairResult(Outcome.FAILED, detail=detail, error=error) for c in pending
                }
        # One of the rows is at fault: alone, the others go.
        results: dict[Child, RepairResult] = {}
        for child, action in pending.items():
            results |= self._try_to_skip(cause, {child: action}, concerned, context)
        return results

    def _skip_together(
        self, cause: Child, pending: dict[Child, Skip], concerned: str, context: Context
    ) -> dict[Child, RepairResult]:
        """Return what came of all of them, or only of those that kept the others from it."""
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
        # One event for all of them: one each would double what a large closure costs.
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

        The row as returned bears the time of the claim: it has been due since before that.
        """
        at = timestamp(context.now)
        writes = {
            _ROW: self.orchestrations.set_claim_reset(child, at),
            "event": recovered(self.tasks, child, action, ChildStatus.READY, context),
        }
        lost = self._transact(writes, context)
        if lost is not None:
            return _lost(lost.failed[_ROW])
        # Its next write asks for the row as it is now, not as it was claimed.
        child = with_written(child, child_status=ChildStatus.READY, updated_at=at)
        return RepairResult(Outcome.DONE, child.moved(ChildStatus.READY, child.updated_at))

    def reinvoke(self, child: Child, action: Reinvoke, context: Context) -> RepairResult:
        """Invoke the pipeline of a task that has not started, if a fresh read says so.

        Raises:
            PipelineUnavailableError: it was not accepted, or nobody knows whether it was.
        """
        if not context.apply:
            return RepairResult(Outcome.DONE, child, action.task)
        task_id = action.task.task_id
        invoker = self.releaser.invoker
        # Read again: what this pass saw of it may be some seconds old.
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
        """Set a skipped child back to ``blocked``, while no predecessor is failed or skipped.

        The orchestration is open again with it, as after a recovery by the platform.
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
            detail = "it, or what it depends on, has just changed"
            return RepairResult(Outcome.LOST_RACE, child, detail=detail, applied=False)
        return RepairResult(Outcome.DONE, child.moved(ChildStatus.BLOCKED, at))

    def nudge(
        self, orchestration: Orchestration, child: Child, action: Nudge, context: Context
    ) -> RepairResult:
        """Touch a finished task, so that the live reconciler sees its end once more.

        Only while the child and the orchestration are as they were read: a person's fix or a retry
        in between would be undone by the task's verdict.
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


def _together(skips: Iterable[tuple[Child, Skip]]) -> Iterator[dict[Child, Skip]]:
    """Cut up what is to be skipped, by what a transaction takes: of writes, and of bytes."""
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
    """Somebody else was faster; ``item`` is what stood there, empty when nothing did."""
    if not item:
        return RepairResult(Outcome.LOST_RACE, None, detail="its row is gone")
    row = parse_child(item)
    return RepairResult(Outcome.LOST_RACE, row, detail=f"it is {row.raw_status} now")
