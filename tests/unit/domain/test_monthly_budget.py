"""Monthly budgets: valid and malformed rows, and when no more tasks may be created."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from reconciler.domain.monthly_budget import (
    MonthlyBudget,
    MonthlyBudgets,
    month_of,
    refuse_exhausted,
    scope_keys,
)
from reconciler.stores.monthly_budget import parse_budget

STOP = {"BOOL": True}


def config(limit: str = "100", **more: Any) -> dict[str, Any]:
    return {"monthly_limit_usd": {"N": limit}, "hard_stop": STOP, **more}


def spent(usd: str) -> dict[str, Any]:
    return {"spend_usd": {"N": usd}}


@pytest.mark.parametrize(
    ("limit", "month", "exhausted"),
    [
        ("100", spent("99.99999999999999999999"), False),
        ("100", spent("100"), True),
        ("100", spent("100.00000000000000000001"), True),
        ("0.3", spent("0.3"), True),
        ("1E+2", spent("1E+3"), True),
        ("100", spent("-5"), False),
        ("100", {}, False),
    ],
)
def test_a_budget_is_exhausted_at_its_limit(
    limit: str,
    month: dict[str, Any],
    exhausted: bool,  # noqa: FBT001
) -> None:
    assert parse_budget("USER#u", config(limit), month).exhausted is exhausted


def test_a_month_without_a_row_has_spent_nothing() -> None:
    assert parse_budget("USER#u", config(), {}).spend == 0


@pytest.mark.parametrize("more", [{"hard_stop": {"BOOL": False}}, None])
def test_without_a_hard_stop_nothing_is_exhausted(more: dict[str, Any] | None) -> None:
    row = {**config(), **more} if more else {"monthly_limit_usd": {"N": "100"}}
    assert not parse_budget("USER#u", row, spent("500")).exhausted


@pytest.mark.parametrize(
    ("row", "month", "named"),
    [
        (config("0"), {}, "monthly_limit_usd of TEAM#t"),
        (config("-1"), {}, "monthly_limit_usd of TEAM#t"),
        (config(monthly_limit_usd={"S": "100"}), {}, "monthly_limit_usd of TEAM#t"),
        (config(monthly_limit_usd={"NULL": True}), {}, "monthly_limit_usd of TEAM#t"),
        (config("Infinity"), {}, "monthly_limit_usd of TEAM#t"),
        (config("ten"), {}, "monthly_limit_usd of TEAM#t"),
        ({"hard_stop": STOP}, {}, "monthly_limit_usd of TEAM#t"),
        (config("0", hard_stop={"BOOL": False}), {}, "monthly_limit_usd of TEAM#t"),
        (config(hard_stop={"S": "true"}), {}, "hard_stop of TEAM#t"),
        (config(hard_stop={"NULL": True}), {}, "hard_stop of TEAM#t"),
        (config(), {"spend_usd": {"S": "3"}}, "spend_usd of TEAM#t"),
        (config(), {"spend_usd": {"NULL": True}}, "spend_usd of TEAM#t"),
    ],
)
def test_a_malformed_budget_is_an_error(
    row: dict[str, Any], month: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        parse_budget("TEAM#t", row, month)


@pytest.mark.parametrize(
    ("now", "month"),
    [
        (datetime(2026, 6, 9, 12, tzinfo=UTC), "2026-06"),
        (datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC), "2026-12"),
        (datetime(2027, 1, 1, 1, tzinfo=timezone(timedelta(hours=2))), "2026-12"),
        (datetime(2026, 12, 31, 23, tzinfo=timezone(timedelta(hours=-2))), "2027-01"),
    ],
)
def test_months_are_counted_in_utc(now: datetime, month: str) -> None:
    assert month_of(now) == month


def test_scopes_are_the_user_and_the_teams() -> None:
    assert scope_keys("u", ()) == ("USER#u",)
    assert scope_keys("u", ("a", "b#c")) == ("USER#u", "TEAM#a", "TEAM#b#c")


def budget(scope_key: str, limit: str, spend: str, *, hard_stop: bool = True) -> MonthlyBudget:
    return MonthlyBudget(scope_key, Decimal(limit), Decimal(spend), hard_stop)


def test_a_refusal_names_every_exhausted_budget() -> None:
    budgets = (
        budget("USER#u-1", "1E+2", "120.50"),
        budget("TEAM#growth#eu", "90", "99"),
        budget("TEAM#roomy", "90", "1"),
        budget("TEAM#soft", "90", "500", hard_stop=False),
    )
    refusal = refuse_exhausted(MonthlyBudgets("2026-06", ("growth#eu", "roomy", "soft"), budgets))
    assert refusal is not None
    assert refusal.reason == (
        "The monthly budget for 2026-06 is exhausted: user u-1 (120.50 of 100 USD), "
        "team growth#eu (99 of 90 USD). Raise the budget or wait for the next month, then retry "
        "this sub-issue."
    )
    assert refuse_exhausted(MonthlyBudgets("2026-06", (), budgets[2:])) is None
