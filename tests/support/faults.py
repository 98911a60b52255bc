"""A proxy in front of a DynamoDB endpoint that breaks requests on purpose.

It has two ways to break them: ``weather`` (a seeded probability for each kind of fault) for runs
that look for surprises, and ``holding`` (requests of one kind wait until they are let go) for tests
that need one exact moment. The sockets are real, so a torn connection is really torn.
"""

from __future__ import annotations

import http.client
import json
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random

from reconciler.embedded.loopback import Answer, Handler, serving
from tests.support.faulty_endpoint import JSON, connect, passed_on, refusal

_SLOW_SECONDS = (0.2, 1.5)


class Fault(StrEnum):
    """What can happen to a request. ``after``: it was carried out, but the answer is lost."""

    THROTTLED = "throttled"
    RATE_LIMITED = "rate limited"
    CONFLICT = "transaction conflict"
    INTERNAL_ERROR = "internal error"
    UNAVAILABLE = "unavailable"
    SLOW = "slow answer"
    TIMEOUT = "timeout"
    TIMEOUT_AFTER = "timeout, carried out"
    TORN = "torn"
    TORN_AFTER = "torn, carried out"
    TORN_MIDWAY = "torn within the answer"


@dataclass(slots=True)
class Hold:
    """Held requests: how many have arrived, and the signal to go on."""

    operation: str
    mentions: str
    after: bool
    arrived: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _go_on: threading.Event = field(default_factory=threading.Event)

    def matches(self, operation: str, body: bytes) -> bool:
        """Whether a request is to be held."""
        return operation == self.operation and self.mentions.encode() in body

    def stop_here(self) -> None:
        """Hold the request of the calling thread."""
        with self._changed:
            self.arrived += 1
            self._changed.notify_all()
        self._go_on.wait()

    def wait(self, count: int = 1, timeout_seconds: float = 120.0) -> None:
        """Wait until ``count`` requests have arrived."""
        with self._changed:
            come = self._changed.wait_for(lambda: self.arrived >= count, timeout_seconds)
        assert come, f"{self.arrived} requests of {self.operation} came, not {count}"

    def let_go(self) -> None:
        """Let the held requests, and all later ones, go on."""
        self._go_on.set()


class FaultProxy:
    """The proxy's behaviour; made by ``fault_proxy``. Safe to change at any time."""

    def __init__(self, upstream: str, seed: int = 0) -> None:
        """Take the endpoint behind the proxy."""
        self.upstream = upstream
        self.url = ""
        self.weather: Mapping[Fault, float] = {}
        self.delay_seconds = 0.0
        self.injected: Counter[Fault] = Counter()
        self.requests: Counter[str] = Counter()
        self.over = threading.Event()
        self._holds: list[Hold] = []
        self._rng = Random(f"{seed}/weather")  # noqa: S311 - dice for faults
        self._lock = threading.Lock()

    @contextmanager
    def holding(self, operation: str, mentions: str = "", *, after: bool = False) -> Iterator[Hold]:
        """Hold requests of ``operation`` whose body contains ``mentions``, until the block ends.

        ``after``: they are carried out, and their answer is held.
        """
        hold = Hold(operation, mentions, after)
        with self._lock:
            self._holds.append(hold)
        try:
            yield hold
        finally:
            with self._lock:
                self._holds.remove(hold)
            hold.let_go()

    def held_by(self, operation: str, body: bytes) -> Hold | None:
        """Return the hold that a request must wait for, if any."""
        with self._lock:
            self.requests[operation] += 1
            return next((hold for hold in self._holds if hold.matches(operation, body)), None)

    def fault_for(self, operation: str) -> tuple[Fault | None, float]:
        """Draw a fault for a request; returns it, and the delay of a slow answer."""
        with self._lock:
            drawn, pause = self._rng.random(), self._rng.uniform(*_SLOW_SECONDS)
            for fault, probability in self.weather.items():
                drawn -= probability
                if drawn < 0:
                    if fault is Fault.CONFLICT and operation != "TransactWriteItems":
                        return None, 0.0
                    self.injected[fault] += 1
                    return fault, pause
        return None, 0.0


