"""Translates errors of AWS into ours; only this module knows AWS's error codes and exceptions.

It also decides which errors count against an orchestration: if DynamoDB rejects an item for its
size or a value (``is_own_fault``), or if our code fails on its rows. Everything else is an outage:
unknown codes, missing or backfilling indexes, denied keys, account limits, credentials.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from botocore import exceptions as boto
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from reconciler.errors import (
    DEFECTS,
    AccessError,
    AccountLimitError,
    BudgetUnavailableError,
    ConflictError,
    CredentialsError,
    EncryptionKeyError,
    GuardrailUnavailableError,
    IndexUnavailableError,
    InvalidRequestError,
    PipelineUnavailableError,
    ReconcilerError,
    SettingsError,
    StoreUnavailableError,
    TableMissingError,
    ThrottledError,
    UnknownRefusalError,
)

RAISED = (ClientError, BotoCoreError, ResponseParserError, OSError, *DEFECTS)
"""What a call of an AWS client raises. Not ``Exception``, which includes a worker's time limit."""

THROTTLES = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "ProvisionedThroughputExceeded",
        "RequestLimitExceeded",
        "ThrottlingException",
        "ThrottlingError",
        "TooManyRequestsException",
    }
)
CONFLICTS = frozenset(
    {"TransactionConflictException", "TransactionConflict", "TransactionInProgressException"}
)
CONDITION_FAILED = "ConditionalCheckFailed"
"""The code in a transaction's reasons; as the error of a single write it ends in ``Exception``."""

