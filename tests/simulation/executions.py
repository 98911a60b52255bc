"""The task pipeline: executions of the platform's durable function, and the harm of a second one.

An invocation is asynchronous: it only begins an execution, and the task changes some time later.
An execution has the name of its invocation. A second invocation with the same name begins none;
without a name every invocation begins one. The second execution of a task finds the task past
``SUBMITTED`` and marks it ``FAILED`` while the first one runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from reconciler.domain.model import timestamp
from tests.simulation.memory_dynamodb import MemoryDynamoDB
from tests.simulation.storage import KeySchema, Table, TableSpec

_SPEC = TableSpec("Executions", KeySchema("task_id"))


def executions(database: MemoryDynamoDB) -> Table:
    """Return the executions that have begun, by task."""
    return database.tables.setdefault(_SPEC.name, Table(_SPEC))


def invoke(database: MemoryDynamoDB, task_id: str, name: str | None = None) -> None:
    """Begin an execution for a task, unless one with this ``name`` has begun."""
    begun = executions(database)
    stands: dict[str, Any] = begun.items.get((task_id, ""), {"task_id": {"S": task_id}})
    names = stands.get("names", {"SS": []})["SS"]
    if name in names:
        return
    item = {**stands, "runs": {"N": str(runs(stands) + 1)}}
    if name is not None:
        item["names"] = {"SS": sorted([*names, name])}
    begun.replace({(task_id, ""): item})


def runs(begun: Mapping[str, Any]) -> int:
    """Return how many executions a task has had; ``begun`` is its item in the table."""
    return int(begun.get("runs", {"N": "0"})["N"])


def have_run(database: MemoryDynamoDB, now: datetime) -> None:
    """Let every execution that has begun change its task."""
    tasks = database.tables["TaskTable"]
    for key, begun in executions(database).items.items():
        task = tasks.items.get(key)
        status = "RUNNING" if runs(begun) == 1 else "FAILED"
        if task is None or task["status"]["S"] not in _BEFORE[status]:
            continue
        at = timestamp(now)
        moved = {"status": {"S": status}, "status_created_at": {"S": f"{status}#{at}"}}
        if status == "FAILED":
            moved["completed_at"] = {"S": at}
        tasks.replace({key: {**task, **moved}})


_BEFORE = {"RUNNING": {"SUBMITTED"}, "FAILED": {"SUBMITTED", "RUNNING"}}
"""The statuses from which an execution moves its task; a finished task stays as it is."""
