"""A DynamoDB endpoint that throttles and refuses on demand, in front of one that works."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_THROTTLED = {"__type": "com.amazonaws#ProvisionedThroughputExceededException", "message": "slow"}
_DENIED = {"__type": "com.amazonaws#AccessDeniedException", "message": "not for you"}
_OF_THE_HOP = {"connection", "transfer-encoding", "content-length", "date", "server"}


@dataclass
class FailingTables:
    """What it does to requests: throttles the next so many scans, refuses what names a key."""

    url: str = ""
    throttles_left: int = 0
    denied: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def refusal(self, target: str, body: bytes) -> dict[str, str] | None:
        """Return the error that a request gets, or None."""
        if target.endswith(".Query") and any(key.encode() in body for key in self.denied):
            return _DENIED
        with self._lock:
            if target.endswith(".Scan") and self.throttles_left > 0:
                self.throttles_left -= 1
                return _THROTTLED
        return None


@contextmanager
def failing_tables(behind: str) -> Iterator[FailingTables]:
    """Serve it on loopback, before the endpoint ``behind``, for as long as the block lasts."""
    tables = FailingTables()
    host = behind.removeprefix("http://")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            error = tables.refusal(self.headers.get("X-Amz-Target", ""), body)
            if error is not None:
                self._answer(400, {}, json.dumps(error).encode())
                return
            onward = http.client.HTTPConnection(host, timeout=60)
            onward.request("POST", self.path, body, dict(self.headers.items()))
            answer = onward.getresponse()
            kept = {k: v for k, v in answer.getheaders() if k.lower() not in _OF_THE_HOP}
            self._answer(answer.status, kept, answer.read())
            onward.close()

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    tables.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield tables
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
