"""One question to an AWS service, and what kind of answer came back.

Elsewhere a fault is an error; here it is what was asked for. So this module, like the adapters of
``reconciler.stores``, reads the services' own error codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
)

from reconciler.stores.dynamodb import REFUSED_CREDENTIALS, THROTTLES

_NO_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError)
_SERVICES_OWN_FAULT = 500


class Kind(StrEnum):
    """What kind of answer it was."""

    ANSWERED = "answered"
    CONDITION_FAILED = "condition failed"
    DENIED = "denied"
    CREDENTIALS = "credentials refused"
    MISSING = "missing"
    INVALID = "invalid"
    THROTTLED = "throttled"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer; ``said`` is the service's own words where it was not a plain one."""

    kind: Kind
    said: str = ""
    response: Mapping[str, Any] = field(default_factory=dict)

    @property
    def date(self) -> str | None:
        """The service's time, which comes with every answer, refusals included."""
        headers = self.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        found = headers.get("date")
        return str(found) if found is not None else None


def ask(client: Any, operation: str, **request: Any) -> Answer:  # noqa: ANN401 - any client
    """Call ``operation``, and say how it was answered; nothing is raised for a fault."""
    try:
        return Answer(Kind.ANSWERED, "", getattr(client, operation)(**request))
    except ClientError as error:
        code = error.response["Error"]["Code"]
        said = f"{code}: {error.response['Error'].get('Message') or 'no more was said'}"
        return Answer(_kind(code, error.response), said, error.response)
    except _NO_CREDENTIALS as error:
        return Answer(Kind.CREDENTIALS, str(error))
    except BotoCoreError as error:
        return Answer(Kind.UNREACHABLE, str(error))


def _kind(code: str, response: Mapping[str, Any]) -> Kind:
    if code == "ConditionalCheckFailedException":
        return Kind.CONDITION_FAILED
    if code == "TransactionCanceledException":
        reasons = {reason.get("Code") for reason in response.get("CancellationReasons", ())}
        return Kind.CONDITION_FAILED if "ConditionalCheckFailed" in reasons else Kind.INVALID
    if code in {"AccessDeniedException", "AccessDenied"}:
        return Kind.DENIED
    if code in REFUSED_CREDENTIALS:
        return Kind.CREDENTIALS
    if code in {"ResourceNotFoundException", "ResourceNotFound"}:
        return Kind.MISSING
    if code in THROTTLES or code == "TooManyRequestsException":
        return Kind.THROTTLED
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return Kind.UNREACHABLE if status >= _SERVICES_OWN_FAULT else Kind.INVALID
