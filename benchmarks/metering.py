"""Meters on a botocore client, from outside of what is measured.

Requests are counted as they leave, each retry included; units are what DynamoDB says that it took.
The same hooks add a network's delay, and stand in for a table whose capacity others use too.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import boto3
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders

Run = Callable[[], dict[str, Any]]
"""The work itself, with its clients made; returns what it says of itself."""

_READS = frozenset({"GetItem", "BatchGetItem", "Query", "Scan"})
_THROTTLED = (
    b'{"__type":"com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException",'
    b'"message":"The level of configured provisioned throughput for the table was exceeded."}'
)


@dataclass(slots=True)
class Capacity:
    """A token bucket in place of a table's own: so many read units a second, a burst of two."""

    units_per_second: float
    _left: float = 0.0
    _at: float = field(default_factory=time.monotonic)

    def allows(self) -> bool:
        """Whether anything is left; as in DynamoDB, what is left may be overdrawn."""
        now = time.monotonic()
        most = 2 * self.units_per_second
        self._left = min(most, self._left + (now - self._at) * self.units_per_second)
        self._at = now
        return self._left > 0

    def take(self, units: float) -> None:
        """Take what a request has consumed."""
        self._left -= units


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
        """Count what ``client`` sends from now on; pipelines are invoked in name only."""
        events = client.meta.events
        events.register("before-send.dynamodb", self._sending)
        events.register("after-call.dynamodb", self._answered)
        events.register("before-send.lambda", lambda **_: _Accepted())

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
        return _Refusal(request.url) if refused else None

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
    """Makes the clients that ``session`` would make, each with the meter on it."""

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


class _Refusal(AWSResponse):
    """What a throttled table answers."""

    def __init__(self, url: str) -> None:
        super().__init__(url, 400, HTTPHeaders(), None)
        self._content = _THROTTLED


class _Accepted(AWSResponse):
    """What Lambda answers: an invocation is no request to DynamoDB, its record is one."""

    def __init__(self) -> None:
        super().__init__("", 202, HTTPHeaders(), None)
        self._content = b""
