"""Throttles are counted as they happen, even those that the client retries by itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from botocore.config import Config

from reconciler.composition import client_config
from reconciler.embedded import loopback
from reconciler.errors import ThrottledError
from reconciler.stores.dynamodb import DynamoDB, count_throttles
from tests.support.faulty_endpoint import in_json
from tests.support.metrics import RecordingMetrics
from tests.support.world import EmulatorSession, World

pytestmark = pytest.mark.integration

Answer = tuple[int, dict[str, Any]]
REFUSED: Answer = (400, {"__type": "com.amazonaws#ProvisionedThroughputExceededException"})
WRITES: dict[str, dict[str, Any]] = {
    "row": {"Put": {"TableName": "orchestrations", "Item": {"k": {"S": "a"}}}},
    "task": {"Put": {"TableName": "tasks", "Item": {"k": {"S": "a"}}}},
}


@contextmanager
def answering(*answers: Answer) -> Iterator[tuple[DynamoDB, RecordingMetrics]]:
    """Yield a store whose table gives these answers in order, and repeats the last one."""
    left = list(answers)

    def answer(_: loopback.Request) -> loopback.Answer:
        status, said = left.pop(0) if len(left) > 1 else left[0]
        return in_json(status, said)

    twice = Config(retries={"mode": "standard", "total_max_attempts": 2})
    with loopback.answering(answer) as url:
        client = EmulatorSession(url).client("dynamodb", config=client_config().merge(twice))
        metrics = RecordingMetrics()
        count_throttles(client, metrics)
        with closing(client):
            yield DynamoDB(client, metrics, sleep=lambda _: None), metrics


def throttles(metrics: RecordingMetrics) -> dict[str, float]:
    return {
        dict(labels)["table"]: value
        for (name, labels), value in metrics.counters.items()
        if name == "reconciler_dynamodb_throttles_total"
    }


def test_a_throttle_that_is_retried_counts() -> None:
    with answering(REFUSED, (200, {"Item": {}, "ConsumedCapacity": {}})) as (dynamodb, metrics):
        dynamodb.call("get_item", TableName="orchestrations", Key={"k": {"S": "a"}})
    assert throttles(metrics) == {"orchestrations": 1}


def test_every_attempt_of_a_failed_request_counts() -> None:
    with answering(REFUSED) as (dynamodb, metrics), pytest.raises(ThrottledError):
        dynamodb.call("scan", TableName="orchestrations")
    assert throttles(metrics) == {"orchestrations": 2}


def test_a_transaction_counts_only_the_throttled_table() -> None:
    cancelled = (
        400,
        {
            "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
            "CancellationReasons": [{"Code": "None"}, {"Code": "ThrottlingError"}],
        },
    )
    with answering(cancelled, (200, {})) as (dynamodb, metrics):
        assert dynamodb.transact(WRITES) is None
    assert throttles(metrics) == {"tasks": 1}


def test_unprocessed_keys_of_a_batch_count() -> None:
    keys = {"tasks": {"Keys": [{"k": {"S": "a"}}]}}
    with answering((200, {"Responses": {}, "UnprocessedKeys": keys})) as (dynamodb, metrics):
        dynamodb.call("batch_get_item", RequestItems=keys)
    assert throttles(metrics) == {"tasks": 1}


def test_other_errors_are_no_throttles() -> None:
    failed = (500, {"__type": "com.amazonaws#InternalServerError"})
    with answering(failed, (200, {"Item": {}, "ConsumedCapacity": {}})) as (dynamodb, metrics):
        dynamodb.call("get_item", TableName="orchestrations", Key={"k": {"S": "a"}})
    assert throttles(metrics) == {}


def test_unprocessed_keys_of_full_answers_are_no_throttle(world: World) -> None:
    """Sixty tasks of 300 KB are more than fits in an answer of 16 MB."""
    ids = [f"{number:026}" for number in range(60)]
    for task_id in ids:
        large = {"task_id": {"S": task_id}, "task_description": {"S": "x" * 300_000}}
        world.put(world.settings.task_table_name, large)
    found = world.reconciler().tasks.read(ids, consistent=True)
    assert set(found) == set(ids)
    assert None not in found.values()
    assert throttles(world.metrics) == {}
