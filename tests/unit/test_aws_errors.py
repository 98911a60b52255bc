"""Errors of AWS: which count against an orchestration, and which kind of outage the rest are."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions
import botocore.session
import pytest
from botocore.config import Config
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from reconciler.aws_errors import EXPLANATIONS, RAISED, is_own_fault, translate
from reconciler.errors import (
    DEFECTS,
    OUTAGES,
    AccessError,
    AccountLimitError,
    ConflictError,
    CredentialsError,
    DefectError,
    EncryptionKeyError,
    IndexUnavailableError,
    InvalidRequestError,
    ReconcilerError,
    SettingsError,
    StoreUnavailableError,
    TableMissingError,
    ThrottledError,
    UnknownRefusalError,
    lasting,
)

REJECTED = "ValidationException"


def refusal(code: str, message: str = "no", status: int = 400) -> ClientError:
    error = {"Code": code, "Message": message}
    response: Any = {"Error": error, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "Op")


# -- errors that count against an orchestration

OWN_FAULTS = [
    ("ItemCollectionSizeLimitExceededException", "Collection size exceeded."),
    ("ItemCollectionSizeLimitExceeded", "Collection size exceeded."),
    (REJECTED, "Item size has exceeded the maximum allowed size"),
    ("ValidationError", "Item size to update has exceeded the maximum allowed size"),
    (REJECTED, "Invalid UpdateExpression: Expression size has exceeded the maximum allowed size"),
    (
        REJECTED,
        (
            "One or more parameter values were invalid: Size of hashkey has exceeded the maximum "
            "size limit of2048 bytes"
        ),
    ),
    (
        REJECTED,
        (
            "One or more parameter values were invalid: Aggregated size of all range keys has "
            "exceeded the size limit of 1024 bytes"
        ),
    ),
    (
        REJECTED,
        (
            "One or more parameter values are not valid. The AttributeValue for a key attribute "
            "cannot contain an empty string value. Key: task_id"
        ),
    ),
    (
        REJECTED,
        (
            "One or more parameter values are not valid. A value specified for a secondary index "
            "key is not supported. The AttributeValue for a key attribute cannot contain an empty "
            "string value. IndexName: UserStatusIndex, IndexKey: user_id"
        ),
    ),
    (REJECTED, "Nesting Levels have exceeded supported limits"),
    (
        REJECTED,
        "Number overflow. Attempting to store a number with magnitude larger than supported range",
    ),
    (REJECTED, "Attempting to store more than 38 significant digits in a Number"),
    (REJECTED, "An operand in the update expression has an incorrect data type"),
    (REJECTED, "The document path provided in the update expression is invalid for update"),
    (
        REJECTED,
        "The provided expression refers to an attribute that does not exist in the item",
    ),
    (REJECTED, "Transaction request cannot include multiple operations on one item"),
]
"""All of these errors, in DynamoDB's words."""


@pytest.mark.parametrize(("code", "message"), OWN_FAULTS)
def test_a_rejected_item_counts_against_its_orchestration(code: str, message: str) -> None:
    assert is_own_fault(code, message)
    found = translate(refusal(code, message), "put_item on T")
    assert type(found) is InvalidRequestError
    assert lasting(found)
    assert message in str(found)


@pytest.mark.parametrize("code", ["Odd", "AccessDeniedException", "ThrottlingException"])
@pytest.mark.parametrize("message", [message for _, message in OWN_FAULTS])
def test_the_message_alone_does_not_count(code: str, message: str) -> None:
    """The same message with another code is an outage."""
    assert not is_own_fault(code, message)
    assert not lasting(translate(refusal(code, message), "put_item on T"))


def test_only_rejections_and_defects_count_against_an_orchestration() -> None:
    held = {InvalidRequestError, DefectError}
    kinds = {kind for kind in every(ReconcilerError) if kind.__module__ == "reconciler.errors"}
    assert {kind for kind in kinds if lasting(kind("x"))} == held
    assert all(lasting(defect("x")) for defect in DEFECTS)
    assert not lasting(TimeoutError())


