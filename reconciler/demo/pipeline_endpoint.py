"""The platform's orchestrator function, as the workers reach it: Lambda's Invoke on loopback."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from http import HTTPStatus

from reconciler.embedded.loopback import Answer, Request, answering

FUNCTION_ARN = "arn:aws:lambda:us-east-1:000000000000:function:demo-orchestrator:live"


Invoke = Callable[[str, str | None], None]
"""Takes a task's id, and the name of its execution where it was given one."""


def pipeline_endpoint(invoke: Invoke) -> AbstractContextManager[str]:
    """Serve for as long as the block lasts; gives the endpoint URL."""

    def answer(request: Request) -> Answer:
        if request.headers.get("X-Amz-Invocation-Type") == "DryRun":
            return Answer(HTTPStatus.NO_CONTENT)
        try:
            task_id = json.loads(request.body)["task_id"]
        except (ValueError, KeyError, TypeError):
            return Answer(HTTPStatus.BAD_REQUEST)
        invoke(task_id, request.headers.get("X-Amz-Durable-Execution-Name"))
        return Answer(HTTPStatus.ACCEPTED)

    return answering(answer)
