"""Passes the items of large answers through as they come over the wire.

botocore walks every value of every item through its model, which takes most of a sweep's CPU time.
For DynamoDB's typed JSON that changes only binary values, from base 64 to bytes. So items are taken
out of an answer before it is parsed, unless it holds a binary value. botocore does the rest
(signing, retries, checksums, errors). If it ever drops the hook, everything still works, slower.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_ITEMS = {"Scan": "Items", "Query": "Items", "BatchGetItem": "Responses"}
_BINARY = (b'"B"', b'"BS"')


def read_plainly(client: DynamoDBClient) -> DynamoDBClient:
    """Make ``client`` return items as they come over the wire; returns the client."""
    for operation in _ITEMS:
        client.meta.events.register(f"before-parse.dynamodb.{operation}", take_items)
    return client


def take_items(
    operation_model: Any,  # noqa: ANN401 - botocore's
    response_dict: dict[str, Any],
    customized_response_dict: dict[str, Any],
    **_: Any,  # noqa: ANN401 - botocore's
) -> None:
    """Move the items from the answer's body to what botocore adds to its parsed answer."""
    body: bytes = response_dict["body"]
    if response_dict["status_code"] != HTTPStatus.OK or any(mark in body for mark in _BINARY):
        return
    name = _ITEMS[operation_model.name]
    try:
        answer = json.loads(body)
        items = answer.pop(name)
    except (ValueError, AttributeError, KeyError, TypeError):
        return  # botocore raises the right error for it
    customized_response_dict[name] = items
    response_dict["body"] = json.dumps(answer).encode()
