"""Where a run takes place: an endpoint and the names of its tables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import boto3

from tests.support.dynamodb_local import dynamodb_local

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


@dataclass(frozen=True, slots=True)
class Place:
    """An endpoint and its tables."""

    endpoint: str
    orchestrations: str = "Orchestration"
    tasks: str = "Task"
    events: str = "TaskEvents"
    users: str = "UserConcurrency"

    def session(self) -> boto3.Session:
        """Return a session for the endpoint, with credentials that only an emulator accepts."""
        return _EmulatorSession(self.endpoint)

    def client(self) -> DynamoDBClient:
        """Return a plain boto3 client."""
        return self.session().client("dynamodb")

    def to_json(self) -> dict[str, str]:
        """Return the place as plain values, for another process."""
        return asdict(self)


class _EmulatorSession(boto3.Session):
    def __init__(self, endpoint: str) -> None:
        super().__init__("testing", "testing", region_name="us-east-1")
        self._endpoint = endpoint

    def client(self, service_name: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - boto3's
        made: Any = super().client
        return made(service_name, *args, **{"endpoint_url": self._endpoint, **kwargs})


@contextmanager
def fresh_place() -> Iterator[Place]:
    """Run a separate DynamoDB Local, in memory, while the block runs."""
    with (
        TemporaryDirectory(prefix="benchmark-") as directory,
        dynamodb_local(Path(directory), options=()) as at,
    ):
        yield Place(at)
