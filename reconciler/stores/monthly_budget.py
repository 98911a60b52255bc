"""BudgetTable: the monthly budgets of a user and of the user's teams. Read only.

A malformed budget is an error, never a budget with room.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any

from reconciler.domain.model import Item
from reconciler.domain.monthly_budget import (
    CONFIG_PERIOD,
    MonthlyBudget,
    MonthlyBudgets,
    month_of,
    scope_keys,
)
from reconciler.errors import BudgetUnusableError, ThrottledError
from reconciler.services.user_groups import UserGroups
from reconciler.stores.dynamodb import MAX_KEYS_PER_BATCH, DynamoDB
from reconciler.stores.items import decimal

CACHE_SECONDS = 5.0
"""Covers one pass over a user's children, and is short enough for a raised budget to be noticed."""


class MonthlyBudgetStore:
    """BudgetTable, read at most once in ``CACHE_SECONDS`` for each user and month."""

    def __init__(
        self,
        dynamodb: DynamoDB,
        table: str,
        groups: UserGroups,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._dynamodb = dynamodb
        self._table = table
        self._groups = groups
        self._monotonic = monotonic
        self._cached: dict[tuple[str, str], tuple[float, MonthlyBudgets]] = {}

    def read(self, user_id: str, now: datetime) -> MonthlyBudgets:
        """Return the user's teams and every budget that applies in the month of ``now``.

        Raises:
            BudgetUnavailableError: Cognito does not answer.
            ThrottledError: some rows could not be read.
            BudgetUnusableError: a row is malformed, or Cognito does not know the user.
        """
        at = self._monotonic()
        fresh = {key: kept for key, kept in self._cached.items() if at - kept[0] < CACHE_SECONDS}
        key = (user_id, month_of(now))
        if key not in fresh:
            fresh[key] = (at, self._fetch(*key))
        self._cached = fresh
        return fresh[key][1]

    def _fetch(self, user_id: str, period: str) -> MonthlyBudgets:
        team_ids = self._groups.of(user_id)
        scopes = scope_keys(user_id, team_ids)
        keys = [
            {"scope_key": {"S": scope}, "period": {"S": name}}
            for scope in scopes
            for name in (CONFIG_PERIOD, period)
        ]
        rows = {(row["scope_key"]["S"], row["period"]["S"]): row for row in self._rows(keys)}
        try:
            budgets = tuple(_budgets(scopes, period, rows))
        except ValueError as error:
            raise BudgetUnusableError(f"the monthly budget cannot be read: {error}") from error
        return MonthlyBudgets(period, team_ids, budgets)

    def _rows(self, keys: list[dict[str, Any]]) -> Iterator[Item]:
        # An even number, so that both rows of a scope are read in one request.
        for start in range(0, len(keys), MAX_KEYS_PER_BATCH):
            chunk = keys[start : start + MAX_KEYS_PER_BATCH]
            rows = self._dynamodb.batch_get(self._table, chunk, consistent=True)
            if rows is None:
                raise ThrottledError("the monthly budget could not be read: throttled")
            yield from rows


def _budgets(
    scopes: tuple[str, ...], period: str, rows: dict[tuple[str, str], Item]
) -> Iterator[MonthlyBudget]:
    for scope in scopes:
        config = rows.get((scope, CONFIG_PERIOD))
        if config is not None:
            yield parse_budget(scope, config, rows.get((scope, period), {}))


def parse_budget(scope_key: str, config: Item, month: Item) -> MonthlyBudget:
    """Parse a budget from its ``CONFIG`` row and the month's row, which may be empty.

    Raises:
        ValueError: a value is not what the platform writes; the message names row and attribute.
    """
    limit = decimal(config, "monthly_limit_usd")
    if limit is None or limit <= 0:
        raise ValueError(f"monthly_limit_usd of {scope_key} is not a number above 0")
    hard_stop = config.get("hard_stop", {"BOOL": False}).get("BOOL")
    if not isinstance(hard_stop, bool):
        raise ValueError(f"hard_stop of {scope_key} is not a boolean")  # noqa: TRY004 - of a row
    spend = decimal(month, "spend_usd") if "spend_usd" in month else Decimal(0)
    if spend is None:
        raise ValueError(f"spend_usd of {scope_key} is not a number")
    return MonthlyBudget(scope_key, limit, spend, hard_stop)
