"""Scenarios: an orchestration, the actors on it, and the real code that they run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from reconciler.composition import assemble
from reconciler.domain.identity import derived_ulid
from reconciler.domain.model import META, timestamp
from reconciler.errors import ReconcilerError, UnknownOrchestrationError
from reconciler.observability.metrics import NULL_METRICS
from reconciler.repair.context import ActionOutcome, Context, Evaluation, Pacer, Stuck
from reconciler.repair.reconciler import Reconciler
from reconciler.repair.reporter import Reporter
from reconciler.services.pipeline import Pipeline
from reconciler.settings import Settings
from reconciler.stores.budget import PARTITION_PREFIX, ROW
from reconciler.stores.dynamodb import DynamoDB
from tests.simulation.actors import ActorSpec, ClockHand, Counts, Port, any_task
from tests.simulation.answers import fail
from tests.simulation.executions import executions, invoke
from tests.simulation.memories import RememberingEvaluator
from tests.simulation.memory_dynamodb import MemoryDynamoDB
from tests.simulation.scheduler import Execution

ORCH = "orch_" + "0" * 31 + "1"
USER, REPO = "user-1", "acme/widgets"
START = datetime(2026, 6, 9, 12, tzinfo=UTC)
LONG_BEFORE = START - timedelta(hours=2)
CLAIM_TIMEOUT = timedelta(seconds=900)
UNQUALIFIED = "arn:aws:lambda:eu-west-1:1:function:orchestrator"
PRIVATE = frozenset({"TaskEventsTable", "RepoTable"})

Row = dict[str, Any]


def sim_settings(**changes: Any) -> Settings:
    """Return settings without a grace: everything is due at once, which is the hardest case."""
    values: dict[str, Any] = {
        "orchestration_table_name": "OrchestrationTable",
        "task_table_name": "TaskTable",
        "task_events_table_name": "TaskEventsTable",
        "orchestrator_function_arn": f"{UNQUALIFIED}:live",
        "stranded_grace_seconds": 0,
        "claim_timeout_seconds": int(CLAIM_TIMEOUT.total_seconds()),
    }
    return Settings(**(values | changes))


@dataclass(frozen=True, slots=True)
class Node:
    """A child at the start. ``task``: the status of the task that it names."""

    status: str
    after: str = ""
    task: str | None = None
    build_passed: bool | None = None
    updated_at: datetime = LONG_BEFORE
    task_exists: bool = True
    left_task: str | None = None
    """The status of a task under the child's next key, which its row does not know."""
    left_by: str = "user-1"
    """The user of that task."""
    description: str = ""
    ours: bool = False
    """Whether its task is one of ours without a recorded invocation."""
    run: bool = False
    """Whether an execution without a name has run its task once."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """The initial tables, the actors, the possible faults, and what is claimed.

    ``one_task``: there is at most one task under any key, whoever makes it, and at most one run of
    each task. False: there is at most one task of ours, and none if a look-up showed one. More
    cannot be promised beside the older live reconciler, or beside one that wakes up after its claim
    was given up. ``converges``: the outcomes of the tasks dictate the end state.
    """

    name: str
    nodes: Mapping[str, Node]
    actors: Sequence[ActorSpec]
    faults: int = 0
    lagging: frozenset[str] = frozenset()
    one_task: bool = True
    converges: bool = True
    retries: bool = False
    settings: Settings = field(default_factory=sim_settings)
    lookups_count: Counts = any_task
    """Which look-ups stay in an actor's state, to be held against a task that it creates later."""
    cap: int | None = None
    settled: bool = False
    """Whether the roll-up has been posted."""
    reopened_at: datetime = LONG_BEFORE
    """When the meta row was last written."""
    tasks: Sequence[Row] = ()
    """Tasks that no row names: iterations and restacks."""
    left_alone: bool = False
    """Whether every due child was just touched, so that nothing may be done within the grace."""
    reserved: Sequence[str] = ()
    """Children whose tasks are not admitted yet and hold one slot of the cap each."""


def task_id(name: str, attempt: int = 1) -> str:
    """Return the id of the task that the platform made for a child."""
    return derived_ulid(f"platform/{name}/{attempt}", LONG_BEFORE)


def idempotency_key(name: str, earlier: str | None = None) -> str:
    """Return the key of a child's release."""
    return f"{ORCH}_{name}" + (f"_{earlier}" if earlier else "")


