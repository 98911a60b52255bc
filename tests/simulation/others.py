"""All other actors in a world: live reconcilers, pipelines, retries, people, time."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from reconciler.domain.model import timestamp
from tests.simulation.actors import ActorSpec, Body, Port
from tests.simulation.memories import Live, OlderLive
from tests.simulation.world import LONG_BEFORE, ORCH, START, USER, Row, sim_settings, task_id


def live_on(port: Port, generation: type[Live], seed: int) -> Live:
    """Return a live reconciler on an actor's port."""
    client: Any = port
    made = generation(
        client,
        sim_settings(),
        port.read_clock,
        lambda task: port.call("invoke", task_id=task),
        seed=seed,
    )
    made.port, made.own_seed = port, seed
    return made


def live(
    child: str | None = None,
    *,
    generation: type[Live] = Live,
    ends: str | None = None,
    number: int = 1,
) -> ActorSpec:
    """The live reconciler on the event of a child's task; ``ends``: how the task ends just now."""

    def body(port: Port) -> None:
        reconciler = live_on(port, generation, number)
        if child is None:
            reconciler.react(ORCH)
            return
        if ends is not None:
            end_task(port, task_id(child), ends)
        key = {"task_id": {"S": task_id(child)}}
        got = port.call("get_item", TableName="TaskTable", Key=key, ConsistentRead=True)
        if "Item" in got:
            reconciler.receive(got["Item"])

    return ActorSpec(f"live {number}", tolerant(body))


def older_live(child: str | None = None, *, ends: str | None = None, number: int = 1) -> ActorSpec:
    """The older live reconciler, which creates the task before it updates the row."""
    spec = live(child, generation=OlderLive, ends=ends, number=number)
    return replace(spec, name=f"older live {number}")


def end_task(port: Port, own_id: str, status: str, at: datetime = LONG_BEFORE) -> None:
    """End a task, if it has not ended yet."""
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
            ":at": {"S": timestamp(at)},
            ":c": {"S": f"{status}#{timestamp(at)}"},
            ":submitted": {"S": "SUBMITTED"},
            ":running": {"S": "RUNNING"},
        },
    )


def tolerant(body: Body) -> Body:
    """Let the platform's code die when its connection breaks; we do not test how it copes."""

    def tolerant(port: Port) -> None:
        try:
            body(port)
        except (BotoCoreError, ClientError):
            return

    return tolerant


def task_ends(child: str, status: str = "COMPLETED", own_id: str | None = None) -> ActorSpec:
    """A task ends, and its event is lost; ``own_id``: its id if the row does not name it."""
    return ActorSpec(
        f"task {child}",
        tolerant(lambda port: end_task(port, own_id or task_id(child), status)),
        crashes=False,
    )


def cancellation(child: str) -> ActorSpec:
    """A user cancels a child's task."""
    return replace(task_ends(child, "CANCELLED"), name=f"cancel {child}")


def admission(child: str) -> ActorSpec:
    """The platform admits a child's task: it counts the task, then starts it."""

    def body(port: Port) -> None:
        port.call(
            "update_item",
            TableName="UserConcurrencyTable",
            Key={"user_id": {"S": USER}},
            UpdateExpression="ADD active_count :one",
            ExpressionAttributeValues={":one": {"N": "1"}},
        )
        _rewrite_task(port, task_id(child), "RUNNING", "SUBMITTED")

    return ActorSpec(f"admission of {child}", tolerant(body), crashes=False)


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
    """The time to live removes a task."""

    def body(port: Port) -> None:
        port.call("delete_item", TableName="TaskTable", Key={"task_id": {"S": own_id}})

    return ActorSpec("ttl", body, crashes=False)


def set_status(port: Port, child: str, status: str, expected: str) -> None:
    """Set a row's status if it is ``expected``."""
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
    """A user retries a failed child: it becomes ``ready``, and the skipped ones ``blocked``."""

    def body(port: Port) -> None:
        for name in behind:
            tolerant(lambda p, n=name: set_status(p, n, "blocked", "skipped"))(port)  # type: ignore[misc]
        set_status(port, child, "ready", "failed")

    return ActorSpec(f"retry {child}", tolerant(body), crashes=False)


def late_retry(child: str, number: int = 1) -> ActorSpec:
    """The live reconciler hears of a failure, a user retries, and the retry is released."""

    def body(port: Port) -> None:
        key = {"task_id": {"S": task_id(child)}}
        got = port.call("get_item", TableName="TaskTable", Key=key, ConsistentRead=True)
        reconciler = live_on(port, Live, number)
        reconciler.receive(got["Item"])
        set_status(port, child, "ready", "failed")
        reconciler.react(ORCH)

    return ActorSpec(f"retry {child}", tolerant(body), crashes=False)


def whole_attempt(child: str) -> ActorSpec:
    """The live reconciler releases a child, its task fails, and a user retries it."""

    def body(port: Port) -> None:
        live_on(port, Live, 1).react(ORCH)
        key = {"orchestration_id": {"S": ORCH}, "sub_issue_id": {"S": child}}
        got = port.call("get_item", TableName="OrchestrationTable", Key=key, ConsistentRead=True)
        own = got["Item"].get("child_task_id")
        if own is None:
            return
        end_task(port, own["S"], "FAILED")
        set_status(port, child, "failed", "released")
        set_status(port, child, "ready", "failed")

    return ActorSpec(f"attempt {child}", tolerant(body), crashes=False)


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

    return ActorSpec(name, tolerant(body), crashes=False)


def claims_again(child: str) -> ActorSpec:
    """A releaser claims a row again, whoever had the claim."""
    values = {":s": {"S": "releasing"}, ":at": {"S": timestamp(START)}}
    return _rewrite(f"claim {child}", child, "SET child_status = :s, updated_at = :at", values)


def rewires(child: str, *after: str) -> ActorSpec:
    """Somebody edits the dependencies of a child."""
    values = {":d": {"L": [{"S": name} for name in after]}}
    return _rewrite(f"edit {child}", child, "SET depends_on = :d", values)


def seeds_again(child: str) -> ActorSpec:
    """A redelivered webhook writes a child row again as it was seeded."""
    values = {":s": {"S": "blocked"}}
    change = "SET child_status = :s REMOVE child_task_id, child_branch_name"
    return _rewrite(f"seed {child}", child, change, values)


def removal(*names: str) -> ActorSpec:
    """The time to live removes rows one by one, in this order."""

    def body(port: Port) -> None:
        for name in names:
            key = {"orchestration_id": {"S": ORCH}, "sub_issue_id": {"S": name}}
            port.call("delete_item", TableName="OrchestrationTable", Key=key)

    return ActorSpec("ttl", tolerant(body), crashes=False)


def pipeline_runs() -> ActorSpec:
    """The executions that have begun change their tasks."""
    return ActorSpec("pipeline", lambda port: port.call("have_run"), crashes=False)


def time_passes(seconds: float) -> ActorSpec:
    """The clock moves on; lagging indexes have caught up by then."""

    def body(port: Port) -> None:
        port.call("advance_clock", seconds=seconds)

    return ActorSpec(f"time +{seconds:g} s", body, crashes=False)
