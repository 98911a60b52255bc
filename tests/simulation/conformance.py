"""The servers that the in-memory DynamoDB is compared with, and short helpers for their calls."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from reconciler.embedded.moto_server import moto_server
from tests.simulation.memory_dynamodb import MemoryDynamoDB
from tests.simulation.storage import TableSpec, contract_tables
from tests.support.dynamodb_local import dynamodb_local

ROWS, TASKS, EVENTS = "OrchestrationTable", "TaskTable", "TaskEventsTable"

SPECS = contract_tables()


def _create(client: Any, spec: TableSpec) -> None:
    def schema(names: tuple[str, ...]) -> list[dict[str, str]]:
        return [
            {"AttributeName": name, "KeyType": kind}
            for name, kind in zip(names, ("HASH", "RANGE"), strict=False)
        ]

    keys = {n for k in (spec.key, *(i.key for i in spec.indexes.values())) for n in k.names}
    indexes = [
        {
            "IndexName": name,
            "KeySchema": schema(index.key.names),
            "Projection": {"ProjectionType": "KEYS_ONLY" if index.keys_only else "ALL"},
        }
        for name, index in spec.indexes.items()
    ]
    client.create_table(
        TableName=spec.name,
        KeySchema=schema(spec.key.names),
        AttributeDefinitions=[
            {"AttributeName": name, "AttributeType": "S"} for name in sorted(keys)
        ],
        BillingMode="PAY_PER_REQUEST",
        **({"GlobalSecondaryIndexes": indexes} if indexes else {}),
    )


@pytest.fixture(scope="session", params=["memory", "moto", "dynamodb-local"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    directory = tmp_path_factory.mktemp("server")
    if request.param == "memory":
        yield None
        return
    start = moto_server if request.param == "moto" else dynamodb_local
    with start(Path(directory)) as endpoint:
        yield boto3.client(
            "dynamodb",
            endpoint_url=endpoint,
            region_name="eu-west-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(retries={"total_max_attempts": 1}),
        )


@pytest.fixture
def db(server: Any) -> Iterator[Any]:
    if server is None:
        yield MemoryDynamoDB()
        return
    for spec in SPECS:
        _create(server, spec)
    yield server
    for spec in SPECS:
        server.delete_table(TableName=spec.name)


def key(name: str, orchestration: str = "orch_1") -> dict[str, Any]:
    return {"orchestration_id": {"S": orchestration}, "sub_issue_id": {"S": name}}


def put(db: Any, name: str, **attributes: Any) -> None:
    db.put_item(TableName=ROWS, Item={**key(name), **attributes})


def get(db: Any, name: str) -> Any:
    return db.get_item(TableName=ROWS, Key=key(name), ConsistentRead=True).get("Item")


def update(db: Any, name: str, change: str, condition: str | None = None, **more: Any) -> Any:
    if condition is not None:
        more["ConditionExpression"] = condition
    return db.update_item(TableName=ROWS, Key=key(name), UpdateExpression=change, **more)


def refused(call: Any, code: str = "ConditionalCheckFailedException") -> dict[str, Any]:
    with pytest.raises(ClientError) as caught:
        call()
    assert caught.value.response["Error"]["Code"] == code
    return dict(caught.value.response)
