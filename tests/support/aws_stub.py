"""Lambda's Invoke, Bedrock's ApplyGuardrail and Cognito's AdminListGroupsForUser over HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from reconciler.embedded.loopback import Answer, Request, answering

_LIST_GROUPS = "AWSCognitoIdentityProviderService.AdminListGroupsForUser"
_ERRORS = {
    400: "ValidationException",
    403: "AccessDeniedException",
    429: "ThrottlingException",
    500: "InternalServerException",
}


@dataclass
class AwsStub:
    """The requests that it got, and the answers that it shall give.

    ``invoked``: the tasks whose runs it started, once per name. ``durable`` False: it refuses
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
    """If set, no answer comes before this event."""
    refuses: str | None = None
    """The guardrail rejects requests with this text."""
    groups: dict[str, list[str]] = field(default_factory=dict)
    """User → groups in the user pool, which knows no other user."""
    groups_error: str | None = None
    """The user pool answers with this error code."""
    groups_asked: list[dict[str, Any]] = field(default_factory=list)
    """Each request for a user's groups."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    asked: int = 0

    def answer(self, request: Request) -> Answer:
        """Answer one request and close, so that an abandoned client keeps no connection."""
        headers = {"Connection": "close"}
        dry = request.headers.get("X-Amz-Invocation-Type") == "DryRun"
        if dry and self.invoke_status == 202:
            return Answer(204, headers=headers)
        headers["Content-Type"] = "application/json"
        if request.headers.get("X-Amz-Target") == _LIST_GROUPS:
            status, said = self._groups_of(json.loads(request.body))
            return Answer(status, json.dumps(said).encode(), headers)
        name = request.headers.get("X-Amz-Durable-Execution-Name")
        status, said = self._said(request.path, request.body, name)
        if status in _ERRORS:
            headers["x-amzn-ErrorType"] = said.get("Type", _ERRORS[status])
        return Answer(status, json.dumps(said).encode(), headers)

    def _groups_of(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        with self._lock:
            self.groups_asked.append(asked)
        if self.slow is not None:
            self.slow.wait(60)
        error, user = self.groups_error, asked["Username"]
        if error is None and user not in self.groups:
            error = "UserNotFoundException"
        if error is not None:
            status = 500 if error == "InternalErrorException" else 400
            return status, {"__type": error, "message": "not now"}
        start = int(asked.get("NextToken", 0))
        end = start + min(asked["Limit"], 60)
        page = [{"GroupName": name} for name in self.groups[user][start:end]]
        more = {"NextToken": str(end)} if end < len(self.groups[user]) else {}
        return 200, {"Groups": page, **more}

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
    """Serve it on loopback until the block ends."""
    stub = AwsStub()
    with answering(stub.answer) as stub.url:
        yield stub
