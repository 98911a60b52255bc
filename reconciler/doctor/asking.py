"""Calls AWS and returns faults as answers instead of raising them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

from reconciler.aws_errors import CONDITION_FAILED, EXPLANATIONS, RAISED, code_of, translate
from reconciler.errors import AccessError, TableMissingError, UnknownRefusalError

ANSWERED = "answered"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer.

    ``kind``: ``ANSWERED``, ``CONDITION_FAILED``, or the kind of an error (``reconciler.errors``).
    ``said``: the error in one line.
    """

    kind: str
    said: str = ""
    response: Mapping[str, Any] = field(default_factory=dict)

    @property
    def date(self) -> str | None:
        """The service's time, which every answer has, even a refusal."""
        headers = self.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        found = headers.get("date")
        return str(found) if found is not None else None

    @property
    def explained(self) -> str:
        """What the error means, and the error itself."""
        return f"{EXPLANATIONS[self.kind].meaning} ({self.said})"

    def advice(self, setting: str, permission: str) -> str:
        """Return what to do; ``setting`` names the resource, ``permission`` the needed right."""
        if self.kind == TableMissingError.kind:
            return f"correct {setting}, or the region"
        if self.kind == AccessError.kind:
            return f"allow {permission}, as deploy/iam/policy.json has it"
        if self.kind == UnknownRefusalError.kind:
            return f"check {setting}, and look up the code in the documentation"
        return EXPLANATIONS[self.kind].advice


def ask(client: Any, operation: str, **request: Any) -> Answer:  # noqa: ANN401 - any client
    """Call ``operation`` and return the answer, which may be a fault."""
    try:
        return Answer(ANSWERED, "", getattr(client, operation)(**request))
    except RAISED as error:
        response = error.response if isinstance(error, ClientError) else {}
        reasons = {reason.get("Code") for reason in response.get("CancellationReasons", ())}
        if CONDITION_FAILED in reasons or code_of(error) == f"{CONDITION_FAILED}Exception":
            return Answer(CONDITION_FAILED, response=response)
        fault = translate(error, operation)
        return Answer(fault.kind, str(fault), response)
