"""Each service reports its outages, so that each outage is logged once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from reconciler.errors import (
    BudgetUnavailableError,
    GuardrailOutageError,
    GuardrailUnavailableError,
    InvocationRefusedError,
    NameRefusedError,
    PipelineUnavailableError,
    ReconcilerError,
)
from reconciler.services.guardrail import Guardrail
from reconciler.services.pipeline import Pipeline
from reconciler.services.user_groups import UserGroups
from tests.unit.stores.scripted import Scripted
from tests.unit.stores.test_control import Hand


class Told:
    """Records what the services report."""

    def __init__(self) -> None:
        self.said: list[tuple[str, type[ReconcilerError] | None]] = []

    def failed(self, operation: str, error: ReconcilerError) -> None:
        self.said.append((operation, type(error)))

    def succeeded(self, operation: str) -> None:
        self.said.append((operation, None))


Ask = Callable[[Any, Any], object]
LOST = EndpointConnectionError(endpoint_url="x")


def ask_guardrail(client: Any, told: Any) -> object:
    return Guardrail(client, "g1", "2", Hand(), told).blocks("Do it")


def ask_cognito(client: Any, told: Any) -> object:
    return UserGroups(client, "pool-1", Hand(), told).of("u")


def ask_pipeline(client: Any, told: Any) -> object:
    Pipeline(client, "arn:f", told).invoke("T1")
    return None


SERVICES = pytest.mark.parametrize(
    ("ask", "operation", "answer", "outage"),
    [
        (ask_guardrail, "apply_guardrail", {"action": "NONE"}, GuardrailOutageError),
        (ask_cognito, "admin_list_groups_for_user", {}, BudgetUnavailableError),
        (ask_pipeline, "invoke", {}, PipelineUnavailableError),
    ],
    ids=["guardrail", "cognito", "pipeline"],
)


@SERVICES
def test_a_service_reports_whether_it_answered(
    ask: Ask, operation: str, answer: Any, outage: type[ReconcilerError]
) -> None:
    told = Told()
    ask(Scripted(answer), told)
    with pytest.raises(outage):
        ask(Scripted(LOST), told)
    assert told.said == [(operation, None), (operation, outage)]


@pytest.mark.parametrize(
    ("ask", "code"),
    [(ask_guardrail, "ValidationException"), (ask_cognito, "UserNotFoundException")],
)
def test_a_refused_request_is_no_outage(ask: Ask, code: str) -> None:
    told = Told()
    refusal = ClientError({"Error": {"Code": code, "Message": "no"}}, "Ask")
    with suppress(ReconcilerError):
        ask(Scripted(refusal), told)
    assert told.said == []


def test_an_unknown_answer_is_reported_as_an_outage() -> None:
    told = Told()
    with pytest.raises(GuardrailUnavailableError):
        ask_guardrail(Scripted({"action": "PERHAPS"}), told)
    assert told.said == [("apply_guardrail", GuardrailUnavailableError)]


def test_an_unnamed_invocation_cannot_have_its_name_refused() -> None:
    message = "You cannot invoke a durable function using an unqualified ARN."
    client: Any = Scripted(
        ClientError(
            {"Error": {"Code": "InvalidParameterValueException", "Message": message}}, "Invoke"
        )
    )
    with pytest.raises(InvocationRefusedError) as caught:
        Pipeline(client, "arn:f").invoke("T1", named=False)
    assert not isinstance(caught.value, NameRefusedError)
