"""The lock and the record of sweeps without a broker, at their limits."""

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


def test_a_lock_lasts_ninety_seconds() -> None:
    store = sweeps(MemoryDynamoDB())
    assert store.take("a", "host A", NOW) is None
    held = store.take("b", "host B", after(89))
    assert held == Lease("host A", "2026-06-09T12:00:00.000Z", after(90))
    assert store.take("b", "host B", after(90)) is None


def test_a_sweep_can_take_its_own_lock_again() -> None:
    """The answer to its first request may have been lost."""
    store = sweeps(MemoryDynamoDB())
    assert store.take("a", "host A", NOW) is None
    assert store.take("a", "host A", after(1)) is None


def test_only_its_owner_can_renew_a_lock() -> None:
    """The lock then lasts for a full lease from the renewal."""
    store = sweeps(MemoryDynamoDB())
    assert store.renew("a", NOW) is False, "nobody has it"
    store.take("a", "host A", NOW)
    assert store.renew("b", after(60)) is False
    assert store.renew("a", after(60)) is True
    held = store.take("b", "host B", after(149))
    assert held is not None
    assert held.expires == after(150)


def test_only_its_owner_can_give_back_a_lock() -> None:
    """With ``force``, another sweep can take it over."""
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


def test_a_locks_ttl_is_a_day_after_expiry() -> None:
    """So a lock that nobody takes again is deleted."""
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
def test_a_lock_without_a_holder_still_holds(
    attributes: dict[str, Any],
) -> None:
    expires = {"N": str(int(after(60).timestamp()))}
    held = sweeps(locked(expires_at=expires, **attributes)).take("a", "host A", NOW)
    assert held == Lease("unknown", "unknown", after(60))


@pytest.mark.parametrize(
    "attributes", [{}, {"expires_at": {"S": "soon"}}, {"expires_at": {"N": "1E+30"}}]
)
def test_a_lock_without_an_expiry_is_free(attributes: dict[str, Any]) -> None:
    store = sweeps(locked(**attributes))
    assert store.take("a", "host A", NOW) is None
    assert store.take("b", "host B", NOW) is not None


@pytest.mark.parametrize(
    ("seconds", "held"), [(0, False), (1, True), (95, True), (96, False), (9999, False)]
)
def test_a_lock_that_lasts_too_long_is_free(seconds: float, *, held: bool) -> None:
    """A clock that is more than five seconds ahead must have written it."""
    store = sweeps(locked(expires_at={"N": str(int(after(seconds).timestamp()))}))
    assert (store.take("a", "host A", NOW) is not None) is held


def test_the_state_is_stored_unchanged() -> None:
    store = sweeps(MemoryDynamoDB(lag=lambda *_: 100))
    assert store.recorded() is None
    for state in ("{}", '{"known":{"ö":1}}'):
        assert store.record(state)
        assert store.recorded() == state


def test_a_state_larger_than_a_row_is_refused() -> None:
    store = sweeps(MemoryDynamoDB())
    store.record("{}")
    assert not store.record(token_hex(300_000))
    assert store.recorded() == "{}"


@pytest.mark.parametrize("state", [{"S": "no base 64"}, {"S": "aGVsbG8="}, {"N": "1"}])
def test_an_unreadable_state_counts_as_none(state: dict[str, Any]) -> None:
    database = MemoryDynamoDB()
    key = {"orchestration_id": {"S": "reconciler#control"}, "sub_issue_id": {"S": STATE_ROW}}
    database.put_item(TableName=TABLE, Item={**key, "state": state})
    assert sweeps(database).recorded() is None
