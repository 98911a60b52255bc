"""DynamoDB as moto imitates it, served over HTTP from a process of its own.

By hand: ``python -m reconciler.embedded.moto_server --port 5000``.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconciler.embedded.process import answers_http, free_port, running

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

HOST = "127.0.0.1"


class OneAtATime:
    """Serves one request after the other.

    moto rolls a lost transaction back by restoring a copy of all its tables, which would undo what
    any other request wrote meanwhile.
    """

    def __init__(self, app: WSGIApplication) -> None:
        """Take the application that is to be served so."""
        self._app = app
        self._lock = threading.Lock()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request, to the last byte of its answer."""
        with self._lock:
            return list(self._app(environ, start_response))


def serve(port: int) -> None:
    """Serve until the process is ended."""
    from moto.moto_server.werkzeug_app import (  # noqa: PLC0415 - slow
        DomainDispatcherApplication,
        create_backend_app,
    )
    from werkzeug.serving import WSGIRequestHandler, make_server  # noqa: PLC0415 - slow

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"  # keeps connections open, as the service does

        def log_request(self, *_: Any) -> None:  # noqa: ANN401 - werkzeug's
            pass

    app = DomainDispatcherApplication(create_backend_app)
    make_server(HOST, port, OneAtATime(app), threaded=True, request_handler=Quiet).serve_forever()


@contextmanager
def moto_server(directory: Path, port: int | None = None) -> Iterator[str]:
    """Run it for as long as the block lasts; gives its endpoint URL. Logs into ``directory``."""
    chosen = port or free_port()
    endpoint = f"http://{HOST}:{chosen}"
    command = [sys.executable, "-m", "reconciler.embedded.moto_server", "--port", str(chosen)]
    with running(command, ready=lambda: answers_http(endpoint), log=directory / "moto.log"):
        yield endpoint


def main() -> None:
    """Serve, from a shell."""
    parser = argparse.ArgumentParser(description="DynamoDB as moto imitates it, on loopback")
    parser.add_argument("--port", type=int, required=True)
    serve(parser.parse_args().port)


if __name__ == "__main__":
    main()
