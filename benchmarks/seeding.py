"""Seeding: batch writes from a few processes, in the wire format.

Nothing here is measured, so it avoids the cost of a client library. DynamoDB Local needs an access
key but no signature.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from benchmarks.mix import ORCHESTRATIONS, TASKS, Mix, WireItem, items
from benchmarks.ours import settings_of
from benchmarks.place import Place
from reconciler.tables import create_tables_of

_PER_BATCH = 25
_PER_JOB = 500
_PROCESSES = 3


def seed(place: Place, mix: Mix, prepare: Callable[[Place], None] = lambda _: None) -> None:
    """Create the tables at ``place``, ``prepare`` them, and fill them with ``mix``."""
    create_tables_of(place.client(), settings_of(place))
    prepare(place)
    now = datetime.now(UTC)
    starts = range(0, mix.orchestrations, _PER_JOB)
    jobs = [range(start, min(start + _PER_JOB, mix.orchestrations)) for start in starts]
    with ProcessPoolExecutor(_PROCESSES) as pool:
        for job in [pool.submit(_write, place, mix, numbers, now) for numbers in jobs]:
            job.result()


def _write(place: Place, mix: Mix, numbers: range, now: datetime) -> None:
    names = {ORCHESTRATIONS: place.orchestrations, TASKS: place.tasks}
    writer = BatchWriter(place)
    for table, item in items(mix, numbers, now):
        writer.put(names[table], item)
    writer.flush()


@dataclass(slots=True)
class _Pending:
    requests: dict[str, list[Any]]
    count: int = 0


class BatchWriter:
    """Writes 25 items at a time, and repeats those that were not processed."""

    def __init__(self, place: Place) -> None:
        self._connection = http.client.HTTPConnection(place.endpoint.removeprefix("http://"))
        self._pending = _Pending({})

    def put(self, table: str, item: WireItem) -> None:
        """Write ``item`` with one of the next batches."""
        self._pending.requests.setdefault(table, []).append({"PutRequest": {"Item": item}})
        self._pending.count += 1
        if self._pending.count == _PER_BATCH:
            self.flush()

    def flush(self) -> None:
        """Write the pending items."""
        left = self._pending.requests
        self._pending = _Pending({})
        while left:
            left = self._post("BatchWriteItem", {"RequestItems": left})["UnprocessedItems"]

    def _post(self, operation: str, body: dict[str, Any]) -> dict[str, Any]:
        headers = {
            "Content-Type": "application/x-amz-json-1.0",
            "X-Amz-Target": f"DynamoDB_20120810.{operation}",
            "Authorization": "AWS4-HMAC-SHA256 Credential=testing/20260101/us-east-1/dynamodb/"
            "aws4_request, SignedHeaders=host, Signature=0",
        }
        self._connection.request("POST", "/", json.dumps(body), headers)
        response = self._connection.getresponse()
        said = response.read()
        if response.status != http.client.OK:
            raise RuntimeError(f"{operation}: {response.status} {said.decode()[:500]}")
        answer: dict[str, Any] = json.loads(said)
        return answer
