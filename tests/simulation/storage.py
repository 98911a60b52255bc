"""Tables of the in-memory DynamoDB: keys, indexes, sizes, and the order in which items are read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from tests.simulation.expressions import Item, Value

Key = tuple[str, str]
"""Partition key and sort key; the sort key is empty if the table has none."""

MAX_ITEM_BYTES = 400 * 1024


@dataclass(frozen=True, slots=True)
class KeySchema:
    """Names of the partition key and of the sort key, if there is one."""

    partition: str
    sort: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The key's attributes."""
        return (self.partition,) if self.sort is None else (self.partition, self.sort)

    def of(self, item: Item) -> Key:
        """Return the key of an item that has all its parts."""
        sort = _scalar(item[self.sort]) if self.sort is not None else ""
        return _scalar(item[self.partition]), sort

    def covers(self, item: Item) -> bool:
        """Whether an item has the whole key; a sparse index leaves out other items."""
        return all(name in item and "S" in item[name] for name in self.names)


@dataclass(frozen=True, slots=True)
class Index:
    """A global secondary index; ``keys_only`` projects the keys alone."""

    key: KeySchema
    keys_only: bool = False

    def shows(self, item: Item, own: KeySchema) -> dict[str, Value]:
        """Return the part of an item that the index shows; ``own`` is the key of the table."""
        if not self.keys_only:
            return dict(item)
        names = {*own.names, *self.key.names}
        return {name: value for name, value in item.items() if name in names}


@dataclass(frozen=True, slots=True)
class TableSpec:
    """A table's keys and indexes."""

    name: str
    key: KeySchema
    indexes: Mapping[str, Index] = field(default_factory=dict)


@dataclass(slots=True)
class Table:
    """A table at work: its items, and every state that it has been in."""

    spec: TableSpec
    items: dict[Key, dict[str, Value]] = field(default_factory=dict)
    versions: list[dict[Key, dict[str, Value]]] = field(default_factory=list)
    digest: int = 0

    def __post_init__(self) -> None:
        if not self.versions:
            self.versions.append(self.items)

    def copy(self) -> Table:
        """Return an independent copy."""
        return Table(self.spec, self.items, list(self.versions), self.digest)

    def replace(self, changes: Mapping[Key, dict[str, Value] | None]) -> None:
        """Write items, or delete those that are None; earlier states stay readable."""
        items = dict(self.items)
        for key, item in changes.items():
            old = items.pop(key, None)
            if old is not None:
                self.digest ^= digest_of(self.spec.name, old)
            if item is not None:
                # In one order, whoever wrote them, so that equal contents compare equal.
                items[key] = {name: item[name] for name in sorted(item)}
                self.digest ^= digest_of(self.spec.name, item)
        self.items = items
        self.versions.append(items)

    def history_of(self, index: str) -> dict[str, frozenset[frozenset[str]]]:
        """Return all the different contents that each partition of an index has had."""
        schema = self.spec.indexes[index]
        had: list[dict[str, set[str]]] = []
        for version in self.versions:
            partitions: dict[str, set[str]] = {}
            for item in version.values():
                if schema.key.covers(item):
                    shown = repr(sorted(schema.shows(item, self.spec.key).items()))
                    partitions.setdefault(schema.key.of(item)[0], set()).add(shown)
            had.append(partitions)
        return {
            name: frozenset(frozenset(partitions.get(name, ())) for partitions in had)
            for name in {name for partitions in had for name in partitions}
        }

    def forget_history(self) -> None:
        """Let every index and every replica catch up."""
        self.versions[:] = [self.items]


def digest_of(salt: str, item: Item) -> int:
    """Return a number that identifies contents, whatever the order of attributes."""
    text = salt + repr(sorted(item.items(), key=lambda pair: pair[0]))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest())


def partition_order(partition: str) -> int:
    """Return the position of a partition in the hash space, which orders a scan."""
    return int.from_bytes(hashlib.md5(partition.encode(), usedforsecurity=False).digest()[:8])


def scan_order(items: Mapping[Key, Item]) -> Iterator[tuple[Key, Item]]:
    """Go through a table in the order of a scan: by the partition's hash, then by sort key."""
    for key in sorted(items, key=lambda key: (partition_order(key[0]), key[0], key[1].encode())):
        yield key, items[key]


def segment_of(partition: str, total: int) -> int:
    """Return which of ``total`` segments a partition belongs to."""
    return partition_order(partition) * total >> 64


def _scalar(value: Value) -> str:
    return str(next(iter(value.values())))


_SIZES: dict[str, Callable[[Any], int]] = {
    "S": lambda v: len(v.encode()),
    "N": lambda v: (len(Decimal(v).as_tuple().digits) + 1) // 2 + 1,
    "B": len,
    "BOOL": lambda _: 1,
    "NULL": lambda _: 1,
    "SS": lambda v: sum(len(part.encode()) for part in v),
    "NS": lambda v: sum((len(part) + 1) // 2 + 1 for part in v),
    "BS": lambda v: sum(len(part) for part in v),
    "L": lambda v: 3 + sum(1 + size_of_value(part) for part in v),
    "M": lambda v: 3 + sum(1 + len(k.encode()) + size_of_value(p) for k, p in v.items()),
}


def size_of_value(value: Value) -> int:
    """Return the bytes that a value counts for."""
    kind, inner = next(iter(value.items()))
    return _SIZES[kind](inner)


def size_of(item: Item) -> int:
    """Return the bytes that an item counts for."""
    return sum(len(name.encode()) + size_of_value(value) for name, value in item.items())


def contract_tables(prefix: str = "") -> tuple[TableSpec, ...]:
    """Return the tables of the contract; ``prefix`` comes before each name."""
    task = KeySchema("task_id")
    return (
        TableSpec(
            f"{prefix}OrchestrationTable",
            KeySchema("orchestration_id", "sub_issue_id"),
            {
                "ChildTaskIndex": Index(KeySchema("child_task_id")),
                "ChildBranchIndex": Index(KeySchema("child_branch_name")),
            },
        ),
        TableSpec(
            f"{prefix}TaskTable",
            task,
            {
                "UserStatusIndex": Index(KeySchema("user_id", "status_created_at")),
                "StatusIndex": Index(KeySchema("status", "created_at")),
                "IdempotencyIndex": Index(KeySchema("idempotency_key"), keys_only=True),
                "LinearIssueIndex": Index(KeySchema("linear_issue_id", "created_at")),
                "JiraIssueIndex": Index(KeySchema("jira_issue_identity", "created_at")),
            },
        ),
        TableSpec(f"{prefix}TaskEventsTable", KeySchema("task_id", "event_id")),
        TableSpec(f"{prefix}UserConcurrencyTable", KeySchema("user_id")),
        TableSpec(f"{prefix}RepoTable", KeySchema("repo")),
        TableSpec(f"{prefix}BudgetTable", KeySchema("scope_key", "period")),
    )
