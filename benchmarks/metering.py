"""Meters that measure a botocore client from outside.

They count requests as they leave, including each retry, and the units that DynamoDB reports. The
same hooks can add the delay of a network, or simulate a table whose capacity others use too.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock, local
from typing import Any

import boto3
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders

Run = Callable[[], dict[str, Any]]
"""The work itself, with its clients ready; returns its facts."""

_CANCELLED = "com.amazonaws.dynamodb.v20120810#TransactionCanceledException"
_KEYS = ("orchestration_id", "sub_issue_id", "task_id", "event_id", "user_id")
_READS = frozenset({"GetItem", "BatchGetItem", "Query", "Scan"})
_THROTTLED = (
    b'{"__type":"com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException",'
    b'"message":"The level of configured provisioned throughput for the table was exceeded."}'
)


@dataclass(slots=True)
class Capacity:
    """A token bucket that limits read units like a table; a burst is two seconds' worth."""

    units_per_second: float
    _left: float = 0.0
    _at: float = field(default_factory=time.monotonic)

    def allows(self) -> bool:
        """Whether anything is left. As in DynamoDB, a request may take more than is left."""
        now = time.monotonic()
        most = 2 * self.units_per_second
        self._left = min(most, self._left + (now - self._at) * self.units_per_second)
        self._at = now
        return self._left > 0

    def take(self, units: float) -> None:
        """Take the units that a request consumed."""
        self._left -= units


class Contention:
    """Refuses a transaction that conflicts with another on an item, as DynamoDB does.

    DynamoDB Local runs transactions one after the other, so they never conflict. This holds an item
    from when its transaction is sent until the answer, and for at least ``held_seconds``. It holds
    items that are only checked like items that are written.
    """

    def __init__(self, held_seconds: float) -> None:
        self._held_seconds = held_seconds
        self._lock = Lock()
        self._held: set[str] = set()
        self._own = local()
        self.sent = 0
        self.conflicts = 0

    def attach(self, client: Any) -> None:  # noqa: ANN401 - DynamoDB's
        """Let transactions of ``client`` conflict with those of others."""
        client.meta.events.register("before-send.dynamodb.TransactWriteItems", self._sending)
        client.meta.events.register("after-call.dynamodb.TransactWriteItems", self._answered)

    def _sending(self, request: Any, **_: Any) -> AWSResponse | None:  # noqa: ANN401 - botocore's
        items = [self._item(action) for action in json.loads(request.body)["TransactItems"]]
        with self._lock:
            self.sent += 1
            met = [item in self._held for item in items]
            if any(met):
                self.conflicts += 1
                reasons = [{"Code": "TransactionConflict" if one else "None"} for one in met]
                body = {"__type": _CANCELLED, "CancellationReasons": reasons}
                return _Answer(request.url, 400, json.dumps(body).encode())
            self._held.update(items)
        self._own.items = items
        time.sleep(self._held_seconds)
        return None

    def _answered(self, **_: Any) -> None:  # noqa: ANN401 - botocore's
        with self._lock:
            self._held.difference_update(getattr(self._own, "items", ()))
        self._own.items = ()

    @staticmethod
    def _item(action: Any) -> str:  # noqa: ANN401 - typed JSON
        part = next(iter(action.values()))
        whole = part.get("Key") or part["Item"]
        key = {name: whole[name] for name in _KEYS if name in whole}
        return json.dumps([part["TableName"], key], sort_keys=True)


@dataclass(slots=True)
class Meter:
    """Counts of one measured run, over all of its clients."""

    latency_seconds: float = 0.0
    capacity: Capacity | None = None
    read_units: float = 0.0
    write_units: float = 0.0
    operations: Counter[str] = field(default_factory=Counter)
    throttled: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    _lock: Any = field(default_factory=Lock)

    @property
    def requests(self) -> int:
        """All requests."""
        return self.operations.total()

    def attach(self, client: Any) -> None:  # noqa: ANN401 - any service's
        """Count what ``client`` sends from now on. Invocations of a pipeline are answered here."""
        events = client.meta.events
        events.register("before-send.dynamodb", self._sending)
        events.register("after-call.dynamodb", self._answered)
        # An invocation is not a request to DynamoDB, but the write of its record is.
        events.register("before-send.lambda", lambda **_: _Answer("", 202, b""))

    def _sending(self, request: Any, **_: Any) -> AWSResponse | None:  # noqa: ANN401 - botocore's
        name = request.headers["X-Amz-Target"]
        operation = (name.decode() if isinstance(name, bytes) else name).rpartition(".")[2]
        with self._lock:
            self.operations[operation] += 1
            refused = (
                operation == "Scan" and self.capacity is not None and not self.capacity.allows()
            )
            self.throttled += refused
        if self.latency_seconds:
            time.sleep(self.latency_seconds)
        return _Answer(request.url, 400, _THROTTLED) if refused else None

    def _answered(self, model: Any, parsed: dict[str, Any], **_: Any) -> None:  # noqa: ANN401
        consumed = parsed.get("ConsumedCapacity") or []
        entries = consumed if isinstance(consumed, list) else [consumed]
        units = sum(float(entry.get("CapacityUnits", 0.0)) for entry in entries)
        error = parsed.get("Error")
        with self._lock:
            if error is not None:
                self.refusals[error["Code"]] += 1
            if model.name in _READS:
                self.read_units += units
            else:
                self.write_units += units
            if self.capacity is not None and model.name == "Scan":
                self.capacity.take(units)


class MeteredSession(boto3.Session):
    """Makes the same clients as ``session``, each with the meter attached."""

    def __init__(self, session: boto3.Session, meter: Meter) -> None:
        super().__init__()
        self._other = session
        self._meter = meter

    def client(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - boto3's
        """Make a client, metered."""
        made: Any = self._other.client
        client = made(*args, **kwargs)
        self._meter.attach(client)
        return client


class _Answer(AWSResponse):
    """An answer that was never sent over a network."""

    def __init__(self, url: str, status: int, content: bytes) -> None:
        super().__init__(url, status, HTTPHeaders(), None)
        self._content = content
