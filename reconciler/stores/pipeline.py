"""The task pipeline: the platform's orchestrator function, invoked asynchronously."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from reconciler.errors import PipelineUnavailableError
from reconciler.stores.dynamodb import translate_transport

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient


class Pipeline:
    """Invokes the pipeline of a task; doing so twice for one task is harmless."""

    def __init__(self, client: LambdaClient, function_arn: str) -> None:
        self._client = client
        self._function_arn = function_arn

    def invoke(self, task_id: str) -> None:
        """Invoke the pipeline.

        Raises:
            PipelineUnavailableError: it was not accepted. The task stands, and a redelivery or
                the next sweep invokes it.
        """
        try:
            self._client.invoke(
                FunctionName=self._function_arn,
                InvocationType="Event",
                Payload=json.dumps({"task_id": task_id}).encode(),
            )
        except ClientError as error:
            code = error.response["Error"]["Code"]
            said = error.response["Error"].get("Message", "")
            msg = f"the pipeline of task {task_id} could not be invoked: {code}: {said}"
            raise PipelineUnavailableError(msg) from error
        except BotoCoreError as error:
            msg = f"the pipeline of task {task_id} could not be invoked: "
            raise PipelineUnavailableError(msg + str(translate_transport(error))) from error
