"""The pipeline: an invocation that was not accepted is said, with the reason."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from reconciler.errors import PipelineUnavailableError
from reconciler.stores.pipeline import Pipeline
from tests.unit.stores.scripted import Scripted


def test_a_task_is_handed_over_by_its_id_and_nobody_waits_for_it() -> None:
    client: Any = Scripted({})
    Pipeline(client, "arn:f").invoke("T1")
    ((operation, request),) = client.requests
    assert (operation, request["FunctionName"]) == ("invoke", "arn:f")
    assert (request["InvocationType"], request["Payload"]) == ("Event", b'{"task_id": "T1"}')


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ClientError({"Error": {"Code": "Odd", "Message": "no"}}, "Invoke"), "Odd: no"),
        (ClientError({"Error": {"Code": "Odd"}}, "Invoke"), "Odd: "),
        (EndpointConnectionError(endpoint_url="https://x"), "https://x"),
    ],
)
def test_why_it_was_not_accepted_is_said(error: Exception, said: str) -> None:
    client: Any = Scripted(error)
    with pytest.raises(PipelineUnavailableError, match="task T1 could not be invoked") as caught:
        Pipeline(client, "arn:f").invoke("T1")
    assert said in str(caught.value)
