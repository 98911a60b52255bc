"""Lambda's Invoke and Bedrock's ApplyGuardrail over HTTP, as they answer and as they fail."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class AwsStub:
    """What was asked of it, and how it shall answer."""

    url: str = ""
    invoked: list[str] = field(default_factory=list)
    screened: list[str] = field(default_factory=list)
    invoke_status: int = 202
    guardrail_status: int = 200
    guardrail_action: str = "NONE"

    def answer(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """Answer one request."""
        said = json.loads(body or b"{}")
        if path.endswith("/invocations"):
            if self.invoke_status == 202:
                self.invoked.append(said["task_id"])
                return 202, {}
            return self.invoke_status, {"Type": "Service", "Message": "not now"}
        if self.guardrail_status != 200:
            return self.guardrail_status, {"message": "not now"}
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
            if status == 429:
                self.send_header("x-amzn-ErrorType", "ThrottlingException")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
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
