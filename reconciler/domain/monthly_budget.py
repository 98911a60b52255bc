"""Monthly budgets: what a user and each of their teams may spend in a month."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from reconciler.domain.task import Refusal

CONFIG_PERIOD = "CONFIG"
USER_PREFIX, TEAM_PREFIX = "USER#", "TEAM#"


@dataclass(frozen=True, slots=True)
class MonthlyBudget:
    """The budget of one scope (``USER#<user id>`` or ``TEAM#<group>``), in US dollars."""

    scope_key: str
    limit: Decimal
    spend: Decimal
    hard_stop: bool

    @property
    def exhausted(self) -> bool:
        """Whether it forbids new tasks."""
        return self.hard_stop and self.spend >= self.limit

    def __str__(self) -> str:
        """Return whose budget it is and how far it is used."""
        kind, _, name = self.scope_key.partition("#")
        return f"{kind.lower()} {name} ({self.spend:f} of {self.limit:f} USD)"


@dataclass(frozen=True, slots=True)
class MonthlyBudgets:
    """A user's teams, and all budgets of the user and the teams in one month (``YYYY-MM``)."""

    period: str
    team_ids: tuple[str, ...]
    budgets: tuple[MonthlyBudget, ...]


def month_of(now: datetime) -> str:
    """Return the month of ``now`` in UTC: ``YYYY-MM``."""
    return f"{now.astimezone(UTC):%Y-%m}"


def scope_keys(user_id: str, team_ids: Iterable[str]) -> tuple[str, ...]:
    """Return the partition keys of the budgets of a user and their teams."""
    return (f"{USER_PREFIX}{user_id}", *(f"{TEAM_PREFIX}{team}" for team in team_ids))


def refuse_exhausted(found: MonthlyBudgets) -> Refusal | None:
    """Return why no task of this user can be created this month, or None."""
    exhausted = [str(budget) for budget in found.budgets if budget.exhausted]
    if not exhausted:
        return None
    return Refusal(
        f"The monthly budget for {found.period} is exhausted: {', '.join(exhausted)}. "
        "Raise the budget or wait for the next month, then retry this sub-issue."
    )