@contextmanager
def fault_proxy(upstream: str, seed: int = 0) -> Iterator[FaultProxy]:
    """Serve on loopback until the block ends."""
    proxy = FaultProxy(upstream, seed)
    handler = type("FaultHandler", (_FaultHandler,), {"proxy": proxy})
    with serving(handler) as proxy.url:
        try:
            yield proxy
        finally:
            proxy.over.set()


class _FaultHandler(Handler):
    proxy: FaultProxy
    upstream: http.client.HTTPConnection | None = None

    def _post(self) -> None:
        proxy = self.proxy
        request = self.take()
        operation = (self.headers.get("X-Amz-Target") or self.path).rpartition(".")[2]
        hold = proxy.held_by(operation, request.body)
        if hold is not None and not hold.after:
            hold.stop_here()
        if proxy.delay_seconds:
            proxy.over.wait(proxy.delay_seconds)
        fault, pause = proxy.fault_for(operation)
        refused = _refusal(fault, operation, request.body)
        if refused is not None:
            self.give(refused)
            return
        if fault is Fault.SLOW:
            proxy.over.wait(pause)
        if fault in {Fault.TIMEOUT, Fault.TORN}:
            self._break(fault)
            return
        if self.upstream is None:
            self.upstream = connect(proxy.upstream)
        answer = passed_on(self.upstream, self.command, request)
        if hold is not None and hold.after:
            hold.stop_here()
        if fault in {Fault.TIMEOUT_AFTER, Fault.TORN_AFTER}:
            self._break(fault)
        elif fault is Fault.TORN_MIDWAY:
            self.give(answer, share=0.5)
            self._break(fault)
        else:
            self.give(answer)

    do_GET = do_POST = _post  # noqa: N815 - the server's names

    def _break(self, fault: Fault) -> None:
        """Never answer: stay silent until the client has gone, or reset the connection."""
        self.close_connection = True
        if fault in {Fault.TIMEOUT, Fault.TIMEOUT_AFTER}:
            self.connection.settimeout(60.0)
            with suppress(OSError):
                self.connection.recv(1)
            return
        reset_at_once = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset_at_once)
        self.connection.close()

    def finish(self) -> None:
        """Close what was opened."""
        if self.upstream is not None:
            self.upstream.close()
        super().finish()


def _refusal(fault: Fault | None, operation: str, body: bytes) -> Answer | None:
    """Return DynamoDB's answer if it refuses the request without carrying it out."""
    transaction = operation == "TransactWriteItems"
    if fault is Fault.CONFLICT:
        return _cancelled(body, "TransactionConflict", "Transaction is ongoing for the item")
    if fault is Fault.THROTTLED and transaction:
        return _cancelled(body, "ProvisionedThroughputExceeded", "The level of throughput …")
    if fault is Fault.THROTTLED:
        return refusal(400, "ProvisionedThroughputExceededException", "The level of throughput …")
    if fault is Fault.RATE_LIMITED:
        return refusal(
            400, "ThrottlingException", "Rate of requests exceeds the allowed throughput"
        )
    if fault is Fault.INTERNAL_ERROR:
        return refusal(500, "InternalServerError", "The request processing has failed")
    if fault is Fault.UNAVAILABLE:
        # A proxy in front of the service may answer instead of it, in another format.
        return Answer(503, b"<html><body>Service Unavailable</body></html>", {"Content-Type": JSON})
    return None


def _cancelled(body: bytes, code: str, message: str) -> Answer:
    count = len(json.loads(body)["TransactItems"])
    reasons = [{"Code": "None"} for _ in range(count)]
    reasons[count // 2] = {"Code": code, "Message": message}
    codes = ", ".join(reason["Code"] for reason in reasons)
    return refusal(
        400,
        "TransactionCanceledException",
        f"Transaction cancelled, please refer cancellation reasons for specific reasons [{codes}]",
        CancellationReasons=reasons,
    )
