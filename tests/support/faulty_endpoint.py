"""A DynamoDB endpoint that can be made to fail; it passes all other requests on.

The service itself fails, seen over HTTP: none of our functions is patched.
"""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from reconciler.embedded.loopback import Answer, Request, answering

JSON = "application/x-amz-json-1.0"
_OF_A_CONNECTION = frozenset(
    {"accept-encoding", "connection", "content-length", "expect", "host", "keep-alive"}
)
"""Headers of a request that are not passed on."""

THROTTLED = (400, "ThrottlingException")
BROKEN = (500, "InternalServerError")
DENIED = (400, "AccessDeniedException")
WRONG_CREDENTIALS = (400, "UnrecognizedClientException")
EXPIRED_CREDENTIALS = (400, "ExpiredTokenException")


@dataclass
class Fault:
    """An answer instead of the service's. ``times``: how often, None for always."""

    operation: str | None
    table: str | None
    status: int
    code: str
    times: int | None = None
    message: str = "no"

    def strikes(self, operation: str, tables: str) -> bool:
        """Whether it answers this request."""
        if self.operation not in {None, operation} or self.times == 0:
            return False
        if self.table is not None and json.dumps(self.table) not in tables:
            return False
        if self.times is not None:
            self.times -= 1
        return True


@dataclass
class FaultyEndpoint:
    """The requests that it got, and how it shall fail.

    ``calls``: each requested operation, in order. ``unreadable``: keys that a batch read returns
    unprocessed, as DynamoDB does without capacity.
    """

    behind: str
    url: str = ""
    faults: list[Fault] = field(default_factory=list)
    unreadable: set[str] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(
        self,
        answer: tuple[int, str],
        operation: str | None = None,
        table: str | None = None,
        times: int | None = None,
        message: str = "no",
    ) -> None:
        """Fail from now on; ``table``: only requests that name it."""
        self.faults.append(Fault(operation, table, *answer, times=times, message=message))

    def mend(self) -> None:
        """Pass everything on again."""
        self.faults.clear()

    def answer(self, request: Request) -> Answer:
        """Answer one request, by a fault or from the endpoint behind."""
        operation = request.headers.get("X-Amz-Target", "").rpartition(".")[2]
        with self._lock:
            self.calls.append(operation)
            text = request.body.decode()
            fault = next((f for f in self.faults if f.strikes(operation, text)), None)
        if fault is not None:
            return refusal(fault.status, fault.code, fault.message)
        if operation == "BatchGetItem" and self.unreadable:
            asked: dict[str, Any] = json.loads(request.body)["RequestItems"]
            if not self.unreadable.isdisjoint(_keys(asked)):
                return in_json(200, {"Responses": {}, "UnprocessedKeys": asked})
        connection = connect(self.behind)
        try:
            return passed_on(connection, "POST", request)
        finally:
            connection.close()


def _keys(asked: Mapping[str, Any]) -> Iterator[str]:
    for request in asked.values():
        for key in request["Keys"]:
            yield from (value["S"] for value in key.values())


def in_json(status: int, said: Mapping[str, Any]) -> Answer:
    """Answer as DynamoDB does."""
    return Answer(status, json.dumps(said).encode(), {"Content-Type": JSON})


def refusal(status: int, code: str, message: str, **more: Any) -> Answer:
    """Refuse as DynamoDB does."""
    kind = f"com.amazonaws.dynamodb.v20120810#{code}"
    return in_json(status, {"__type": kind, "message": message, **more})


def connect(upstream: str) -> http.client.HTTPConnection:
    """Return a connection to the endpoint behind; the first request opens it."""
    return http.client.HTTPConnection(urlsplit(upstream).netloc, timeout=60)


def passed_on(connection: http.client.HTTPConnection, method: str, request: Request) -> Answer:
    """Pass a request on, and return the answer with its headers, the checksum among them."""
    sent = {k: v for k, v in request.headers.items() if k.lower() not in _OF_A_CONNECTION}
    connection.request(method, request.path, request.body, sent)
    got = connection.getresponse()
    body = got.read()
    own = ("x-amz", "content-type")
    return Answer(
        got.status, body, {k: v for k, v in got.getheaders() if k.lower().startswith(own)}
    )


@contextmanager
def faulty_endpoint(behind: str) -> Iterator[FaultyEndpoint]:
    """Serve it on loopback, in front of the endpoint ``behind``, until the block ends."""
    found = FaultyEndpoint(behind)
    with answering(found.answer) as found.url:
        yield found
