"""A DynamoDB endpoint that can be made to fail: passes requests on, but for those that it is told.

What fails is the service, seen over HTTP: no function of ours is patched.
"""

from __future__ import annotations

import http.client
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

THROTTLED = (400, "ThrottlingException")
BROKEN = (500, "InternalServerError")
DENIED = (400, "AccessDeniedException")
WRONG_CREDENTIALS = (400, "UnrecognizedClientException")
EXPIRED_CREDENTIALS = (400, "ExpiredTokenException")


@dataclass
class Fault:
    """An answer in the service's place. ``times``: how often, None for always."""

    operation: str | None
    table: str | None
    status: int
    code: str
    times: int | None = None

    def strikes(self, operation: str, tables: str) -> bool:
        """Whether it answers this request."""
        if self.operation not in {None, operation} or self.times == 0:
            return False
        if self.table is not None and json.dumps(self.table) not in tables:
            return False
        if self.times is not None:
            self.times -= 1
        return True


@dataclass
class FaultyEndpoint:
    """What it was asked, and how it shall fail."""

    behind: str
    url: str = ""
    faults: list[Fault] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(
        self,
        answer: tuple[int, str],
        operation: str | None = None,
        table: str | None = None,
        times: int | None = None,
    ) -> None:
        """Fail from now on; ``table``: only requests that name it."""
        self.faults.append(Fault(operation, table, *answer, times=times))

    def mend(self) -> None:
        """Pass everything on again."""
        self.faults.clear()

    def answer(self, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Answer one request: by a fault, else by what stands behind."""
        operation = headers.get("X-Amz-Target", "").rpartition(".")[2]
        with self.lock:
            self.asked[operation] += 1
            fault = next((f for f in self.faults if f.strikes(operation, body.decode())), None)
        if fault is not None:
            said = {"__type": f"com.amazonaws.dynamodb.v20120810#{fault.code}", "message": "no"}
            return fault.status, {}, json.dumps(said).encode()
        connection = http.client.HTTPConnection(self.behind.removeprefix("http://"), timeout=60)
        try:
            connection.request("POST", "/", body, headers)
            got = connection.getresponse()
            return got.status, dict(got.getheaders()), got.read()
        finally:
            connection.close()


@contextmanager
def faulty_endpoint(behind: str) -> Iterator[FaultyEndpoint]:
    """Serve it on loopback, before the endpoint ``behind``, for as long as the block lasts."""
    found = FaultyEndpoint(behind)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, headers, answered = found.answer(dict(self.headers), body)
            self.send_response(status)
            for name in ("x-amz-crc32", "x-amzn-requestid"):
                value = {key.lower(): v for key, v in headers.items()}.get(name)
                if value is not None:
                    self.send_header(name, value)
            self.send_header("Content-Type", "application/x-amz-json-1.0")
            self.send_header("Content-Length", str(len(answered)))
            self.end_headers()
            self.wfile.write(answered)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
