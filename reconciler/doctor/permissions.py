"""Permissions, one by one, by calls that change nothing.

A read is of a key that does not exist. A write carries a condition that no item can meet (the key
exists, and it does not), so that DynamoDB must refuse it; and since it looks at the permission
first, the refusal says which of the two it was. Should it all the same be carried out, the key is
that of a marker row of ours, which the platform passes over.

What cannot be seen this way: permissions that depend on the partition (``dynamodb:LeadingKeys``),
and that the pipeline's function does what it should.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
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

READS = frozenset({"GetItem", "BatchGetItem", "Query", "Scan"})
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
"""Title of a table → what is done to it; a test holds it to the policy."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A call that proves a permission."""

    action: str
    operation: str
    request: dict[str, Any]


def probes(wanted: Wanted) -> list[Probe]:
    """Return the probes of a table and of its indexes."""
    return [_probe(wanted, action) for action in NEEDED[wanted.title]]


def _probe(wanted: Wanted, action: str) -> Probe:
    name, key = wanted.name, {attribute: {"S": PROBE_KEY} for attribute in wanted.table.keys}
    conditional = {
        "TableName": name,
        "ConditionExpression": _NEVER,
        "ExpressionAttributeNames": {"#k": wanted.table.keys[0]},
    }
    match action:
        case "GetItem":
            return Probe(action, "get_item", {"TableName": name, "Key": key})
        case "BatchGetItem":
            return Probe(action, "batch_get_item", {"RequestItems": {name: {"Keys": [key]}}})
        case "Query":
            return Probe(action, "query", _query(name, wanted.table.keys[0]))
        case "Scan":
            return Probe(action, "scan", {"TableName": name, "Limit": 1, "Select": "COUNT"})
        case "PutItem":
            return Probe(action, "put_item", {**conditional, "Item": key})
        case "UpdateItem":
            change = {
                "UpdateExpression": "SET #p = :p",
                "ExpressionAttributeNames": {"#k": wanted.table.keys[0], "#p": "probe"},
                "ExpressionAttributeValues": {":p": {"S": "never written"}},
            }
            return Probe(action, "update_item", {**conditional, "Key": key, **change})
        case "DeleteItem":
            return Probe(action, "delete_item", {**conditional, "Key": key})
        case _:
            check = {"ConditionCheck": {**conditional, "Key": key}}
            return Probe(action, "transact_write_items", {"TransactItems": [check]})


def _query(table: str, key: str, index: str | None = None) -> dict[str, Any]:
    request: dict[str, Any] = {
        "TableName": table,
        "Limit": 1,
        "Select": "COUNT",
        "KeyConditionExpression": "#k = :k",
        "ExpressionAttributeNames": {"#k": key},
        "ExpressionAttributeValues": {":k": {"S": PROBE_KEY}},
    }
    return request if index is None else {**request, "IndexName": index}


def check_permissions(client: Any, wanted: Wanted) -> Iterator[Finding]:  # noqa: ANN401 - DynamoDB's
    """Try every permission on a table and on the indexes that we query.

    Those that are there make one finding; every other makes one of its own.
    """
    tried = [(probe.action, probe) for probe in probes(wanted)]
    for index in wanted.table.indexes:
        if index.name in wanted.queried:
            request = _query(wanted.name, index.keys[0], index.name)
            tried.append((f"Query on {index.name}", Probe("Query", "query", request)))
    granted = []
    for name, probe in tried:
        answer = ask(client, probe.operation, **probe.request)
        if _proves(probe, answer):
            granted.append(name)
        else:
            yield _lacking(wanted, name, answer)
    if granted:
        yield ok(CHECK, wanted.title, f"may {', '.join(granted)}")


def _proves(probe: Probe, answer: Answer) -> bool:
    return answer.kind == (ANSWERED if probe.action in READS else CONDITION_FAILED)


def _lacking(wanted: Wanted, name: str, answer: Answer) -> Finding:
    if answer.kind in {ANSWERED, CONDITION_FAILED}:
        said = f"{name}: a write that can never happen was accepted"
        advice = f"this endpoint does not keep conditions; remove the row {PROBE_KEY}"
        return failure(CHECK, wanted.title, said, advice)
    setting = wanted.setting
    if name == f"Query on {wanted.active}":
        setting = "ACTIVE_INDEX_NAME (docs/deploying.md has what it names)"
    verb = "may not" if answer.kind == AccessError.kind else "cannot"
    advice = answer.advice(setting, f"dynamodb:{name.split(maxsplit=1)[0]}")
    if answer.kind == IndexUnavailableError.kind:
        advice = f"{advice}; or correct {setting}"
    level = warning if answer.kind in _PASSING else failure
    return level(CHECK, wanted.title, f"{verb} {name}: {answer.explained}", advice)
