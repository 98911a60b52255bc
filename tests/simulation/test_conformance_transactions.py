"""The in-memory DynamoDB carries out transactions as the real one does."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.simulation.conformance import ROWS, TASKS, get, key, put, refused, update

pytestmark = [
    pytest.mark.simulation,
    # One process runs all of this group, and starts its servers once.
    pytest.mark.xdist_group("conformance"),
]


def _transaction(condition: str = "child_status = :s") -> list[dict[str, Any]]:
    values = {":s": {"S": "succeeded"}}
    return [
        {
            "Update": {
                "TableName": ROWS,
                "Key": key("b"),
                "UpdateExpression": "SET child_status = :r",
                "ConditionExpression": "child_status = :b",
                "ExpressionAttributeValues": {":r": {"S": "released"}, ":b": {"S": "blocked"}},
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            }
        },
        {
            "Put": {
                "TableName": TASKS,
                "Item": {"task_id": {"S": "t1"}},
                "ConditionExpression": "attribute_not_exists(task_id)",
            }
        },
        {
            "ConditionCheck": {
                "TableName": ROWS,
                "Key": key("a"),
                "ConditionExpression": condition,
                "ExpressionAttributeValues": values,
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            }
        },
    ]


def test_a_transaction_is_written_whole(db: Any) -> None:
    put(db, "a", child_status={"S": "succeeded"})
    put(db, "b", child_status={"S": "blocked"})
    db.transact_write_items(TransactItems=_transaction())
    assert get(db, "b")["child_status"] == {"S": "released"}
    assert "Item" in db.get_item(TableName=TASKS, Key={"task_id": {"S": "t1"}})


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_one_failed_condition_cancels_the_whole_transaction(db: Any, lost: int) -> None:
    put(db, "a", child_status={"S": "failed" if lost == 2 else "succeeded"})
    put(db, "b", child_status={"S": "ready" if lost == 0 else "blocked"})
    if lost == 1:
        db.put_item(TableName=TASKS, Item={"task_id": {"S": "t1"}, "mark": {"S": "old"}})
    before = get(db, "b")
    response = refused(
        lambda: db.transact_write_items(TransactItems=_transaction()),
        "TransactionCanceledException",
    )
    codes = [reason["Code"] for reason in response["CancellationReasons"]]
    expected = ["None"] * 3
    expected[lost] = "ConditionalCheckFailed"
    assert codes == expected
    item = response["CancellationReasons"][lost].get("Item")
    assert item == (None if lost == 1 else get(db, "ba"[lost // 2]))
    assert get(db, "b") == before
    task = db.get_item(TableName=TASKS, Key={"task_id": {"S": "t1"}}).get("Item")
    assert task == ({"task_id": {"S": "t1"}, "mark": {"S": "old"}} if lost == 1 else None)


def test_writes_of_many_threads_are_kept(db: Any, request: pytest.FixtureRequest) -> None:
    """An inline sweep has several threads; a lost write would look like a defect of the sweep."""
    values = {":a": {"S": "ready"}, ":b": {"S": "released"}}

    def write(thread: int) -> None:
        for number in range(10):
            name = f"{thread}_{number}"
            put(db, name, child_status={"S": "ready"})
            update(
                db,
                name,
                "SET child_status = :b",
                "child_status = :a",
                ExpressionAttributeValues=values,
            )

    # Switching threads as often as possible shows in one run what otherwise takes hundreds.
    request.addfinalizer(partial(sys.setswitchinterval, sys.getswitchinterval()))
    sys.setswitchinterval(1e-6)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, range(4)))
    rows = db.scan(TableName=ROWS)["Items"]
    assert [row["child_status"]["S"] for row in rows] == ["released"] * 40


def test_a_transaction_cannot_write_an_item_twice(db: Any) -> None:
    actions = [_transaction()[1], _transaction()[1]]
    with pytest.raises(ClientError) as caught:
        db.transact_write_items(TransactItems=actions)
    # The service rejects the request; DynamoDB Local cancels the transaction.
    code = caught.value.response["Error"]["Code"]
    assert code in {"ValidationException", "TransactionCanceledException"}
    assert "Item" not in db.get_item(TableName=TASKS, Key={"task_id": {"S": "t1"}})


def test_a_check_of_a_missing_row_fails(db: Any) -> None:
    """The cancellation reason then has no item."""
    put(db, "b", child_status={"S": "blocked"})
    response = refused(
        lambda: db.transact_write_items(TransactItems=_transaction()),
        "TransactionCanceledException",
    )
    assert not response["CancellationReasons"][2].get("Item")
