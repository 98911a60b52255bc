"""The guardrail, which screens every task description before an agent gets it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from reconciler.aws_errors import RAISED, code_of, translate
from reconciler.errors import GuardrailOutageError, GuardrailUnavailableError, TextRefusedError
from reconciler.observability.outages import Outages
from reconciler.services.breaker import Breaker

if TYPE_CHECKING:
    from mypy_boto3_bedrock_runtime import BedrockRuntimeClient

_ABOUT_THIS_TEXT = frozenset({"ValidationException", "ServiceQuotaExceededException"})
"""The second does not tell whether the text is too long or the account's quota is used up. Neither
counts as a failure of the child."""


class Guardrail:
    """A Bedrock guardrail (``ApplyGuardrail``)."""

    def __init__(
        self,
        client: BedrockRuntimeClient,
        guardrail_id: str,
        version: str,
        monotonic: Callable[[], float] = time.monotonic,
        outages: Outages | None = None,
    ) -> None:
        self._client = client
        self._outages = outages or Outages()
        self._guardrail_id = guardrail_id
        self._version = version
        self._breaker = Breaker(monotonic)

    def blocks(self, text: str) -> bool:
        """Return whether the guardrail blocks ``text``, which is final.

        Raises:
            GuardrailOutageError: it does not answer, or did not a moment ago.
            TextRefusedError: it does not take this text.
            GuardrailUnavailableError: its answer is unknown.
        """
        if self._breaker.is_open:
            raise GuardrailOutageError("the guardrail did not answer a moment ago")
        try:
            answer = self._client.apply_guardrail(
                guardrailIdentifier=self._guardrail_id,
                guardrailVersion=self._version,
                source="INPUT",
                content=[{"text": {"text": text}}],
            )
        except RAISED as error:
            fault = translate(error, f"apply_guardrail of {self._guardrail_id}")
            if code_of(error) in _ABOUT_THIS_TEXT:
                msg = f"the guardrail does not take the text: {fault}"
                raise TextRefusedError(msg) from error
            self._breaker.open()
            outage = GuardrailOutageError(f"the guardrail did not answer: {fault}")
            self._outages.failed("apply_guardrail", outage)
            raise outage from error
        action = answer.get("action")
        if action not in {"NONE", "GUARDRAIL_INTERVENED"}:
            msg = f"the guardrail answered {action!r}, which is not known"
            unknown = GuardrailUnavailableError(msg)
            self._outages.failed("apply_guardrail", unknown)
            raise unknown
        self._outages.succeeded("apply_guardrail")
        return action == "GUARDRAIL_INTERVENED"