def task_row(name: str, status: str, key: str, own_id: str, build: bool | None = None) -> Row:  # noqa: FBT001
    """Return a task as the platform makes it."""
    at = timestamp(LONG_BEFORE)
    row: Row = {
        "task_id": {"S": own_id},
        "user_id": {"S": USER},
        "status": {"S": status},
        "repo": {"S": REPO},
        "idempotency_key": {"S": key},
        "branch_name": {"S": f"bgagent/{own_id}/part-{name}"},
        "status_created_at": {"S": f"{status}#{at}"},
        "created_at": {"S": at},
        "updated_at": {"S": at},
        "channel_metadata": {
            "M": {
                "orchestration_id": {"S": ORCH},
                "orchestration_sub_issue_id": {"S": name},
            }
        },
    }
    if build is not None:
        row["build_passed"] = {"BOOL": build}
    return row


def child_row(name: str, node: Node) -> Row:
    """Return a child row."""
    row: Row = {
        "orchestration_id": {"S": ORCH},
        "sub_issue_id": {"S": name},
        "parent_issue_ref": {"S": "parent-1"},
        "credentials_ref": {"S": "workspace-1"},
        "repo": {"S": REPO},
        "depends_on": {"L": [{"S": key} for key in node.after]},
        "child_status": {"S": node.status},
        "created_at": {"S": timestamp(LONG_BEFORE)},
        "updated_at": {"S": timestamp(node.updated_at)},
        "title": {"S": f"Part {name}"},
        "display_id": {"S": f"ENG-{name}"},
    }
    if node.description:
        row["description"] = {"S": node.description}
    if node.task is not None:
        row["child_task_id"] = {"S": task_id(name)}
        row["child_branch_name"] = {"S": f"bgagent/{task_id(name)}/part-{name}"}
    return row


def meta_row(count: int, *, settled: bool = False, updated_at: datetime = LONG_BEFORE) -> Row:
    """Return a meta row."""
    at = {"S": timestamp(LONG_BEFORE)}
    row: Row = {
        "orchestration_id": {"S": ORCH},
        "sub_issue_id": {"S": META},
        "parent_issue_ref": {"S": "parent-1"},
        "credentials_ref": {"S": "workspace-1"},
        "repo": {"S": REPO},
        "child_count": {"N": str(count)},
        "platform_user_id": {"S": USER},
        "created_at": at,
        "updated_at": {"S": timestamp(updated_at)},
    }
    return row | {"rollup_posted_at": at} if settled else row


def fill(database: MemoryDynamoDB, scenario: Scenario) -> None:
    """Write the initial rows and tasks."""
    executions(database)
    for name, node in scenario.nodes.items():
        database.put_item(TableName="OrchestrationTable", Item=child_row(name, node))
        earlier = task_id(name) if node.task is not None else None
        if node.task is not None and node.task_exists:
            row = task_row(name, node.task, idempotency_key(name), task_id(name), node.build_passed)
            if node.ours:
                row["reconciler_sweep_id"] = {"S": "sweep:0"}
            database.put_item(TableName="TaskTable", Item=row)
            if node.run:
                invoke(database, task_id(name))
        if node.left_task is not None:
            key = idempotency_key(name, earlier)
            row = task_row(name, node.left_task, key, task_id(name, 2))
            row["user_id"] = {"S": node.left_by}
            database.put_item(TableName="TaskTable", Item=row)
    for task in scenario.tasks:
        database.put_item(TableName="TaskTable", Item=task)
    meta = meta_row(len(scenario.nodes), settled=scenario.settled, updated_at=scenario.reopened_at)
    database.put_item(TableName="OrchestrationTable", Item=meta)
    if scenario.cap is not None:
        active = {"user_id": {"S": USER}, "active_count": {"N": "0"}}
        database.put_item(TableName="UserConcurrencyTable", Item=active)
    if scenario.reserved:
        slots = {
            "orchestration_id": {"S": f"{PARTITION_PREFIX}{USER}"},
            "sub_issue_id": {"S": ROW},
            "reservations": {"SS": [task_id(name) for name in scenario.reserved]},
        }
        database.put_item(TableName="OrchestrationTable", Item=slots)
    for table in database.tables.values():
        table.forget_history()


def start(scenario: Scenario) -> Execution:
    """Begin an execution of a scenario."""
    database = MemoryDynamoDB(metered=False)
    fill(database, scenario)
    execution = Execution(
        database,
        ClockHand(START),
        scenario.actors,
        lagging=scenario.lagging,
        faults=scenario.faults,
        private=PRIVATE,
    )
    for actor in execution.actors:
        actor.counts = scenario.lookups_count
    return execution


