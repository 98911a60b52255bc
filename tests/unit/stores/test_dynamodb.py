"""Calls of DynamoDB: what is retried, what is counted, and which error each fault becomes."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError
from structlog.testing import capture_logs

from reconciler.errors import (
    AccessError,
    ConflictError,
    CredentialsError,
    InvalidRequestError,
    ReconcilerError,
    StoreUnavailableError,
    ThrottledError,
    UnknownRefusalError,
)
from reconciler.observability.outages import Outages
from reconciler.stores.conditions import put_new
from reconciler.stores.dynamodb import (
    Cancelled,
    DynamoDB,
    count_throttles,
    measured,
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


def test_an_error_names_operation_tables_and_index() -> None:
    request: dict[str, Any] = {"RequestItems": {"U": {}, "T": {}}}
    with pytest.raises(UnknownRefusalError, match=r"batch_get_item on T, U: Odd: no$"):
        Scripted(refusal("Odd")).dynamodb.call("batch_get_item", **request)
    for message in (None, ""):
        with pytest.raises(UnknownRefusalError, match=r"scan on T: Odd: Odd$"):
            Scripted(refusal("Odd", message=message)).dynamodb.call("scan", TableName="T")
    with pytest.raises(UnknownRefusalError, match=r"query on T/I: Odd: no$"):
        Scripted(refusal("Odd")).dynamodb.call("query", TableName="T", IndexName="I")
    with pytest.raises(UnknownRefusalError, match=r"list_tables on : Odd"):
        Scripted(refusal("Odd")).dynamodb.call("list_tables")


@pytest.mark.parametrize(
    ("operation", "missing"),
    [("scan", "Items"), ("query", "Items"), ("batch_get_item", "Responses")],
)
def test_an_answer_without_its_content_is_an_outage(operation: str, missing: str) -> None:
    """A proxy's page with the status 200 would otherwise read as an empty answer."""
    with pytest.raises(StoreUnavailableError, match=f"holds no {missing}"):
        Scripted({}).dynamodb.call(operation, TableName="T")


def test_a_lost_condition_returns_the_existing_item() -> None:
    lost = refusal("ConditionalCheckFailedException", Item={"a": {"S": "x"}})
    client = Scripted(lost, refusal("ConditionalCheckFailedException"), {})
    put = put_new("T", {"a": {"S": "y"}}, "a")
    assert client.dynamodb.write(put) == {"a": {"S": "x"}}
    assert client.dynamodb.write(put) == {}
    assert client.dynamodb.write(put) is None
    request = client.requests[0][1]
    assert request["ReturnValuesOnConditionCheckFailure"] == "ALL_OLD"
    assert request["ReturnConsumedCapacity"] == "TOTAL"


def test_describing_a_table_asks_for_no_cost() -> None:
    client = Scripted({})
    client.dynamodb.call("describe_table", TableName="T")
    assert client.requests == [("describe_table", {"TableName": "T"})]


# -- reads

A, B = {"a": {"S": "x"}}, {"a": {"S": "y"}}


def served(*items: dict[str, Any], left: list[Any], units: float = 0.5) -> dict[str, Any]:
    """Return the answer to a batch that gives the keys ``left`` back."""
    return {
        "Responses": {"T": items},
        "UnprocessedKeys": {"T": {"Keys": left}},
        "ConsumedCapacity": [{"TableName": "T", "CapacityUnits": units}],
    }


FULL = 4096.0


def test_a_query_returns_all_pages() -> None:
    client = Scripted({"Items": [A], "LastEvaluatedKey": A}, {"Items": [B]})
    assert client.dynamodb.query(TableName="T") == [A, B]
    assert client.requests[1][1]["ExclusiveStartKey"] == A
    assert len(client.requests) == 2


def test_a_single_item_is_read_strongly_consistent() -> None:
    client = Scripted({"Item": A, "ConsumedCapacity": {}}, {"ConsumedCapacity": {}})
    assert client.dynamodb.get("T", A) == A
    assert client.dynamodb.get("T", B) is None
    assert client.requests[0][1]["ConsistentRead"] is True


