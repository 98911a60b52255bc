"""Invokes task pipelines, once for each task (I7).

A second run would fail the task. Who may invoke it, and when, while its row says SUBMITTED:

    0 s            we create it          only the call that created it
    grace          no record             whoever finds it: that call died, or the pipeline was down
    start timeout  a record, or a task   whoever finds it, once: the invocation was lost
                   that others created
    1,200 s                              nobody: the platform fails it

The first invocation carries the task's name. Lambda starts only one execution per name, so it is
safe to repeat, and it is recorded after it has been accepted. Every other invocation is recorded
first, and only one writer can do so; if that writer dies before invoking, nobody invokes the task
again. If Lambda rejects a named invocation, the record is withdrawn and a later sweep tries again.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from reconciler.domain.diagnosis import Policy, invocation_due
from reconciler.domain.model import Task, timestamp
from reconciler.errors import InvocationRefusedError, NameRefusedError, ReconcilerError
from reconciler.repair.context import Context
from reconciler.services.pipeline import Pipeline
from reconciler.stores.conditions import Write
from reconciler.stores.dynamodb import DynamoDB
from reconciler.stores.tasks import TaskStore


@dataclass(frozen=True, slots=True)
class Invoker:
    """Invokes pipelines and records the invocations on the tasks."""

    dynamodb: DynamoDB
    tasks: TaskStore
    pipeline: Pipeline
    policy: Policy

    def due(self, task: Task, now: datetime, *, made_it: bool = False) -> bool:
        """Whether a task that others may have invoked can be invoked at ``now``."""
        return invocation_due(task, self.policy, now, made_it=made_it)

    def invoke(self, task: Task, context: Context, audit: Write | None = None) -> Task | None:
        """Invoke the pipeline of a task that was just created, or that was just read and is due.

        ``audit``: the event to write if the invocation is itself a repair.
        Returns the updated task; None if it has started or somebody else invoked it.

        Raises:
            PipelineUnavailableError: it was not accepted, or it is unknown whether it was.
        """
        invoked = replace(task, invoked_at=timestamp(context.now))
        if task.unrecorded and self._invoke_by_name(task.task_id):
            record = self.tasks.set_invoked(task.task_id, context.now)
            if audit is None:
                self.dynamodb.write(record)
            else:
                self._record(record, audit)
            return invoked
        if not self._record(self.tasks.set_last_invocation(task.task_id, context.now), audit):
            return None
        try:
            named = self._invoke_by_name(task.task_id)
        except InvocationRefusedError:
            # Without the record a later sweep tries again. If Lambda did start a run after all, the
            # name prevents a second one.
            self._withdraw_last(task, context)
            raise
        if not named:
            if task.invoked_at is not None:
                msg = f"its pipeline takes no names, and may run task {task.task_id} already"
                raise NameRefusedError(msg)
            self.pipeline.invoke(task.task_id, named=False)
        return replace(invoked, invoke_count=1)

    def _invoke_by_name(self, task_id: str) -> bool:
        try:
            self.pipeline.invoke(task_id)
        except NameRefusedError:
            return False
        return True

    def _withdraw_last(self, task: Task, context: Context) -> None:
        with suppress(ReconcilerError):  # on failure the invocation counts as made
            self.dynamodb.write(self.tasks.unset_last_invocation(task, context.now))

    def _record(self, record: Write, audit: Write | None) -> bool:
        """Write a record, with its event if there is one; False if its condition failed.

        In a transaction, whose token keeps the client's retry after a lost answer from failing on
        what the first try wrote.
        """
        event = {} if audit is None else {"event": audit}
        return self.dynamodb.transact({"record": record, **event}) is None
