"""The scrape endpoint stays up for Prometheus, whoever else connects to its port."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from reconciler.embedded.process import free_port
from reconciler.observability import scrape_server
from reconciler.observability.scrape_server import (
    MAX_CONNECTIONS,
    MAX_REQUEST_BYTES,
    ScrapeServer,
)

BODY = b"up 1.0\n"
TYPE = "text/plain; version=0.0.4"


@contextmanager
def serving(render: Callable[[], bytes] = lambda: BODY) -> Iterator[int]:
    port = free_port()
    server = ScrapeServer(render, TYPE, "127.0.0.1", port)
    try:
        yield port
    finally:
        server.shutdown()


def ask(port: int, path: str = "/metrics", method: str = "GET", body: bytes | None = None) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        if answer.status == 200 and method == "GET":
            assert answer.read() == BODY
            assert answer.getheader("Content-Type") == TYPE
        return answer.status
    finally:
        connection.close()


def connected(stack: ExitStack, port: int, said: bytes = b"") -> socket.socket:
    found = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
    found.sendall(said)
    return found


def is_closed(connection: socket.socket) -> bool:
    """Wait for the other side to close; False if it says anything else."""
    try:
        return connection.recv(4096) == b""
    except ConnectionResetError:
        return True


def test_only_metrics_are_served() -> None:
    with serving() as port:
        assert ask(port) == 200
        for path in ("/", "/healthcheck", "/metrics/", "/metrics/../etc", "/favicon.ico"):
            assert ask(port, path) == 404, path
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            assert ask(port, method=method) == 405, method


def test_silent_connections_make_room_for_a_scrape() -> None:
    with serving() as port, ExitStack() as stack:
        silent = [
            connected(stack, port, b"GET /metrics HTTP/1.1\r\nX-Slow: ")
            for _ in range(3 * MAX_CONNECTIONS)
        ]
        assert ask(port) == 200
        # The oldest were closed; what is left is no more than the bound.
        assert all(is_closed(each) for each in silent[: 2 * MAX_CONNECTIONS])
        assert ask(port) == 200


def test_an_endless_request_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape_server, "REQUEST_SECONDS", 0.2)
    with serving() as port, ExitStack() as stack:
        assert is_closed(connected(stack, port, b"GET /metrics HTTP/1.1\r\nX-Slow: "))
        assert is_closed(connected(stack, port))
        assert ask(port) == 200


def test_an_oversized_request_is_refused() -> None:
    long = b"GET /metrics HTTP/1.1\r\nX-Long: " + b"x" * 4 * MAX_REQUEST_BYTES
    with serving() as port, ExitStack() as stack:
        # It may be closed while we are still sending.
        with suppress(BrokenPipeError, ConnectionResetError):
            assert is_closed(connected(stack, port, long))
        assert ask(port, body=b"x" * 100) == 400
        assert ask(port) == 200


def test_scrapes_read_the_broker_one_by_one() -> None:
    running, most = 0, 0
    go_on, lock = threading.Event(), threading.Lock()

    def render() -> bytes:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        go_on.wait(60)
        with lock:
            running -= 1
        return BODY

    with serving(render) as port:
        statuses: list[int] = []
        threads = [
            threading.Thread(target=lambda: statuses.append(ask(port)))
            for _ in range(MAX_CONNECTIONS // 2)
        ]
        for thread in threads:
            thread.start()
        go_on.set()
        for thread in threads:
            thread.join()
    assert statuses == [200] * len(threads)
    assert most == 1


def test_a_scrape_in_progress_keeps_its_place() -> None:
    go_on, began = threading.Event(), threading.Event()

    def render() -> bytes:
        began.set()
        go_on.wait(60)
        return BODY

    with serving(render) as port, ExitStack() as stack:
        first = connected(stack, port, b"GET /metrics HTTP/1.0\r\n\r\n")
        began.wait(60)
        silent = [connected(stack, port) for _ in range(2 * MAX_CONNECTIONS)]
        assert is_closed(silent[0])
        go_on.set()
        assert first.recv(4096).startswith(b"HTTP/1.1 200")


def test_a_taken_address_is_an_error() -> None:
    with serving() as port, pytest.raises(OSError, match="in use"):
        ScrapeServer(lambda: BODY, TYPE, "127.0.0.1", port)
