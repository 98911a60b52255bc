"""The task pipeline: the platform's orchestrator function, invoked asynchronously."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import structlog
from botocore.exceptions import ClientError

from reconciler.aws_errors import RAISED, code_of, translate
from reconciler.errors import (
    InvocationRefusedError,
    NameRefusedError,
    PipelineUnavailableError,
)
from reconciler.observability.outages import Outages

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient

log = structlog.get_logger("reconciler")

_STARTED_BEFORE = "DurableExecutionAlreadyStartedException"
"""The name is taken by an execution of another version of the function."""


class Pipeline:
    """Invokes the pipeline of a task. A second run would fail the task.

    With the task's name, Lambda starts one execution however often it is invoked. Only durable
    functions with a qualified ARN take names; the first invocation shows whether this one does.

    ``client`` must not retry: without a name, each try would start another run.
    """

    def __init__(
        self, client: LambdaClient, function_arn: str, outages: Outages | None = None
    ) -> None:
        self._client = client
        self._function_arn = function_arn
        self._outages = outages or Outages()
        self._takes_names = True

    def invoke(self, task_id: str, *, named: bool = True) -> None:
        """Invoke the pipeline of a task; without a name only if nobody else can have done so.

        Raises:
            NameRefusedError: it takes no names; nothing was started.
            InvocationRefusedError: it was not accepted; nothing was started.
            PipelineUnavailableError: it is unknown whether it was accepted.
        """
        if named and not self._takes_names:
            msg = f"the pipeline of task {task_id} takes no names"
            raise NameRefusedError(msg)
        request: dict[str, Any] = {"DurableExecutionName": task_id} if named else {}
        try:
            self._client.invoke(
                FunctionName=self._function_arn,
                InvocationType="Event",
                Payload=json.dumps({"task_id": task_id}).encode(),
                **request,
            )
        except RAISED as error:
            if code_of(error) == _STARTED_BEFORE:
                return
            raise self._failed(task_id, error, named=named) from error
        self._outages.succeeded("invoke")

    def _failed(self, task_id: str, error: Exception, *, named: bool) -> PipelineUnavailableError:
        """Record what an error says about the pipeline, and return the error to raise."""
        fault = translate(error, f"invoke of {self._function_arn}")
        if named and _refuses_names(error):
            self._takes_names = False
            log.warning("orch.pipeline.name_refused", detail=str(fault))
            return NameRefusedError(str(fault))
        answered = isinstance(error, ClientError)
        kind = InvocationRefusedError if answered else PipelineUnavailableError
        unavailable = kind(f"the pipeline of task {task_id} could not be invoked: {fault}")
        self._outages.failed("invoke", unavailable)
        return unavailable


def _refuses_names(error: BaseException) -> bool:
    """Whether Lambda refused the name, for which it has no separate error code."""
    invalid = code_of(error) == "InvalidParameterValueException"
    return invalid and "durable" in str(error).lower()
