"""Checks permissions one by one, with calls that change nothing.

Reads use a key that does not exist. Writes have a condition that is always false (the key exists
and does not exist). DynamoDB checks the permission before the condition, so its refusal shows which
of the two failed. If such a write did happen, it would make a marker row, which the platform
ignores.

This cannot check permissions that depend on the partition (``dynamodb:LeadingKeys``), or that the
pipeline's function does what it should.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from reconciler.aws_errors import CONDITION_FAILED
from reconciler.doctor.asking import ANSWERED, Answer, ask
from reconciler.doctor.findings import Finding, failure, ok, warning
from reconciler.doctor.shapes import Wanted
from reconciler.errors import (
    AccessError,
    IndexUnavailableError,
    StoreUnavailableError,
    ThrottledError,
)

CHECK = "permissions"
PROBE_KEY = "reconciler#doctor"
_NEVER = "attribute_exists(#k) AND attribute_not_exists(#k)"
_PASSING = frozenset({StoreUnavailableError.kind, ThrottledError.kind})

_READS = frozenset({"get_item", "batch_get_item", "query", "scan"})
NEEDED: dict[str, tuple[str, ...]] = {
    "OrchestrationTable": (
        *("GetItem", "BatchGetItem", "Query", "Scan"),
        *("PutItem", "UpdateItem", "DeleteItem", "ConditionCheckItem"),
    ),
    "TaskTable": ("BatchGetItem", "PutItem", "UpdateItem", "ConditionCheckItem"),
    "TaskEventsTable": ("Query", "PutItem"),
    "UserConcurrencyTable": ("GetItem",),
    "RepoTable": ("GetItem",),
    "BudgetTable": ("BatchGetItem",),
}
"""Title of a table → needed actions; a test compares it with the policy."""


Call = tuple[str, dict[str, Any]]
"""An operation of a client, and its request."""


def _calls(wanted: Wanted) -> dict[str, Call]:
    """Return action → the call that shows whether it is allowed on a table."""
    name, first = wanted.name, wanted.table.keys[0]
    key = {attribute: {"S": PROBE_KEY} for attribute in wanted.table.keys}
    conditional = {
        "TableName": name,
        "ConditionExpression": _NEVER,
        "ExpressionAttributeNames": {"#k": first},
    }
    change = {
        "UpdateExpression": "SET #p = :p",
        "ExpressionAttributeNames": {"#k": first, "#p": "probe"},
        "ExpressionAttributeValues": {":p": {"S": "never written"}},
    }
    check = {"ConditionCheck": {**conditional, "Key": key}}
    return {
        "GetItem": ("get_item", {"TableName": name, "Key": key}),
        "BatchGetItem": ("batch_get_item", {"RequestItems": {name: {"Keys": [key]}}}),
        "Query": _query(name, first),
        "Scan": ("scan", {"TableName": name, "Limit": 1, "Select": "COUNT"}),
        "PutItem": ("put_item", {**conditional, "Item": key}),
        "UpdateItem": ("update_item", {**conditional, "Key": key, **change}),
        "DeleteItem": ("delete_item", {**conditional, "Key": key}),
        "ConditionCheckItem": ("transact_write_items", {"TransactItems": [check]}),
    }


def _query(table: str, key: str, **index: str) -> Call:
    request = {
        "TableName": table,
        "Limit": 1,
        "Select": "COUNT",
        "KeyConditionExpression": "#k = :k",
        "ExpressionAttributeNames": {"#k": key},
        "ExpressionAttributeValues": {":k": {"S": PROBE_KEY}},
        **index,
    }
    return "query", request


def check_permissions(client: Any, wanted: Wanted) -> Iterator[Finding]:  # noqa: ANN401 - DynamoDB's
    """Try every permission on a table and on the indexes that we query.

    All granted permissions give one finding; every missing one gives its own.
    """
    calls = _calls(wanted)
    tried = {action: calls[action] for action in NEEDED[wanted.title]}
    for index in wanted.table.indexes:
        if index.name in wanted.queried:
            query = _query(wanted.name, index.keys[0], IndexName=index.name)
            tried[f"Query on {index.name}"] = query
    granted = []
    for name, (operation, request) in tried.items():
        answer = ask(client, operation, **request)
        if answer.kind == (ANSWERED if operation in _READS else CONDITION_FAILED):
            granted.append(name)
        else:
            yield _lacking(wanted, name, answer)
    if granted:
        yield ok(CHECK, wanted.title, f"may {', '.join(granted)}")


def _lacking(wanted: Wanted, name: str, answer: Answer) -> Finding:
    if answer.kind in {ANSWERED, CONDITION_FAILED}:
        said = f"{name}: a write that can never happen was accepted"
        advice = f"this endpoint does not keep conditions; remove the row {PROBE_KEY}"
        return failure(CHECK, wanted.title, said, advice)
    setting = wanted.setting
    if name == f"Query on {wanted.active}":
        setting = "ACTIVE_INDEX_NAME (docs/deploying.md has what it names)"
    verb = "may not" if answer.kind == AccessError.kind else "cannot"
    action = name.partition(" on ")[0]
    advice = answer.advice(setting, f"dynamodb:{action}")
    if answer.kind == IndexUnavailableError.kind:
        advice = f"{advice}; or correct {setting}"
    level = warning if answer.kind in _PASSING else failure
    return level(CHECK, wanted.title, f"{verb} {name}: {answer.explained}", advice)
