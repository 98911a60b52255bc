"""Scenarios: an orchestration as it stands, who acts on it, and the real code that they run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from reconciler.demo.live import ClaimThenCreate, CreateThenFlip, LiveReconciler
from reconciler.domain.identity import derived_ulid
from reconciler.domain.model import META, timestamp
from reconciler.errors import ReconcilerError, UnknownOrchestrationError
from reconciler.observability.metrics import NULL_METRICS
from reconciler.operations.context import ActionOutcome, Context, Evaluation, Stuck, Unpaced
from reconciler.operations.reconciler import Reconciler
from reconciler.operations.reporting import Reporter
from reconciler.operations.wiring import assemble
from reconciler.settings import Settings
from reconciler.stores.budget import PARTITION_PREFIX, ROW
from reconciler.stores.dynamodb import DynamoDB
from reconciler.stores.pipeline import Pipeline
from tests.simulation.memory_dynamodb import MemoryDynamoDB
from tests.simulation.scheduler import ActorSpec, Body, ClockHand, Execution, Port

ORCH = "orch_" + "0" * 31 + "1"
USER, REPO = "user-1", "acme/widgets"
START = datetime(2026, 6, 9, 12, tzinfo=UTC)
LONG_BEFORE = START - timedelta(hours=2)
CLAIM_TIMEOUT = timedelta(seconds=900)
PRIVATE = frozenset({"TaskEventsTable", "RepoTable"})

Row = dict[str, Any]


def sim_settings(**changes: Any) -> Settings:
    """Return settings with no grace: everything is due at once, which is the hardest case."""
    values: dict[str, Any] = {
        "orchestration_table_name": "OrchestrationTable",
        "task_table_name": "TaskTable",
        "task_events_table_name": "TaskEventsTable",
        "orchestrator_function_arn": "arn:aws:lambda:eu-west-1:1:function:orchestrator",
        "stranded_grace_seconds": 0,
        "claim_timeout_seconds": int(CLAIM_TIMEOUT.total_seconds()),
    }
    return Settings(**(values | changes))


@dataclass(frozen=True, slots=True)
class Node:
    """A child as it stands at the start. ``task``: the status of the task that it names."""

    status: str
    after: str = ""
    task: str | None = None
    build_passed: bool | None = None
    updated_at: datetime = LONG_BEFORE
    task_exists: bool = True
    left_task: str | None = None
    """Status of a task that stands under its next key, though its row does not know of it."""
    left_by: str = "user-1"
    """Whose that task is."""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What stands in the tables, who acts, what may go wrong, and what is claimed.

    ``one_task``: at most one task under any key, whoever makes it; where False, at most one of
    ours, and none where a look-up showed one (what the older live reconciler, or one that wakes
    up after its claim was given up, makes impossible to promise). ``converges``: the end state is
    what the outcomes of the tasks dictate.
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
    cap: int | None = None
    reserved: Sequence[str] = ()
    """Children whose tasks, not admitted yet, hold a slot of the cap each."""


def task_id(name: str, attempt: int = 1) -> str:
    """Return the id of the task that the platform made for a child."""
    return derived_ulid(f"platform/{name}/{attempt}", LONG_BEFORE)


def idempotency_key(name: str, earlier: str | None = None) -> str:
    """Return the key of a child's release."""
    return f"{ORCH}_{name}" + (f"_{earlier}" if earlier else "")


def task_row(name: str, status: str, key: str, own_id: str, build: bool | None = None) -> Row:  # noqa: FBT001
    """Return a task of the platform's making."""
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


def meta_row(count: int) -> Row:
    """Return a meta row."""
    at = {"S": timestamp(LONG_BEFORE)}
    return {
        "orchestration_id": {"S": ORCH},
        "sub_issue_id": {"S": META},
        "parent_issue_ref": {"S": "parent-1"},
        "credentials_ref": {"S": "workspace-1"},
        "repo": {"S": REPO},
        "child_count": {"N": str(count)},
        "platform_user_id": {"S": USER},
        "created_at": at,
        "updated_at": at,
    }


