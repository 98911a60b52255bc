"""Conditional updates by the simulated platform."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


def conditional_set(
    client: DynamoDBClient,
    table: str,
    key: Mapping[str, str],
    values: Mapping[str, Any],
    condition: str,
    given: Mapping[str, str],
) -> bool:
    """Set the attributes ``values`` of an item; False if ``condition`` does not hold.

    ``values``: name → string, or typed value. A condition can use ``#name`` and ``:name`` of these.
    ``given``: further values for it, by name without the colon.
    """
    typed = {n: {"S": value} if isinstance(value, str) else value for n, value in values.items()}
    compared = {f":{name}": {"S": value} for name, value in given.items()}
    try:
        client.update_item(
            TableName=table,
            Key={name: {"S": value} for name, value in key.items()},
            UpdateExpression="SET " + ", ".join(f"#{name} = :{name}" for name in typed),
            ConditionExpression=condition,
            ExpressionAttributeNames={f"#{name}": name for name in typed},
            ExpressionAttributeValues={**{f":{n}": v for n, v in typed.items()}, **compared},
        )
    except ClientError as error:
        if not lost_condition(error):
            raise
        return False
    return True


def lost_condition(error: ClientError) -> bool:
    """Whether a write's condition failed."""
    return error.response["Error"]["Code"] == "ConditionalCheckFailedException"
