"""Expressions from named parts, and the conditions that no simulated schedule reaches."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from reconciler.errors import ConflictError
from reconciler.stores.budget import PARTITION_PREFIX, ROW, BudgetStore, Slots
from reconciler.stores.conditions import Expression, all_of, put_new
from reconciler.stores.dynamodb import DynamoDB
from reconciler.stores.tasks import TaskStore
from tests.simulation.memory_dynamodb import MemoryDynamoDB
from tests.support.strategies import NOW


def test_an_expression_collects_names_and_values() -> None:
    build = Expression()
    condition = all_of(build.equals("a", "x"), build.one_of("b", {"z", "y"}))
    assert condition == "#a = :v0 AND #b IN (:v1, :v2)"
    assert build.arguments() == {
        "ExpressionAttributeNames": {"#a": "a", "#b": "b"},
        "ExpressionAttributeValues": {":v0": {"S": "x"}, ":v1": {"S": "y"}, ":v2": {"S": "z"}},
    }
    assert Expression().arguments() == {}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({}, "attribute_not_exists(#a)"),
        ({"a": {"S": "x"}}, "#a = :v0"),
        ({"a": {"L": []}}, "#a = :v0"),
        ({"a": {"NULL": True}}, "#a = :v0"),
    ],
)
def test_unchanged_means_equal_or_still_absent(row: dict[str, Any], expected: str) -> None:
    assert Expression().unchanged("a", row) == expected


def test_an_update_sets_each_attribute() -> None:
    build = Expression()
    assert build.assign({"a": {"S": "x"}, "b": {"N": "1"}}) == "SET #a = :v0, #b = :v1"


def test_a_new_item_must_not_exist_yet() -> None:
    put = put_new("T", {"k": {"S": "1"}}, "k")["Put"]
    assert put["ConditionExpression"] == "attribute_not_exists(#k)"
    assert put["ExpressionAttributeNames"] == {"#k": "k"}
    assert put["ReturnValuesOnConditionCheckFailure"] == "ALL_OLD"


# -- the budget


def budget(database: MemoryDynamoDB, cap: int = 2) -> BudgetStore:
    dynamodb = DynamoDB(database)  # type: ignore[arg-type]
    tasks = TaskStore(dynamodb, "TaskTable", "TaskEventsTable")
    return BudgetStore(dynamodb, "OrchestrationTable", "UserConcurrencyTable", tasks, cap)


def reserved(database: MemoryDynamoDB, *task_ids: str) -> None:
    row = {
        "orchestration_id": {"S": f"{PARTITION_PREFIX}u"},
        "sub_issue_id": {"S": ROW},
        "reservations": {"SS": sorted(task_ids)},
    }
    database.put_item(TableName="OrchestrationTable", Item=row)


def test_a_full_budget_refuses_the_first_reservation() -> None:
    """There is no set of reservations yet whose size could be compared."""
    database = MemoryDynamoDB()
    store = budget(database)
    slots = Slots("u", room=0, limit=0, version=None, row={})
    action = store.reserve(slots, "T", "k")
    assert DynamoDB(database).transact({"write": action}) is not None  # type: ignore[arg-type]


def test_a_lost_pruning_reads_the_budget_again() -> None:
    """Otherwise its version would be one too low, and its reservation refused for no reason."""
    database = MemoryDynamoDB()
    reserved(database, "gone")
    write, rivals = database.update_item, [budget(database)]

    def rival_first(**request: Any) -> Any:
        if rivals:
            assert rivals.pop().open("u").version == "1"
        return write(**request)

    database.update_item = rival_first  # type: ignore[method-assign]
    slots = budget(database).open("u")
    assert (slots.version, slots.room, slots.limit) == ("1", 2, 2)


def test_a_budget_that_keeps_changing_is_a_conflict() -> None:
    database = MemoryDynamoDB()
    store = budget(database)
    reserved(database, "gone")
    store._prune = lambda *_: False  # type: ignore[method-assign]
    with pytest.raises(ConflictError, match="kept changing"):
        store.open("u")
    assert store.open("u", prune=False).room == 2


def test_children_waiting_elsewhere_count_while_recent() -> None:
    row = {
        "waiting:orch_1_a": {"S": "2026-06-09T10:00:00Z|2026-06-09T12:00:00Z"},
        "waiting:orch_2_a": {"S": "2026-06-09T09:00:00Z|2026-06-09T11:50:00Z"},
        "waiting:orch_2_b": {"S": "2026-06-09T09:00:00Z|2026-06-09T11:49:59Z"},
        "waiting:orch_2_c": {"S": "odd|2026-06-09T12:00:00Z"},
        "waiting:orch_2_d": {"S": "odd"},
        "waiting:orch_2_e": {"N": "1"},
    }
    found = Slots("u", -1, 0, None, row).budget("orch_1", NOW, timedelta(minutes=10))
    assert found.room == 0
    assert [since.year for since in found.ahead] == [1, 2026]
