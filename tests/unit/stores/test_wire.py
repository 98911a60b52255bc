"""Items taken from an answer as it comes are equal to those that botocore would parse."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import ClientError
from botocore.parsers import create_parser
from botocore.session import get_session
from hypothesis import given
from hypothesis import strategies as st
from mypy_boto3_dynamodb import DynamoDBClient

from reconciler.stores.wire import read_plainly, take_items
from tests.support.world import make_client

MODEL = get_session().get_service_model("dynamodb")
TEXT = st.text(max_size=6)
BINARY = st.binary(max_size=6).map(lambda raw: base64.b64encode(raw).decode())
SCALARS = st.one_of(
    st.fixed_dictionaries({"S": TEXT}),
    st.fixed_dictionaries({"N": st.integers().map(str)}),
    st.fixed_dictionaries({"BOOL": st.booleans()}),
    st.just({"NULL": True}),
    st.fixed_dictionaries({"SS": st.lists(TEXT, min_size=1)}),
    st.fixed_dictionaries({"NS": st.lists(st.integers().map(str), min_size=1)}),
    st.fixed_dictionaries({"B": BINARY}),
    st.fixed_dictionaries({"BS": st.lists(BINARY, min_size=1)}),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"L": st.lists(inner, max_size=3)}),
        st.fixed_dictionaries({"M": st.dictionaries(TEXT, inner, max_size=3)}),
    ),
    max_leaves=8,
)
ITEMS = st.lists(st.dictionaries(TEXT, VALUES, max_size=4), max_size=4)
CONSUMED = {"TableName": "t", "CapacityUnits": 12.5}
ANSWERS = st.one_of(
    st.builds(
        lambda operation, items, last: (
            operation,
            {"Items": items, "Count": len(items), "ConsumedCapacity": CONSUMED}
            | ({"LastEvaluatedKey": last} if last else {}),
        ),
        st.sampled_from(["Scan", "Query"]),
        ITEMS,
        st.none() | st.fixed_dictionaries({"orchestration_id": st.fixed_dictionaries({"S": TEXT})}),
    ),
    st.builds(
        lambda items: (
            "BatchGetItem",
            {"Responses": {"t": items}, "UnprocessedKeys": {}, "ConsumedCapacity": [CONSUMED]},
        ),
        ITEMS,
    ),
)


def parse(operation: str, body: bytes, *, plainly: bool) -> dict[str, Any]:
    """Parse an answer as botocore's endpoint does, with or without our handler."""
    model = MODEL.operation_model(operation)
    response = {"status_code": 200, "headers": {}, "body": body}
    ours: dict[str, Any] = {}
    if plainly:
        take_items(operation_model=model, response_dict=response, customized_response_dict=ours)
    parser: Any = create_parser("json")
    parsed: dict[str, Any] = parser.parse(response, model.output_shape)
    return parsed | ours


@given(ANSWERS)
def test_items_equal_what_botocore_reads(answer: tuple[str, dict[str, Any]]) -> None:
    operation, said = answer
    body = json.dumps(said).encode()
    assert parse(operation, body, plainly=True) == parse(operation, body, plainly=False)


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"nonsense", b'{"Count": 0}'])
def test_an_unexpected_body_is_left_to_botocore(body: bytes) -> None:
    response = {"status_code": 200, "headers": {}, "body": body}
    ours: dict[str, Any] = {}
    take_items(MODEL.operation_model("Scan"), response, ours)
    assert (response["body"], ours) == (body, {})


class _Answer(AWSResponse):
    def __init__(self, status: int, body: bytes) -> None:
        super().__init__("http://127.0.0.1", status, HTTPHeaders(), None)
        self._content = body


def answering(status: int, body: bytes) -> DynamoDBClient:
    """Return one of our clients; it always gets this answer."""
    client = read_plainly(make_client("http://127.0.0.1"))
    events: Any = client.meta.events
    events.register("before-send.dynamodb", lambda **_: _Answer(status, body))
    return client


@pytest.mark.parametrize(
    ("operation", "request_", "body"),
    [
        ("scan", {"TableName": "t"}, b'{"Items": [{"a": {"FUTURE": "x"}}]}'),
        (
            "query",
            {"TableName": "t", "KeyConditionExpression": "x"},
            b'{"Items": [{"a": {"FUTURE": "x"}}]}',
        ),
        (
            "batch_get_item",
            {"RequestItems": {"t": {"Keys": [{"k": {"S": "k"}}]}}},
            b'{"Responses": {"t": [{"a": {"FUTURE": "x"}}]}}',
        ),
    ],
)
def test_botocore_still_calls_our_handler(
    operation: str, request_: dict[str, Any], body: bytes
) -> None:
    # Its own parser would have replaced a value of a type that it does not know.
    answer = getattr(answering(200, body), operation)(**request_)
    items = answer["Responses"]["t"] if "Responses" in answer else answer["Items"]
    assert items == [{"a": {"FUTURE": "x"}}]


def test_botocore_raises_refusals() -> None:
    body = b'{"__type": "x#ResourceNotFoundException", "message": "no", "Items": []}'
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        answering(400, body).scan(TableName="t")


def test_items_of_a_refusal_are_not_taken() -> None:
    response = {"status_code": 400, "headers": {}, "body": b'{"Items": []}'}
    ours: dict[str, Any] = {}
    take_items(MODEL.operation_model("Scan"), response, ours)
    assert (response["body"], ours) == (b'{"Items": []}', {})
