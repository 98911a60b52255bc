"""TaskTable: batched reads, the oldest of several tasks, and how long events are kept."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from reconciler.domain.model import Task
from reconciler.errors import ThrottledError
from reconciler.stores.dynamodb import DynamoDB
from reconciler.stores.tasks import TaskStore
from tests.simulation.memory_dynamodb import MemoryDynamoDB
from tests.support.strategies import NOW
from tests.unit.stores.scripted import Scripted

TABLE, EVENTS = "TaskTable", "TaskEventsTable"


def store(database: MemoryDynamoDB) -> TaskStore:
    return TaskStore(DynamoDB(database), TABLE, EVENTS)  # type: ignore[arg-type]


def put(database: MemoryDynamoDB, task_id: str, **attributes: str) -> None:
    item = {"task_id": {"S": task_id}, **{n: {"S": value} for n, value in attributes.items()}}
    database.put_item(TableName=TABLE, Item={"status": {"S": "RUNNING"}, **item})


def test_each_task_is_read_once_in_batches() -> None:
    client = Scripted({"Responses": {}})
    names = [f"T{number}" for number in range(101)]
    found = TaskStore(client.dynamodb, TABLE, EVENTS).read([*names, *names], consistent=False)
    assert found == dict.fromkeys(names)
    batches = [request["RequestItems"][TABLE]["Keys"] for _, request in client.requests]
    assert [len(keys) for keys in batches] == [100, 1]


def test_an_unread_batch_does_not_stop_the_next() -> None:
    """Its tasks are left out; ``read_all`` fails instead."""
    left: dict[str, Any] = {"Responses": {}, "UnprocessedKeys": {TABLE: {"Keys": []}}}
    names = [f"T{number:03}" for number in range(101)]
    client = Scripted(*[left] * 5, {"Responses": {}})
    tasks = TaskStore(client.dynamodb, TABLE, EVENTS)
    assert tasks.read(names, consistent=True) == {"T100": None}
    with pytest.raises(ThrottledError, match="1 of 1 tasks could not be read"):
        TaskStore(Scripted(left).dynamodb, TABLE, EVENTS).read_all(["T"])


def test_reading_all_tasks_is_strongly_consistent() -> None:
    database = MemoryDynamoDB(lag=lambda *_: 100)
    put(database, "T1")
    assert store(database).read_all(["T1", "T2"]).keys() == {"T1", "T2"}
    assert store(database).read_all(["T1"])["T1"] is not None
    assert store(database).read(["T1"], consistent=False) == {"T1": None}


def test_the_oldest_task_of_a_key_counts() -> None:
    database = MemoryDynamoDB()
    put(database, "T3", idempotency_key="k", created_at="2026-06-09T12:00:00Z")
    put(database, "T2", idempotency_key="k", created_at="2026-06-09T11:00:00Z")
    put(database, "T1", idempotency_key="k", created_at="2026-06-09T12:00:00Z")
    found = store(database).find("k")
    assert found is not None
    assert found.task_id == "T2"
    assert store(database).find("other") is None


def test_an_overlong_key_finds_nothing() -> None:
    """DynamoDB would refuse the query."""
    client = Scripted({"Items": []})
    tasks = TaskStore(client.dynamodb, TABLE, EVENTS)
    assert tasks.find("é" * 1024 + "k") is None
    assert client.requests == []
    assert tasks.find("é" * 1024) is None
    assert [operation for operation, _ in client.requests] == ["query"]


def test_equally_old_tasks_are_ordered_by_id() -> None:
    database = MemoryDynamoDB()
    for task_id in ("T2", "T1"):
        put(database, task_id, idempotency_key="k")
    found = store(database).find("k")
    assert found is not None
    assert found.task_id == "T1"


def test_a_task_without_creation_time_counts_as_oldest() -> None:
    database = MemoryDynamoDB()
    put(database, "T1", idempotency_key="k", created_at="2026-06-09T12:00:00Z")
    put(database, "T2", idempotency_key="k")
    found = store(database).find("k")
    assert found is not None
    assert found.task_id == "T2"


def test_tasks_not_admitted_are_found_on_all_pages() -> None:
    def found(task_id: str, status: str) -> dict[str, Any]:
        return {"task_id": {"S": task_id}, "status_created_at": {"S": f"{status}#2026"}}

    first = {"Items": [found("T1", "QUEUED")], "LastEvaluatedKey": {"task_id": {"S": "T1"}}}
    client = Scripted(first, {"Items": [found("T2", "RUNNING"), found("T3", "SUBMITTED")]})
    assert TaskStore(client.dynamodb, TABLE, EVENTS).not_admitted("u") == ["T1", "T3"]
    assert client.requests[1][1]["ExclusiveStartKey"] == {"task_id": {"S": "T1"}}


def test_an_event_behind_many_others_is_found() -> None:
    """Events that a filter omits still fill a page, so the first page may be empty."""
    behind = {"Items": [], "LastEvaluatedKey": {"event_id": {"S": "E1"}}}
    client = Scripted(behind, {"Items": [{"event_id": {"S": "E2"}}]})
    found = TaskStore(client.dynamodb, TABLE, EVENTS).events("T1", "kind")
    assert [event["event_id"]["S"] for event in found] == ["E2"]
    assert client.requests[1][1]["ExclusiveStartKey"] == {"event_id": {"S": "E1"}}


def test_an_event_is_kept_for_ninety_days() -> None:
    action = store(MemoryDynamoDB()).event("T1", "kind", {"x": {"S": "y"}}, NOW)
    item = action["Put"]["Item"]
    assert item["ttl"] == {"N": str(int(NOW.timestamp()) + 90 * 24 * 3600)}
    assert item["timestamp"] == {"S": "2026-06-09T12:00:00.000Z"}


def carry_out(database: MemoryDynamoDB, *actions: dict[str, Any]) -> bool:
    return DynamoDB(database).transact(dict(enumerate(actions))) is None  # type: ignore[arg-type]


def read(database: MemoryDynamoDB) -> Task:
    found = store(database).read_all(["T1"])["T1"]
    assert found is not None
    return found


def test_a_named_invocation_is_recorded_on_its_task() -> None:
    """It creates no task."""
    database = MemoryDynamoDB()
    tasks = store(database)
    assert not carry_out(database, tasks.set_invoked("T1", NOW)), "no such task"
    assert tasks.read_all(["T1"]) == {"T1": None}
    put(database, "T1")
    assert carry_out(database, tasks.set_invoked("T1", NOW))
    found = read(database)
    assert (found.invoke_count, found.invoked_at) == (0, "2026-06-09T12:00:00.000Z")


def test_only_one_writer_records_the_last_invocation() -> None:
    database = MemoryDynamoDB()
    action = store(database).set_last_invocation("T1", NOW)
    assert not carry_out(database, action), "no such task"
    put(database, "T1")
    assert not carry_out(database, action), "it is RUNNING"
    put(database, "T1", status="SUBMITTED")
    assert carry_out(database, action)
    assert not carry_out(database, action)
    found = read(database)
    assert (found.invoke_count, found.invoked_at) == (1, "2026-06-09T12:00:00.000Z")


def test_each_nudge_is_counted_once() -> None:
    """Of several writers that have read the same count, only one succeeds."""
    database = MemoryDynamoDB()
    put(database, "T1", status="COMPLETED")
    for count in range(2):
        action = store(database).set_nudged(read(database), NOW)
        assert carry_out(database, action)
        assert not carry_out(database, action)
        assert read(database).nudge_count == count + 1


def test_events_of_a_kind_come_oldest_first() -> None:
    database = MemoryDynamoDB()
    for number, (kind, ago) in enumerate([("b", 4), ("a", 1), ("a", 3), ("b", 2)]):
        at = NOW - timedelta(seconds=ago)
        action = store(database).event("T1", kind, {"n": number}, at)
        database.put_item(**action["Put"])
    found = store(database).events("T1", "a")
    assert [event["metadata"]["M"]["n"]["N"] for event in found] == ["2", "1"]
    assert store(database).events("T2", "a") == []
