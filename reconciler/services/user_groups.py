"""Cognito: the groups of a user, which are the platform's teams."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from reconciler.aws_errors import RAISED, code_of, translate
from reconciler.errors import BudgetUnavailableError, BudgetUnusableError
from reconciler.observability.outages import Outages
from reconciler.services.breaker import Breaker

if TYPE_CHECKING:
    from botocore.client import BaseClient

MAX_TEAMS = 98
"""The platform's limit on teams whose budgets it reads."""

_PAGE_SIZE = 60
_ABOUT_THIS_USER = frozenset({"UserNotFoundException", "InvalidParameterException"})


class UserGroups:
    """The groups of a user pool (``AdminListGroupsForUser``)."""

    def __init__(
        self,
        client: BaseClient,
        user_pool_id: str,
        monotonic: Callable[[], float] = time.monotonic,
        outages: Outages | None = None,
    ) -> None:
        self._client: Any = client
        self._outages = outages or Outages()
        self._user_pool_id = user_pool_id
        self._breaker = Breaker(monotonic)

    def of(self, user_id: str) -> tuple[str, ...]:
        """Return the distinct names of a user's groups, sorted.

        An unknown user may be in a team whose budget is exhausted, so this raises an error instead
        of returning an empty list.

        Raises:
            BudgetUnavailableError: Cognito does not answer, or did not a moment ago.
            BudgetUnusableError: it does not know the user, or the user is in more than
                ``MAX_TEAMS`` groups.
        """
        names: set[str] = set()
        for page in self._pages(user_id):
            names.update(group["GroupName"] for group in page.get("Groups", ()))
            if len(names) > MAX_TEAMS:
                msg = f"user {user_id} is in more than {MAX_TEAMS} groups"
                raise BudgetUnusableError(msg)
        return tuple(sorted(names))

    def _pages(self, user_id: str) -> Iterator[dict[str, Any]]:
        request = {
            "UserPoolId": self._user_pool_id,
            "Username": user_id,
            "Limit": _PAGE_SIZE,
        }
        while True:
            page = self._ask(request)
            yield page
            if not page.get("NextToken"):
                return
            request["NextToken"] = page["NextToken"]

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._breaker.is_open:
            raise BudgetUnavailableError("Cognito did not answer a moment ago")
        try:
            answer: dict[str, Any] = self._client.admin_list_groups_for_user(**request)
        except RAISED as error:
            fault = translate(error, "admin_list_groups_for_user")
            msg = f"the groups of user {request['Username']} cannot be read from Cognito: {fault}"
            if code_of(error) in _ABOUT_THIS_USER:
                raise BudgetUnusableError(msg) from error
            self._breaker.open()
            unavailable = BudgetUnavailableError(msg)
            self._outages.failed("admin_list_groups_for_user", unavailable)
            raise unavailable from error
        self._outages.succeeded("admin_list_groups_for_user")
        return answer
