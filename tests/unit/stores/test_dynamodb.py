"""DynamoDB behind our errors: what is tried again, what is counted, and what each fault becomes."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
)

from reconciler.errors import (
    AccessError,
    ConflictError,
    InvalidRequestError,
    ReconcilerError,
    SettingsError,
    StoreUnavailableError,
    TableMissingError,
    ThrottledError,
)
from reconciler.stores.dynamodb import (
    Cancelled,
    DynamoDB,
    count_throttles,
    measured,
    translate_transport,
)
from tests.support.metrics import RecordingMetrics
from tests.unit.stores.scripted import Scripted

PUT: dict[str, Any] = {"row": {"Put": {"TableName": "T"}}}


def refusal(code: str, status: int = 400, message: str | None = "no", **more: Any) -> ClientError:
    error = {"Code": code} | ({"Message": message} if message is not None else {})
    response: Any = {"Error": error, "ResponseMetadata": {"HTTPStatusCode": status}, **more}
    return ClientError(response, "Op")


def cancelled(*codes: str | None) -> ClientError:
    return refusal("TransactionCanceledException", CancellationReasons=[{"Code": c} for c in codes])


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("ThrottlingException", 400, ThrottledError),
        ("ProvisionedThroughputExceededException", 400, ThrottledError),
        ("TransactionConflictException", 400, ConflictError),
        ("ResourceNotFoundException", 400, TableMissingError),
        ("AccessDeniedException", 400, AccessError),
        ("ExpiredTokenException", 400, AccessError),
        ("InternalServerError", 400, StoreUnavailableError),
        ("ServiceUnavailable", 400, StoreUnavailableError),
        ("Odd", 500, StoreUnavailableError),
        ("Odd", 503, StoreUnavailableError),
        ("Odd", 499, InvalidRequestError),
        ("ValidationException", 400, InvalidRequestError),
    ],
)
def test_what_becomes_of_an_error(code: str, status: int, kind: type[ReconcilerError]) -> None:
    with pytest.raises(ReconcilerError, match="scan on T") as caught:
        Scripted(refusal(code, status)).dynamodb.call("scan", TableName="T")
    assert type(caught.value) is kind


def test_an_error_names_each_table_once_and_what_was_said_of_it() -> None:
    request: dict[str, Any] = {"RequestItems": {"U": {}, "T": {}}}
    with pytest.raises(InvalidRequestError, match=r"batch_get_item on T, U: Odd: no$"):
        Scripted(refusal("Odd")).dynamodb.call("batch_get_item", **request)
    for message in (None, ""):
        with pytest.raises(InvalidRequestError, match=r"scan on T: Odd: Odd$"):
            Scripted(refusal("Odd", message=message)).dynamodb.call("scan", TableName="T")
    with pytest.raises(InvalidRequestError, match=r"list_tables on : Odd"):
        Scripted(refusal("Odd")).dynamodb.call("list_tables")


def test_an_error_without_a_status_is_none_of_the_services() -> None:
    bare = ClientError({"Error": {"Code": "Odd"}}, "Scan")
    with pytest.raises(InvalidRequestError):
        Scripted(bare).dynamodb.call("scan", TableName="T")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (NoCredentialsError(), AccessError),
        (PartialCredentialsError(provider="env", cred_var="x"), AccessError),
        (NoRegionError(), SettingsError),
        (ProfileNotFound(profile="x"), SettingsError),
        (EndpointConnectionError(endpoint_url="x"), StoreUnavailableError),
    ],
)
def test_what_becomes_of_a_failure_before_any_answer(
    error: BotoCoreError, kind: type[ReconcilerError]
) -> None:
    assert type(translate_transport(error)) is kind
    with pytest.raises(kind):
        Scripted(error).dynamodb.call("scan", TableName="T")


def test_a_lost_condition_is_what_stood_there() -> None:
    lost = refusal("ConditionalCheckFailedException", Item={"a": {"S": "x"}})
    client = Scripted(lost, refusal("ConditionalCheckFailedException"), {})
    write = client.dynamodb.write
    assert write("put_item", TableName="T") == {"a": {"S": "x"}}
    assert write("put_item", TableName="T") == {}
    assert write("put_item", TableName="T") is None
    request = client.requests[0][1]
    assert request["ReturnValuesOnConditionCheckFailure"] == "ALL_OLD"
    assert request["ReturnConsumedCapacity"] == "TOTAL"


def test_a_description_of_a_table_costs_nothing_and_is_not_asked_what_it_cost() -> None:
    client = Scripted({})
    client.dynamodb.call("describe_table", TableName="T")
    assert client.requests == [("describe_table", {"TableName": "T"})]


# -- transactions


def test_a_cancelled_transaction_names_what_failed_by_its_label() -> None:
    item = {"a": {"S": "x"}}
    reasons = [{"Code": "None"}, {"Code": "ConditionalCheckFailed", "Item": item}, {}]
    lost = refusal("TransactionCanceledException", CancellationReasons=reasons)
    writes = dict.fromkeys(("row", "task", "event"), PUT["row"])
    assert Scripted(lost).dynamodb.transact(writes) == Cancelled({"task": item})
    gone = refusal(
        "TransactionCanceledException", CancellationReasons=[{"Code": "ConditionalCheckFailed"}]
    )
    assert Scripted(gone).dynamodb.transact(writes) == Cancelled({"row": {}})


def test_a_lost_condition_beside_a_conflict_is_lost() -> None:
    client = Scripted(cancelled("TransactionConflict", "ConditionalCheckFailed"))
    assert client.dynamodb.transact({**PUT, "task": PUT["row"]}) is not None
    assert len(client.requests) == 1


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (cancelled("TransactionConflict", "None"), ConflictError),
        (cancelled("ThrottlingError"), ThrottledError),
        (refusal("TransactionInProgressException"), ConflictError),
        (refusal("ThrottlingException"), ThrottledError),
    ],
)
def test_a_conflict_or_a_throttle_is_tried_six_times_with_pauses(
    error: Exception, kind: type[ReconcilerError]
) -> None:
    client = Scripted(*[error] * 5, {})
    assert client.dynamodb.transact(PUT) is None
    assert len(client.requests) == 6
    assert len(client.pauses) == 5
    assert all(
        0 <= pause <= most
        for pause, most in zip(client.pauses, (0.05, 0.1, 0.2, 0.4, 0.8), strict=True)
    )
    client = Scripted(error)
    with pytest.raises(kind):
        client.dynamodb.transact(PUT)
    assert len(client.requests) == 6


def test_all_tries_of_a_transaction_bear_one_token() -> None:
    client = Scripted(*[refusal("TransactionInProgressException")] * 3, {})
    client.dynamodb.transact(PUT)
    client.dynamodb.transact(PUT)
    tokens = [request["ClientRequestToken"] for _, request in client.requests]
    assert len(set(tokens[:4])) == 1
    assert tokens[4] != tokens[3], "another transaction has a token of its own"


def test_a_lost_condition_tells_whether_it_was_repeated() -> None:
    lost = cancelled("ConditionalCheckFailed")
    clients = Scripted(lost), Scripted(refusal("TransactionInProgressException"), lost)
    answers = [client.dynamodb.transact(PUT) for client in clients]
    sent_again: Any = cancelled("ConditionalCheckFailed")
    sent_again.response["ResponseMetadata"]["RetryAttempts"] = 1
    answers.append(Scripted(sent_again).dynamodb.transact(PUT))
    assert [answer is not None and answer.repeated for answer in answers] == [False, True, True]


@pytest.mark.parametrize(
    "error", [cancelled("ItemCollectionSizeLimitExceeded"), refusal("TransactionCanceledException")]
)
def test_a_transaction_that_is_rejected_is_not_tried_again(error: Exception) -> None:
    client = Scripted(error)
    with pytest.raises(InvalidRequestError, match=r"^no$"):
        client.dynamodb.transact(PUT)
    assert len(client.requests) == 1


def test_a_rejection_without_a_message_says_what_botocore_says() -> None:
    with pytest.raises(InvalidRequestError, match="TransactionCanceledException"):
        Scripted(refusal("TransactionCanceledException", message=None)).dynamodb.transact(PUT)


def test_pauses_before_repetitions_double_up_to_two_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("random.uniform", lambda least, most: (least, most))
    client = Scripted({})
    for attempt in (1, 2, 5, 6, 9):
        client.dynamodb.stand_back(attempt)
    assert client.pauses == [(0, 0.1), (0, 0.2), (0, 1.6), (0, 2.0), (0, 2.0)]


# -- what is counted


def test_what_is_consumed_is_counted_in_every_block_that_is_open() -> None:
    answers: list[dict[str, Any]] = [
        {
            "ConsumedCapacity": {"TableName": "T", "CapacityUnits": 1.5},
            "ResponseMetadata": {"RetryAttempts": 2},
        },
        {"ConsumedCapacity": [{"TableName": "a/b/T", "CapacityUnits": 3.0}, {"TableName": "U"}]},
        {},
    ]
    metrics = RecordingMetrics()
    dynamodb = DynamoDB(Scripted(*answers), metrics)  # type: ignore[arg-type]
    with measured() as whole:
        dynamodb.call("query", TableName="T")
        with measured() as part:
            dynamodb.call("transact_write_items", TransactItems=[])
            dynamodb.call("get_item", TableName="T")
    dynamodb.call("get_item", TableName="T")
    assert (whole.read_units, whole.write_units, whole.requests) == (1.5, 3.0, 5)
    assert (part.read_units, part.write_units, part.requests) == (0.0, 3.0, 2)
    name = "reconciler_dynamodb_units_total"
    assert metrics.count(name, table="T", operation="query") == 1.5
    assert metrics.count(name, table="T", operation="transact_write_items") == 3.0
    assert metrics.count(name, table="U", operation="transact_write_items") == 0.0


def test_a_request_that_was_refused_is_a_request_too() -> None:
    spent: dict[str, Any] = {"ConsumedCapacity": {"TableName": "T", "CapacityUnits": 1.0}}
    with measured() as consumed:
        Scripted(refusal("ConditionalCheckFailedException", **spent)).dynamodb.write(
            "put_item", TableName="T"
        )
    assert (consumed.requests, consumed.write_units) == (1, 1.0)


class _Events:
    def __init__(self) -> None:
        self.handlers: dict[str, Any] = {}

    def register(self, event: str, handler: Any) -> None:
        self.handlers[event] = handler


def throttled(params: dict[str, Any] | None, answer: dict[str, Any] | None) -> dict[str, float]:
    """Return by table what is counted when a request is answered so."""
    events, metrics = _Events(), RecordingMetrics()
    client: Any = type("Client", (), {"meta": type("Meta", (), {"events": events})})
    count_throttles(client, metrics)
    context: dict[str, Any] = {}
    if params is not None:
        events.handlers["before-parameter-build.dynamodb"](params=params, context=context)
    received = events.handlers["response-received.dynamodb"]
    received(parsed_response=answer, context=context, exception=None)
    return {dict(labels)["table"]: count for (_, labels), count in metrics.counters.items()}


ACTIONS = {"TransactItems": [{"Put": {"TableName": "T"}}, {"Update": {"TableName": "U"}}]}


@pytest.mark.parametrize(
    ("params", "answer", "expected"),
    [
        ({"TableName": "T"}, {"Error": {"Code": "ThrottlingException"}}, {"T": 1}),
        ({"TableName": "T"}, {"Error": {"Code": "Odd"}}, {}),
        ({"TableName": "T"}, {}, {}),
        ({"TableName": "T"}, None, {}),
        (None, {"Error": {"Code": "ThrottlingException"}}, {}),
        (
            ACTIONS,
            {"CancellationReasons": [{"Code": "None"}, {"Code": "ThrottlingError"}]},
            {"U": 1},
        ),
        (ACTIONS, {"CancellationReasons": [{"Code": "ConditionalCheckFailed"}]}, {}),
        (ACTIONS, {"Error": {"Code": "RequestLimitExceeded"}}, {"T": 1, "U": 1}),
        ({"RequestItems": {"T": {}, "U": {}}}, {"UnprocessedKeys": {"U": {}}}, {"U": 1}),
        ({"RequestItems": {"T": {}}}, {"Error": {"Code": "ThrottlingException"}}, {"T": 1}),
    ],
)
def test_each_table_that_refuses_for_want_of_capacity_is_counted(
    params: dict[str, Any] | None, answer: dict[str, Any] | None, expected: dict[str, int]
) -> None:
    assert throttled(params, answer) == expected
