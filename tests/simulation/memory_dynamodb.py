"""A deterministic DynamoDB in memory, behind the interface of boto3's low-level client.

It enforces what the project relies on: every condition, transactions that are written whole or
not at all, ``ALL_OLD`` and cancellation reasons, pages and segments, capacity. It adds control: an
eventually consistent read asks ``lag`` how many states of the table to go back, so the test decides
how stale an answer is. ``metered`` False ignores sizes, which take most of the time of a call.
It carries out one request at a time, however many threads send them. ``test_conformance*.py`` run
the same suite on it, on moto and on DynamoDB Local.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from threading import RLock
from typing import Any

from tests.simulation.answers import (
    ConditionFailedError,
    Paginator,
    Request,
    fail,
    old_item,
    one_at_a_time,
)
from tests.simulation.expressions import (
    ExpressionError,
    Item,
    Scope,
    Value,
    parse_condition,
    parse_projection,
)
from tests.simulation.storage import (
    MAX_ITEM_BYTES,
    Key,
    KeySchema,
    Table,
    TableSpec,
    contract_tables,
    scan_order,
    segment_of,
    size_of,
)
from tests.simulation.updates import apply_update

Lag = Callable[[Table, str, Request], int]
"""How many states back an eventually consistent read looks: (table, index or "", request)."""

PAGE_BYTES = 1024 * 1024
MAX_ACTIONS = 100
_ACTIONS = ("ConditionCheck", "Put", "Update", "Delete")


def _weightless(_item: Item) -> int:
    return 0


def _fresh(_table: Table, _index: str, _request: Request) -> int:
    return 0


@dataclass(frozen=True, slots=True)
class _Write:
    """A checked write: its place, and the item before and after it."""

    table: Table
    key: Key
    old: dict[str, Value] | None
    new: dict[str, Value] | None


class MemoryDynamoDB:
    """The client. Responses are fresh dicts; the items in them must not be changed by callers."""

    def __init__(
        self,
        specs: Iterable[TableSpec] = contract_tables(),
        lag: Lag = _fresh,
        *,
        metered: bool = True,
    ) -> None:
        self.tables = {spec.name: Table(spec) for spec in specs}
        self._size = size_of if metered else _weightless
        self.lag = lag
        self.lock = RLock()
        self.read_units = 0.0
        self.write_units = 0.0

    # -- reads

    @one_at_a_time
    def get_item(self, **request: Any) -> dict[str, Any]:
        """GetItem."""
        table = self._table("get_item", request["TableName"])
        key = self._key("get_item", table, request["Key"])
        consistent = request.get("ConsistentRead", False)
        item = self._state(table, "", request, consistent=consistent).get(key)
        response = self._read_response(table, request, [item or {}], consistent=consistent)
        if item is not None:
            response["Item"] = self._project("get_item", item, request)
        return response

    @one_at_a_time
    def batch_get_item(self, **request: Any) -> dict[str, Any]:
        """BatchGetItem; everything is always processed."""
        responses: dict[str, list[Item]] = {}
        consumed: list[dict[str, Any]] = []
        asked = sum(len(part["Keys"]) for part in request["RequestItems"].values())
        if not 1 <= asked <= 100:
            fail("batch_get_item", "ValidationException", "1 to 100 keys")
        for name, part in request["RequestItems"].items():
            table = self._table("batch_get_item", name)
            keys = [self._key("batch_get_item", table, key) for key in part["Keys"]]
            if len(set(keys)) != len(keys):
                fail(
                    "batch_get_item",
                    "ValidationException",
                    "Provided list of item keys contains duplicates",
                )
            consistent = part.get("ConsistentRead", False)
            state = self._state(table, "", part, consistent=consistent)
            found = [state[key] for key in keys if key in state]
            responses[name] = [self._project("batch_get_item", item, part) for item in found]
            missing = len(keys) - len(found)
            part_units = sum(self._read_units([i], consistent=consistent) for i in found)
            part_units += missing * (1.0 if consistent else 0.5)
            self.read_units += part_units
            consumed.append({"TableName": name, "CapacityUnits": part_units})
        response: dict[str, Any] = {"Responses": responses, "UnprocessedKeys": {}}
        if request.get("ReturnConsumedCapacity", "NONE") != "NONE":
            response["ConsumedCapacity"] = consumed
        return response

    @one_at_a_time
    def query(self, **request: Any) -> dict[str, Any]:
        """Query of a table or an index, by one partition."""
        table = self._table("query", request["TableName"])
        name = request.get("IndexName")
        consistent = request.get("ConsistentRead", False)
        schema = self._schema("query", table, name)
        if name is not None and consistent:
            message = "Consistent reads are not supported on global secondary indexes"
            fail("query", "ValidationException", message)
        parsed = self._parse("query", request["KeyConditionExpression"])
        state = self._state(table, name or "", request, consistent=consistent)
        used = set(parsed.used)
        matching = [
            (key, item)
            for key, item in state.items()
            if schema.covers(item) and parsed.test(self._scope(item, request, used))
        ]
        matching.sort(key=lambda pair: (schema.of(pair[1])[1].encode(), pair[0]))
        if not request.get("ScanIndexForward", True):
            matching.reverse()
        return self._page("query", table, request, matching, used, consistent=consistent)

    @one_at_a_time
    def scan(self, **request: Any) -> dict[str, Any]:
        """Scan of a table, or of one of its segments."""
        table = self._table("scan", request["TableName"])
        consistent = request.get("ConsistentRead", False)
        total, segment = request.get("TotalSegments", 1), request.get("Segment", 0)
        if not 0 <= segment < total:
            fail("scan", "ValidationException", "Segment must be less than TotalSegments")
        state = self._state(table, "", request, consistent=consistent)
        rows = [
            (key, item) for key, item in scan_order(state) if segment_of(key[0], total) == segment
        ]
        return self._page("scan", table, request, rows, set(), consistent=consistent)

    def describe_table(self, **request: Any) -> dict[str, Any]:
        """DescribeTable: size and count."""
        table = self._table("describe_table", request["TableName"])
        size = sum(size_of(item) for item in table.items.values())
        described = {"TableName": table.spec.name, "TableStatus": "ACTIVE"}
        return {"Table": {**described, "TableSizeBytes": size, "ItemCount": len(table.items)}}

    def get_paginator(self, operation: str) -> Paginator:
        """Return a paginator for a query or a scan."""
        return Paginator(getattr(self, operation))

    # -- writes

    @one_at_a_time
    def put_item(self, **request: Any) -> dict[str, Any]:
        """PutItem."""
        return self._write_one("put_item", "Put", request)

    @one_at_a_time
    def update_item(self, **request: Any) -> dict[str, Any]:
        """UpdateItem."""
        return self._write_one("update_item", "Update", request)

    @one_at_a_time
    def delete_item(self, **request: Any) -> dict[str, Any]:
        """DeleteItem."""
        return self._write_one("delete_item", "Delete", request)

    @one_at_a_time
    def transact_write_items(self, **request: Any) -> dict[str, Any]:
        """TransactWriteItems: all of it or none."""
        operation = "transact_write_items"
        actions = request["TransactItems"]
        if not 1 <= len(actions) <= MAX_ACTIONS:
            fail(operation, "ValidationException", "1 to 100 actions in a transaction")
        writes: list[_Write] = []
        reasons: list[dict[str, Any]] = []
        for action in actions:
            kind = next(iter(action))
            try:
                writes.append(self._prepare(operation, kind, action[kind]))
                reasons.append({"Code": "None"})
            except ConditionFailedError as lost:
                reason = {"Code": "ConditionalCheckFailed", "Message": str(lost)}
                reasons.append({**reason, **old_item(action[kind], lost)})
        self._no_item_twice(actions)
        if len(writes) < len(actions):
            codes = ", ".join(reason["Code"] for reason in reasons)
            message = f"Transaction cancelled, please refer cancellation reasons [{codes}]"
            fail(operation, "TransactionCanceledException", message, CancellationReasons=reasons)
        self._commit(writes)
        units = dict.fromkeys(dict.fromkeys(w.table.spec.name for w in writes), 0.0)
        for write in writes:
            units[write.table.spec.name] += 2 * self._write_units(write)
        self.write_units += sum(units.values())
        if request.get("ReturnConsumedCapacity", "NONE") == "NONE":
            return {}
        return {
            "ConsumedCapacity": [{"TableName": n, "CapacityUnits": u} for n, u in units.items()]
        }

    # -- parts of reads

    def _table(self, operation: str, name: str) -> Table:
        table = self.tables.get(name)
        if table is None:
            fail(operation, "ResourceNotFoundException", f"Requested resource not found: {name}")
        return table

    def _schema(self, operation: str, table: Table, index: str | None) -> KeySchema:
        if index is None:
            return table.spec.key
        if index not in table.spec.indexes:
            fail(
                operation,
                "ValidationException",
                f"The table does not have the specified index: {index}",
            )
        return table.spec.indexes[index].key

    def _key(self, operation: str, table: Table, key: Item) -> Key:
        schema = table.spec.key
        sound = set(key) == set(schema.names) and all("S" in value for value in key.values())
        if not sound or any(not value["S"] for value in key.values()):
            message = "The provided key element does not match the schema"
            fail(operation, "ValidationException", message)
        return schema.of(key)

    def _state(
        self, table: Table, index: str, request: Request, *, consistent: bool
    ) -> dict[Key, dict[str, Value]]:
        back = 0 if consistent else self.lag(table, index, request)
        return table.versions[max(0, len(table.versions) - 1 - back)]

    def _page(
        self,
        operation: str,
        table: Table,
        request: Request,
        rows: Sequence[tuple[Key, Item]],
        used: set[str],
        *,
        consistent: bool,
    ) -> dict[str, Any]:
        start = request.get("ExclusiveStartKey")
        if start is not None:
            rows = self._behind(operation, table, rows, start)
        limit = request.get("Limit", len(rows) + 1)
        taken: list[tuple[Key, Item]] = []
        size = 0
        for key, item in rows:
            taken.append((key, item))
            size += self._size(item)
            if len(taken) >= limit or size >= PAGE_BYTES:
                break
        found = [item for _, item in taken]
        kept = self._filtered(operation, found, request, used)
        index = request.get("IndexName")
        if index is not None:
            kept = [table.spec.indexes[index].shows(i, table.spec.key) for i in kept]
        projected = [self._project(operation, i, request) for i in kept]
        response = self._read_response(table, request, found, consistent=consistent)
        response |= {"Items": projected, "Count": len(kept), "ScannedCount": len(found)}
        if (taken and len(taken) < len(rows)) or len(taken) == limit:
            names = {*table.spec.key.names, *self._schema(operation, table, index).names}
            response["LastEvaluatedKey"] = {n: v for n, v in taken[-1][1].items() if n in names}
        return response

    def _behind(
        self, operation: str, table: Table, rows: Sequence[tuple[Key, Item]], start: Item
    ) -> Sequence[tuple[Key, Item]]:
        """Return the rows behind ``start``, which may have been deleted meanwhile."""
        own = {name: start[name] for name in table.spec.key.names}
        after = self._key(operation, table, own)
        for position, (key, _) in enumerate(rows):
            if key == after:
                return rows[position + 1 :]
        if operation == "query":
            return [row for row in rows if row[0] > after]
        everything = dict(rows) | {after: {}}
        order = [key for key, _ in scan_order(everything)]
        return rows[order.index(after) :]

    def _filtered(
        self, operation: str, items: list[Item], request: Request, used: set[str]
    ) -> list[Item]:
        text = request.get("FilterExpression")
        if text is not None:
            parsed = self._parse(operation, text)
            used |= parsed.used
            items = [item for item in items if parsed.test(self._scope(item, request, used))]
        projection = request.get("ProjectionExpression")
        if projection is not None:
            used |= parse_projection(projection)[1]
        self._all_used(operation, request, used)
        return items

    def _project(self, operation: str, item: Item, request: Request) -> dict[str, Value]:
        text = request.get("ProjectionExpression")
        if text is None:
            return dict(item)
        try:
            tokens, used = parse_projection(text)
            scope = Scope(item, request.get("ExpressionAttributeNames", {}), {})
            names = [scope.name(token) for token in tokens]
        except ExpressionError as error:
            fail(operation, "ValidationException", str(error))
        if operation in {"get_item", "batch_get_item"}:
            self._all_used(operation, request, set(used))
        return {name: item[name] for name in names if name in item}

    def _read_units(self, items: Sequence[Item], *, consistent: bool) -> float:
        blocks = max(1, math.ceil(sum(self._size(item) for item in items) / 4096))
        return blocks * (1.0 if consistent else 0.5)

    def _read_response(
        self, table: Table, request: Request, items: Sequence[Item], *, consistent: bool
    ) -> dict[str, Any]:
        units = self._read_units(items, consistent=consistent)
        self.read_units += units
        if request.get("ReturnConsumedCapacity", "NONE") == "NONE":
            return {}
        return {"ConsumedCapacity": {"TableName": table.spec.name, "CapacityUnits": units}}

    # -- parts of writes

    def _write_one(self, operation: str, kind: str, request: Request) -> dict[str, Any]:
        try:
            write = self._prepare(operation, kind, request)
        except ConditionFailedError as lost:
            extra = old_item(request, lost)
            fail(operation, "ConditionalCheckFailedException", str(lost), **extra)
        self._commit([write])
        units = self._write_units(write)
        self.write_units += units
        response: dict[str, Any] = {}
        if request.get("ReturnValues") == "ALL_OLD" and write.old is not None:
            response["Attributes"] = dict(write.old)
        if request.get("ReturnValues") == "ALL_NEW" and write.new is not None:
            response["Attributes"] = dict(write.new)
        if request.get("ReturnConsumedCapacity", "NONE") != "NONE":
            name = write.table.spec.name
            response["ConsumedCapacity"] = {"TableName": name, "CapacityUnits": units}
        return response

    def _write_units(self, write: _Write) -> float:
        sizes = [self._size(item) for item in (write.old, write.new) if item is not None]
        return float(max(1, math.ceil(max(sizes, default=0) / 1024)))

    def _prepare(self, operation: str, kind: str, request: Request) -> _Write:
        if kind not in _ACTIONS:
            fail(operation, "ValidationException", f"{kind} is no action")
        table = self._table(operation, request["TableName"])
        if kind == "Put":
            names = table.spec.key.names
            own = {name: request["Item"][name] for name in names if name in request["Item"]}
        else:
            own = dict(request["Key"])
        key = self._key(operation, table, own)
        old = table.items.get(key)
        scope = self._scope(old or {}, request, set())
        # The update first: a malformed one is refused even if the condition does not hold.
        try:
            new = self._changed(kind, own, old, request, scope)
            condition = request.get("ConditionExpression")
            holds = True
            if condition is not None:
                parsed = parse_condition(condition)
                scope.used |= parsed.used
                holds = parsed.test(scope)
        except ExpressionError as error:
            fail(operation, "ValidationException", str(error))
        self._all_used(operation, request, scope.used)
        if not holds:
            raise ConditionFailedError(old)
        if new is not None and new is not old:
            self._sound(operation, table, new)
        return _Write(table, key, old, new)

    @staticmethod
    def _changed(
        kind: str,
        own: Mapping[str, Value],
        old: dict[str, Value] | None,
        request: Request,
        scope: Scope,
    ) -> dict[str, Value] | None:
        if kind == "Put":
            return dict(request["Item"])
        if kind == "Delete":
            return None
        if kind == "ConditionCheck":
            return old
        base = old if old is not None else own
        scope.item = base if old is not None else {}
        new = apply_update(request["UpdateExpression"], base, scope)
        if any(new.get(name) != value for name, value in own.items()):
            raise ExpressionError("Cannot update attribute: this attribute is part of the key")
        return new

    def _sound(self, operation: str, table: Table, item: Item) -> None:
        if self._size(item) > MAX_ITEM_BYTES:
            fail(
                operation, "ValidationException", "Item size has exceeded the maximum allowed size"
            )
        for index in table.spec.indexes.values():
            for name in index.key.names:
                if name in item and not item[name].get("S"):
                    message = f"Type mismatch or empty string for Index Key {name}"
                    fail(operation, "ValidationException", message)
        if any(
            kind in value and not value[kind] for value in item.values() for kind in ("SS", "NS")
        ):
            fail(operation, "ValidationException", "An string set  may not be empty")

    def _no_item_twice(self, actions: Sequence[Mapping[str, Any]]) -> None:
        seen: set[tuple[str, Key]] = set()
        for action in actions:
            part = next(iter(action.values()))
            table = self.tables[part["TableName"]]
            key = table.spec.key.of(part["Item"] if "Item" in part else part["Key"])
            if (part["TableName"], key) in seen:
                message = "Transaction request cannot include multiple operations on one item"
                fail("transact_write_items", "ValidationException", message)
            seen.add((part["TableName"], key))

    def _commit(self, writes: Sequence[_Write]) -> None:
        changes: dict[str, dict[Key, dict[str, Value] | None]] = {}
        for write in writes:
            if write.new is not write.old:
                changes.setdefault(write.table.spec.name, {})[write.key] = write.new
        for name, items in changes.items():
            self.tables[name].replace(items)

    # -- parts of expressions

    @staticmethod
    def _scope(item: Item, request: Request, used: set[str]) -> Scope:
        names = request.get("ExpressionAttributeNames", {})
        return Scope(item, names, request.get("ExpressionAttributeValues", {}), used)

    @staticmethod
    def _parse(operation: str, text: str) -> Any:
        try:
            return parse_condition(text)
        except ExpressionError as error:
            fail(operation, "ValidationException", str(error))

    @staticmethod
    def _all_used(operation: str, request: Request, used: set[str]) -> None:
        names = request.get("ExpressionAttributeNames", {})
        values = request.get("ExpressionAttributeValues", {})
        given = {*names, *values}
        if given - used:
            message = f"Value provided in ExpressionAttribute… unused: {sorted(given - used)}"
            fail(operation, "ValidationException", message)
        if used - given:
            message = f"An expression attribute used is not defined: {sorted(used - given)}"
            fail(operation, "ValidationException", message)
