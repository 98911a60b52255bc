"""BudgetTable: which rows are read, in how many requests, and how long they are cached."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from reconciler.domain.monthly_budget import MonthlyBudget
from reconciler.errors import BudgetUnavailableError, ThrottledError
from reconciler.stores.dynamodb import DynamoDB, measured
from reconciler.stores.monthly_budget import MonthlyBudgetStore, parse_budget
from tests.simulation.memory_dynamodb import MemoryDynamoDB
from tests.unit.stores.scripted import Scripted
from tests.unit.stores.test_control import Hand

JUNE = datetime(2026, 6, 30, 23, 59, 59, tzinfo=UTC)
JULY = datetime(2026, 7, 1, tzinfo=UTC)


class Groups:
    """A user pool where every user is in the same groups; it fails while ``away``."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.asked: list[str] = []
        self.away = False

    def of(self, user_id: str) -> tuple[str, ...]:
        self.asked.append(user_id)
        if self.away:
            raise BudgetUnavailableError("away")
        return self.names


def budgets(database: Any, groups: Any = None, hand: Hand | None = None) -> MonthlyBudgetStore:
    given: Any = groups or Groups()
    return MonthlyBudgetStore(DynamoDB(database), "BudgetTable", given, hand or Hand())


def put(database: MemoryDynamoDB, scope_key: str, period: str, **attributes: Any) -> None:
    key = {"scope_key": {"S": scope_key}, "period": {"S": period}}
    database.put_item(TableName="BudgetTable", Item={**key, **attributes})


def configure(database: MemoryDynamoDB, scope_key: str, limit: str) -> None:
    stop = {"BOOL": True}
    put(database, scope_key, "CONFIG", monthly_limit_usd={"N": limit}, hard_stop=stop)


def test_user_and_team_budgets_are_read() -> None:
    """A scope without CONFIG has no budget, and only the spend of this month counts."""
    database = MemoryDynamoDB(lag=lambda *_: 100)
    configure(database, "USER#u", "10")
    put(database, "USER#u", "2026-06", spend_usd={"N": "4.5"})
    put(database, "USER#u", "2026-07", spend_usd={"N": "0.5"})
    put(database, "TEAM#a", "2026-06", spend_usd={"N": "999"})
    configure(database, "TEAM#b", "20")
    configure(database, "TEAM#others", "1")
    found = budgets(database, Groups("a", "b")).read("u", JUNE)
    assert (found.period, found.team_ids) == ("2026-06", ("a", "b"))
    assert found.budgets == (
        MonthlyBudget("USER#u", Decimal(10), Decimal("4.5"), hard_stop=True),
        MonthlyBudget("TEAM#b", Decimal(20), Decimal(0), hard_stop=True),
    )
    assert budgets(database).read("u", JULY).budgets[0].spend == Decimal("0.5")


@pytest.mark.parametrize(("teams", "requests"), [(0, 1), (49, 1), (50, 2), (98, 2)])
def test_scopes_are_read_in_batches(teams: int, requests: int) -> None:
    """DynamoDB takes 100 keys at once, so more than 49 teams need a second request."""
    database = MemoryDynamoDB()
    names = [f"t{number:02}" for number in range(teams)]
    for name in names:
        configure(database, f"TEAM#{name}", "5")
    with measured() as consumed:
        found = budgets(database, Groups(*names)).read("u", JUNE)
    assert [budget.scope_key for budget in found.budgets] == [f"TEAM#{name}" for name in names]
    assert consumed.requests == requests


def test_both_rows_of_a_scope_share_a_request() -> None:
    """The reads are strongly consistent."""
    client = Scripted({"Responses": {}})
    budgets(client, Groups(*(f"t{number:02}" for number in range(98)))).read("u", JUNE)
    first, second = (request["RequestItems"]["BudgetTable"] for _, request in client.requests)
    assert first["ConsistentRead"] is second["ConsistentRead"] is True
    keys = [{name: value["S"] for name, value in key.items()} for key in first["Keys"]]
    assert keys[:2] == [
        {"scope_key": "USER#u", "period": "CONFIG"},
        {"scope_key": "USER#u", "period": "2026-06"},
    ]
    assert keys[-2]["scope_key"] == keys[-1]["scope_key"] == "TEAM#t48"


