"""The guardrail: what an agent is to be told is screened first, and unscreened it never goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from reconciler.errors import GuardrailUnavailableError

if TYPE_CHECKING:
    from mypy_boto3_bedrock_runtime import BedrockRuntimeClient


class Guardrail:
    """A Bedrock guardrail (``ApplyGuardrail``)."""

    def __init__(self, client: BedrockRuntimeClient, guardrail_id: str, version: str) -> None:
        self._client = client
        self._guardrail_id = guardrail_id
        self._version = version

    def blocks(self, text: str) -> bool:
        """Return whether the guardrail blocks ``text``: for good.

        Raises:
            GuardrailUnavailableError: it did not answer, or not in a form that is understood.
        """
        try:
            answer = self._client.apply_guardrail(
                guardrailIdentifier=self._guardrail_id,
                guardrailVersion=self._version,
                source="INPUT",
                content=[{"text": {"text": text}}],
            )
        except (ClientError, BotoCoreError) as error:
            msg = f"the guardrail did not answer: {error}"
            raise GuardrailUnavailableError(msg) from error
        action = answer.get("action")
        if action not in {"NONE", "GUARDRAIL_INTERVENED"}:
            msg = f"the guardrail answered {action!r}, which is not known"
            raise GuardrailUnavailableError(msg)
        return action == "GUARDRAIL_INTERVENED"
