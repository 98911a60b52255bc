"""Answers in the form of boto3's: errors that carry the present item, and pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from typing import Any, NoReturn

from botocore.exceptions import ClientError

from tests.simulation.expressions import Value

Request = Mapping[str, Any]
_STATUS = {"InternalServerError": 500}


Operation = Callable[..., dict[str, Any]]


class ConditionFailedError(Exception):
    """A write's condition does not hold; carries the present item."""

    def __init__(self, old: dict[str, Value] | None) -> None:
        super().__init__("The conditional request failed")
        self.old = old


def fail(operation: str, code: str, message: str, **extra: Any) -> NoReturn:
    """Raise what botocore raises when DynamoDB answers with an error."""
    response: dict[str, Any] = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": _STATUS.get(code, 400), "RetryAttempts": 0},
        **extra,
    }
    name = "".join(part.capitalize() for part in operation.split("_"))
    raise ClientError(response, name)  # type: ignore[arg-type]


def old_item(request: Request, lost: ConditionFailedError) -> dict[str, Any]:
    """Return the present item if the request asks for it."""
    wanted = request.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD"
    return {"Item": dict(lost.old)} if wanted and lost.old is not None else {}


def one_at_a_time(operation: Operation) -> Operation:
    """Let a client carry out only one ``operation`` at a time; the client has a ``lock``."""

    @wraps(operation)
    def locked(self: Any, **request: Any) -> dict[str, Any]:
        with self.lock:
            return operation(self, **request)

    return locked


class Paginator:
    """Goes through the pages of an operation."""

    def __init__(self, operation: Callable[..., dict[str, Any]]) -> None:
        self._operation = operation

    def paginate(self, **request: Any) -> Iterator[dict[str, Any]]:
        """Yield page by page."""
        while True:
            page = self._operation(**request)
            yield page
            if "LastEvaluatedKey" not in page:
                return
            request["ExclusiveStartKey"] = page["LastEvaluatedKey"]