def test_unread_rows_are_throttled() -> None:
    """As an outage it would not be logged, since no service has reported one."""
    unserved = {
        "Responses": {},
        "UnprocessedKeys": {"BudgetTable": {"Keys": [{"scope_key": {"S": "USER#u"}}]}},
    }
    store = MonthlyBudgetStore(Scripted(unserved).dynamodb, "BudgetTable", Groups(), Hand())  # type: ignore[arg-type]
    with pytest.raises(ThrottledError, match="could not be read"):
        store.read("u", JUNE)


def test_a_malformed_budget_is_named_and_not_cached() -> None:
    database = MemoryDynamoDB()
    store = budgets(database, Groups("a"))
    configure(database, "TEAM#a", "0")
    with pytest.raises(BudgetUnavailableError, match="monthly_limit_usd of TEAM#a"):
        store.read("u", JUNE)
    configure(database, "TEAM#a", "7")
    assert store.read("u", JUNE).budgets[0].limit == Decimal(7)


def test_a_users_budget_is_cached_for_five_seconds() -> None:
    database, groups, hand = MemoryDynamoDB(), Groups("a"), Hand()
    hand.now = 100.0
    store = budgets(database, groups, hand)
    configure(database, "USER#u", "10")
    store.read("u", JUNE)
    configure(database, "USER#u", "20")
    hand.now = 104.999
    assert store.read("u", JUNE).budgets[0].limit == Decimal(10)
    assert groups.asked == ["u"]
    assert store.read("v", JUNE).budgets == ()
    # The cache does not hold the new month.
    assert store.read("u", JULY).period == "2026-07"
    hand.now = 105.0
    assert store.read("u", JUNE).budgets[0].limit == Decimal(20)
    assert groups.asked == ["u", "v", "u", "u"]


def test_an_outage_does_not_mean_no_budget() -> None:
    groups = Groups("a")
    groups.away = True
    store = budgets(MemoryDynamoDB(), groups)
    with pytest.raises(BudgetUnavailableError, match="away"):
        store.read("u", JUNE)
    groups.away = False
    assert store.read("u", JUNE).team_ids == ("a",)


LIMIT = {"monthly_limit_usd": {"N": "0.01"}}
STOP = {"hard_stop": {"BOOL": True}}


def test_missing_budget_attributes_have_defaults() -> None:
    """By default, nothing has been spent and there is no hard stop."""
    scope = "TEAM#t"
    assert parse_budget(scope, LIMIT, {}) == MonthlyBudget(
        scope, Decimal("0.01"), Decimal(0), hard_stop=False
    )
    spent = {"spend_usd": {"N": "-3"}}
    assert parse_budget(scope, {**LIMIT, **STOP}, spent) == MonthlyBudget(
        scope, Decimal("0.01"), Decimal(-3), hard_stop=True
    )


@pytest.mark.parametrize(
    ("config", "month", "named"),
    [
        ({}, {}, "monthly_limit_usd of TEAM#t"),
        ({"monthly_limit_usd": {"N": "0"}}, {}, "monthly_limit_usd of TEAM#t"),
        ({"monthly_limit_usd": {"N": "-1"}}, {}, "monthly_limit_usd of TEAM#t"),
        ({**LIMIT, "hard_stop": {"S": "true"}}, {}, "hard_stop of TEAM#t"),
        (LIMIT, {"spend_usd": {"S": "3"}}, "spend_usd of TEAM#t"),
    ],
)
def test_an_invalid_budget_attribute_is_an_error(
    config: dict[str, Any], month: dict[str, Any], named: str
) -> None:
    """The error names the attribute."""
    with pytest.raises(ValueError, match=named):
        parse_budget("TEAM#t", config, month)
