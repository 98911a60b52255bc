"""The lock and the record of sweeps without a broker, at each of their limits."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from reconciler.stores.dynamodb import DynamoDB
from reconciler.stores.sweeps import LAST_ROW, LOCK_ROW, Lease, Recorded, SweepStore
from tests.simulation.memory_dynamodb import MemoryDynamoDB
from tests.support.strategies import NOW

TABLE = "OrchestrationTable"


def sweeps(database: MemoryDynamoDB) -> SweepStore:
    return SweepStore(DynamoDB(database), TABLE)  # type: ignore[arg-type]


def row(database: MemoryDynamoDB, name: str) -> dict[str, Any] | None:
    key = {"orchestration_id": {"S": "reconciler#control"}, "sub_issue_id": {"S": name}}
    found: dict[str, Any] | None = database.get_item(TableName=TABLE, Key=key).get("Item")
    return found


def after(seconds: float) -> Any:
    return NOW + timedelta(seconds=seconds)


def test_a_lock_is_one_sweeps_for_ninety_seconds() -> None:
    store = sweeps(MemoryDynamoDB())
    assert store.take("a", "host A", NOW) is None
    held = store.take("b", "host B", after(89))
    assert held == Lease("host A", "2026-06-09T12:00:00.000Z", after(90))
    assert store.take("b", "host B", after(90)) is None


def test_a_lock_whose_taking_was_not_heard_of_is_ones_own() -> None:
    store = sweeps(MemoryDynamoDB())
    assert store.take("a", "host A", NOW) is None
    assert store.take("a", "host A", after(1)) is None


def test_a_lock_that_is_renewed_holds_from_then_on_and_only_its_owners_renewal_counts() -> None:
    store = sweeps(MemoryDynamoDB())
    assert store.renew("a", NOW) is False, "nobody has it"
    store.take("a", "host A", NOW)
    assert store.renew("b", after(60)) is False
    assert store.renew("a", after(60)) is True
    held = store.take("b", "host B", after(149))
    assert held is not None
    assert held.expires == after(150)


def test_a_lock_is_given_back_by_its_owner_alone() -> None:
    store = sweeps(MemoryDynamoDB())
    store.take("a", "host A", NOW)
    store.give_back("b")
    assert store.take("b", "host B", NOW) is not None
    store.give_back("a")
    assert store.take("b", "host B", NOW) is None
    assert store.take("c", "host C", NOW, force=True) is None
    held = store.take("b", "host B", NOW)
    assert held is not None
    assert held.holder == "host C"


def test_a_lock_that_nobody_takes_again_goes_with_the_old_rows_a_day_later() -> None:
    database = MemoryDynamoDB()
    sweeps(database).take("a", "host A", NOW)
    found = row(database, LOCK_ROW)
    assert found is not None
    assert int(found["expires_at"]["N"]) == int(NOW.timestamp()) + 90
    assert int(found["ttl"]["N"]) == int(NOW.timestamp()) + 90 + 86_400


@pytest.mark.parametrize("attributes", [{}, {"holder": {"N": "1"}, "taken_at": {"NULL": True}}])
def test_a_lock_that_does_not_say_whose_it_is_is_held_by_somebody(
    attributes: dict[str, Any],
) -> None:
    database = MemoryDynamoDB()
    key = {"orchestration_id": {"S": "reconciler#control"}, "sub_issue_id": {"S": LOCK_ROW}}
    database.put_item(TableName=TABLE, Item={**key, "sweep_owner": {"S": "x"}, **attributes})
    held = sweeps(database).take("a", "host A", NOW)
    assert held is not None
    assert (held.holder, held.since, held.expires.timestamp()) == ("unknown", "unknown", 0)


def test_the_last_sweep_and_the_last_complete_one_are_told_apart() -> None:
    store = sweeps(MemoryDynamoDB(lag=lambda *_: 100))
    assert store.recorded() is None
    whole = {"complete": True, "n": 1}
    half = {"complete": False, "n": 2}
    by_index = {"complete": True, "coverage": "active", "n": 3}
    stuck = [{"id": "b"}]
    store.record(half, stuck)
    assert store.recorded() == Recorded(half, None, [])
    store.record(whole, stuck)
    store.record(half, [])
    assert store.recorded() == Recorded(half, whole, stuck, whole)
    store.record(by_index, [])
    assert store.recorded() == Recorded(by_index, by_index, [], whole)


@pytest.mark.parametrize(("characters", "kept"), [(200_000, True), (200_001, False)])
def test_more_stuck_work_than_a_row_holds_is_left_out(characters: int, kept: bool) -> None:  # noqa: FBT001
    database = MemoryDynamoDB()
    entry = {"x": "y" * (characters - len('[{"x": ""}]'))}
    sweeps(database).record({"complete": True}, [entry])
    recorded = sweeps(database).recorded()
    assert recorded is not None
    assert recorded.stuck == ([entry] if kept else [])
    assert row(database, LAST_ROW) is not None
