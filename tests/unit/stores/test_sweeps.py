"""The lock and the record of sweeps without a broker, at each of their limits."""

from __future__ import annotations

from datetime import timedelta
from secrets import token_hex
from typing import Any

import pytest

from reconciler.stores.dynamodb import DynamoDB
from reconciler.stores.sweeps import LOCK_ROW, STATE_ROW, Lease, SweepStore
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


def locked(**attributes: dict[str, Any]) -> MemoryDynamoDB:
    database = MemoryDynamoDB()
    key = {"orchestration_id": {"S": "reconciler#control"}, "sub_issue_id": {"S": LOCK_ROW}}
    database.put_item(TableName=TABLE, Item={**key, "sweep_owner": {"S": "x"}, **attributes})
    return database


@pytest.mark.parametrize("attributes", [{}, {"holder": {"N": "1"}, "taken_at": {"NULL": True}}])
def test_a_lock_that_does_not_say_whose_it_is_is_held_by_somebody(
    attributes: dict[str, Any],
) -> None:
    expires = {"N": str(int(after(60).timestamp()))}
    held = sweeps(locked(expires_at=expires, **attributes)).take("a", "host A", NOW)
    assert held == Lease("unknown", "unknown", after(60))


@pytest.mark.parametrize(
    "attributes", [{}, {"expires_at": {"S": "soon"}}, {"expires_at": {"N": "1E+30"}}]
)
def test_a_lock_without_an_end_is_nobodys(attributes: dict[str, Any]) -> None:
    store = sweeps(locked(**attributes))
    assert store.take("a", "host A", NOW) is None
    assert store.take("b", "host B", NOW) is not None


@pytest.mark.parametrize(
    ("seconds", "held"), [(0, False), (1, True), (95, True), (96, False), (9999, False)]
)
def test_a_lock_holds_no_longer_than_a_lease_by_a_clock_that_is_ahead(
    seconds: float, *, held: bool
) -> None:
    """Clocks may differ by five seconds."""
    store = sweeps(locked(expires_at={"N": str(int(after(seconds).timestamp()))}))
    assert (store.take("a", "host A", NOW) is not None) is held


def test_the_state_is_kept_as_it_was() -> None:
    store = sweeps(MemoryDynamoDB(lag=lambda *_: 100))
    assert store.recorded() is None
    for state in ("{}", '{"known":{"ö":1}}'):
        assert store.record(state)
        assert store.recorded() == state


def test_a_state_too_large_for_its_row_is_refused() -> None:
    store = sweeps(MemoryDynamoDB())
    store.record("{}")
    assert not store.record(token_hex(300_000))
    assert store.recorded() == "{}"


@pytest.mark.parametrize("state", [{"S": "no base 64"}, {"S": "aGVsbG8="}, {"N": "1"}])
def test_a_state_that_cannot_be_read_is_none(state: dict[str, Any]) -> None:
    database = MemoryDynamoDB()
    key = {"orchestration_id": {"S": "reconciler#control"}, "sub_issue_id": {"S": STATE_ROW}}
    database.put_item(TableName=TABLE, Item={**key, "state": state})
    assert sweeps(database).recorded() is None