def fill(database: MemoryDynamoDB, scenario: Scenario) -> None:
    """Write what stands at the start."""
    for name, node in scenario.nodes.items():
        database.put_item(TableName="OrchestrationTable", Item=child_row(name, node))
        earlier = task_id(name) if node.task is not None else None
        if node.task is not None and node.task_exists:
            row = task_row(name, node.task, idempotency_key(name), task_id(name), node.build_passed)
            database.put_item(TableName="TaskTable", Item=row)
        if node.left_task is not None:
            key = idempotency_key(name, earlier)
            row = task_row(name, node.left_task, key, task_id(name, 2))
            row["user_id"] = {"S": node.left_by}
            database.put_item(TableName="TaskTable", Item=row)
    database.put_item(TableName="OrchestrationTable", Item=meta_row(len(scenario.nodes)))
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
    return Execution(
        database,
        ClockHand(START),
        scenario.actors,
        lagging=scenario.lagging,
        faults=scenario.faults,
        private=PRIVATE,
    )


# -- the real code, on a port


class _Silent(Reporter):
    """Says nothing: what is judged is what stands in the tables."""

    def evaluated(self, evaluation: Evaluation, context: Context) -> None:
        """Say nothing."""

    def acted(self, orchestration_id: str, action: ActionOutcome, context: Context) -> None:
        """Say nothing."""

    def stuck(self, entry: Stuck, context: Context) -> None:
        """Say nothing."""

    def failed(self, orchestration_id: str, error: ReconcilerError, context: Context) -> None:
        """Say nothing."""


class DirectPort(Port):
    """A way into the world in which every call is carried out at once: for one actor alone."""

    def __init__(self, database: MemoryDynamoDB, clock: ClockHand) -> None:
        self._database = database
        self.clock = clock
        self.read_clock = clock
        self.invoked: list[str] = []

    def call(self, operation: str, **request: Any) -> Any:
        """Carry out a call."""
        if operation == "invoke":
            self.invoked.append(request["task_id"])
            return {}
        return getattr(self._database, operation)(**request)

    def __getattr__(self, operation: str) -> Any:
        """Return an operation of the low-level client."""
        return getattr(self._database, operation)


class _Lambda:
    """The pipeline's client: an invocation is a call like any other."""

    def __init__(self, port: Port) -> None:
        self._port = port

    def invoke(self, *, Payload: bytes, **_: Any) -> Any:  # noqa: N803 - boto3's
        """Invoke."""
        return self._port.call("invoke", task_id=json.loads(Payload)["task_id"])


def reconciler_on(port: Port, settings: Settings | None = None) -> Reconciler:
    """Put the real reconciler together, as one process of it would be, on an actor's port."""
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
        clock=port.read_clock,
        metrics=NULL_METRICS,
        pacer=Unpaced(),
    )
    made.control._monotonic = lambda: 0.0
    silent = _Silent(NULL_METRICS)
    return replace(made, reporter=silent, evaluator=replace(made.evaluator, reporter=silent))


def sweep(number: int = 1, settings: Settings | None = None) -> ActorSpec:
    """An evaluation as a sweep of ours runs it, releases included."""

    def body(port: Port) -> None:
        try:
            reconciler_on(port, settings).evaluate(ORCH, sweep_id=f"sweep:{number}")
        except (UnknownOrchestrationError, ReconcilerError):
            return  # gone, or the stores did not answer: the next sweep looks again

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


# -- everybody else


def _live(port: Port, generation: type[LiveReconciler], seed: int) -> LiveReconciler:
    client: Any = port
    return generation(
        client,
        sim_settings(),
        port.read_clock,
        lambda task: port.call("invoke", task_id=task),
        seed=seed,
    )


