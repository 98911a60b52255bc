"""The platform's orchestrator function, as the workers reach it: Lambda's Invoke on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FUNCTION_ARN = "arn:aws:lambda:us-east-1:000000000000:function:demo-orchestrator"


@contextmanager
def pipeline_endpoint(invoke: Callable[[str], None]) -> Iterator[str]:
    """Serve for as long as the block lasts; gives the endpoint URL. ``invoke`` gets task ids."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            if self.headers.get("X-Amz-Invocation-Type") == "DryRun":
                self._answer(HTTPStatus.NO_CONTENT)
                return
            try:
                task_id = json.loads(self.rfile.read(length))["task_id"]
            except (ValueError, KeyError, TypeError):
                self._answer(HTTPStatus.BAD_REQUEST)
                return
            invoke(task_id)
            self._answer(HTTPStatus.ACCEPTED)

        def _answer(self, status: HTTPStatus) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, name="pipeline", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