# -- the real code, on a port


class _Silent(Reporter):
    """Reports nothing: the tables alone are judged."""

    def evaluated(self, evaluation: Evaluation, context: Context) -> None:
        """Report nothing."""

    def acted(self, orchestration_id: str, action: ActionOutcome, context: Context) -> None:
        """Report nothing."""

    def stuck(self, entry: Stuck, context: Context) -> None:
        """Report nothing."""

    def failed(self, orchestration_id: str, error: ReconcilerError, context: Context) -> None:
        """Report nothing."""


class DirectPort(Port):
    """A port for a single actor, which carries out every call at once."""

    def __init__(self, database: MemoryDynamoDB, clock: ClockHand) -> None:
        self._database = database
        self.clock = clock
        self.read_clock = clock

    def remember(self, memory: object) -> None:
        """Do nothing: nobody asks what the actor knows."""

    def call(self, operation: str, **request: Any) -> Any:
        """Carry out a call."""
        if operation == "invoke":
            invoke(self._database, **request)
            return {}
        return getattr(self._database, operation)(**request)

    def __getattr__(self, operation: str) -> Any:
        """Return an operation of the low-level client."""
        return getattr(self._database, operation)


class _Lambda:
    """The pipeline's client: an invocation is a call like any other.

    Lambda accepts a name only with a qualified ARN; if it refuses one, it starts nothing.
    """

    def __init__(self, port: Port) -> None:
        self._port = port

    def invoke(
        self,
        *,
        FunctionName: str,  # noqa: N803 - boto3's
        Payload: bytes,  # noqa: N803 - boto3's
        DurableExecutionName: str | None = None,  # noqa: N803 - boto3's
        **_: Any,
    ) -> Any:
        """Invoke."""
        if DurableExecutionName is not None and FunctionName == UNQUALIFIED:
            fail("invoke", "InvalidParameterValueException", "not a durable function's version")
        own_id = json.loads(Payload)["task_id"]
        return self._port.call("invoke", task_id=own_id, name=DurableExecutionName)


def reconciler_on(port: Port, settings: Settings | None = None) -> Reconciler:
    """Build the real reconciler on an actor's port, as one process would."""
    settings = settings or sim_settings()
    dynamodb = DynamoDB(port, sleep=lambda _: None)  # type: ignore[arg-type]
    pipeline = None
    if settings.orchestrator_function_arn is not None:
        client: Any = _Lambda(port)
        pipeline = Pipeline(client, settings.orchestrator_function_arn)
    made = assemble(
        settings,
        dynamodb,
        pipeline=pipeline,
        guardrail=None,
        groups=None,
        clock=port.read_clock,
        metrics=NULL_METRICS,
        pacer=Pacer(),
    )
    made.control._monotonic = lambda: 0.0
    silent = _Silent(NULL_METRICS)
    evaluator = replace(made.evaluator, reporter=silent)
    if settings.user_concurrency_table_name is None:
        evaluator = RememberingEvaluator.of(evaluator, port)
    return replace(made, reporter=silent, evaluator=evaluator)


def sweep(number: int = 1, settings: Settings | None = None) -> ActorSpec:
    """An evaluation as our sweeps run it, releases included.

    All sweeps have the same id, which decides nothing, so that rows do not differ by it alone.
    """

    def body(port: Port) -> None:
        try:
            reconciler_on(port, settings).evaluate(ORCH, sweep_id="sweep:1")
        except (UnknownOrchestrationError, ReconcilerError):
            return  # the rows are gone, or the stores failed: the next sweep looks again

    return ActorSpec(f"sweep {number}", body, ours=True)


def delivery(
    child: str,
    number: int = 1,
    depends_on: tuple[str, ...] | None = None,
    settings: Settings | None = None,
) -> ActorSpec:
    """One delivery of ``reconciler.release_child``."""

    def body(port: Port) -> None:
        try:
            reconciler_on(port, settings).release(
                ORCH, child, sweep_id=f"delivery:{number}", depends_on=depends_on
            )
        except ReconcilerError:
            return

    return ActorSpec(f"delivery {number}", body, ours=True)


def unskip(child: str) -> ActorSpec:
    """A person sets a skipped child back with ``reconciler unskip``."""

    def body(port: Port) -> None:
        try:
            reconciler_on(port).unskip(ORCH, child)
        except ReconcilerError:
            return

    return ActorSpec(f"unskip {child}", body, ours=True, unskips=True)
