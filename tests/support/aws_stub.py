"""Lambda's Invoke and Bedrock's ApplyGuardrail over HTTP, as they answer and as they fail."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_ERRORS = {
    400: "ValidationException",
    403: "AccessDeniedException",
    429: "ThrottlingException",
    500: "InternalServerException",
}


@dataclass
class AwsStub:
    """What was asked of it, and how it shall answer."""

    url: str = ""
    invoked: list[str] = field(default_factory=list)
    screened: list[str] = field(default_factory=list)
    invoke_status: int = 202
    guardrail_status: int = 200
    guardrail_action: str = "NONE"
    slow: threading.Event | None = None
    """Set: no answer comes before this event."""
    refuses: str | None = None
    """The guardrail takes no text that holds this."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    asked: int = 0

    def answer(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """Answer one request."""
        with self.lock:
            self.asked += 1
        if self.slow is not None:
            self.slow.wait(60)
        said = json.loads(body or b"{}")
        if path.endswith("/invocations"):
            if self.invoke_status == 202:
                self.invoked.append(said["task_id"])
                return 202, {}
            return self.invoke_status, {"Type": "Service", "Message": "not now"}
        if self.guardrail_status != 200:
            return self.guardrail_status, {"message": "not now"}
        if self.refuses is not None and self.refuses in body.decode():
            return 400, {"message": "not such a text"}
        self.screened.append(said["content"][0]["text"]["text"])
        return 200, {
            "action": self.guardrail_action,
            "outputs": [],
            "assessments": [],
            "usage": dict.fromkeys(
                (
                    "topicPolicyUnits",
                    "contentPolicyUnits",
                    "wordPolicyUnits",
                    "sensitiveInformationPolicyUnits",
                    "sensitiveInformationPolicyFreeUnits",
                    "contextualGroundingPolicyUnits",
                ),
                0,
            ),
        }


@contextmanager
def aws_stub() -> Iterator[AwsStub]:
    """Serve it on loopback for as long as the block lasts."""
    stub = AwsStub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            if self.headers.get("X-Amz-Invocation-Type") == "DryRun" and stub.invoke_status == 202:
                self.send_response(204)
                self.end_headers()
                return
            status, answer = stub.answer(self.path, body)
            body = json.dumps(answer).encode()
            self.send_response(status)
            if status in _ERRORS:
                self.send_header("x-amzn-ErrorType", _ERRORS[status])
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with suppress(OSError):  # whoever asked has given up
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    stub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
