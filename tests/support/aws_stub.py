"""Lambda's Invoke and Bedrock's ApplyGuardrail over HTTP, as they answer and as they fail."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from reconciler.embedded.loopback import Answer, Request, answering

_ERRORS = {
    400: "ValidationException",
    403: "AccessDeniedException",
    429: "ThrottlingException",
    500: "InternalServerException",
}


@dataclass
class AwsStub:
    """What was asked of it, and how it shall answer.

    ``invoked``: the tasks whose runs it started, under a name once. ``durable`` False: it refuses
    names, as a function that is not durable does.
    """

    url: str = ""
    invoked: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    durable: bool = True
    screened: list[str] = field(default_factory=list)
    invoke_status: int = 202
    configuration_status: int = 200
    guardrail_status: int = 200
    guardrail_action: str = "NONE"
    slow: threading.Event | None = None
    """Set: no answer comes before this event."""
    refuses: str | None = None
    """The guardrail takes no text that holds this."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    asked: int = 0

    def answer(self, request: Request) -> Answer:
        """Answer one request, and close: a client that is left behind keeps no connection."""
        headers = {"Connection": "close"}
        dry = request.headers.get("X-Amz-Invocation-Type") == "DryRun"
        if dry and self.invoke_status == 202:
            return Answer(204, headers=headers)
        name = request.headers.get("X-Amz-Durable-Execution-Name")
        status, said = self._said(request.path, request.body, name)
        headers["Content-Type"] = "application/json"
        if status in _ERRORS:
            headers["x-amzn-ErrorType"] = said.get("Type", _ERRORS[status])
        return Answer(status, json.dumps(said).encode(), headers)

    def _said(self, path: str, body: bytes, name: str | None) -> tuple[int, dict[str, Any]]:
        with self._lock:
            self.asked += 1
        if self.slow is not None:
            self.slow.wait(60)
        said = json.loads(body or b"{}")
        if path.endswith("/invocations"):
            return self._invoked(said["task_id"], name)
        if path.endswith("/configuration"):
            if self.configuration_status != 200:
                return self.configuration_status, {"Message": "not you"}
            return 200, {"DurableConfig": {"ExecutionTimeout": 900}} if self.durable else {}
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

    def _invoked(self, task_id: str, name: str | None) -> tuple[int, dict[str, Any]]:
        if self.invoke_status != 202:
            return self.invoke_status, {"Message": "not now"}
        if name is not None and not self.durable:
            said = "Function orchestrator is not a durable function"
            return 400, {"Type": "InvalidParameterValueException", "Message": said}
        with self._lock:
            if name is None or name not in self.names:
                self.invoked.append(task_id)
            self.names.update({name} if name is not None else ())
        return 202, {}


@contextmanager
def aws_stub() -> Iterator[AwsStub]:
    """Serve it on loopback for as long as the block lasts."""
    stub = AwsStub()
    with answering(stub.answer) as stub.url:
        yield stub
