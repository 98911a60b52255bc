"""RepoTable: whether a repo is onboarded, which cap its tasks have, and how long that is cached."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.errors import RepoUnusableError
from reconciler.stores.dynamodb import DynamoDB
from reconciler.stores.repos import Repo, RepoStore
from tests.simulation.memory_dynamodb import MemoryDynamoDB
from tests.unit.stores.test_control import Hand


def repos(database: MemoryDynamoDB, table: str | None = "RepoTable", hand: Any = None) -> RepoStore:
    return RepoStore(DynamoDB(database), table, hand or Hand())  # type: ignore[arg-type]


def put(database: MemoryDynamoDB, **attributes: Any) -> None:
    database.put_item(TableName="RepoTable", Item={"repo": {"S": "acme/shop"}, **attributes})


def test_without_a_table_every_repo_is_onboarded() -> None:
    assert repos(MemoryDynamoDB(), None).read("acme/shop") == Repo(True, "active", 50)  # noqa: FBT003


@pytest.mark.parametrize(
    ("status", "onboarded", "said"),
    [
        ({"S": "active"}, True, "active"),
        ({"S": "removed"}, False, "removed"),
        ({"N": "1"}, False, "absent"),
    ],
)
def test_only_an_active_repo_is_onboarded(
    status: dict[str, str],
    onboarded: bool,  # noqa: FBT001
    said: str,
) -> None:
    database = MemoryDynamoDB()
    assert repos(database).read("acme/shop") == Repo(False, "absent", 50)  # noqa: FBT003
    put(database, status=status)
    assert repos(database).read("acme/shop") == Repo(onboarded, said, 50)


@pytest.mark.parametrize("cap", [1, 2, 500])
def test_a_cap_from_1_to_500_is_accepted(cap: int) -> None:
    database = MemoryDynamoDB()
    put(database, status={"S": "active"}, approval_gate_cap={"N": str(cap)})
    assert repos(database).read("acme/shop").approval_gate_cap == cap


@pytest.mark.parametrize(
    ("cap", "shown"),
    [
        ({"N": "0"}, "'0'"),
        ({"N": "501"}, "'501'"),
        ({"N": "-3"}, "'-3'"),
        ({"N": "1.5"}, "'1.5'"),
        ({"S": "50"}, "'50'"),
        ({"NULL": True}, "None"),
    ],
)
def test_any_other_cap_is_an_error_until_corrected(cap: dict[str, Any], shown: str) -> None:
    database = MemoryDynamoDB()
    store = repos(database)
    put(database, status={"S": "active"}, approval_gate_cap=cap)
    with pytest.raises(RepoUnusableError, match=f"repository acme/shop is {shown}, not"):
        store.read("acme/shop")
    put(database, status={"S": "removed"}, approval_gate_cap=cap)
    assert not repos(database).read("acme/shop").onboarded
    put(database, status={"S": "active"}, approval_gate_cap={"N": "7"})
    assert store.read("acme/shop").approval_gate_cap == 7


def test_each_repo_is_cached_for_thirty_seconds() -> None:
    """It is read strongly consistently."""
    database, hand = MemoryDynamoDB(lag=lambda *_: 100), Hand()
    store = repos(database, hand=hand)
    put(database, status={"S": "active"})
    assert store.read("acme/shop").onboarded
    put(database, status={"S": "removed"})
    hand.now = 29.999
    assert store.read("acme/shop").onboarded
    assert not store.read("acme/other").onboarded
    hand.now = 30.0
    assert not store.read("acme/shop").onboarded
    put(database, status={"S": "active"})
    hand.now = 59.999
    assert not store.read("acme/shop").onboarded
