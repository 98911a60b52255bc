"""The shapes of the platform's tables, for the demo, the tests, the benchmark and the doctor.

The reconciler never creates tables in production.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from reconciler.settings import Settings
from reconciler.stores.rows import ACTIVE_ATTRIBUTES

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


@dataclass(frozen=True, slots=True)
class Index:
    """A global secondary index: one or two key attributes, and what it projects.

    ``include``: the projected attributes besides the keys, if it does not project all.
    """

    name: str
    keys: tuple[str, ...]
    projection: str = "ALL"
    include: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """A table's shape: key attributes (partition, sort), indexes, TTL and stream."""

    keys: tuple[str, ...]
    indexes: tuple[Index, ...] = ()
    ttl: bool = False
    stream: bool = False


ORCHESTRATION = Table(
    keys=("orchestration_id", "sub_issue_id"),
    indexes=(
        Index("ChildTaskIndex", ("child_task_id",)),
        Index("ChildBranchIndex", ("child_branch_name",)),
    ),
    ttl=True,
)


def with_active_index(table: Table, name: str | None) -> Table:
    """Return OrchestrationTable with the index in ``ACTIVE_INDEX_NAME``, if set."""
    if name is None:
        return table
    keys = ("child_status", "orchestration_id")
    rest = tuple(each for each in ACTIVE_ATTRIBUTES if each not in {*keys, *table.keys})
    return replace(table, indexes=(*table.indexes, Index(name, keys, "INCLUDE", rest)))


TASK = Table(
    keys=("task_id",),
    indexes=(
        Index("UserStatusIndex", ("user_id", "status_created_at")),
        Index("StatusIndex", ("status", "created_at")),
        Index("IdempotencyIndex", ("idempotency_key",), "KEYS_ONLY"),
        Index("LinearIssueIndex", ("linear_issue_id", "created_at")),
        Index("JiraIssueIndex", ("jira_issue_identity", "created_at")),
    ),
    ttl=True,
    stream=True,
)
TABLES = {
    "orchestration": ORCHESTRATION,
    "task": TASK,
    "task_events": Table(keys=("task_id", "event_id"), ttl=True),
    "user_concurrency": Table(keys=("user_id",)),
    "repo": Table(keys=("repo",)),
    "budget": Table(keys=("scope_key", "period")),
}
"""Use of a table → its shape; the setting of its name is ``<use>_table_name``."""


def tables_of(settings: Settings) -> dict[str, tuple[str, Table]]:
    """Return the names and the shapes of the tables that the settings name, by use."""
    names = {use: getattr(settings, f"{use}_table_name") for use in TABLES}
    orchestration = with_active_index(ORCHESTRATION, settings.active_index_name)
    shapes = {**TABLES, "orchestration": orchestration}
    return {use: (name, shapes[use]) for use, name in names.items() if name is not None}


def create_tables_of(client: DynamoDBClient, settings: Settings) -> None:
    """Create the tables that the settings name; existing ones are left alone."""
    for name, table in tables_of(settings).values():
        create_table(client, name, table)


def create_table(client: DynamoDBClient, name: str, table: Table) -> None:
    """Create one table, unless it exists."""
    # It exists, or somebody else is creating it.
    with suppress(client.exceptions.ResourceInUseException):
        client.create_table(**_definition(name, table))
    client.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1})
    if table.ttl:
        _expire(client, name)


def _expire(client: DynamoDBClient, name: str) -> None:
    """Switch TTL on; ignore DynamoDB's error if it is on already."""
    try:
        client.update_time_to_live(
            TableName=name, TimeToLiveSpecification={"Enabled": True, "AttributeName": "ttl"}
        )
    except client.exceptions.ClientError:
        found = client.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
        if found.get("TimeToLiveStatus") not in {"ENABLING", "ENABLED"}:
            raise


def _definition(name: str, table: Table) -> dict[str, Any]:
    attributes = {*table.keys, *(key for index in table.indexes for key in index.keys)}
    definition: dict[str, Any] = {
        "TableName": name,
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [
            {"AttributeName": attribute, "AttributeType": "S"} for attribute in sorted(attributes)
        ],
        "KeySchema": _key_schema(table.keys),
    }
    if table.indexes:
        definition["GlobalSecondaryIndexes"] = list(map(_index_definition, table.indexes))
    if table.stream:
        stream = {"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"}
        definition["StreamSpecification"] = stream
    return definition


def _index_definition(index: Index) -> dict[str, Any]:
    projection: dict[str, Any] = {"ProjectionType": index.projection}
    if index.include:
        projection["NonKeyAttributes"] = list(index.include)
    keys = _key_schema(index.keys)
    return {"IndexName": index.name, "KeySchema": keys, "Projection": projection}


def _key_schema(keys: tuple[str, ...]) -> list[dict[str, str]]:
    return [
        {"AttributeName": key, "KeyType": kind}
        for key, kind in zip(keys, ("HASH", "RANGE"), strict=False)
    ]
