"""The in-memory DynamoDB as an endpoint for a world.

It starts no process, so a suite that takes minutes over HTTP takes seconds on it. Mutants are
judged on it (``IN_MEMORY=1``). It leaves botocore out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from botocore.exceptions import ClientError

from tests.simulation.answers import fail
from tests.simulation.memory_dynamodb import MemoryDynamoDB
from tests.simulation.storage import Index, KeySchema, Table, TableSpec

MEMORY = "memory://"


@contextmanager
def memory_server(_directory: Path) -> Iterator[str]:
    """Give the endpoint; there is no server to start."""
    yield MEMORY


class _Exceptions:
    def __getattr__(self, _name: str) -> type[ClientError]:
        return ClientError


class MemoryClient(MemoryDynamoDB):
    """The in-memory DynamoDB, with operations to create and delete tables."""

    exceptions = _Exceptions()
    meta = SimpleNamespace(events=SimpleNamespace(register=lambda *_: None))

    def __init__(self) -> None:
        super().__init__(specs=())

    def create_table(self, **definition: Any) -> dict[str, Any]:
        """CreateTable."""
        indexes = {
            index["IndexName"]: Index(
                _schema(index), keys_only=index["Projection"]["ProjectionType"] == "KEYS_ONLY"
            )
            for index in definition.get("GlobalSecondaryIndexes", ())
        }
        name = definition["TableName"]
        if name in self.tables:
            fail("create_table", "ResourceInUseException", f"{name} exists")
        self.tables[name] = Table(TableSpec(name, _schema(definition), indexes))
        return {}

    def delete_table(self, **request: Any) -> dict[str, Any]:
        """DeleteTable."""
        del self.tables[request["TableName"]]
        return {}

    def update_time_to_live(self, **_: Any) -> dict[str, Any]:
        """UpdateTimeToLive; nothing ever expires."""
        return {}

    def batch_write_item(self, **request: Any) -> dict[str, Any]:
        """BatchWriteItem for puts; everything is always processed."""
        for name, writes in request["RequestItems"].items():
            for write in writes:
                self.put_item(TableName=name, Item=write["PutRequest"]["Item"])
        return {"UnprocessedItems": {}}

    def get_waiter(self, _name: str) -> Any:
        """Return a waiter that returns at once."""
        return SimpleNamespace(wait=lambda **_: None)


def _schema(definition: Any) -> KeySchema:
    return KeySchema(*(part["AttributeName"] for part in definition["KeySchema"]))


@cache
def memory_client() -> MemoryClient:
    """Return the one database of this process."""
    return MemoryClient()
