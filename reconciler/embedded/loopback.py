"""HTTP on loopback, answered by a function: stand-ins for services in demo and tests."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True, slots=True)
class Request:
    """A request; names of headers ignore case."""

    path: str
    headers: Message
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer; its Content-Length is set automatically."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class Handler(BaseHTTPRequestHandler):
    """Keeps connections open, as the services do, and does not log requests."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def take(self) -> Request:
        """Read the request."""
        length = int(self.headers.get("Content-Length") or 0)
        return Request(self.path, self.headers, self.rfile.read(length))

    def give(self, answer: Answer, *, share: float = 1.0) -> None:
        """Answer; ``share``: the fraction of the body that is really sent."""
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body[: int(len(answer.body) * share)])

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class _Server(ThreadingHTTPServer):
    request_queue_size = 64

    def handle_error(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: object
    ) -> None:
        """Ignore clients that have gone."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


@contextmanager
def serving(handler: type[Handler], port: int = 0) -> Iterator[str]:
    """Serve during the block, with a thread for each connection; yields the URL.

    ``port``: 0 chooses a free one.
    """
    server = _Server(("127.0.0.1", port), handler)
    thread = threading.Thread(target=server.serve_forever, name=handler.__name__, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def answering(answer: Callable[[Request], Answer], port: int = 0) -> Iterator[str]:
    """Answer GET and POST requests with a function during the block; yields the URL."""

    class Answers(Handler):
        def do_POST(self) -> None:
            self.give(answer(self.take()))

        do_GET = do_POST  # noqa: N815 - the server's name for it

    with serving(Answers, port) as url:
        yield url
