"""A pipeline in this process: like Lambda it accepts, deduplicates and refuses invocations."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

from botocore.exceptions import ClientError, ReadTimeoutError

from reconciler.repair.invoker import Invoker
from reconciler.services.pipeline import Pipeline
from tests.support.world import World

ARN = "arn:aws:lambda:us-east-1:123456789012:function:orchestrator:live"


@dataclass
class LambdaClient:
    """The runs that were started. ``durable`` False: it refuses names. ``down``: it refuses all.

    ``silent``: it starts a run, but its answer is lost.
    """

    runs: list[str] = field(default_factory=list)
    asked: int = 0
    durable: bool = True
    down: bool = False
    silent: bool = False
    _names: set[str] = field(default_factory=set)

    def invoke(
        self,
        *,
        Payload: bytes,  # noqa: N803 - boto3's
        DurableExecutionName: str | None = None,  # noqa: N803
        **_: Any,
    ) -> dict[str, Any]:
        """Invoke."""
        self.asked += 1
        if self.down:
            raise _refusal("TooManyRequestsException", "not now")
        if DurableExecutionName is not None:
            if not self.durable:
                said = "Function orchestrator is not a durable function"
                raise _refusal("InvalidParameterValueException", said)
            if DurableExecutionName in self._names:
                return {}
            self._names.add(DurableExecutionName)
        self.runs.append(json.loads(Payload)["task_id"])
        if self.silent:
            raise ReadTimeoutError(endpoint_url="https://lambda")
        return {}


def _refusal(code: str, said: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": said}}, "Invoke")


def invoker_on(world: World, client: LambdaClient) -> Invoker:
    """Return the invoker of a separate process, which invokes through ``client``."""
    made = world.reconciler()
    policy = replace(made.policy, can_invoke=True)
    pipeline: Any = Pipeline(client, ARN)  # type: ignore[arg-type]
    return Invoker(made.evaluator.parts.repairer.releaser.dynamodb, made.tasks, pipeline, policy)