def live(
    child: str | None = None,
    *,
    generation: type[LiveReconciler] = ClaimThenCreate,
    ends: str | None = None,
    number: int = 1,
) -> ActorSpec:
    """The live reconciler on the event of a child's task; ``ends``: the task ends so just now."""

    def body(port: Port) -> None:
        reconciler = _live(port, generation, number)
        if child is None:
            reconciler.react(ORCH)
            return
        if ends is not None:
            _end_task(port, task_id(child), ends)
        key = {"task_id": {"S": task_id(child)}}
        got = port.call("get_item", TableName="TaskTable", Key=key, ConsistentRead=True)
        if "Item" in got:
            reconciler.receive(got["Item"])

    return ActorSpec(f"live {number}", _tolerant(body))


def older_live(child: str | None = None, *, ends: str | None = None, number: int = 1) -> ActorSpec:
    """The older live reconciler, which creates the task before it flips the row."""
    spec = live(child, generation=CreateThenFlip, ends=ends, number=number)
    return replace(spec, name=f"older live {number}")


def _end_task(port: Port, own_id: str, status: str) -> None:
    port.call(
        "update_item",
        TableName="TaskTable",
        Key={"task_id": {"S": own_id}},
        UpdateExpression="SET #s = :s, status_created_at = :c, completed_at = :at, "
        "updated_at = :at",
        ConditionExpression="#s IN (:submitted, :running)",
        ExpressionAttributeNames={"#s": "status"},
        ExpressionAttributeValues={
            ":s": {"S": status},
            ":at": {"S": timestamp(LONG_BEFORE)},
            ":c": {"S": f"{status}#{timestamp(LONG_BEFORE)}"},
            ":submitted": {"S": "SUBMITTED"},
            ":running": {"S": "RUNNING"},
        },
    )


def _tolerant(body: Body) -> Body:
    """What the platform's code does about a torn connection is its own affair: it dies."""

    def tolerant(port: Port) -> None:
        try:
            body(port)
        except (BotoCoreError, ClientError):
            return

    return tolerant


def task_ends(child: str, status: str = "COMPLETED") -> ActorSpec:
    """A task ends, and its event is lost."""
    return ActorSpec(
        f"task {child}",
        _tolerant(lambda port: _end_task(port, task_id(child), status)),
        crashes=False,
    )


def cancellation(child: str) -> ActorSpec:
    """A user cancels a child's task."""
    return replace(task_ends(child, "CANCELLED"), name=f"cancel {child}")


def admission(child: str) -> ActorSpec:
    """The platform admits a child's task: counts it, then starts it."""

    def body(port: Port) -> None:
        port.call(
            "update_item",
            TableName="UserConcurrencyTable",
            Key={"user_id": {"S": USER}},
            UpdateExpression="ADD active_count :one",
            ExpressionAttributeValues={":one": {"N": "1"}},
        )
        _rewrite_task(port, task_id(child), "RUNNING", "SUBMITTED")

    return ActorSpec(f"admission of {child}", _tolerant(body), crashes=False)


def _rewrite_task(port: Port, own_id: str, status: str, expected: str) -> None:
    port.call(
        "update_item",
        TableName="TaskTable",
        Key={"task_id": {"S": own_id}},
        UpdateExpression="SET #s = :to, status_created_at = :since",
        ConditionExpression="#s = :from",
        ExpressionAttributeNames={"#s": "status"},
        ExpressionAttributeValues={
            ":to": {"S": status},
            ":from": {"S": expected},
            ":since": {"S": f"{status}#{timestamp(LONG_BEFORE)}"},
        },
    )


def task_removal(own_id: str) -> ActorSpec:
    """The time to live takes a task away."""

    def body(port: Port) -> None:
        port.call("delete_item", TableName="TaskTable", Key={"task_id": {"S": own_id}})

    return ActorSpec("ttl", body, crashes=False)


def _set_status(port: Port, child: str, status: str, expected: str) -> None:
    port.call(
        "update_item",
        TableName="OrchestrationTable",
        Key={"orchestration_id": {"S": ORCH}, "sub_issue_id": {"S": child}},
        UpdateExpression="SET child_status = :to, updated_at = :at",
        ConditionExpression="child_status = :from",
        ExpressionAttributeValues={
            ":to": {"S": status},
            ":from": {"S": expected},
            ":at": {"S": timestamp(port.read_clock())},
        },
    )


