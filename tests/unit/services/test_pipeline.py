"""The task pipeline: how it is invoked, and how refusals are reported."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from structlog.testing import capture_logs

from reconciler.errors import InvocationRefusedError, NameRefusedError, PipelineUnavailableError
from reconciler.services.pipeline import Pipeline
from tests.unit.stores.scripted import Scripted


def refusal(code: str, message: str = "no") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "Invoke")


def test_a_task_is_invoked_under_its_id() -> None:
    client: Any = Scripted({})
    Pipeline(client, "arn:f").invoke("T1")
    ((operation, request),) = client.requests
    assert (operation, request["FunctionName"]) == ("invoke", "arn:f")
    assert (request["InvocationType"], request["Payload"]) == ("Event", b'{"task_id": "T1"}')
    assert request["DurableExecutionName"] == "T1"


def test_an_already_started_execution_is_no_error() -> None:
    """An execution of another version of the function has taken the name."""
    client: Any = Scripted(refusal("DurableExecutionAlreadyStartedException"))
    Pipeline(client, "arn:f").invoke("T1")


@pytest.mark.parametrize(
    "message",
    [
        "You cannot invoke a durable function using an unqualified ARN.",
        "Durable execution requires qualified function identifier",
        "Function orchestrator is not a durable function",
    ],
)
def test_a_refused_name_is_logged_once_and_remembered(message: str) -> None:
    client: Any = Scripted(refusal("InvalidParameterValueException", message), {})
    pipeline = Pipeline(client, "arn:f")
    with capture_logs() as logs:
        for task_id in ("T1", "T2"):
            with pytest.raises(NameRefusedError):
                pipeline.invoke(task_id)
    assert [(entry["event"], message in entry["detail"]) for entry in logs] == [
        ("orch.pipeline.name_refused", True)
    ]
    assert len(client.requests) == 1
    pipeline.invoke("T2", named=False)
    assert "DurableExecutionName" not in client.requests[1][1]


@pytest.mark.parametrize("code", ["InvalidParameterValueException", "ResourceNotFoundException"])
def test_other_refusals_do_not_concern_the_name(code: str) -> None:
    client: Any = Scripted(refusal(code, "a durable one" if "Found" in code else "no"))
    pipeline = Pipeline(client, "arn:f")
    for _ in range(2):
        with pytest.raises(PipelineUnavailableError) as caught:
            pipeline.invoke("T1")
        assert not isinstance(caught.value, NameRefusedError)
    assert len(client.requests) == 2


@pytest.mark.parametrize(
    ("error", "said", "answered"),
    [
        (ClientError({"Error": {"Code": "Odd", "Message": "no"}}, "Invoke"), "Odd: no", True),
        (ClientError({"Error": {"Code": "Odd"}}, "Invoke"), "Odd: ", True),
        (EndpointConnectionError(endpoint_url="https://x"), "https://x", False),
    ],
)
def test_an_error_gives_its_reason(error: Exception, said: str, *, answered: bool) -> None:
    """Its type tells whether the pipeline answered."""
    client: Any = Scripted(error)
    with pytest.raises(PipelineUnavailableError, match="task T1 could not be invoked") as caught:
        Pipeline(client, "arn:f").invoke("T1")
    assert said in str(caught.value)
    assert isinstance(caught.value, InvocationRefusedError) is answered
