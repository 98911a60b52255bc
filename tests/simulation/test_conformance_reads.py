"""The in-memory DynamoDB answers queries, scans and batch reads as the real one does."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from tests.simulation.conformance import EVENTS, ROWS, TASKS, get, key, put, refused, update

pytestmark = [
    pytest.mark.simulation,
    # One process runs all of this group, and starts its servers once.
    pytest.mark.xdist_group("conformance"),
]


def test_a_query_pages_through_a_partition_in_order(db: Any) -> None:
    for name in ("b", "#meta", "a", "c#mark"):
        put(db, name)
    db.put_item(TableName=ROWS, Item=key("z", "orch_2"))
    found: list[str] = []
    more: dict[str, Any] = {}
    while True:
        page = db.query(
            TableName=ROWS,
            KeyConditionExpression="orchestration_id = :id",
            ExpressionAttributeValues={":id": {"S": "orch_1"}},
            Limit=3,
            **more,
        )
        found.extend(item["sub_issue_id"]["S"] for item in page["Items"])
        if "LastEvaluatedKey" not in page:
            break
        more = {"ExclusiveStartKey": page["LastEvaluatedKey"]}
    assert found == ["#meta", "a", "b", "c#mark"]


def test_a_sparse_index_leaves_out_keyless_items(db: Any) -> None:
    """It shows only the keys of an item."""
    db.put_item(
        TableName=TASKS,
        Item={"task_id": {"S": "t1"}, "idempotency_key": {"S": "k"}, "x": {"S": "1"}},
    )
    db.put_item(TableName=TASKS, Item={"task_id": {"S": "t2"}})
    page = db.query(
        TableName=TASKS,
        IndexName="IdempotencyIndex",
        KeyConditionExpression="idempotency_key = :k",
        ExpressionAttributeValues={":k": {"S": "k"}},
    )
    assert page["Items"] == [{"task_id": {"S": "t1"}, "idempotency_key": {"S": "k"}}]


def test_an_index_query_follows_the_sort_key(db: Any) -> None:
    for task, status in (("t1", "SUBMITTED#1"), ("t2", "RUNNING#1"), ("t3", "SUBMITTED#0")):
        item = {"task_id": {"S": task}, "user_id": {"S": "u"}, "status_created_at": {"S": status}}
        db.put_item(TableName=TASKS, Item=item)
    page = db.query(
        TableName=TASKS,
        IndexName="UserStatusIndex",
        KeyConditionExpression="user_id = :u AND begins_with(status_created_at, :s)",
        ExpressionAttributeValues={":u": {"S": "u"}, ":s": {"S": "SUBMITTED#"}},
    )
    assert [item["task_id"]["S"] for item in page["Items"]] == ["t3", "t1"]


def test_an_index_query_filters_by_map_entries(db: Any) -> None:
    for task, status, marks in (
        ("t1", "RUNNING#1", {"iteration": {"S": "true"}}),
        ("t2", "COMPLETED#1", {"iteration": {"S": "true"}}),
        ("t3", "SUBMITTED#0", {"iteration": {"S": "false"}}),
        ("t4", "HYDRATING#1", {}),
        ("t5", "FINALIZING#1", None),
    ):
        item: dict[str, Any] = {"task_id": {"S": task}, "user_id": {"S": "u"}}
        item["status_created_at"] = {"S": status}
        if marks is not None:
            item["channel_metadata"] = {"M": marks}
        db.put_item(TableName=TASKS, Item=item)
    page = db.query(
        TableName=TASKS,
        IndexName="UserStatusIndex",
        KeyConditionExpression="user_id = :u AND status_created_at BETWEEN :low AND :high",
        FilterExpression="#m.#i = :true",
        ProjectionExpression="task_id",
        ExpressionAttributeNames={"#m": "channel_metadata", "#i": "iteration"},
        ExpressionAttributeValues={
            ":u": {"S": "u"},
            ":low": {"S": "FINALIZING#"},
            ":high": {"S": "SUBMITTED#~"},
            ":true": {"S": "true"},
        },
    )
    assert page["Items"] == [{"task_id": {"S": "t1"}}]
    assert (page["Count"], page["ScannedCount"]) == (1, 4)


def test_an_index_cannot_be_read_consistently(db: Any, request: pytest.FixtureRequest) -> None:
    if "moto" in request.node.name:
        pytest.skip("moto allows it; the service does not")
    refused(
        lambda: db.query(
            TableName=TASKS,
            IndexName="IdempotencyIndex",
            ConsistentRead=True,
            KeyConditionExpression="idempotency_key = :k",
            ExpressionAttributeValues={":k": {"S": "k"}},
        ),
        "ValidationException",
    )


@pytest.mark.parametrize("total", [1, 3])
def test_segments_read_every_row_once(db: Any, total: int) -> None:
    """This holds with a projection and a limit, and an orchestration's rows stay together."""
    wanted = set()
    for number in range(6):
        for name in ("#meta", "a"):
            wanted.add((f"orch_{number}", name))
            item = {**key(name, f"orch_{number}"), "title": {"S": "t"}, "rest": {"S": "r"}}
            db.put_item(TableName=ROWS, Item=item)
    found: list[tuple[str, str]] = []
    for segment in range(total):
        more: dict[str, Any] = {}
        while True:
            page = db.scan(
                TableName=ROWS,
                Segment=segment,
                TotalSegments=total,
                Limit=2,
                ProjectionExpression="#o, sub_issue_id, title",
                ExpressionAttributeNames={"#o": "orchestration_id"},
                **more,
            )
            assert all(
                set(item) == {"orchestration_id", "sub_issue_id", "title"} for item in page["Items"]
            )
            found.extend(
                (i["orchestration_id"]["S"], i["sub_issue_id"]["S"]) for i in page["Items"]
            )
            if "LastEvaluatedKey" not in page:
                break
            more = {"ExclusiveStartKey": page["LastEvaluatedKey"]}
    assert len(found) == len(wanted)
    assert set(found) == wanted
    at = [orchestration for orchestration, _ in found]
    assert sum(a != b for a, b in pairwise(at)) == 5, "the rows of an orchestration stay together"


