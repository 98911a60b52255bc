"""Everybody else who acts on a world: live reconcilers, pipelines, retries, people, time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from reconciler.domain.model import timestamp
from tests.simulation.actors import ActorSpec, Body, Port
from tests.simulation.memories import Live, OlderLive, RememberingLive
from tests.simulation.world import LONG_BEFORE, ORCH, START, USER, Row, sim_settings, task_id


def _live(port: Port, generation: type[RememberingLive], seed: int) -> RememberingLive:
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
    generation: type[RememberingLive] = Live,
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
    spec = live(child, generation=OlderLive, ends=ends, number=number)
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
        reconciler = _live(port, Live, number)
        reconciler.receive(got["Item"])
        _set_status(port, child, "ready", "failed")
        reconciler.react(ORCH)

    return ActorSpec(f"retry {child}", _tolerant(body), crashes=False)


def whole_attempt(child: str) -> ActorSpec:
    """The live reconciler releases a child, its task fails, and a user retries it."""

    def body(port: Port) -> None:
        _live(port, Live, 1).react(ORCH)
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
