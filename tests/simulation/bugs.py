"""Bugs of every class, each put into the real code on purpose.

A bug replaces one function with one that differs in a single respect. ``seeded_bugs`` finds out
which test catches it.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from datetime import timedelta
from typing import Any

import ulid

from reconciler.domain import diagnosis, due, planning, task, touches
from reconciler.domain.codes import Code
from reconciler.domain.diagnosis import _Diagnoser
from reconciler.domain.model import Child, ChildStatus, Task
from reconciler.domain.outcomes import Outcome
from reconciler.repair import invoker as invocation
from reconciler.repair import releaser
from reconciler.repair import repairer as repair
from reconciler.repair.context import RepairResult
from reconciler.repair.invoker import Invoker
from reconciler.repair.releaser import Releaser
from reconciler.repair.repair_pass import RepairPass
from reconciler.services.pipeline import Pipeline
from reconciler.stores import rows
from reconciler.stores.budget import PARTITION_PREFIX, ROW, BudgetStore
from reconciler.stores.conditions import Expression
from reconciler.stores.dynamodb import DynamoDB
from reconciler.stores.items import row_key
from reconciler.stores.orchestrations import OrchestrationStore
from reconciler.stores.tasks import TaskStore
from tests.simulation.bug_tools import BUGS, bug, put, without

__all__ = ["BUGS"]

# -- conditions dropped, one by one


@bug("release: not conditional on the row's status")
def release_ignores_status() -> None:
    without(OrchestrationStore, "set_released", "child_status")


@bug("release: not conditional on the attempt that was read")
def release_ignores_attempt() -> None:
    without(OrchestrationStore, "set_released", "child_status", "child_task_id")


@bug("release: not conditional on the dependencies that were read")
def release_ignores_edited_dependencies() -> None:
    without(OrchestrationStore, "set_released", "depends_on")


@bug("release: not conditional on the predecessors")
def release_drops_predecessor_conditions() -> None:
    original = DynamoDB.transact

    def transact(self: DynamoDB, actions: Any) -> Any:
        kept = {label: action for label, action in actions.items() if not _checks_success(action)}
        return original(self, kept)

    put(DynamoDB, "transact", transact)


def _checks_success(action: Any) -> bool:
    part = action.get("ConditionCheck")
    return part is not None and part["ConditionExpression"].startswith("#child_status = ")


@bug("release: overwrites a task that exists")
def create_overwrites_a_task() -> None:
    original = TaskStore.create

    def create(self: TaskStore, *args: Any) -> Any:
        action = original(self, *args)
        for name in (
            "ConditionExpression",
            "ExpressionAttributeNames",
            "ReturnValuesOnConditionCheckFailure",
        ):
            del action["Put"][name]
        return action

    put(TaskStore, "create", create)


@bug("advance: not conditional on the row's task, so another task's verdict is written")
def verdict_on_another_task() -> None:
    without(OrchestrationStore, "set_outcome", "child_task_id")


@bug("advance: not conditional on the row still running")
def verdict_on_any_status() -> None:
    without(OrchestrationStore, "set_outcome", "child_status")


@bug("skip: not conditional on the row's status")
def skip_ignores_status() -> None:
    without(OrchestrationStore, "set_skipped", "child_status")


@bug("skip: not conditional on the cause still being failed")
def skip_ignores_cause() -> None:
    original = DynamoDB.transact

    def transact(self: DynamoDB, actions: Any) -> Any:
        kept = {label: action for label, action in actions.items() if label != "cause"}
        return original(self, kept)

    put(DynamoDB, "transact", transact)


@bug("claim reset: not conditional on the time of the claim")
def reset_ignores_renewed_claim() -> None:
    without(OrchestrationStore, "set_claim_reset", "updated_at")


@bug("claim reset: not conditional on the claim at all")
def reset_ignores_status() -> None:
    without(OrchestrationStore, "set_claim_reset", "child_status", "updated_at", "child_task_id")


@bug("adopt: not conditional on the time of the claim")
def adopt_ignores_renewed_claim() -> None:
    without(OrchestrationStore, "set_adopted", "updated_at", always=False)


@bug("adopt: not conditional on the row's state")
def adopt_ignores_status() -> None:
    without(OrchestrationStore, "set_adopted", "child_status", "child_task_id", "updated_at")


# -- wrong decisions


@bug("a due child's predecessors are neither checked nor a condition")
def predecessors_skipped() -> None:
    release_drops_predecessor_conditions()
    original = releaser._why_not_due

    def why_not_due(orchestration: Any, child: Child, context: Any) -> Any:
        return original(orchestration, replace(child, depends_on=()), context)

    put(releaser, "_why_not_due", why_not_due)
    settles = _Diagnoser._settle_due

    def settle_due(self: _Diagnoser, unreleased: dict[str, Child]) -> None:
        bare = {key: replace(child, depends_on=()) for key, child in unreleased.items()}
        settles(self, bare)
        for key in list(unreleased):
            if key not in bare:
                del unreleased[key]

    put(_Diagnoser, "_settle_due", settle_due)


@bug("a claim's age is ignored")
def claim_age_ignored() -> None:
    original = _Diagnoser._claim

    def claim(self: _Diagnoser, child: Child) -> None:
        policy = self.policy
        self.policy = replace(policy, claim_timeout=timedelta(0))
        original(self, child)
        self.policy = policy

    put(_Diagnoser, "_claim", claim)


@bug("a broken build counts as a success")
def broken_build_passes() -> None:
    def outcome(self: Task) -> ChildStatus:
        return ChildStatus.SUCCEEDED if self.status == "COMPLETED" else ChildStatus.FAILED

    put(Task, "outcome", property(outcome))


@bug("a cancelled task leaves its child running")
def cancelled_never_ends() -> None:
    terminal = frozenset({"COMPLETED", "FAILED", "TIMED_OUT"})
    put(Task, "terminal", property(lambda self: self.status in terminal))


@bug("nobody looks for a task that an interrupted release left")
def no_look_up() -> None:
    put(TaskStore, "find", lambda _self, _key: None)


@bug("another user's task is adopted")
def adopts_anybodys_task() -> None:
    original = Releaser.adopt

    def adopt(self: Releaser, orchestration: Any, child: Child, task: Task, *rest: Any) -> Any:
        return original(
            self, orchestration, child, replace(task, user_id=orchestration.meta.user_id), *rest
        )

    expect = TaskStore.expect_task

    def expect_task(self: TaskStore, task: Task) -> Any:
        found = self.read([task.task_id], consistent=True)[task.task_id]
        return expect(self, found or task)

    put(Releaser, "adopt", adopt)
    put(TaskStore, "expect_task", expect_task)


@bug("a retry's key does not name the earlier attempt")
def retry_key_is_the_first_one() -> None:
    key = property(lambda self: f"{self.orchestration_id}_{self.sub_issue_id}")
    put(Child, "idempotency_key", key)


@bug("task ids are random, and a release is not conditional on the row's state")
def task_ids_are_random() -> None:
    put(task, "task_id_for", lambda *_: str(ulid.ULID()))
    release_ignores_attempt()


@bug("skips do not spread: a skipped predecessor does not count as failed")
def skips_are_not_transitive() -> None:
    # Changing only the plan is not enough: the next read of the same pass would see the skip.
    put(diagnosis, "FAILURE", frozenset({ChildStatus.FAILED}))
    original = _Diagnoser._doom

    def doom(self: _Diagnoser, child: Child, cause: str, since: Any) -> None:
        if cause in self.failed:
            original(self, child, cause, since)
        else:
            self._set(child, Code.WAITING, "")

    put(_Diagnoser, "_doom", doom)


@bug("a removed row is written back")
def resurrects_a_row() -> None:
    without(OrchestrationStore, "set_released", "child_status", "child_task_id", "depends_on")


@bug("a task that could not be read counts as absent")
def unread_counts_as_absent() -> None:
    original = TaskStore.read

    def read(self: TaskStore, task_ids: Any, *, consistent: bool) -> Any:
        wanted = list(task_ids)
        return dict.fromkeys(wanted) | original(self, wanted, consistent=consistent)

    put(TaskStore, "read", read)


# -- writes in the wrong order


def _split(first: Callable[[Any], bool]) -> None:
    """Make a release two transactions: what ``first`` names, then the rest."""
    original = Releaser._commit

    def commit(self: Releaser, *args: Any) -> Any:
        class Split:
            def transact(self, actions: Any) -> Any:
                early = {label: action for label, action in actions.items() if first(action)}
                late = {k: action for k, action in actions.items() if k not in early}
                return inner.transact(early) or inner.transact(late)

        inner = self.dynamodb
        return original(replace(self, dynamodb=Split()), *args)  # type: ignore[arg-type]

    put(Releaser, "_commit", commit)


def _is_flip(action: Any) -> bool:
    return "Update" in action or "ConditionCheck" in action


@bug("the row is set to released before its task is created")
def flip_before_create() -> None:
    _split(_is_flip)


@bug("the task is created before its row is set to released")
def create_before_flip() -> None:
    _split(lambda action: not _is_flip(action))


@bug("the pipeline is never invoked")
def never_invoked() -> None:
    put(Invoker, "invoke", lambda *_, **__: None)


@bug("a release reserves no slot")
def no_reservation() -> None:
    def reserve(self: BudgetStore, slots: Any, _task: str, waiting_key: str) -> Any:
        build = Expression()
        change = f"REMOVE {build.name(f'waiting:{waiting_key}')}"
        key = row_key(f"{PARTITION_PREFIX}{slots.user_id}", ROW)
        return {
            "Update": {
                "TableName": self._table,
                "Key": key,
                "UpdateExpression": change,
                **build.arguments(),
            }
        }

    put(BudgetStore, "reserve", reserve)


@bug("a slot is reserved even if slots were pruned meanwhile")
def reservation_ignores_pruning() -> None:
    without(BudgetStore, "reserve", "version")


@bug("a pass makes only one repair")
def one_step_a_pass() -> None:
    original = RepairPass._begin

    def begin(self: RepairPass, action: Any) -> bool:
        return not self.outcomes and original(self, action)

    put(RepairPass, "_begin", begin)


@bug("a lost race counts as a repair")
def lost_race_counts_as_done() -> None:
    def lost(item: Any) -> RepairResult:
        return RepairResult(Outcome.DONE, rows.parse_child(item) if item else None)

    put(repair, "_lost", lost)


# -- reopened orchestrations, and invocations


@bug("touch: the task's verdict is not compared with its row")
def touches_whatever_has_ended() -> None:
    def tells_the_end(orchestration: Any, tasks: Any) -> Any:
        ended = [
            (key, task)
            for key, child in orchestration.children.items()
            if (task := tasks.get(child.task_id or "")) is not None and task.terminal
        ]
        return ended[-1] if ended else None

    put(touches, "_tells_the_end", tells_the_end)


@bug("touch: iterations and restacks that still run are ignored")
def touches_while_a_task_runs() -> None:
    put(TaskStore, "unfinished_of", lambda *_: [])


@bug("touch: made even if somebody has reopened the orchestration")
def touches_a_reopened_orchestration() -> None:
    without(OrchestrationStore, "expect_meta", "rollup_posted_at", "updated_at")


@bug("touch: made even if the row has changed since it was read")
def touches_a_row_that_has_moved() -> None:
    without(OrchestrationStore, "expect_row", "child_status", "child_task_id")


@bug("due since: ignores the reopening of the orchestration for its children")
def due_whenever_it_was_reopened() -> None:
    original = due.due_since

    def due_since(child: Child, _meta: Any, *rest: Any) -> Any:
        return original(child, None, *rest)

    put(diagnosis, "due_since", due_since)


@bug("due since: ignores the reopening of the orchestration for its parent")
def unsettled_whenever_it_was_reopened() -> None:
    original = vars(_Diagnoser)["_newest"].func

    def newest(self: _Diagnoser) -> Any:
        bare = copy(self)
        if bare.orchestration.meta is not None:
            meta = replace(bare.orchestration.meta, updated_at=None)
            bare.orchestration = replace(bare.orchestration, meta=meta)
        return original(bare)

    put(_Diagnoser, "_newest", property(newest))


@bug("due since: ignores the child's own last change")
def due_whenever_it_was_touched() -> None:
    original = due.due_since

    def due_since(child: Child, *rest: Any) -> Any:
        return original(replace(child, updated_at=None), *rest)

    put(diagnosis, "due_since", due_since)


@bug("invocation: made without a name")
def invokes_without_a_name() -> None:
    original = Pipeline.invoke

    def invoke(self: Pipeline, *args: Any, **kwargs: Any) -> Any:
        class Nameless:
            def invoke(self, *, DurableExecutionName: str, **request: Any) -> Any:  # noqa: ARG002, N803 - boto3's
                return client.invoke(**request)

        client = self._client
        nameless = Pipeline(Nameless(), self._function_arn)  # type: ignore[arg-type]
        return original(nameless, *args, **kwargs)

    put(Pipeline, "invoke", invoke)


@bug("invocation: made even if the task has started")
def invokes_what_has_started() -> None:
    original = diagnosis.invocation_due

    def invocation_due(task: Task, *rest: Any, **more: Any) -> bool:
        return original(replace(task, status="SUBMITTED"), *rest, **more)

    for module in (diagnosis, planning, invocation):
        put(module, "invocation_due", invocation_due)


@bug("invocation without a name: recorded only afterwards")
def records_a_nameless_invocation_afterwards() -> None:
    original = Invoker.invoke

    def invoke(self: Invoker, task: Task, *rest: Any) -> Any:
        class Late:
            def write(self, *args: Any, **kwargs: Any) -> None:
                late.append((args, kwargs))

            def transact(self, actions: Any) -> None:
                late.append((("transact",), actions))

        late: list[Any] = []
        done = original(replace(self, dynamodb=Late()), task, *rest)  # type: ignore[arg-type]
        for args, kwargs in late:
            if args == ("transact",):
                self.dynamodb.transact(kwargs)
            else:
                self.dynamodb.write(*args, **kwargs)
        return done

    put(Invoker, "invoke", invoke)