def test_a_batch_read_projects_existing_items(db: Any) -> None:
    put(db, "a", title={"S": "t"})
    page = db.batch_get_item(
        RequestItems={
            ROWS: {
                "Keys": [key("a"), key("none")],
                "ConsistentRead": True,
                "ProjectionExpression": "#t",
                "ExpressionAttributeNames": {"#t": "title"},
            }
        }
    )
    assert page["Responses"][ROWS] == [{"title": {"S": "t"}}]
    assert not page["UnprocessedKeys"]


def test_a_filter_is_applied_after_reading(db: Any) -> None:
    for number, kind in enumerate(("x", "y", "x")):
        item = {"task_id": {"S": "t"}, "event_id": {"S": str(number)}, "event_type": {"S": kind}}
        db.put_item(TableName=EVENTS, Item=item)
    page = db.query(
        TableName=EVENTS,
        KeyConditionExpression="task_id = :t",
        FilterExpression="event_type = :x",
        ExpressionAttributeValues={":t": {"S": "t"}, ":x": {"S": "x"}},
    )
    assert (page["Count"], page["ScannedCount"]) == (2, 3)


def test_a_missing_table_is_reported(db: Any) -> None:
    refused(
        lambda: db.get_item(TableName="Nowhere", Key={"task_id": {"S": "t"}}),
        "ResourceNotFoundException",
    )


def test_an_item_above_400_kilobytes_is_rejected(db: Any) -> None:
    refused(lambda: put(db, "big", text={"S": "x" * 409_700}), "ValidationException")
    assert get(db, "big") is None


def test_capacity_is_counted(db: Any, request: pytest.FixtureRequest) -> None:
    if "moto" in request.node.name:
        pytest.skip("moto counts every request as one unit")
    put(db, "a", text={"S": "x" * 5000})
    got = db.get_item(TableName=ROWS, Key=key("a"), ReturnConsumedCapacity="TOTAL")
    assert got["ConsumedCapacity"]["CapacityUnits"] == 1.0
    got = db.get_item(
        TableName=ROWS, Key=key("a"), ConsistentRead=True, ReturnConsumedCapacity="TOTAL"
    )
    assert got["ConsumedCapacity"]["CapacityUnits"] == 2.0
    done = update(
        db,
        "a",
        "SET n = :n",
        ExpressionAttributeValues={":n": {"N": "1"}},
        ReturnConsumedCapacity="TOTAL",
    )
    assert done["ConsumedCapacity"]["CapacityUnits"] == 5.0
    made = db.transact_write_items(
        TransactItems=[{"Put": {"TableName": TASKS, "Item": {"task_id": {"S": "t"}}}}],
        ReturnConsumedCapacity="TOTAL",
    )
    # DynamoDB Local counts the conditional read of a transaction as well.
    assert [entry["CapacityUnits"] for entry in made["ConsumedCapacity"]] in ([2.0], [4.0])
