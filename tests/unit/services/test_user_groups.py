"""The groups of a user: all pages, outages, and errors that concern one user only."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from reconciler.errors import BudgetUnavailableError
from reconciler.services.user_groups import MAX_TEAMS, UserGroups
from tests.unit.stores.scripted import Scripted
from tests.unit.stores.test_control import Hand


def refusal(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, "AdminListGroupsForUser")


def page(*names: str, token: str | None = None) -> dict[str, Any]:
    more = {} if token is None else {"NextToken": token}
    return {"Groups": [{"GroupName": name, "UserPoolId": "p"} for name in names], **more}


def pool(*answers: Any, hand: Hand | None = None) -> tuple[UserGroups, Scripted]:
    client: Any = Scripted(*answers)
    return UserGroups(client, "pool-1", hand or Hand()), client


def test_all_pages_are_read_without_repeated_names() -> None:
    groups, client = pool(page("b", "c", token="1"), page(token="2"), page("a", "c"))
    assert groups.of("user-1") == ("a", "b", "c")
    asked = {"UserPoolId": "pool-1", "Username": "user-1", "Limit": 60}
    assert {operation for operation, _ in client.requests} == {"admin_list_groups_for_user"}
    assert client.requests[-1][1] == {**asked, "NextToken": "2"}
    assert len(client.requests) == 3


@pytest.mark.parametrize("answer", [page(), {}])
def test_a_user_may_be_in_no_group(answer: dict[str, Any]) -> None:
    assert pool(answer)[0].of("user-1") == ()


def test_more_groups_than_the_limit_are_refused() -> None:
    names = [f"t{number:03}" for number in range(MAX_TEAMS + 1)]
    assert pool(page(*names[:60], token="1"), page(*names[50:-1]))[0].of("u") == tuple(names[:-1])
    too_many, client = pool(page(*names[:60], token="1"), page(*names[60:], token="2"), page())
    with pytest.raises(BudgetUnavailableError, match="user u is in more than 98 groups"):
        too_many.of("u")
    assert len(client.requests) == 2


@pytest.mark.parametrize(
    "error",
    [
        refusal("TooManyRequestsException"),
        refusal("InternalErrorException"),
        refusal("AccessDeniedException"),
        refusal("ResourceNotFoundException"),
        EndpointConnectionError(endpoint_url="x"),
    ],
)
def test_an_outage_pauses_requests_for_five_seconds(error: Exception) -> None:
    hand = Hand()
    groups, client = pool(error, page("a"), hand=hand)
    with pytest.raises(BudgetUnavailableError, match="groups of user u cannot be read"):
        groups.of("u")
    hand.now = 4.999
    with pytest.raises(BudgetUnavailableError, match="a moment ago"):
        groups.of("v")
    assert len(client.requests) == 1
    hand.now = 5.0
    assert groups.of("u") == ("a",)


@pytest.mark.parametrize("code", ["UserNotFoundException", "InvalidParameterException"])
def test_one_unknown_user_holds_up_no_other(code: str) -> None:
    groups, _ = pool(refusal(code), page("a"))
    with pytest.raises(BudgetUnavailableError, match=code):
        groups.of("nobody")
    assert groups.of("u") == ("a",)
