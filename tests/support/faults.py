"""A proxy before a DynamoDB endpoint that breaks what passes through it, on purpose.

Two ways to break: ``weather`` (a probability for each kind of fault, by seeded dice) for a run
that looks for surprises, and ``holding`` (requests of one kind wait until they are let go) for a
test that needs one exact moment. Real sockets: a torn connection is torn.
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
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import Any
from urllib.parse import urlsplit

_PREFIX = "com.amazonaws.dynamodb.v20120810#"
_SLOW_SECONDS = (0.2, 1.5)
_PASSED_ON = frozenset({"host", "connection", "content-length", "accept-encoding", "expect"})
"""Headers of a request that are this connection's own."""
_KEPT = ("x-amz", "content-type")
"""How the headers of an answer begin that are the service's own: its checksum is among them."""


class Fault(StrEnum):
    """What can happen to a request. ``after``: it was carried out, and the answer is lost."""

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
    """Requests that wait: how many have come, and the word to go on."""

    operation: str
    mentions: str
    after: bool
    arrived: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _go_on: threading.Event = field(default_factory=threading.Event)

    def matches(self, operation: str, body: bytes) -> bool:
        """Whether a request is one of those."""
        return operation == self.operation and self.mentions.encode() in body

    def stop_here(self) -> None:
        """Wait, in the name of a request."""
        with self._changed:
            self.arrived += 1
            self._changed.notify_all()
        self._go_on.wait()

    def wait(self, count: int = 1, timeout_seconds: float = 120.0) -> None:
        """Wait until so many requests have come."""
        with self._changed:
            come = self._changed.wait_for(lambda: self.arrived >= count, timeout_seconds)
        assert come, f"{self.arrived} requests of {self.operation} came, not {count}"

    def let_go(self) -> None:
        """Let those that wait, and all that will come, go on."""
        self._go_on.set()


class FaultProxy:
    """What happens to requests; made by ``fault_proxy``. Safe to change at any time."""

    def __init__(self, upstream: str, seed: int = 0) -> None:
        """Take the endpoint that stands behind."""
        parts = urlsplit(upstream)
        self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 80
        self.url = ""
        self.weather: Mapping[Fault, float] = {}
        self.injected: Counter[Fault] = Counter()
        self.requests: Counter[str] = Counter()
        self.over = threading.Event()
        self._holds: list[Hold] = []
        self._rng = Random(f"{seed}/weather")  # noqa: S311 - dice for faults
        self._lock = threading.Lock()

    @contextmanager
    def holding(self, operation: str, mentions: str = "", *, after: bool = False) -> Iterator[Hold]:
        """Hold requests of ``operation`` whose body mentions a word, until the block ends.

        ``after``: they are carried out, and it is the answer that waits.
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
        """Return what a request has to wait for."""
        with self._lock:
            self.requests[operation] += 1
            return next((hold for hold in self._holds if hold.matches(operation, body)), None)

    def fault_for(self, operation: str) -> tuple[Fault | None, float]:
        """Cast the dice for a request; returns its fault, and how slow a slow one is."""
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
    """Serve on loopback for as long as the block lasts."""
    proxy = FaultProxy(upstream, seed)
    handler = type("Handler", (_Handler,), {"proxy": proxy})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, name="fault proxy", daemon=True)
    thread.start()
    proxy.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield proxy
    finally:
        proxy.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a request that is never answered would hold the end up

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: the client of a torn connection may be gone."""


class _Handler(BaseHTTPRequestHandler):
    proxy: FaultProxy
    protocol_version = "HTTP/1.1"  # connections stay open, as the service's do
    disable_nagle_algorithm = True
    upstream: http.client.HTTPConnection | None = None

    def do_POST(self) -> None:
        proxy = self.proxy
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        operation = (self.headers.get("X-Amz-Target") or self.path).rpartition(".")[2]
        hold = proxy.held_by(operation, body)
        if hold is not None and not hold.after:
            hold.stop_here()
        fault, pause = proxy.fault_for(operation)
        refused = _refusal(fault, operation, body)
        if refused is not None:
            status, said = refused
            self._answer(status, {"Content-Type": "application/x-amz-json-1.0"}, said)
            return
        if fault is Fault.SLOW:
            proxy.over.wait(pause)
        if fault in {Fault.TIMEOUT, Fault.TORN}:
            self._break(fault)
            return
        status, headers, answer = self._forward(body)
        if hold is not None and hold.after:
            hold.stop_here()
        if fault in {Fault.TIMEOUT_AFTER, Fault.TORN_AFTER}:
            self._break(fault)
        elif fault is Fault.TORN_MIDWAY:
            self._answer(status, headers, answer, whole=False)
            self._break(fault)
        else:
            self._answer(status, headers, answer)

    do_GET = do_POST  # noqa: N815 - the server's names

    def _forward(self, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        if self.upstream is None:
            self.upstream = http.client.HTTPConnection(self.proxy.host, self.proxy.port)
        sent = {k: v for k, v in self.headers.items() if k.lower() not in _PASSED_ON}
        self.upstream.request(self.command, self.path, body, sent)
        answer = self.upstream.getresponse()
        said = answer.read()
        kept = {
            k: v for k, v in answer.headers.items() if k.lower().startswith(("x-amz", "conten"))
        }
        return answer.status, {k: v for k, v in kept.items() if k.lower() != "content-length"}, said

    def _answer(
        self, status: int, headers: Mapping[str, str], said: bytes, *, whole: bool = True
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said if whole else said[: len(said) // 2])

    def _break(self, fault: Fault) -> None:
        """Never answer: in silence until the client has gone, or with a reset."""
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

    def log_message(self, *_: object) -> None:
        pass


def _refusal(fault: Fault | None, operation: str, body: bytes) -> tuple[int, bytes] | None:
    """Return what DynamoDB answers when it refuses, without having carried anything out."""
    transaction = operation == "TransactWriteItems"
    if fault is Fault.CONFLICT:
        return _cancelled(body, "TransactionConflict", "Transaction is ongoing for the item")
    if fault is Fault.THROTTLED and transaction:
        return _cancelled(body, "ProvisionedThroughputExceeded", "The level of throughput …")
    if fault is Fault.THROTTLED:
        return _error(400, "ProvisionedThroughputExceededException", "The level of throughput …")
    if fault is Fault.RATE_LIMITED:
        return _error(400, "ThrottlingException", "Rate of requests exceeds the allowed throughput")
    if fault is Fault.INTERNAL_ERROR:
        return _error(500, "InternalServerError", "The request processing has failed")
    if fault is Fault.UNAVAILABLE:
        # What stands before the service may answer in its place, and not in its language.
        return 503, b"<html><body>Service Unavailable</body></html>"
    return None


def _error(status: int, code: str, message: str, **more: Any) -> tuple[int, bytes]:
    return status, json.dumps({"__type": _PREFIX + code, "message": message, **more}).encode()


def _cancelled(body: bytes, code: str, message: str) -> tuple[int, bytes]:
    count = len(json.loads(body)["TransactItems"])
    reasons = [{"Code": "None"} for _ in range(count)]
    reasons[count // 2] = {"Code": code, "Message": message}
    codes = ", ".join(reason["Code"] for reason in reasons)
    return _error(
        400,
        "TransactionCanceledException",
        f"Transaction cancelled, please refer cancellation reasons for specific reasons [{codes}]",
        CancellationReasons=reasons,
    )
