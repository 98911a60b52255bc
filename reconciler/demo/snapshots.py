"""Snapshots: complete reads of the tables, for the observer and the view."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reconciler.clock import utc_now
from reconciler.demo.observer import Recovery, Snapshot
from reconciler.domain.model import Item, moment
from reconciler.settings import Settings
from reconciler.stores.items import text
from reconciler.stores.rows import parse_orchestration, parse_task

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


def take_snapshot(client: DynamoDBClient, settings: Settings) -> Snapshot:
    """Read everything, strongly consistent; for small tables only.

    Rows are read before tasks, so that the snapshot has every task that a row names.
    """
    at = utc_now()
    rows: dict[str, list[Item]] = {}
    for item in _scan(client, settings.orchestration_table_name):
        rows.setdefault(item["orchestration_id"]["S"], []).append(item)
    orchestrations = {
        key: found
        for key, items in rows.items()
        if (found := parse_orchestration(key, items)) is not None
    }
    tasks = {
        item["task_id"]["S"]: parse_task(item) for item in _scan(client, settings.task_table_name)
    }
    events = _scan(
        client,
        settings.task_events_table_name,
        FilterExpression="event_type = :recovered",
        ExpressionAttributeValues={":recovered": {"S": "orchestration_recovered"}},
    )
    repairs = (recovery for item in events if (recovery := _recovery(item)) is not None)
    recoveries = sorted(repairs, key=lambda recovery: (recovery.at, recovery.child))
    return Snapshot(at, orchestrations, tasks, tuple(recoveries))


def _scan(client: DynamoDBClient, table: str, **request: Any) -> list[Item]:  # noqa: ANN401 - boto3's
    pages = client.get_paginator("scan").paginate(TableName=table, ConsistentRead=True, **request)
    items: list[Item] = pages.build_full_result()["Items"]
    return items


def _recovery(item: Item) -> Recovery | None:
    metadata = item.get("metadata", {}).get("M", {})
    orchestration_id = text(metadata, "orchestration_id")
    at = moment(text(item, "timestamp"))
    if orchestration_id is None or at is None:
        return None
    return Recovery(
        child=(orchestration_id, text(metadata, "sub_issue_id") or ""),
        code=text(metadata, "code") or "",
        at=at,
    )
