"""The wire to a DynamoDB endpoint: what was asked over it is known, and some of it goes unread."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "host"})


@dataclass
class Wire:
    """Passes requests on. ``calls``: each operation that was asked for, in order.

    ``unreadable``: keys that a batch read gives back unprocessed, as DynamoDB does for want of
    capacity.
    """

    upstream: str
    url: str = ""
    calls: list[str] = field(default_factory=list)
    unreadable: set[str] = field(default_factory=set)

    def withheld(self, operation: str, body: bytes) -> bytes | None:
        """Return the answer to a batch read that goes unread, else None."""
        if operation != "BatchGetItem" or not self.unreadable:
            return None
        asked: dict[str, Any] = json.loads(body)["RequestItems"]
        keys = {
            value["S"]
            for request in asked.values()
            for key in request["Keys"]
            for value in key.values()
        }
        if keys.isdisjoint(self.unreadable):
            return None
        return json.dumps({"Responses": {}, "UnprocessedKeys": asked}).encode()

    def answer(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, str, bytes]:
        """Answer one request: status, content type and body."""
        operation = headers.get("X-Amz-Target", "").rpartition(".")[2]
        self.calls.append(operation)
        kind = "application/x-amz-json-1.0"
        withheld = self.withheld(operation, body)
        if withheld is not None:
            return 200, kind, withheld
        connection = http.client.HTTPConnection(urlsplit(self.upstream).netloc, timeout=60)
        try:
            kept = {name: value for name, value in headers.items() if name.lower() not in _HOP}
            connection.request("POST", path, body, kept)
            found = connection.getresponse()
            return found.status, found.getheader("Content-Type", kind), found.read()
        finally:
            connection.close()


@contextmanager
def wire_to(upstream: str) -> Iterator[Wire]:
    """Serve it on loopback for as long as the block lasts."""
    wire = Wire(upstream)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            given = self.rfile.read(length)
            status, kind, body = wire.answer(self.path, dict(self.headers), given)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    wire.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield wire
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
