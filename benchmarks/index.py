"""Compares a sweep by an index of active children with its floor.

``docs/scaling.md`` explains the design, its limits and these numbers. The index is added to an
empty table, which is then filled. With plain boto3, the floor reads everything active through the
index, and the tasks of running children. One change of status is also written with the index and
without it, because production pays for every such write.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.metering import Meter, Run
from benchmarks.place import Place
from reconciler.domain.model import ACTIVE_CHILD
from reconciler.tables import Table, with_active_index

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

INDEX = "ChildStatusIndex"
_PER_BATCH = 100


def add(place: Place) -> None:
    """Add the index to the table, which is still empty."""
    client = place.client()
    (index,) = with_active_index(Table(()), INDEX).indexes
    client.update_table(
        TableName=place.orchestrations,
        AttributeDefinitions=[
            {"AttributeName": name, "AttributeType": "S"}
            for name in (*index.keys, "sub_issue_id", "child_task_id", "child_branch_name")
        ],
        GlobalSecondaryIndexUpdates=[
            {
                "Create": {
                    "IndexName": INDEX,
                    "KeySchema": [
                        {"AttributeName": index.keys[0], "KeyType": "HASH"},
                        {"AttributeName": index.keys[1], "KeyType": "RANGE"},
                    ],
                    "Projection": {
                        "ProjectionType": "INCLUDE",
                        "NonKeyAttributes": [*index.include],
                    },
                }
            }
        ],
    )


def prepare(place: Place, meter: Meter) -> Run:
    """Return a run that reads everything active through the index."""
    client = place.client()
    meter.attach(client)

    def run() -> dict[str, Any]:
        rows = [row for status in ACTIVE_CHILD for row in _query(client, place, status)]
        running = [row["child_task_id"]["S"] for row in rows if "child_task_id" in row]
        for at in range(0, len(running), _PER_BATCH):
            keys = [{"task_id": {"S": task_id}} for task_id in running[at : at + _PER_BATCH]]
            client.batch_get_item(
                RequestItems={place.tasks: {"Keys": keys}}, ReturnConsumedCapacity="TOTAL"
            )
        return {"rows": len(rows), "tasks": len(running)}

    return run


def _query(client: DynamoDBClient, place: Place, status: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    request: dict[str, Any] = {
        "TableName": place.orchestrations,
        "IndexName": INDEX,
        "KeyConditionExpression": "child_status = :status",
        "ExpressionAttributeValues": {":status": {"S": status}},
        "ReturnConsumedCapacity": "TOTAL",
    }
    while True:
        page = client.query(**request)
        rows.extend(page["Items"])
        if "LastEvaluatedKey" not in page:
            return rows
        request["ExclusiveStartKey"] = page["LastEvaluatedKey"]


def units_of_a_change(place: Place) -> float:
    """Set the status of one child, as the platform does, and return the write units consumed."""
    client = place.client()
    found: list[Any] = []
    for page in client.get_paginator("scan").paginate(TableName=place.orchestrations):
        found.extend(
            item for item in page["Items"] if item.get("child_status", {}).get("S") == "released"
        )
        if found:
            break
    key = {name: found[0][name] for name in ("orchestration_id", "sub_issue_id")}
    answer = client.update_item(
        TableName=place.orchestrations,
        Key=key,
        UpdateExpression="SET child_status = :status, updated_at = :at",
        ExpressionAttributeValues={
            ":status": {"S": "succeeded"},
            ":at": {"S": "2026-01-01T00:00:00.000Z"},
        },
        ReturnConsumedCapacity="TOTAL",
    )
    return float(answer["ConsumedCapacity"]["CapacityUnits"])
