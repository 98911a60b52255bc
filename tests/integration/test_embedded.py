"""The embedded servers and the tables on them, which every other suite uses."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis
from mypy_boto3_dynamodb import DynamoDBClient
from mypy_boto3_dynamodb.type_defs import KeySchemaElementTypeDef

from reconciler.embedded.process import EmbeddedServerError, free_port, running
from reconciler.embedded.valkey import valkey_server
from reconciler.settings import Settings
from reconciler.tables import create_tables_of
from tests.support.world import World, make_client

pytestmark = pytest.mark.integration


def _create(client: DynamoDBClient, prefix: str) -> None:
    settings = Settings(
        orchestration_table_name=f"{prefix}-Orchestration",
        task_table_name=f"{prefix}-Task",
        task_events_table_name=f"{prefix}-Events",
        user_concurrency_table_name=f"{prefix}-Users",
        repo_table_name=f"{prefix}-Repos",
    )
    create_tables_of(client, settings)


def _keys(schema: Sequence[KeySchemaElementTypeDef]) -> list[str]:
    return [key["AttributeName"] for key in sorted(schema, key=lambda key: key["KeyType"])]


@pytest.mark.parametrize(
    ("table", "keys"),
    [
        ("Orchestration", ["orchestration_id", "sub_issue_id"]),
        ("Task", ["task_id"]),
        ("Events", ["task_id", "event_id"]),
        ("Users", ["user_id"]),
        ("Repos", ["repo"]),
    ],
)
def test_tables_have_the_keys_of_the_contract(endpoint: str, table: str, keys: list[str]) -> None:
    client = make_client(endpoint)
    _create(client, "keys")
    described = client.describe_table(TableName=f"keys-{table}")["Table"]
    assert _keys(described["KeySchema"]) == keys
    assert described["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"


@pytest.mark.parametrize(
    ("table", "indexes"),
    [
        (
            "Orchestration",
            {
                "ChildTaskIndex": (["child_task_id"], "ALL"),
                "ChildBranchIndex": (["child_branch_name"], "ALL"),
            },
        ),
        (
            "Task",
            {
                "UserStatusIndex": (["user_id", "status_created_at"], "ALL"),
                "StatusIndex": (["status", "created_at"], "ALL"),
                "IdempotencyIndex": (["idempotency_key"], "KEYS_ONLY"),
                "LinearIssueIndex": (["linear_issue_id", "created_at"], "ALL"),
                "JiraIssueIndex": (["jira_issue_identity", "created_at"], "ALL"),
            },
        ),
    ],
)
def test_tables_have_the_indexes_of_the_contract(
    endpoint: str, table: str, indexes: dict[str, tuple[list[str], str]]
) -> None:
    client = make_client(endpoint)
    _create(client, "indexes")
    described = client.describe_table(TableName=f"indexes-{table}")["Table"]
    found = {
        index["IndexName"]: (
            _keys(index["KeySchema"]),
            index["Projection"]["ProjectionType"],
        )
        for index in described["GlobalSecondaryIndexes"]
    }
    assert found == indexes


def test_only_the_task_table_has_a_stream(endpoint: str) -> None:
    """The stream carries new images."""
    client = make_client(endpoint)
    _create(client, "stream")
    streams = {
        name: client.describe_table(TableName=f"stream-{name}")["Table"].get("StreamSpecification")
        for name in ("Orchestration", "Task", "Events")
    }
    assert streams["Task"] == {"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"}
    assert not streams["Orchestration"]
    assert not streams["Events"]


def test_creating_tables_again_keeps_their_rows(endpoint: str) -> None:
    """Several callers may create the tables at the same time."""
    client = make_client(endpoint)
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(_create, client, "again") for _ in range(4)]:
            done.result()
    client.put_item(TableName="again-Repos", Item={"repo": {"S": "acme/shop"}})
    _create(client, "again")
    assert client.scan(TableName="again-Repos")["Items"] == [{"repo": {"S": "acme/shop"}}]
    for table in ("Orchestration", "Task", "Events"):
        described = client.describe_time_to_live(TableName=f"again-{table}")
        assert described["TimeToLiveDescription"] == {
            "TimeToLiveStatus": "ENABLED",
            "AttributeName": "ttl",
        }


def test_a_table_without_ttl_gets_one(endpoint: str) -> None:
    client = make_client(endpoint)
    client.create_table(
        TableName="half-Events",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[
            {"AttributeName": "task_id", "AttributeType": "S"},
            {"AttributeName": "event_id", "AttributeType": "S"},
        ],
        KeySchema=[
            {"AttributeName": "task_id", "KeyType": "HASH"},
            {"AttributeName": "event_id", "KeyType": "RANGE"},
        ],
    )
    _create(client, "half")
    described = client.describe_time_to_live(TableName="half-Events")["TimeToLiveDescription"]
    assert described["TimeToLiveStatus"] == "ENABLED"


def test_a_cancelled_transaction_names_the_failed_item(world: World) -> None:
    """It also returns the row that failed the condition."""
    table = world.settings.task_table_name
    world.put(table, {"task_id": {"S": "there"}, "status": {"S": "RUNNING"}})
    with pytest.raises(world.client.exceptions.TransactionCanceledException) as raised:
        world.client.transact_write_items(
            TransactItems=[
                {"Put": {"TableName": table, "Item": {"task_id": {"S": "new"}}}},
                {
                    "ConditionCheck": {
                        "TableName": table,
                        "Key": {"task_id": {"S": "there"}},
                        "ConditionExpression": "attribute_not_exists(task_id)",
                        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
                    }
                },
            ]
        )
    reasons = raised.value.response["CancellationReasons"]
    assert [reason["Code"] for reason in reasons] == ["None", "ConditionalCheckFailed"]
    assert reasons[1]["Item"] == {"task_id": {"S": "there"}, "status": {"S": "RUNNING"}}


def test_cancelled_transactions_undo_no_other_write(world: World) -> None:
    table = world.settings.task_table_name
    world.put(table, {"task_id": {"S": "there"}})
    barrier = threading.Barrier(4)
    per_thread = 40

    def write(number: int) -> None:
        barrier.wait()
        for n in range(per_thread):
            world.put(table, {"task_id": {"S": f"{number}-{n}"}})

    def lose() -> None:
        barrier.wait()
        condition = {"ConditionExpression": "attribute_not_exists(task_id)"}
        item = {"TableName": table, "Item": {"task_id": {"S": "there"}}, **condition}
        for _ in range(per_thread):
            with pytest.raises(world.client.exceptions.TransactionCanceledException):
                world.client.transact_write_items(TransactItems=[{"Put": item}])  # type: ignore[typeddict-item]

    jobs: list[Callable[[], None]] = [lambda: write(0), lambda: write(1), lose, lose]
    with ThreadPoolExecutor(len(jobs)) as pool:
        for done in [pool.submit(job) for job in jobs]:
            done.result()
    assert len(world.scan(table)) == 1 + 2 * per_thread


def test_a_durable_broker_keeps_its_queue_when_killed(tmp_path: Path) -> None:
    port = free_port()
    with valkey_server(tmp_path, port) as url, redis.Redis.from_url(url) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        client.lpush("queue", "message")
        client.waitaof(1, 0, 5000)
        os.kill(int(client.info("server")["process_id"]), signal.SIGKILL)
    with valkey_server(tmp_path, port) as url, redis.Redis.from_url(url) as client:
        assert client.lrange("queue", 0, -1) == [b"message"]


def test_a_server_is_gone_when_its_block_ends(tmp_path: Path) -> None:
    port = free_port()
    with valkey_server(tmp_path, port):
        pass
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_server_that_ends_at_once_says_why(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no memory left')"]
    with (
        pytest.raises(EmbeddedServerError, match="ended: no memory left"),
        running(command, ready=lambda: False, log=tmp_path / "log"),
    ):
        pytest.fail("it never came up")
