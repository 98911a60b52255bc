"""Condition and update expressions, built from named parts.

A write is one action of ``TransactWriteItems``: ``{"Update": {…}}`` and the like. The same parts
serve single writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from reconciler.domain.model import Item

Write = dict[str, dict[str, Any]]

MAX_WRITES = 100
"""DynamoDB's limit on the writes and condition checks of one transaction."""


class Expression:
    """Collects names and values under placeholders while an expression is written down."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.values: dict[str, Mapping[str, Any]] = {}

    def name(self, attribute: str) -> str:
        """Return the placeholder of an attribute's name."""
        placeholder = f"#{attribute}"
        self.names[placeholder] = attribute
        return placeholder

    def value(self, value: Mapping[str, Any]) -> str:
        """Return a placeholder of a typed value."""
        placeholder = f":v{len(self.values)}"
        self.values[placeholder] = value
        return placeholder

    def text(self, value: str) -> str:
        """Return a placeholder of a string."""
        return self.value({"S": value})

    # -- conditions

    def one_of(self, attribute: str, values: Iterable[str]) -> str:
        """The attribute is one of these strings."""
        listed = ", ".join(self.text(value) for value in sorted(values))
        return f"{self.name(attribute)} IN ({listed})"

    def equals(self, attribute: str, value: str) -> str:
        """The attribute is this string."""
        return f"{self.name(attribute)} = {self.text(value)}"

    def unchanged(self, attribute: str, as_read: Item) -> str:
        """The attribute still stands as it was read: the same value, or still absent."""
        value = as_read.get(attribute)
        if value is None:
            return f"attribute_not_exists({self.name(attribute)})"
        return f"{self.name(attribute)} = {self.value(value)}"

    # -- updates

    def assign(self, values: Mapping[str, Mapping[str, Any]]) -> str:
        """A SET clause."""
        return "SET " + ", ".join(
            f"{self.name(attribute)} = {self.value(value)}" for attribute, value in values.items()
        )

    def arguments(self) -> dict[str, Any]:
        """The request's parameters for what was collected."""
        arguments: dict[str, Any] = {}
        if self.names:
            arguments["ExpressionAttributeNames"] = self.names
        if self.values:
            arguments["ExpressionAttributeValues"] = self.values
        return arguments


def all_of(*conditions: str) -> str:
    """Join conditions with AND."""
    return " AND ".join(conditions)


def check(table: str, key: Item, condition: str, expression: Expression) -> Write:
    """A ConditionCheck."""
    return {
        "ConditionCheck": {
            "TableName": table,
            "Key": key,
            "ConditionExpression": condition,
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            **expression.arguments(),
        }
    }


def update(table: str, key: Item, change: str, condition: str, expression: Expression) -> Write:
    """An Update under a condition."""
    return {
        "Update": {
            "TableName": table,
            "Key": key,
            "UpdateExpression": change,
            "ConditionExpression": condition,
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            **expression.arguments(),
        }
    }


def put_new(table: str, item: Item, key_attribute: str) -> Write:
    """A Put of an item that must not exist yet."""
    return {
        "Put": {
            "TableName": table,
            "Item": item,
            "ConditionExpression": "attribute_not_exists(#k)",
            "ExpressionAttributeNames": {"#k": key_attribute},
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
    }