def test_a_batch_asks_only_for_named_attributes() -> None:
    client = Scripted({"Responses": {"T": [A]}})
    for attributes in ((), ("a",)):
        found = client.dynamodb.batch_get("T", [A], consistent=False, attributes=attributes)
        assert found == [A]
    everything, named = (request["RequestItems"]["T"] for _, request in client.requests)
    assert everything == {"Keys": [A], "ConsistentRead": False}
    assert named.keys() - everything.keys() == {
        "ProjectionExpression",
        "ExpressionAttributeNames",
    }


def test_unserved_keys_are_read_after_a_pause() -> None:
    client = Scripted(served(A, left=[B]), {"Responses": {"T": [B]}})
    assert client.dynamodb.batch_get("T", [A, B], consistent=True) == [A, B]
    asked = [request["RequestItems"]["T"]["Keys"] for _, request in client.requests]
    assert asked == [[A, B], [B]]
    assert len(client.pauses) == 1


def test_the_rest_of_a_full_answer_is_read() -> None:
    """Without pauses, and in as many requests as it takes."""
    full = [served(A, left=[B] * (10 - number), units=FULL) for number in range(9)]
    client = Scripted(*full, {"Responses": {"T": [B]}, "UnprocessedKeys": {}})
    found = client.dynamodb.batch_get("T", [B] * 11, consistent=True)
    assert found is not None
    assert len(found) == 10
    assert client.pauses == []


def test_a_full_answer_without_rows_is_given_up() -> None:
    """No service answers like this, but it must not be asked forever."""
    client = Scripted(served(left=[B], units=FULL))
    assert client.dynamodb.batch_get("T", [B], consistent=True) is None
    assert len(client.pauses) == 4


# -- transactions


def test_a_cancelled_transaction_names_failures_by_label() -> None:
    item = {"a": {"S": "x"}}
    reasons = [{"Code": "None"}, {"Code": "ConditionalCheckFailed", "Item": item}, {}]
    lost = refusal("TransactionCanceledException", CancellationReasons=reasons)
    writes = dict.fromkeys(("row", "task", "event"), PUT["row"])
    assert Scripted(lost).dynamodb.transact(writes) == Cancelled({"task": item})
    gone = refusal(
        "TransactionCanceledException", CancellationReasons=[{"Code": "ConditionalCheckFailed"}]
    )
    assert Scripted(gone).dynamodb.transact(writes) == Cancelled({"row": {}})


def test_a_lost_condition_outweighs_a_conflict() -> None:
    """The transaction is not retried."""
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
def test_conflicts_and_throttles_are_tried_six_times(
    error: Exception, kind: type[ReconcilerError]
) -> None:
    """There are pauses in between."""
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


@pytest.mark.parametrize("operation", ["put_item", "update_item", "delete_item"])
def test_a_write_waits_for_a_transaction(operation: str) -> None:
    """Releases share their user's budget row with what is noted on it."""
    held = refusal("TransactionConflictException")
    client = Scripted(*[held] * 5, {})
    assert client.dynamodb.call(operation, TableName="T") == {}
    assert (len(client.requests), len(client.pauses)) == (6, 5)
    client = Scripted(held)
    with pytest.raises(ConflictError):
        client.dynamodb.call(operation, TableName="T")
    assert len(client.requests) == 6


def test_all_tries_of_a_transaction_share_one_token() -> None:
    client = Scripted(*[refusal("TransactionInProgressException")] * 3, {})
    client.dynamodb.transact(PUT)
    client.dynamodb.transact(PUT)
    tokens = [request["ClientRequestToken"] for _, request in client.requests]
    assert len(set(tokens[:4])) == 1
    assert tokens[4] != tokens[3], "another transaction has a token of its own"


def test_a_cancelled_transaction_tells_whether_it_was_repeated() -> None:
    lost = cancelled("ConditionalCheckFailed")
    clients = Scripted(lost), Scripted(refusal("TransactionInProgressException"), lost)
    answers = [client.dynamodb.transact(PUT) for client in clients]
    sent_again: Any = cancelled("ConditionalCheckFailed")
    sent_again.response["ResponseMetadata"]["RetryAttempts"] = 1
    answers.append(Scripted(sent_again).dynamodb.transact(PUT))
    assert [answer is not None and answer.repeated for answer in answers] == [False, True, True]


