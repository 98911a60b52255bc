"""The guardrail: what an agent is to be told is screened first, and unscreened it never goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from reconciler.errors import GuardrailOutageError, GuardrailUnavailableError
from reconciler.services.breaker import Breaker

if TYPE_CHECKING:
    from mypy_boto3_bedrock_runtime import BedrockRuntimeClient


class Guardrail:
    """A Bedrock guardrail (``ApplyGuardrail``)."""

    def __init__(
        self,
        client: BedrockRuntimeClient,
        guardrail_id: str,
        version: str,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._guardrail_id = guardrail_id
        self._version = version
        self._breaker = Breaker(monotonic)

    def blocks(self, text: str) -> bool:
        """Return whether the guardrail blocks ``text``: for good.

        Raises:
            GuardrailOutageError: it does not answer, or did not a moment ago.
            GuardrailUnavailableError: it does not take this text, or answered in no known form.
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
        except (ClientError, BotoCoreError) as error:
            msg = f"the guardrail did not answer: {error}"
            if _about_this_text(error):
                raise GuardrailUnavailableError(msg) from error
            self._breaker.open()
            raise GuardrailOutageError(msg) from error
        action = answer.get("action")
        if action not in {"NONE", "GUARDRAIL_INTERVENED"}:
            msg = f"the guardrail answered {action!r}, which is not known"
            raise GuardrailUnavailableError(msg)
        return action == "GUARDRAIL_INTERVENED"


def _about_this_text(error: ClientError | BotoCoreError) -> bool:
    return isinstance(error, ClientError) and error.response["Error"]["Code"] in {
        "ValidationException",
        "ServiceQuotaExceededException",
    }
