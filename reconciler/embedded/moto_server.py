"""DynamoDB as simulated by moto, served over HTTP by a separate process.

By hand: ``python -m reconciler.embedded.moto_server --port 5000``. moto's own server would need
Flask and more.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

from reconciler.embedded.loopback import Answer, Request, answering
from reconciler.embedded.process import answers_http, free_port, running

HOST = "127.0.0.1"


class Service:
    """Answers requests to DynamoDB and its streams, one after the other.

    moto rolls back a transaction by restoring a copy of all tables, which would undo concurrent
    writes.
    """

    def __init__(self) -> None:
        """Load moto, which takes a second."""
        from moto.core.request import Request as MotoRequest  # noqa: PLC0415 - slow
        from moto.dynamodb.responses import DynamoHandler  # noqa: PLC0415 - slow
        from moto.dynamodbstreams.responses import DynamoDBStreamsHandler  # noqa: PLC0415 - slow

        self._request = MotoRequest.from_primitives
        self._handlers = {
            "DynamoDB_20120810": DynamoHandler,
            "DynamoDBStreams_20120810": DynamoDBStreamsHandler,
        }
        self._lock = threading.Lock()

    def answer(self, asked: Request) -> Answer:
        """Answer one request; 404 if it is for another service."""
        handler = self._handlers.get(asked.headers.get("X-Amz-Target", "").partition(".")[0])
        if handler is None:
            return Answer(HTTPStatus.NOT_FOUND)
        url = f"http://{asked.headers['Host']}{asked.path}"
        request = self._request("POST", url, asked.headers, asked.body)
        with self._lock:
            status, headers, body = handler.dispatch(request)
        kept = {k: v for k, v in headers.items() if k.lower().startswith(("x-amz", "content-type"))}
        return Answer(status, body.encode() if isinstance(body, str) else body, kept)


@contextmanager
def moto_server(directory: Path) -> Iterator[str]:
    """Run it during the block; yields its endpoint URL. Logs go to ``directory``."""
    port = free_port()
    endpoint = f"http://{HOST}:{port}"
    command = [sys.executable, "-m", "reconciler.embedded.moto_server", "--port", str(port)]
    with running(command, ready=lambda: answers_http(endpoint), log=directory / "moto.log"):
        yield endpoint


def main() -> None:
    """Serve until the process is ended; the entry point."""
    parser = argparse.ArgumentParser(description="DynamoDB as moto imitates it, on loopback")
    parser.add_argument("--port", type=int, required=True)
    with answering(Service().answer, parser.parse_args().port):
        threading.Event().wait()


if __name__ == "__main__":
    main()
