"""Tasks found by user or status, writes on tasks, and the row of a new task."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from reconciler.domain.model import Task, timestamp
from reconciler.domain.task import Attachment, TaskDraft
from reconciler.stores.dynamodb import DynamoDB
from reconciler.stores.tasks import TaskStore, task_item
from tests.simulation.memory_dynamodb import MemoryDynamoDB
from tests.support.strategies import NOW, ago
from tests.unit.stores.scripted import Scripted

TABLE, EVENTS = "TaskTable", "TaskEventsTable"


def store(database: MemoryDynamoDB) -> TaskStore:
    return TaskStore(DynamoDB(database), TABLE, EVENTS)  # type: ignore[arg-type]


def put(
    database: MemoryDynamoDB,
    task_id: str,
    status: str,
    *,
    age: float = 60,
    user: str = "ada",
    metadata: dict[str, str] | None = None,
    now: str | None = None,
    **attributes: Any,
) -> None:
    """Write a task. ``now`` is its status if the index still shows another one."""
    metadata = {"orchestration_id": "o", **(metadata or {})}
    item = {
        "task_id": {"S": task_id},
        "user_id": {"S": user},
        "status": {"S": now or status},
        "status_created_at": {"S": f"{status}#{ago(age)}"},
        "created_at": {"S": ago(age)},
        "channel_metadata": {"M": {name: {"S": value} for name, value in metadata.items()}},
        **attributes,
    }
    database.put_item(TableName=TABLE, Item=item)


ACTIVE = ("AWAITING_APPROVAL", "FINALIZING", "HYDRATING", "PENDING_UPLOADS", "QUEUED", "RUNNING")
ENDED = ("CANCELLED", "COMPLETED", "FAILED", "TIMED_OUT")


def test_only_a_users_unfinished_tasks_are_found() -> None:
    database = MemoryDynamoDB()
    for status in (*ACTIVE, "SUBMITTED", *ENDED):
        put(database, f"T-{status}", status)
    put(database, "T-other", "RUNNING", user="bob")
    found = {task.task_id for task in store(database).unfinished("ada")}
    assert found == {f"T-{status}" for status in (*ACTIVE, "SUBMITTED")}


def test_an_ended_task_is_not_listed_as_unfinished() -> None:
    """The index may still show its previous status."""
    database = MemoryDynamoDB()
    put(database, "T1", "RUNNING", now="FAILED")
    assert store(database).unfinished("ada") == []


@pytest.mark.parametrize("status", ENDED)
def test_a_recently_ended_task_still_counts_as_unfinished(status: str) -> None:
    """Tasks of other orchestrations are left out."""
    database = MemoryDynamoDB()
    put(database, "T-old", status, age=121)
    put(database, "T-young", status, age=120)
    put(database, "T-running", "RUNNING")
    put(database, "T-other", "RUNNING", metadata={"orchestration_id": "p"})
    found = store(database).unfinished_of("ada", "o", NOW - timedelta(seconds=120))
    assert sorted(found) == ["T-running", "T-young"]


FIX = {"orchestration_iteration": "true", "orchestration_sub_issue_id": "a"}


def iterations(database: MemoryDynamoDB) -> dict[str, str]:
    since = NOW - timedelta(seconds=120)
    found = store(database).iterations_of("ada", "o", since)
    return {key: task.task_id for key, task in found.items()}


def test_a_childs_last_successful_iteration_counts() -> None:
    """Tasks that failed, ended too early or belong to another orchestration are ignored."""
    database = MemoryDynamoDB()
    put(database, "T-earlier", "COMPLETED", age=90, metadata=FIX)
    put(database, "T-last", "COMPLETED", age=60, metadata=FIX)
    put(database, "T-a-first", "COMPLETED", age=100, metadata=FIX)
    put(
        database,
        "T-before",
        "COMPLETED",
        age=121,
        metadata={**FIX, "orchestration_sub_issue_id": "b"},
    )
    put(database, "T-broken", "COMPLETED", age=5, metadata=FIX, build_passed={"BOOL": False})
    put(database, "T-failed", "FAILED", age=5, metadata=FIX)
    put(database, "T-foreign", "COMPLETED", age=5, metadata={**FIX, "orchestration_id": "p"})
    put(database, "T-plain", "COMPLETED", age=5, metadata={"orchestration_sub_issue_id": "c"})
    put(database, "T-of-none", "COMPLETED", age=5, metadata={"orchestration_iteration": "true"})
    assert iterations(database) == {"a": "T-last"}


def test_the_last_iteration_is_the_latest_in_time() -> None:
    """Whatever the form of the times: 17:00+09:00 is before 09:00Z."""
    database = MemoryDynamoDB()
    east = timezone(timedelta(hours=9))
    earlier = {"S": (NOW - timedelta(seconds=90)).astimezone(east).isoformat()}
    put(database, "T-earlier", "COMPLETED", metadata=FIX, completed_at=earlier)
    put(database, "T-last", "COMPLETED", metadata=FIX, completed_at={"S": ago(60)})
    assert iterations(database) == {"a": "T-last"}


def test_each_child_has_its_last_iteration() -> None:
    """There are many, because tasks are read in no particular order."""
    database = MemoryDynamoDB()
    keys = [f"c{number}" for number in range(12)]
    for key in keys:
        metadata = {**FIX, "orchestration_sub_issue_id": key}
        put(database, f"T-{key}-last", "COMPLETED", age=60, metadata=metadata)
        put(database, f"T-{key}-earlier", "COMPLETED", age=90, metadata=metadata)
    assert iterations(database) == {key: f"T-{key}-last" for key in keys}


def test_a_rerunning_iteration_has_not_succeeded() -> None:
    """The index still shows it as completed."""
    database = MemoryDynamoDB()
    put(database, "T1", "COMPLETED", metadata=FIX, now="RUNNING")
    assert iterations(database) == {}


def finished(task_id: str, **times: Any) -> dict[str, Any]:
    metadata = {"orchestration_id": {"S": "o"}, "orchestration_sub_issue_id": {"S": "a"}}
    return {
        "task_id": {"S": task_id},
        "status": {"S": "COMPLETED"},
        "channel_metadata": {"M": metadata},
        **times,
    }


def test_an_iteration_without_end_counts_as_first() -> None:
    """The index found it by a time that its row no longer has."""
    client = Scripted(
        {"Items": [{"task_id": {"S": "T1"}}, {"task_id": {"S": "T2"}}]},
        {
            "Responses": {
                TABLE: [
                    finished("T1", completed_at={"S": ago(60)}),
                    finished("T2"),
                ]
            }
        },
    )
    found = TaskStore(client.dynamodb, TABLE, EVENTS).iterations_of("ada", "o", NOW)
    assert {key: task.task_id for key, task in found.items()} == {"a": "T1"}


def test_each_iterated_orchestration_is_listed_once() -> None:
    """Only a recent and successful iteration counts."""
    database = MemoryDynamoDB()
    for number, name in enumerate(("p", "o", "p")):
        put(database, f"T{number}", "COMPLETED", metadata={**FIX, "orchestration_id": name})
    put(database, "T-old", "COMPLETED", age=121, metadata={**FIX, "orchestration_id": "old"})
    put(database, "T-plain", "COMPLETED", metadata={"orchestration_id": "plain"})
    put(database, "T-failed", "FAILED", metadata={**FIX, "orchestration_id": "failed"})
    nameless = {"M": {"orchestration_iteration": {"S": "true"}}}
    put(database, "T-nameless", "COMPLETED", channel_metadata=nameless)
    assert store(database).orchestrations_iterated(NOW - timedelta(seconds=120)) == ["o", "p"]


# -- writes


def read(database: MemoryDynamoDB) -> Task:
    found = store(database).read_all(["T1"])["T1"]
    assert found is not None
    return found


def carry_out(database: MemoryDynamoDB, action: dict[str, Any]) -> bool:
    return DynamoDB(database).transact({"write": action}) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("invoked_at", [None, ago(900)], ids=["never", "long ago"])
def test_a_refused_invocation_restores_the_earlier_record(
    invoked_at: str | None,
) -> None:
    """If another invocation has been recorded since, that record stays."""
    database = MemoryDynamoDB()
    before: dict[str, Any] = (
        {} if invoked_at is None else {"reconciler_invoked_at": {"S": invoked_at}}
    )
    put(database, "T1", "SUBMITTED", **before)
    task = read(database)
    assert carry_out(database, store(database).set_last_invocation("T1", NOW))
    assert read(database).invoked_at == timestamp(NOW)
    later = NOW + timedelta(seconds=1)
    assert not carry_out(database, store(database).unset_last_invocation(task, later))
    assert carry_out(database, store(database).unset_last_invocation(task, NOW))
    assert read(database) == task


def test_a_task_condition_requires_its_user_and_key() -> None:
    database = MemoryDynamoDB()
    put(database, "T1", "RUNNING", idempotency_key={"S": "k"})
    task = Task("T1", "RUNNING", user_id="ada", idempotency_key="k")
    for expected, holds in (
        (task, True),
        (Task("T1", "RUNNING", user_id="bob", idempotency_key="k"), False),
        (Task("T1", "RUNNING", user_id="ada", idempotency_key="other"), False),
        (Task("T2", "RUNNING", user_id="ada", idempotency_key="k"), False),
    ):
        assert carry_out(database, store(database).expect_task(expected)) is holds


DRAFT = TaskDraft(
    task_id="T1",
    user_id="ada",
    branch_name="bgagent/T1/do-it",
    idempotency_key="o_a",
    description="Do it",
    repo="acme/web",
    channel_source="linear",
    created_at=ago(0),
    metadata={"orchestration_id": "o"},
    issue={"linear_issue_id": "a"},
)


def test_a_new_tasks_row_has_no_empty_lists() -> None:
    item = task_item(DRAFT)
    assert {"attachments", "team_ids"}.isdisjoint(item)
    assert (item["approval_gate_cap"], item["approval_gate_count"]) == ({"N": "50"}, {"N": "0"})
    assert item["resolved_workflow"]["M"]["version"] == {"S": "1.0.0"}
    assert item["linear_issue_id"] == {"S": "a"}
    stored = {"M": {"attachment_id": {"S": "x"}}}
    attachment = Attachment("x", passed=True, size_bytes=Decimal(3), stored=stored)
    full = replace(DRAFT, attachments=(attachment,), team_ids=("growth",))
    assert task_item(full)["attachments"] == {"L": [stored]}
    assert task_item(full)["team_ids"] == {"L": [{"S": "growth"}]}


def test_a_task_is_created_only_once() -> None:
    """Its row names the sweep that created it."""
    database = MemoryDynamoDB()
    assert carry_out(database, store(database).create(DRAFT, "sweep-1"))
    assert not carry_out(database, store(database).create(DRAFT, "sweep-2"))
    assert read(database).sweep_id == "sweep-1"