def every(root: type[Any]) -> set[type[Any]]:
    return {root}.union(*(every(kind) for kind in root.__subclasses__()))


# -- outages

OUTAGE_CODES: list[tuple[str, str, int, type[ReconcilerError]]] = [
    ("ThrottlingException", "Rate exceeded", 400, ThrottledError),
    ("ProvisionedThroughputExceededException", "no", 400, ThrottledError),
    ("RequestLimitExceeded", "limit for your account", 400, ThrottledError),
    ("TooManyRequestsException", "no", 429, ThrottledError),
    ("TransactionConflictException", "no", 400, ConflictError),
    ("TransactionInProgressException", "no", 400, ConflictError),
    ("ResourceNotFoundException", "Requested resource not found", 400, TableMissingError),
    ("AccessDeniedException", "User: x is not authorized", 400, AccessError),
    ("ExpiredTokenException", "The security token has expired", 400, CredentialsError),
    ("UnrecognizedClientException", "The security token is invalid", 400, CredentialsError),
    ("InvalidSignatureException", "no", 400, CredentialsError),
    (REJECTED, "The table does not have the specified index: I", 400, IndexUnavailableError),
    (
        REJECTED,
        "Cannot read from backfilling global secondary index: I",
        400,
        IndexUnavailableError,
    ),
    ("KMSAccessDeniedException", "no", 400, EncryptionKeyError),
    ("AccessDeniedException", "not authorized to perform: kms:Decrypt", 400, EncryptionKeyError),
    (REJECTED, "KMS key access denied", 400, EncryptionKeyError),
    ("LimitExceededException", "no", 400, AccountLimitError),
    ("ServiceQuotaExceededException", "no", 400, AccountLimitError),
    ("InternalServerError", "no", 400, StoreUnavailableError),
    ("Odd", "no", 500, StoreUnavailableError),
    ("Odd", "no", 503, StoreUnavailableError),
    ("Odd", "no", 499, UnknownRefusalError),
    (REJECTED, "The provided key element does not match the schema", 400, UnknownRefusalError),
    (REJECTED, "Invalid KeyConditionExpression: Syntax error", 400, UnknownRefusalError),
]


@pytest.mark.parametrize(("code", "message", "status", "kind"), OUTAGE_CODES)
def test_each_other_error_has_its_outage_kind(
    code: str, message: str, status: int, kind: type[ReconcilerError]
) -> None:
    found = translate(refusal(code, message, status), "scan on T")
    assert type(found) is kind
    assert not lasting(found)
    assert str(found) == f"scan on T: {code}: {message}"
    assert EXPLANATIONS[found.kind].advice


def test_an_answer_without_code_is_an_outage() -> None:
    found = translate(ClientError({}, "Scan"), "scan on T")
    assert type(found) is UnknownRefusalError


def botocore_errors() -> list[Any]:
    return sorted(
        (
            kind
            for kind in vars(botocore.exceptions).values()
            if isinstance(kind, type) and issubclass(kind, botocore.exceptions.BotoCoreError)
        ),
        key=lambda kind: kind.__name__,
    )


def raised(kind: Any) -> BaseException:
    """Return an exception of botocore, with whatever fields its message needs."""
    fields: dict[str, Any] = {}
    while True:
        try:
            return kind(**fields)  # type: ignore[no-any-return]
        except KeyError as missing:
            fields[missing.args[0]] = "x"
        except TypeError:
            return kind("x", "x", {})  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", botocore_errors(), ids=lambda kind: kind.__name__)
def test_no_botocore_error_counts_against_an_orchestration(kind: Any) -> None:
    error = raised(kind)
    assert isinstance(error, RAISED)
    found = translate(error, "scan on T")
    assert not lasting(found)
    assert found.kind in OUTAGES


