"""The manual steps of the runbook work as it says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import boto3
import pytest
from botocore import xform_name
from botocore.exceptions import ClientError

from tests.conftest import Servers
from tests.support.runbook import commands
from tests.support.world import World

pytestmark = pytest.mark.integration


@pytest.fixture
def endpoint(servers: Servers) -> str:
    """One of the two endpoints is enough for commands that are typed."""
    return servers.endpoint("moto")


def typed(world: World, command: Sequence[str], **names: str) -> dict[str, Any]:
    """Carry out an ``aws dynamodb …`` command, with its placeholders replaced."""
    _, service, operation, *options = command
    client = boto3.Session("testing", "testing", region_name="us-east-1").client(
        "dynamodb", endpoint_url=world.endpoint
    )
    assert service == "dynamodb"
    method = operation.replace("-", "_")
    shape = client.meta.service_model.operation_model(
        client.meta.method_to_api_mapping[method]
    ).input_shape
    assert shape is not None
    members = {f"--{xform_name(member, '-')}": member for member in shape.members}
    given: dict[str, Any] = {}
    tables = {f"${name.upper()}": str(v) for name, v in world.settings.model_dump().items()}
    for option, value in zip(options[::2], options[1::2], strict=True):
        text = tables.get(value, value)
        for name, put in names.items():
            text = text.replace(f'"{name}"', f'"{put}"')
        structured = shape.members[members[option]].type_name in {"map", "list", "structure"}
        given[members[option]] = json.loads(text) if structured else text
    answer: dict[str, Any] = getattr(client, method)(**given)
    return answer


def by_operation(operation: str) -> list[tuple[str, ...]]:
    found = [c for c in commands() if c[0] == "aws" and c[2] == operation]
    assert found
    return found


def test_a_child_without_its_task_is_put_back(world: World) -> None:
    """It is released once; the command fails if the status has changed."""
    found = world.seed({"a": []}, {"a": "released"}, tasks={"a": "RUNNING"})
    (task,) = world.tasks(found, "a")
    world.client.delete_item(
        TableName=world.settings.task_table_name, Key={"task_id": task["task_id"]}
    )
    reconciler = world.reconciler()
    before = reconciler.evaluate(found)
    assert [child.code for child in before.children] == ["missing_task"]
    (put_back,) = by_operation("update-item")
    typed(world, put_back, ORCHESTRATION=found, CHILD="a")
    assert reconciler.release(found, "a").outcome == "released"
    (made,) = world.tasks(found, "a")
    assert made["task_id"] != task["task_id"]
    assert world.statuses(found) == {"a": "released"}
    world.change(found, "a", child_status="succeeded")
    with pytest.raises(ClientError, match="ConditionalCheckFailed"):
        typed(world, put_back, ORCHESTRATION=found, CHILD="a")


def test_the_read_commands_of_the_runbook_work(make_world: Any) -> None:
    world: World = make_world(USER_CONCURRENCY_TABLE_NAME="{prefix}-Users")
    found = world.seed({"a": []}, {"a": "released"}, tasks={"a": "RUNNING"})
    (task,) = world.tasks(found, "a")
    (count,) = by_operation("query")
    assert typed(world, count, USER="user-1")["Count"] == 1
    for get in by_operation("get-item"):
        answer = typed(world, get, USER="user-1", TASK=task["task_id"]["S"])
        assert ("Item" in answer) is ('"TASK"' in " ".join(get))
    for describe in by_operation("describe-table"):
        assert typed(world, describe)["Table"]
