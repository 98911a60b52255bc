"""The guardrail: what it blocks, what counts as an outage, and the pause after one."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from reconciler.errors import GuardrailOutageError, GuardrailUnavailableError
from reconciler.services.guardrail import Guardrail
from tests.unit.stores.scripted import Scripted
from tests.unit.stores.test_control import Hand


def refusal(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, "ApplyGuardrail")


def guardrail(*answers: Any, hand: Hand | None = None) -> tuple[Guardrail, Scripted]:
    client: Any = Scripted(*answers)
    return Guardrail(client, "g1", "2", hand or Hand()), client


@pytest.mark.parametrize(("action", "blocks"), [("NONE", False), ("GUARDRAIL_INTERVENED", True)])
def test_only_an_intervention_blocks_a_text(action: str, blocks: bool) -> None:  # noqa: FBT001
    asked, client = guardrail({"action": action})
    assert asked.blocks("Do it") is blocks
    ((operation, request),) = client.requests
    assert (operation, request["content"]) == ("apply_guardrail", [{"text": {"text": "Do it"}}])
    assert (request["guardrailIdentifier"], request["guardrailVersion"]) == ("g1", "2")


@pytest.mark.parametrize("answer", [{"action": "PERHAPS"}, {}])
def test_an_unknown_answer_lets_nothing_pass(answer: dict[str, Any]) -> None:
    with pytest.raises(GuardrailUnavailableError, match="is not known"):
        guardrail(answer)[0].blocks("Do it")


@pytest.mark.parametrize(
    "error", [refusal("ThrottlingException"), EndpointConnectionError(endpoint_url="x")]
)
def test_an_outage_pauses_requests_for_five_seconds(error: Exception) -> None:
    hand = Hand()
    asked, client = guardrail(error, {"action": "NONE"}, hand=hand)
    hand.now = 7.0
    with pytest.raises(GuardrailOutageError, match="did not answer: "):
        asked.blocks("Do it")
    hand.now = 11.999
    with pytest.raises(GuardrailOutageError, match="a moment ago"):
        asked.blocks("Do it")
    assert len(client.requests) == 1
    hand.now = 12.0
    assert asked.blocks("Do it") is False


@pytest.mark.parametrize("code", ["ValidationException", "ServiceQuotaExceededException"])
def test_a_rejected_text_holds_up_no_other(code: str) -> None:
    asked, _ = guardrail(refusal(code), {"action": "NONE"})
    with pytest.raises(GuardrailUnavailableError) as caught:
        asked.blocks("Do it")
    assert not isinstance(caught.value, GuardrailOutageError)
    assert asked.blocks("Do that") is False