CREDENTIALS = (
    "NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError", "SSOError",
    "SSOTokenLoadError", "UnauthorizedSSOTokenError", "NoAuthTokenError", "LoginRefreshRequired",
)  # fmt: skip
SETTINGS = ("NoRegionError", "InvalidRegionError", "ProfileNotFound", "ConfigParseError")
UNREACHABLE = (
    "EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError",
    "SSLError", "ProxyConnectionError", "IncompleteReadError",
)  # fmt: skip


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (CREDENTIALS, CredentialsError),
        (SETTINGS, SettingsError),
        (UNREACHABLE, StoreUnavailableError),
    ],
)
def test_botocore_errors_have_the_right_kind(
    names: tuple[str, ...], kind: type[ReconcilerError]
) -> None:
    for name in names:
        found = translate(raised(getattr(botocore.exceptions, name)), "scan on T")
        assert type(found) is kind, name


def test_a_malformed_endpoint_is_a_setting() -> None:
    """It raises a plain ValueError; AWS has not answered anything."""
    with pytest.raises(ValueError, match="endpoint") as failed:
        boto3.Session("k", "s", region_name="eu-west-1").client("dynamodb", endpoint_url="no-url")
    assert type(translate(failed.value, "making a client")) is SettingsError


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError("no route"), StoreUnavailableError),
        (ResponseParserError("<html>"), StoreUnavailableError),
        (RuntimeError("odd"), UnknownRefusalError),
        (KeyError("odd"), UnknownRefusalError),
    ],
)
def test_exceptions_from_elsewhere_are_outages(
    error: Exception, kind: type[ReconcilerError]
) -> None:
    found = translate(error, "scan on T")
    assert type(found) is kind
    assert str(found).startswith(f"scan on T: {type(error).__name__}: ")


# -- expired credentials, as they fail in botocore itself

Provide = Callable[[], Any]


def nothing_new(**_: Any) -> dict[str, str]:
    """Return what a provider answers when its own credentials have expired."""
    expired = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    return {"access_key": "a", "secret_key": "b", "token": "c", "expiry_time": expired}


def fails(error: Exception) -> Provide:
    def refresh() -> Any:
        raise error

    return refresh


@pytest.mark.parametrize(
    "refresh",
    [
        nothing_new,  # a RuntimeError of botocore
        fails(refusal("AccessDenied", "not authorized to perform: sts:AssumeRole")),
        fails(refusal("ServiceUnavailable", status=503)),
        fails(botocore.exceptions.EndpointConnectionError(endpoint_url="https://sts")),
        fails(FileNotFoundError("/var/run/secrets/eks.amazonaws.com/serviceaccount/token")),
        fails(ValueError("Expecting value: line 1 column 1 (char 0)")),
    ],
)
def test_a_failed_refresh_is_a_credentials_error(refresh: Any) -> None:
    """Botocore wraps almost none of the errors that a refresh can raise."""
    session = botocore.session.Session()
    session._credentials = RefreshableCredentials.create_from_metadata(  # type: ignore[attr-defined]
        nothing_new(), refresh, "test"
    )
    client = boto3.Session(botocore_session=session, region_name="eu-west-1").client(
        "dynamodb", config=Config(retries={"total_max_attempts": 1})
    )
    with pytest.raises(RAISED) as caught:
        client.scan(TableName="T")
    found = translate(caught.value, "scan on T")
    assert type(found) is CredentialsError
    assert "no usable AWS credentials" in str(found)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ("[default]\ncredential_process = false\n", CredentialsError),
        ("[default]\ncredential_process = echo nothing\n", CredentialsError),
        ("[default]\ncredential_process = /no/such/program\n", CredentialsError),
        ("[default]\nsso_session = s\nsso_account_id = 1\nsso_role_name = r\n", CredentialsError),
        ("this is no configuration", SettingsError),
    ],
)
def test_a_broken_profile_has_the_right_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, kind: type[ReconcilerError]
) -> None:
    config = tmp_path / "config"
    config.write_text(content)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(RAISED) as caught:
        boto3.Session(region_name="eu-west-1").client("dynamodb").scan(TableName="T")
    assert type(translate(caught.value, "scan on T")) is kind


# -- explanations


def test_every_outage_is_explained() -> None:
    assert EXPLANATIONS.keys() >= OUTAGES
    for explanation in EXPLANATIONS.values():
        assert explanation.meaning
        assert explanation.advice
