"""One suite on the memory backend, on moto and on DynamoDB Local: what we rely on, all three do."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from reconciler.embedded.dynamodb_local import dynamodb_local
from reconciler.embedded.moto_server import moto_server
from tests.simulation.memory_dynamodb import MemoryDynamoDB
from tests.simulation.storage import TableSpec, contract_tables

pytestmark = [
    pytest.mark.simulation,
    # Its servers are started once, in whichever process runs all of this.
    pytest.mark.xdist_group("conformance"),
]

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


@pytest.fixture(scope="module", params=["memory", "moto", "dynamodb-local"])
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


CONDITIONS = [
    ("child_status = :a", True),
    ("child_status = :b", False),
    ("child_status IN (:a, :b)", True),
    ("child_status IN (:b)", False),
    ("NOT child_status = :b", True),
    ("child_status <> :b", True),
    ("absent = :a", False),
    ("absent <> :a", True),
    ("absent IN (:a)", False),
    ("attribute_exists(child_status)", True),
    ("attribute_exists(absent)", False),
    ("attribute_not_exists(absent)", True),
    ("attribute_not_exists(child_status)", False),
    ("size(reservations) < :three", True),
    ("size(reservations) < :two", False),
    ("size(absent) < :three", False),
    ("size(child_status) = :five", True),
    ("amount < :three", True),
    ("amount < :two", False),
    ("amount <= :two", True),
    ("amount > :a", False),
    ("amount = :two_point", True),
    ("amount BETWEEN :two AND :three", True),
    ("begins_with(child_status, :re)", True),
    ("begins_with(absent, :re)", False),
    ("contains(reservations, :t1)", True),
    ("contains(reservations, :a)", False),
    ("depends_on = :deps", True),
    ("depends_on = :other", False),
    ("child_status = :a AND amount = :two", True),
    ("child_status = :a AND amount = :three", False),
    ("child_status = :b OR amount = :two", True),
    ("child_status = :b AND amount = :two OR child_status = :a", True),
    ("child_status = :b AND (amount = :two OR child_status = :a)", False),
    ("(attribute_not_exists(absent) OR size(absent) < :two) AND amount = :two", True),
]
VALUES: dict[str, Any] = {
    ":a": {"S": "ready"},
    ":b": {"S": "blocked"},
    ":re": {"S": "re"},
    ":t1": {"S": "t1"},
    ":two": {"N": "2"},
    ":two_point": {"N": "2.0"},
    ":three": {"N": "3"},
    ":five": {"N": "5"},
    ":deps": {"L": [{"S": "x"}, {"S": "y"}]},
    ":other": {"L": [{"S": "y"}, {"S": "x"}]},
}


def _values(text: str) -> dict[str, Any]:
    found = {token: VALUES[token] for token in set(re.findall(r":\w+", text))}
    return {"ExpressionAttributeValues": found} if found else {}


@pytest.mark.parametrize(("condition", "holds"), CONDITIONS)
def test_a_condition_decides_whether_a_write_happens(
    db: Any,
    request: pytest.FixtureRequest,
    condition: str,
    holds: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    if "moto" in request.node.name and condition in {"size(absent) < :three", "amount > :a"}:
        pytest.skip("moto fails on operands that are absent or of two types")
    put(
        db,
        "c",
        child_status={"S": "ready"},
        amount={"N": "2"},
        reservations={"SS": ["t1", "t2"]},
        depends_on={"L": [{"S": "x"}, {"S": "y"}]},
    )
    more = _values(condition)
    more.setdefault("ExpressionAttributeValues", {})[":new"] = {"S": "written"}

    def write() -> None:
        update(db, "c", "SET mark = :new", condition, **more)

    if holds:
        write()
        assert get(db, "c")["mark"] == {"S": "written"}
    else:
        refused(write)
        assert "mark" not in get(db, "c")


def test_a_lost_condition_tells_what_stood_there(db: Any) -> None:
    put(db, "c", child_status={"S": "released"})
    response = refused(
        lambda: update(
            db,
            "c",
            "SET child_status = :a",
            "child_status = :b",
            ExpressionAttributeValues={":a": {"S": "ready"}, ":b": {"S": "blocked"}},
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
    )
    assert response["Item"]["child_status"] == {"S": "released"}
    silent = refused(
        lambda: update(
            db,
            "c",
            "SET child_status = :a",
            "child_status = :b",
            ExpressionAttributeValues={":a": {"S": "ready"}, ":b": {"S": "blocked"}},
        )
    )
    assert "Item" not in silent


def test_an_update_makes_an_item_that_is_not_there(db: Any) -> None:
    update(db, "n", "SET title = :t", ExpressionAttributeValues={":t": {"S": "x"}})
    assert get(db, "n") == {**key("n"), "title": {"S": "x"}}


def test_every_update_clause(db: Any) -> None:
    put(db, "c", kept={"S": "k"}, gone={"S": "g"}, tags={"SS": ["a", "b"]}, n={"N": "1"})
    update(
        db,
        "c",
        "SET #t = :t, m = n + :two, d = if_not_exists(d, :t) REMOVE gone, never "
        "ADD n :two, tags2 :s DELETE tags :s",
        ExpressionAttributeNames={"#t": "title"},
        ExpressionAttributeValues={":t": {"S": "t"}, ":two": {"N": "2"}, ":s": {"SS": ["a"]}},
    )
    assert get(db, "c") == {
        **key("c"),
        "kept": {"S": "k"},
        "title": {"S": "t"},
        "m": {"N": "3"},
        "d": {"S": "t"},
        "n": {"N": "3"},
        "tags": {"SS": ["b"]},
        "tags2": {"SS": ["a"]},
    }


def test_a_set_that_is_emptied_is_gone(db: Any) -> None:
    put(db, "c", tags={"SS": ["a"]})
    update(db, "c", "DELETE tags :s", ExpressionAttributeValues={":s": {"SS": ["a", "z"]}})
    assert "tags" not in get(db, "c")


@pytest.mark.parametrize(
    ("change", "condition", "more"),
    [
        ("SET a = :x", None, {}),
        ("SET a = :x", None, {"ExpressionAttributeValues": {":x": {"S": "1"}, ":y": {"S": "2"}}}),
        ("SET #a = :x", None, {"ExpressionAttributeValues": {":x": {"S": "1"}}}),
        ("SET status = :x", None, {"ExpressionAttributeValues": {":x": {"S": "1"}}}),
        ("SET a = :x SET b = :x", None, {"ExpressionAttributeValues": {":x": {"S": "1"}}}),
        ("SET a = :x, a = :x", None, {"ExpressionAttributeValues": {":x": {"S": "1"}}}),
        ("SET a = b", None, {}),
        ("SET a = :x", "b = = :x", {"ExpressionAttributeValues": {":x": {"S": "1"}}}),
        ("SET a = :x", "exists(b)", {"ExpressionAttributeValues": {":x": {"S": "1"}}}),
        ("SET sub_issue_id = :x", None, {"ExpressionAttributeValues": {":x": {"S": "1"}}}),
        ("SET child_task_id = :x", None, {"ExpressionAttributeValues": {":x": {"S": ""}}}),
        ("ADD a :x", None, {"ExpressionAttributeValues": {":x": {"S": "1"}}}),
        ("DELETE a :x", None, {"ExpressionAttributeValues": {":x": {"N": "1"}}}),
    ],
)
def test_a_malformed_write_is_rejected(
    db: Any, request: pytest.FixtureRequest, change: str, condition: str | None, more: Any
) -> None:
    put(db, "c")
    if "moto" in request.node.name:
        pytest.skip("moto accepts some malformed expressions; the other two decide")
    refused(lambda: update(db, "c", change, condition, **more), "ValidationException")
    assert get(db, "c") == key("c")


def test_put_only_if_absent(db: Any) -> None:
    def create() -> None:
        db.put_item(
            TableName=TASKS,
            Item={"task_id": {"S": "t1"}},
            ConditionExpression="attribute_not_exists(#k)",
            ExpressionAttributeNames={"#k": "task_id"},
        )

    create()
    refused(create)


def test_delete_with_and_without_something_there(db: Any) -> None:
    put(db, "c")
    db.delete_item(TableName=ROWS, Key=key("c"))
    db.delete_item(TableName=ROWS, Key=key("c"))
    assert get(db, "c") is None
    refused(
        lambda: db.delete_item(
            TableName=ROWS, Key=key("c"), ConditionExpression="attribute_exists(sub_issue_id)"
        )
    )


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
def test_a_transaction_that_loses_one_condition_writes_nothing(db: Any, lost: int) -> None:
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


def test_writes_of_many_threads_are_all_there(db: Any, request: pytest.FixtureRequest) -> None:
    """An inline sweep has several: a write that was lost in between would look like a defect."""
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

    # A process that changes threads at every chance shows in one run what else takes hundreds.
    request.addfinalizer(partial(sys.setswitchinterval, sys.getswitchinterval()))
    sys.setswitchinterval(1e-6)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, range(4)))
    rows = db.scan(TableName=ROWS)["Items"]
    assert [row["child_status"]["S"] for row in rows] == ["released"] * 40


def test_a_transaction_names_each_item_once(db: Any) -> None:
    actions = [_transaction()[1], _transaction()[1]]
    with pytest.raises(ClientError) as caught:
        db.transact_write_items(TransactItems=actions)
    # The service rejects the request; DynamoDB Local cancels the transaction.
    code = caught.value.response["Error"]["Code"]
    assert code in {"ValidationException", "TransactionCanceledException"}
    assert "Item" not in db.get_item(TableName=TASKS, Key={"task_id": {"S": "t1"}})


def test_a_check_of_what_is_absent_fails_without_an_item(db: Any) -> None:
    put(db, "b", child_status={"S": "blocked"})
    response = refused(
        lambda: db.transact_write_items(TransactItems=_transaction()),
        "TransactionCanceledException",
    )
    assert not response["CancellationReasons"][2].get("Item")


def test_query_by_partition_is_in_key_order_and_in_pages(db: Any) -> None:
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


def test_query_of_a_sparse_index(db: Any) -> None:
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


def test_query_of_an_index_with_a_sort_key(db: Any) -> None:
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


def test_query_of_an_index_by_a_filter_into_a_map(db: Any) -> None:
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
def test_segments_cover_the_table_once_with_projection_and_limit(db: Any, total: int) -> None:
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
    assert sum(a != b for a, b in pairwise(at)) == 5, "rows of one stand together"


def test_batch_get_gives_what_exists_with_its_projection(db: Any) -> None:
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


def test_a_missing_table_is_said_to_be_missing(db: Any) -> None:
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
