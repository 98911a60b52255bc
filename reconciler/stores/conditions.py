"""Condition and update expressions, built from named parts.

A write is one action of ``TransactWriteItems``, such as ``{"Update": {…}}``.
``DynamoDB.write`` carries out a single one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from reconciler.domain.model import Item

Write = dict[str, dict[str, Any]]

MAX_WRITES = 100
"""DynamoDB's limit on the writes and condition checks of one transaction."""


class Expression:
    """Collects the names and values of an expression, and hands out their placeholders."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.values: dict[str, Mapping[str, Any]] = {}

    def name(self, attribute: str) -> str:
        """Return the placeholder of an attribute's name."""
        # DynamoDB allows only letters, digits and underscores.
        placeholder = f"#{attribute}" if attribute.isidentifier() else f"#n{len(self.names)}"
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

    def exists(self, attribute: str) -> str:
        """The attribute exists; for a part of the key, the row exists."""
        return f"attribute_exists({self.name(attribute)})"

    def absent(self, attribute: str) -> str:
        """The attribute does not exist; for a part of the key, the row does not."""
        return f"attribute_not_exists({self.name(attribute)})"

    def unchanged(self, attribute: str, as_read: Item) -> str:
        """The attribute is as it was read: the same value, or still absent."""
        value = as_read.get(attribute)
        if value is None:
            return self.absent(attribute)
        return f"{self.name(attribute)} = {self.value(value)}"

    def count_is(self, attribute: str, count: int) -> str:
        """The attribute is this count; for 0 it is absent, since 0 is never written."""
        return self.unchanged(attribute, {attribute: {"N": str(count)}} if count else {})

    # -- updates

    def assign(self, values: Mapping[str, Mapping[str, Any]]) -> str:
        """A SET clause."""
        return "SET " + ", ".join(
            f"{self.name(attribute)} = {self.value(value)}" for attribute, value in values.items()
        )

    def arguments(self) -> dict[str, Any]:
        """Return the request parameters with the collected names and values."""
        arguments: dict[str, Any] = {}
        if self.names:
            arguments["ExpressionAttributeNames"] = self.names
        if self.values:
            arguments["ExpressionAttributeValues"] = self.values
        return arguments


def all_of(*conditions: str) -> str:
    """Join conditions with AND."""
    return " AND ".join(conditions)


def projection(attributes: Iterable[str]) -> dict[str, Any]:
    """Return the request parameters to read only these attributes."""
    names = {f"#{name}": name for name in attributes}
    return {"ProjectionExpression": ", ".join(names), "ExpressionAttributeNames": names}


def check(table: str, key: Item, condition: str, expression: Expression) -> Write:
    """A ConditionCheck."""
    return _write("ConditionCheck", condition, expression, TableName=table, Key=key)


def update(table: str, key: Item, change: str, condition: str, expression: Expression) -> Write:
    """An Update under a condition."""
    target = {"TableName": table, "Key": key, "UpdateExpression": change}
    return _write("Update", condition, expression, **target)


def delete(table: str, key: Item, condition: str, expression: Expression) -> Write:
    """A Delete under a condition."""
    return _write("Delete", condition, expression, TableName=table, Key=key)


def put(table: str, item: Item, condition: str, expression: Expression) -> Write:
    """A Put under a condition."""
    return _write("Put", condition, expression, TableName=table, Item=item)


def put_new(table: str, item: Item, attribute: str) -> Write:
    """A Put of an item, unless there is one that has ``attribute``."""
    build = Expression()
    return put(table, item, build.absent(attribute), build)


def _write(kind: str, condition: str, expression: Expression, **target: object) -> Write:
    return {
        kind: {
            **target,
            "ConditionExpression": condition,
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            **expression.arguments(),
        }
    }
