"""How others reopen an orchestration that looked finished, write by write, in the platform's order.

A crash before or after any of these writes leaves the orchestration half reopened.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from botocore.exceptions import ClientError

from reconciler.domain.identity import derived_ulid
from reconciler.domain.model import META, timestamp
from tests.simulation.actors import ActorSpec, Port
from tests.simulation.memories import Live
from tests.simulation.others import end_task, live_on, set_status, tolerant
from tests.simulation.world import LONG_BEFORE, ORCH, Node, Row, child_row, task_row


def iteration_id(child: str) -> str:
    """Return the id of the iteration task of a child."""
    return derived_ulid(f"iteration/{child}", LONG_BEFORE)


def restack_id(child: str) -> str:
    """Return the id of the restack task of a child."""
    return derived_ulid(f"restack/{child}", LONG_BEFORE)


def iteration(child: str, completed_at: datetime | None = None) -> Row:
    """Return the iteration task of a child, running or completed."""
    status = "RUNNING" if completed_at is None else "COMPLETED"
    row = task_row(child, status, f"iterate_{child}_comment-1", iteration_id(child))
    row["channel_metadata"]["M"]["orchestration_iteration"] = {"S": "true"}
    if completed_at is not None:
        row["completed_at"] = {"S": timestamp(completed_at)}
        row["status_created_at"] = {"S": f"{status}#{timestamp(completed_at)}"}
    return row


def restack(child: str, source: str) -> Row:
    """Return the task that rebases a child after its predecessor ``source`` has changed."""
    key = f"restack_{child}_{iteration_id(source)}"
    row = task_row(child, "RUNNING", key, restack_id(child))
    row["channel_metadata"]["M"]["restack_predecessor_sub_issue_id"] = {"S": source}
    return row | {"workflow_ref": {"S": "coding/restack-v1"}, "channel_source": {"S": "webhook"}}


def fix(child: str, *skipped: str) -> ActorSpec:
    """A person fixes a failed child, and the iteration task succeeds.

    The row becomes ``succeeded`` and still names the failed task. The rows ``skipped`` because of
    it become ``blocked`` again. Then the parent is reopened, and due children are released.
    """

    def body(port: Port) -> None:
        _iterate(port, child)
        set_status(port, child, "succeeded", "failed")
        for name in skipped:
            _unless_lost(port, name, "blocked", "skipped")
        _reopen(port)
        live_on(port, Live, 3).react(ORCH)

    return ActorSpec(f"fix of {child}", tolerant(body))


def whole_retry() -> ActorSpec:
    """A person retries the orchestration: every failed or skipped row is reset, one by one."""

    def body(port: Port) -> None:
        rows = _children(port)
        for name, row in sorted(rows.items()):
            stands = row["child_status"]["S"]
            if stands in {"failed", "skipped"}:
                before = [rows[key["S"]]["child_status"]["S"] for key in row["depends_on"]["L"]]
                free = all(status == "succeeded" for status in before)
                _unless_lost(port, name, "ready" if free else "blocked", stands)
        _reopen(port)
        live_on(port, Live, 3).react(ORCH)

    return ActorSpec("retry of all", tolerant(body))


def extension(*added: str, after: str) -> ActorSpec:
    """Children are added behind ``after``; the meta row counts them only afterwards."""

    def body(port: Port) -> None:
        count = len(_children(port))
        for name in added:
            _put(port, "OrchestrationTable", child_row(name, Node("blocked", after)), "updated_at")
        _reopen(port, count + len(added))
        live_on(port, Live, 3).react(ORCH)

    return ActorSpec("extension", tolerant(body))


def cascade(source: str, *dependents: str) -> ActorSpec:
    """A person changes a finished child, and each dependent gets a restack task.

    No row changes. The parent is reopened until the last of these tasks has ended.
    """

    def body(port: Port) -> None:
        _iterate(port, source)
        for name in dependents:
            _put(port, "TaskTable", restack(name, source))
        _reopen(port)
        for name in dependents:
            end_task(port, restack_id(name), "COMPLETED", port.read_clock())
        live_on(port, Live, 3).react(ORCH)

    return ActorSpec(f"cascade from {source}", tolerant(body))


# -- the writes


def _iterate(port: Port, child: str) -> None:
    """Create the iteration task of a child, and let it succeed."""
    _put(port, "TaskTable", iteration(child))
    end_task(port, iteration_id(child), "COMPLETED", port.read_clock())


def _put(port: Port, table: str, item: Row, *dated: str) -> None:
    now = {"S": timestamp(port.read_clock())}
    port.call("put_item", TableName=table, Item=item | dict.fromkeys(dated, now))


def _children(port: Port) -> dict[str, Any]:
    found = port.call(
        "query",
        TableName="OrchestrationTable",
        ConsistentRead=True,
        KeyConditionExpression="orchestration_id = :id",
        ExpressionAttributeValues={":id": {"S": ORCH}},
    )["Items"]
    rows = {row["sub_issue_id"]["S"]: row for row in found}
    return {name: row for name, row in rows.items() if "#" not in name}


def _unless_lost(port: Port, child: str, status: str, expected: str) -> None:
    """Set a row's status; leave a row alone that somebody else has changed."""
    try:
        set_status(port, child, status, expected)
    except ClientError:
        return


def _reopen(port: Port, child_count: int | None = None) -> None:
    """Allow the roll-up of the parent to be posted again."""
    values = {":at": {"S": timestamp(port.read_clock())}}
    change = "SET updated_at = :at"
    if child_count is not None:
        change += ", child_count = :count"
        values[":count"] = {"N": str(child_count)}
    port.call(
        "update_item",
        TableName="OrchestrationTable",
        Key={"orchestration_id": {"S": ORCH}, "sub_issue_id": {"S": META}},
        UpdateExpression=f"{change} REMOVE rollup_posted_at",
        ConditionExpression="attribute_exists(sub_issue_id)",
        ExpressionAttributeValues=values,
    )
