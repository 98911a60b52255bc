"""OrchestrationTable: what is read, how consistently, and what our own record holds."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.domain.backoff import Attempts
from reconciler.domain.model import WHOLE, ChildStatus
from reconciler.errors import ThrottledError
from reconciler.stores.dynamodb import DynamoDB
from reconciler.stores.orchestrations import OrchestrationStore, Page
from tests.simulation.memory_dynamodb import MemoryDynamoDB
from tests.simulation.storage import Index, KeySchema, TableSpec
from tests.unit.stores.scripted import Scripted

TABLE = "OrchestrationTable"


def key(name: str, orchestration: str = "orch_1") -> dict[str, Any]:
    return {"orchestration_id": {"S": orchestration}, "sub_issue_id": {"S": name}}


def store(database: MemoryDynamoDB) -> OrchestrationStore:
    return OrchestrationStore(DynamoDB(database), TABLE)  # type: ignore[arg-type]


def holding(*rows: dict[str, Any]) -> MemoryDynamoDB:
    """Return a table whose replicas do not have these rows yet."""
    database = MemoryDynamoDB(lag=lambda *_: 100)
    for row in rows:
        database.put_item(TableName=TABLE, Item={"child_status": {"S": "ready"}, **row})
    return database


def test_orchestrations_are_read_strongly_consistently() -> None:
    database = holding(key("#meta"), key("a"), key("b"), key("c"))
    whole = store(database).read("orch_1")
    assert whole is not None
    assert set(whole.children) == {"a", "b", "c"}
    around = store(database).read_around("orch_1", "b", ["a", "a"])
    assert around is not None
    assert set(around.children) == {"a", "b"}
    assert around.meta is not None
    assert store(database).read_around("orch_2", "b", ["a"]) is None


def test_all_pages_of_a_partition_are_read() -> None:
    client = Scripted({"Items": [key("a")], "LastEvaluatedKey": key("a")}, {"Items": [key("b")]})
    whole = OrchestrationStore(client.dynamodb, TABLE).read("orch_1")
    assert whole is not None
    assert set(whole.children) == {"a", "b"}
    assert client.requests[1][1]["ExclusiveStartKey"] == key("a")


def test_a_batch_is_tried_five_times() -> None:
    """Each retry asks only for the unprocessed keys; after the last one the read is throttled."""
    left = {TABLE: {"Keys": [key("b")]}}
    client = Scripted({"Responses": {TABLE: [key("#meta")]}, "UnprocessedKeys": left})
    with pytest.raises(ThrottledError, match="orch_1 could not be read completely"):
        OrchestrationStore(client.dynamodb, TABLE).read_around("orch_1", "b", [])
    assert [len(r["RequestItems"][TABLE]["Keys"]) for _, r in client.requests] == [2, 1, 1, 1, 1]
    assert len(client.pauses) == 4


def test_both_parts_of_a_batch_are_combined() -> None:
    client = Scripted(
        {"Responses": {TABLE: [key("#meta")]}, "UnprocessedKeys": {TABLE: {"Keys": [key("b")]}}},
        {"Responses": {TABLE: [key("b")]}, "UnprocessedKeys": {}},
    )
    around = OrchestrationStore(client.dynamodb, TABLE).read_around("orch_1", "b", [])
    assert around is not None
    assert (set(around.children), around.meta is not None) == ({"b"}, True)


def test_a_page_tells_its_cost_and_retries() -> None:
    client = Scripted(
        {
            "Items": [key("a"), key("b")],
            "LastEvaluatedKey": key("b"),
            "ConsumedCapacity": {"CapacityUnits": 2.5},
            "ResponseMetadata": {"RetryAttempts": 3},
        }
    )
    page = OrchestrationStore(client.dynamodb, TABLE).scan_page(1, 4, key("0"), limit=7)
    assert (page.rows, page.next_key, page.read_units, page.retries) == (2, key("b"), 2.5, 3)
    request = client.requests[0][1]
    assert (request["Segment"], request["TotalSegments"], request["Limit"]) == (1, 4, 7)
    assert request["ExclusiveStartKey"] == key("0")


@pytest.mark.parametrize("said", [{}, {"ConsumedCapacity": None}, {"ConsumedCapacity": {}}])
def test_a_page_without_a_cost_costs_nothing(said: dict[str, Any]) -> None:
    client = Scripted({"Items": [], **said})
    page = OrchestrationStore(client.dynamodb, TABLE).scan_page(0, 1, None)
    assert page == Page([], None, 0.0)
    assert page.retries == 0
    assert not {"Limit", "ExclusiveStartKey"} & client.requests[0][1].keys()


def test_a_table_of_unknown_size_counts_as_empty() -> None:
    known, unknown = Scripted({"Table": {"TableSizeBytes": 5}}), Scripted({"Table": {}})
    sizes = [OrchestrationStore(c.dynamodb, TABLE).size_bytes() for c in (known, unknown)]
    assert sizes == [5, 0]


def test_a_child_is_found_by_its_task() -> None:
    database = MemoryDynamoDB()
    database.put_item(TableName=TABLE, Item={**key("b"), "child_task_id": {"S": "T1"}})
    assert store(database).children_by_task("T1") == ("orch_1", "b")
    assert store(database).children_by_task("T2") is None


def test_a_search_of_all_pages_shows_no_marker() -> None:
    client = Scripted(
        {"Items": [key("a"), key("#meta")], "ScannedCount": 9, "LastEvaluatedKey": key("a")},
        {"Items": [key("reconciler#attempts")], "ScannedCount": 2},
    )
    found = list(OrchestrationStore(client.dynamodb, TABLE).search("a"))
    assert [([c.sub_issue_id for c in page], rows) for page, rows in found] == [(["a"], 9), ([], 2)]
    assert client.requests[1][1]["ExclusiveStartKey"] == key("a")


@pytest.mark.parametrize("attribute", ["sub_issue_id", "display_id", "linear_identifier"])
def test_a_search_finds_every_name_of_a_child(attribute: str) -> None:
    database = MemoryDynamoDB()
    database.put_item(TableName=TABLE, Item={**key("a"), "title": {"S": "x"}})
    database.put_item(TableName=TABLE, Item={**key("b"), attribute: {"S": "b"}})
    assert searched(database, "b") == ["b"]


@pytest.mark.parametrize(
    ("name", "found"),
    [("bee", ["beech"]), ("orch_", ["beech", "elm"]), ("01AR", ["elm"]), ("ENG-4", [])],
)
def test_a_search_matches_the_beginning_of_ids(name: str, found: list[str]) -> None:
    """A display id must match as a whole: ENG-4 does not find ENG-42."""
    database = MemoryDynamoDB()
    database.put_item(TableName=TABLE, Item={**key("beech"), "display_id": {"S": "ENG-42"}})
    database.put_item(TableName=TABLE, Item={**key("elm"), "child_task_id": {"S": "01ARZ3"}})
    assert sorted(searched(database, name)) == found


def searched(database: MemoryDynamoDB, name: str) -> list[str]:
    return [child.sub_issue_id for page, _ in store(database).search(name) for child in page]


@pytest.mark.parametrize(
    ("of", "marker"), [(WHOLE, "reconciler#attempts"), ("b", "reconciler#attempts#b")]
)
def test_the_failure_record_is_kept_thirty_days(of: str, marker: str) -> None:
    """It can be read back, overwritten and cleared."""
    database = MemoryDynamoDB()
    attempts = Attempts(2, "it broke", "then", "later", "f")
    store(database).record_attempts("orch_1", of, attempts, 1_000)
    row = database.get_item(TableName=TABLE, Key=key(marker))["Item"]
    assert row["ttl"] == {"N": str(1_000 + 30 * 24 * 3600)}
    database.put_item(TableName=TABLE, Item=key("b"))
    whole = store(database).read("orch_1")
    assert whole is not None
    assert whole.attempts == {of: attempts}
    part = store(database).read_failing("orch_1", of)
    assert part is not None
    assert part.attempts == whole.attempts
    store(database).record_attempts("orch_1", of, Attempts(3, "it broke", "then", None, "f"), 1_000)
    row = database.get_item(TableName=TABLE, Key=key(marker))["Item"]
    assert ("retry_at" in row, row["failures"]) == (False, {"N": "3"})
    store(database).clear_attempts("orch_1", of)
    store(database).clear_attempts("orch_1", of)
    assert "Item" not in database.get_item(TableName=TABLE, Key=key(marker))


# -- by the index


def indexed() -> MemoryDynamoDB:
    index = {"Active": Index(KeySchema("child_status", "orchestration_id"))}
    spec = TableSpec(TABLE, KeySchema("orchestration_id", "sub_issue_id"), index)
    database = MemoryDynamoDB([spec])
    for number in range(1, 6):
        row = {**key("a", f"orch_{number}"), "title": {"S": "x"}, "updated_at": {"S": "then"}}
        database.put_item(TableName=TABLE, Item={**row, "child_status": {"S": "ready"}})
    database.put_item(TableName=TABLE, Item={**key("b"), "child_status": {"S": "blocked"}})
    return database


@pytest.mark.parametrize(
    ("between", "expected"),
    [
        ((None, None), "12345"),
        (("orch_2", "orch_4"), "234"),
        (("orch_4", None), "45"),
        ((None, "orch_2"), "12"),
    ],
)
def test_an_id_range_includes_both_ends(
    between: tuple[str | None, str | None], expected: str
) -> None:
    """The children of a status are read from the index in a range of orchestration ids."""
    database = indexed()
    page = store(database).active_page("Active", ChildStatus.READY, between, None)
    assert "".join(item["orchestration_id"]["S"][-1] for item in page.items) == expected
    assert (page.last, page.rows) == (True, len(expected))
    assert set(page.items[0]) == {"orchestration_id", "sub_issue_id", "child_status", "updated_at"}
    first = store(database).active_page("Active", ChildStatus.READY, between, None, limit=1)
    assert (first.last, first.rows) == (False, 1)
    rest = store(database).active_page("Active", ChildStatus.READY, between, first.next_key)
    assert [*first.items, *rest.items] == list(page.items)


def test_a_page_counts_all_rows_read() -> None:
    """It may have read more rows than it returns."""
    assert [Page([key("a")], None, 0.0, rows_read=n).rows for n in (None, 0, 7)] == [1, 0, 7]


def test_children_are_read_by_name() -> None:
    """If the read was throttled, the result is empty."""
    database = MemoryDynamoDB()
    database.put_item(TableName=TABLE, Item={**key("a"), "title": {"S": "x"}})
    found = store(database).read_children([("orch_1", "a"), ("orch_1", "gone")])
    assert found.keys() == {("orch_1", "a")}
    assert "title" not in found["orch_1", "a"].item
    left: dict[str, Any] = {"Responses": {}, "UnprocessedKeys": {TABLE: {"Keys": []}}}
    assert OrchestrationStore(Scripted(left).dynamodb, TABLE).read_children([("o", "a")]) == {}


def test_predecessors_are_read_eventually_consistently() -> None:
    database = holding(key("a"))
    assert store(database).read_children([("orch_1", "a")]) == {}


@pytest.mark.parametrize(("status", "adopted"), [("releasing", False), ("ready", True)])
def test_a_changed_claim_is_not_adopted(status: str, adopted: bool) -> None:  # noqa: FBT001
    """A ready child may have changed, since nobody is using it."""
    database = MemoryDynamoDB()
    row = {**key("b"), "child_status": {"S": status}, "updated_at": {"S": "then"}}
    database.put_item(TableName=TABLE, Item=row)
    whole = store(database).read("orch_1")
    assert whole is not None
    database.put_item(TableName=TABLE, Item={**row, "updated_at": {"S": "now"}})
    action = store(database).set_adopted(whole.children["b"], "T1", None, "later")
    dynamodb = DynamoDB(database)  # type: ignore[arg-type]
    assert (dynamodb.transact({"write": action}) is None) is adopted


def test_an_impossible_key_does_not_block_others() -> None:
    """DynamoDB refuses the whole batch if one key is too long."""
    asked: list[Any] = []

    class Asked(DynamoDB):
        def batch_get(self, _table: str, keys: Any, **_: Any) -> list[Any]:  # type: ignore[override]
            asked.extend(keys)
            return []

    children = OrchestrationStore(Asked(MemoryDynamoDB()), TABLE)  # type: ignore[arg-type]
    longest, too_long = "é" * 512, "é" * 512 + "x"
    assert children.read_children([("orch_1", too_long), ("orch_1", longest)]) == {}
    assert asked == [key(longest)]
    assert children.read_children([("orch_1", too_long)]) == {}
    assert len(asked) == 1