@pytest.mark.parametrize(
    ("reasons", "kind"),
    [
        ([{"Code": "ItemCollectionSizeLimitExceeded"}], InvalidRequestError),
        (
            [
                {"Code": "None"},
                {
                    "Code": "ValidationError",
                    "Message": "Item size has exceeded the maximum allowed size",
                },
            ],
            InvalidRequestError,
        ),
        ([{"Code": "ValidationError", "Message": "not the schema"}], UnknownRefusalError),
        ([{"Code": "AccessDenied"}], AccessError),
        ([{}, {"Code": "AccessDenied"}], AccessError),
        ([{"Code": "Odd"}], UnknownRefusalError),
        ([], UnknownRefusalError),
    ],
)
def test_a_rejected_transaction_is_not_retried(
    reasons: list[dict[str, str]], kind: type[ReconcilerError]
) -> None:
    client = Scripted(refusal("TransactionCanceledException", CancellationReasons=reasons))
    with pytest.raises(ReconcilerError, match="transact_write_items on T") as caught:
        client.dynamodb.transact(PUT)
    assert type(caught.value) is kind
    assert len(client.requests) == 1


def test_retry_pauses_double_up_to_two_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("random.uniform", lambda least, most: (least, most))
    client = Scripted({})
    for attempt in (1, 2, 5, 6, 9):
        client.dynamodb._stand_back(attempt)
    assert client.pauses == [(0, 0.1), (0, 0.2), (0, 1.6), (0, 2.0), (0, 2.0)]


# -- what is counted


def test_every_open_block_counts_consumption() -> None:
    answers: list[dict[str, Any]] = [
        {
            "Items": [],
            "ConsumedCapacity": {"TableName": "T", "CapacityUnits": 1.5},
            "ResponseMetadata": {"RetryAttempts": 2},
        },
        {"ConsumedCapacity": [{"TableName": "a/b/T", "CapacityUnits": 3.0}, {"TableName": "U"}]},
        {"ConsumedCapacity": {}},
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


def test_a_refused_request_is_counted() -> None:
    spent: dict[str, Any] = {"ConsumedCapacity": {"TableName": "T", "CapacityUnits": 1.0}}
    with measured() as consumed:
        Scripted(refusal("ConditionalCheckFailedException", **spent)).dynamodb.write(
            {"Put": {"TableName": "T"}}
        )
    assert (consumed.requests, consumed.write_units) == (1, 1.0)


def test_clients_that_share_outages_log_one() -> None:
    outages = Outages()
    with capture_logs() as lines:
        for _ in range(2):
            client: Any = Scripted(refusal("ExpiredTokenException"))
            with pytest.raises(CredentialsError):
                DynamoDB(client, outages=outages).call("scan", TableName="T")
    assert [line["event"] for line in lines] == ["orch.aws.lost"]


class _Events:
    def __init__(self) -> None:
        self.handlers: dict[str, Any] = {}

    def register(self, event: str, handler: Any) -> None:
        self.handlers[event] = handler


def throttled(params: dict[str, Any] | None, answer: dict[str, Any] | None) -> dict[str, float]:
    """Return the number of throttles that this answer to a request counts for each table."""
    events, metrics = _Events(), RecordingMetrics()
    client: Any = type("Client", (), {"meta": type("Meta", (), {"events": events})})
    count_throttles(client, metrics)
    context: dict[str, Any] = {}
    if params is not None:
        events.handlers["before-parameter-build.dynamodb"](params=params, context=context)
    received = events.handlers["response-received.dynamodb"]
    received(parsed_response=answer, context=context, exception=None)
    return {dict(labels)["table"]: count for (_, labels), count in metrics.counters.items()}


def given_back(units: float) -> dict[str, Any]:
    """Return an answer with unprocessed keys that used ``units``, eventually consistent.

    From 78 units on, it is less than 400 KB short of 1 MB, so one more item may not have fitted.
    """
    counted = {"TableName": "T", "CapacityUnits": units}
    return {"UnprocessedKeys": {"T": {}}, "ConsumedCapacity": [counted, {"TableName": "T"}]}


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
        ({"RequestItems": {"T": {}}}, given_back(units=77.95), {"T": 1}),
        ({"RequestItems": {"T": {}}}, given_back(units=78.0), {}),
        ({"RequestItems": {"T": {}}}, {"Error": {"Code": "ThrottlingException"}}, {"T": 1}),
    ],
)
def test_each_throttling_table_is_counted(
    params: dict[str, Any] | None, answer: dict[str, Any] | None, expected: dict[str, int]
) -> None:
    assert throttled(params, answer) == expected