_KINDS: Mapping[type[ReconcilerError], Collection[str]] = {
    ThrottledError: THROTTLES,
    ConflictError: CONFLICTS,
    TableMissingError: {"ResourceNotFoundException", "TableNotFoundException"},
    CredentialsError: {
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignatureException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationTokenException",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    },
    AccessError: {
        "AccessDenied",
        "AccessDeniedException",
        "NotAuthorizedException",
        "UnauthorizedOperation",
    },
    AccountLimitError: {
        "LimitExceededException",
        "OptInRequired",
        "ServiceQuotaExceededException",
        "SubscriptionRequiredException",
    },
    StoreUnavailableError: {"InternalServerError", "InternalFailure", "ServiceUnavailable"},
}
_BY_CODE = {code: kind for kind, codes in _KINDS.items() for code in codes}

_REJECTED = frozenset({"ValidationException", "ValidationError"})
_TOO_LARGE = frozenset(
    {"ItemCollectionSizeLimitExceededException", "ItemCollectionSizeLimitExceeded"}
)
_ABOUT_AN_ITEM = re.compile(
    "maximum allowed size"
    "|exceeded the (maximum )?size limit"
    "|empty string value"
    "|nesting levels"
    "|number overflow|more than 38 significant digits"
    "|incorrect data type|document path provided"
    "|attribute that does not exist in the item"
    "|multiple operations on one item",
    re.IGNORECASE,
)
"""Matches rejections because of the item, not because of the table or the request."""

_ABOUT_AN_INDEX = re.compile("specified index|backfilling|global secondary index", re.IGNORECASE)
_ABOUT_A_KEY = re.compile(r"\bkms\b", re.IGNORECASE)

_NO_CREDENTIALS = (
    boto.LoginError,
    boto.NoAuthTokenError,
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.SSOError,
    boto.TokenRetrievalError,
)
_OBTAINING = frozenset({"botocore.credentials", "botocore.tokens"})
_WRONG_SETTINGS = (
    boto.BaseEndpointResolverError,
    boto.ConfigNotFound,
    boto.ConfigParseError,
    boto.EndpointProviderError,
    boto.InvalidConfigError,
    boto.InvalidEndpointConfigurationError,
    boto.InvalidProxiesConfigError,
    boto.InvalidRegionError,
    boto.InvalidRetryConfigurationError,
    boto.ProfileNotFound,
    boto.UnknownRegionError,
)
_WRONG_ENDPOINT = "Invalid endpoint: "
"""The beginning of botocore's ``ValueError`` for an endpoint that is not a URL."""

_MIN_SERVERS_FAULT = 500


@dataclass(frozen=True, slots=True)
class Explanation:
    """The meaning of a kind of error, and what to do about it."""

    meaning: str
    advice: str


EXPLANATIONS = {
    ThrottledError.kind: Explanation(
        "AWS refuses requests for want of capacity",
        "raise the table's capacity, or lower SCAN_READ_UNITS_PER_SECOND",
    ),
    ConflictError.kind: Explanation(
        "other transactions hold the same rows",
        "wait: the next sweep tries again",
    ),
    TableMissingError.kind: Explanation(
        "something that the settings name does not exist",
        "correct its setting, or the region",
    ),
    IndexUnavailableError.kind: Explanation(
        "an index is missing, or is still being filled",
        "wait until it is ACTIVE, or create it; nothing that needs it is repaired until then",
    ),
    AccessError.kind: Explanation(
        "a permission is missing",
        "grant what deploy/iam/policy.json grants",
    ),
    EncryptionKeyError.kind: Explanation(
        "the table's encryption key (KMS) is disabled, deleted or denied",
        "enable the key, and let its key policy allow this role kms:Decrypt",
    ),
    CredentialsError.kind: Explanation(
        "the AWS credentials are missing, wrong or expired, or cannot be obtained",
        "renew or correct them (`aws sso login` for a profile of SSO); in a container, see that "
        "the task has its role",
    ),
    AccountLimitError.kind: Explanation(
        "the AWS account has reached a limit, or may not use the service",
        "see Service Quotas and the state of the account",
    ),
    SettingsError.kind: Explanation(
        "the region, the endpoint or the profile is wrong",
        "correct AWS_REGION, AWS_ENDPOINT_URL or AWS_PROFILE",
    ),
    StoreUnavailableError.kind: Explanation(
        "AWS cannot be reached, or answers with a fault of its own",
        "see that AWS_REGION, AWS_ENDPOINT_URL and the network are right, or wait",
    ),
    GuardrailUnavailableError.kind: Explanation(
        "the guardrail (Bedrock) does not answer, so nothing is released",
        "see `reconciler doctor`; unscreened text never reaches an agent",
    ),
    BudgetUnavailableError.kind: Explanation(
        "the monthly budgets cannot be read, so nothing is released",
        "see `reconciler doctor`, and the rows of BudgetTable",
    ),
    PipelineUnavailableError.kind: Explanation(
        "the task pipeline (Lambda) cannot be invoked",
        "see `reconciler doctor`; tasks are created, and invoked once it answers",
    ),
    InvalidRequestError.kind: Explanation(
        "DynamoDB rejects an item for its size or a value",
        "correct the row that the log names",
    ),
    UnknownRefusalError.kind: Explanation(
        "AWS answers with an error that is not known here",
        "look its code up in the documentation of AWS",
    ),
}
"""Kind of error → explanation, for ``doctor`` and the logs."""


def explain(error: ReconcilerError) -> str:
    """Return an error in one line, with its meaning and advice if it is an outage of AWS."""
    known = EXPLANATIONS.get(error.kind) if not isinstance(error, SettingsError) else None
    return str(error) if known is None else f"{error}: {known.meaning}; {known.advice}"


def is_own_fault(code: str, message: str) -> bool:
    """Whether a refusal is because of the item that was sent: its size, or a value."""
    rejected = code in _REJECTED and _ABOUT_AN_ITEM.search(message) is not None
    return rejected or code in _TOO_LARGE


def translate(error: BaseException, what: str) -> ReconcilerError:
    """Translate an exception of a client; ``what``: the failed operation.

    ``error``: one of ``RAISED``. Raise the result ``from`` it.
    """
    if isinstance(error, _NO_CREDENTIALS) or _raised_while_obtaining_credentials(error):
        return CredentialsError(f"no usable AWS credentials: {_in_one_line(error)}")
    if isinstance(error, ClientError):
        return _translate_answer(error, what)
    if isinstance(error, _WRONG_SETTINGS) or str(error).startswith(_WRONG_ENDPOINT):
        advice = EXPLANATIONS[SettingsError.kind].advice
        return SettingsError(f"AWS settings cannot be used ({error}): {advice}")
    if isinstance(error, BotoCoreError | ResponseParserError | OSError):
        return StoreUnavailableError(f"{what}: {_in_one_line(error)}")
    return UnknownRefusalError(f"{what}: {_in_one_line(error)}")


def code_of(error: BaseException) -> str:
    """Return the error code of a service's answer; empty if it did not answer."""
    if not isinstance(error, ClientError):
        return ""
    return error.response.get("Error", {}).get("Code") or "Unknown"


def translate_refusal(code: str, message: str, what: str, status: int = 400) -> ReconcilerError:
    """Translate the code and the message of a refusal; ``status``: the HTTP status."""
    text = f"{what}: {code}: {message or code}"
    if _ABOUT_A_KEY.search(message) or code.startswith("KMS"):
        return EncryptionKeyError(text)
    if is_own_fault(code, message):
        return InvalidRequestError(text)
    if code in _REJECTED and _ABOUT_AN_INDEX.search(message):
        return IndexUnavailableError(text)
    if code in _BY_CODE:
        return _BY_CODE[code](text)
    if status >= _MIN_SERVERS_FAULT:
        return StoreUnavailableError(text)
    return UnknownRefusalError(text)


def _translate_answer(error: ClientError, what: str) -> ReconcilerError:
    message = error.response.get("Error", {}).get("Message") or ""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return translate_refusal(code_of(error), message, what, status)


def _raised_while_obtaining_credentials(error: BaseException) -> bool:
    """Whether obtaining credentials failed; the traceback shows it, whatever the exception."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_globals.get("__name__") in _OBTAINING for frame, _ in frames)


def _in_one_line(error: BaseException) -> str:
    name = type(error).__name__
    text = str(error) or name
    return text if isinstance(error, BotoCoreError | ClientError) else f"{name}: {text}"