def retry(child: str, *behind: str) -> ActorSpec:
    """A user retries a failed child: ``ready`` again, what was skipped behind it ``blocked``."""

    def body(port: Port) -> None:
        for name in behind:
            _tolerant(lambda p, n=name: _set_status(p, n, "blocked", "skipped"))(port)  # type: ignore[misc]
        _set_status(port, child, "ready", "failed")

    return ActorSpec(f"retry {child}", _tolerant(body), crashes=False)


def late_retry(child: str, number: int = 1) -> ActorSpec:
    """The live reconciler hears of a failure, a user retries, and the retry is released."""

    def body(port: Port) -> None:
        key = {"task_id": {"S": task_id(child)}}
        got = port.call("get_item", TableName="TaskTable", Key=key, ConsistentRead=True)
        reconciler = _live(port, ClaimThenCreate, number)
        reconciler.receive(got["Item"])
        _set_status(port, child, "ready", "failed")
        reconciler.react(ORCH)

    return ActorSpec(f"retry {child}", _tolerant(body), crashes=False)


def whole_attempt(child: str) -> ActorSpec:
    """The live reconciler releases a child, its task fails, and a user retries it."""

    def body(port: Port) -> None:
        _live(port, ClaimThenCreate, 1).react(ORCH)
        key = {"orchestration_id": {"S": ORCH}, "sub_issue_id": {"S": child}}
        got = port.call("get_item", TableName="OrchestrationTable", Key=key, ConsistentRead=True)
        own = got["Item"].get("child_task_id")
        if own is None:
            return
        _end_task(port, own["S"], "FAILED")
        _set_status(port, child, "failed", "released")
        _set_status(port, child, "ready", "failed")

    return ActorSpec(f"attempt {child}", _tolerant(body), crashes=False)


def _rewrite(name: str, child: str, change: str, values: Row) -> ActorSpec:
    def body(port: Port) -> None:
        port.call(
            "update_item",
            TableName="OrchestrationTable",
            Key={"orchestration_id": {"S": ORCH}, "sub_issue_id": {"S": child}},
            UpdateExpression=change,
            ConditionExpression="attribute_exists(sub_issue_id)",
            ExpressionAttributeValues=values,
        )

    return ActorSpec(name, _tolerant(body), crashes=False)


def claims_again(child: str) -> ActorSpec:
    """A releaser claims a row once more, whoever had it."""
    values = {":s": {"S": "releasing"}, ":at": {"S": timestamp(START)}}
    return _rewrite(f"claim {child}", child, "SET child_status = :s, updated_at = :at", values)


def rewires(child: str, *after: str) -> ActorSpec:
    """Somebody edits what a child depends on."""
    values = {":d": {"L": [{"S": name} for name in after]}}
    return _rewrite(f"edit {child}", child, "SET depends_on = :d", values)


def seeds_again(child: str) -> ActorSpec:
    """A redelivered webhook writes a child row as it was seeded."""
    values = {":s": {"S": "blocked"}}
    change = "SET child_status = :s REMOVE child_task_id, child_branch_name"
    return _rewrite(f"seed {child}", child, change, values)


def removal(*names: str) -> ActorSpec:
    """The time to live takes rows away, one by one, in this order."""

    def body(port: Port) -> None:
        for name in names:
            key = {"orchestration_id": {"S": ORCH}, "sub_issue_id": {"S": name}}
            port.call("delete_item", TableName="OrchestrationTable", Key=key)

    return ActorSpec("ttl", _tolerant(body), crashes=False)


def time_passes(seconds: float) -> ActorSpec:
    """The clock moves on; whatever lags has caught up by then."""

    def body(port: Port) -> None:
        port.call("advance_clock", seconds=seconds)

    return ActorSpec(f"time +{seconds:g} s", body, crashes=False)
