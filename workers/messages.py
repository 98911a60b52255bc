"""A strict schema for messages, checked before kombu or Celery see them.

Anybody who can reach the broker can put anything on it, and kombu and Celery trust what they read:
one wrong type in a header ends a worker, and then the next one. So the raw bytes are checked here,
and Celery gets an envelope rebuilt from the checked values. Unknown fields are dropped.

These never get through: calls of Celery's own tasks, callbacks, chords, chains and groups, time
limits chosen by the sender, and remote-control commands that change or stop a worker.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from inspect import signature
from typing import Annotated, Any, Generic, Literal, TypeVar

from celery.worker.control import Panel
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import from_json

from reconciler.clock import utc_now
from workers.limits import MAX_WAIT_SECONDS
from workers.names import DEPLOYMENT_HEADER

MAX_RETRIES = 3
MAX_BYTES = 1024 * 1024
"""More than a release takes with as many predecessors as fit into a row of DynamoDB."""

OWN_HEADERS = "reconciler_"
_MAX_DETAIL = 200
_MAX_NAME = 255
_QUERIES = frozenset(
    {
        "active",
        "active_queues",
        "clock",
        "conf",
        "enable_events",  # Flower sends it every few seconds
        "ping",
        "query_task",
        "registered",
        "report",
        "reserved",
        "revoked",
        "scheduled",
        "stats",
    }
)
"""Celery's remote-control commands that change nothing."""


class MessageRefusedError(ValueError):
    """A message that workers refuse. The error text never quotes the message."""

    kind = "malformed_message"


class OtherDeploymentError(MessageRefusedError):
    """A message of another deployment, which has other tables."""

    kind = "other_deployment"


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


Id = Annotated[str, StringConstraints(min_length=1, max_length=2 * _MAX_NAME)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=_MAX_NAME)]
Shown = Annotated[str, StringConstraints(max_length=4096)]
Limit = Annotated[float, Field(gt=0, allow_inf_nan=False)] | None
Clock = Annotated[int, Field(ge=0, lt=2**53)]


def _in_utc(at: datetime) -> datetime:
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _briefly_ahead(eta: datetime) -> datetime | None:
    ahead = _in_utc(eta) - utc_now()
    if ahead.total_seconds() > MAX_WAIT_SECONDS:
        raise ValueError(f"it is more than {MAX_WAIT_SECONDS} s ahead")
    return eta if ahead > timedelta() else None


def _not_expired(expires: datetime) -> datetime:
    if _in_utc(expires) < utc_now():
        raise ValueError("it has passed")
    return expires


class _NoCanvas(_Strict):
    """Forbids everything that makes Celery call something else before or after the task."""

    callbacks: tuple[()] | None = None
    errbacks: tuple[()] | None = None
    chain: tuple[()] | None = None
    chord: None = None


class TaskHeaders(_NoCanvas):
    """Headers of Celery's protocol 2, and our own, whose names begin with ``reconciler_``."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, JsonValue]

    task: Name
    id: Id
    root_id: Id | None = None
    parent_id: Id | None = None
    # With a negative number a task would be retried for ever.
    retries: Annotated[int, Field(ge=0, le=MAX_RETRIES)] = 0
    eta: Annotated[datetime, AfterValidator(_briefly_ahead)] | None = None
    # Celery remembers the id of an expired message and drops later messages with the same id.
    # Our ids are deterministic, so expiry is checked here and hidden from Celery.
    expires: Annotated[
        Annotated[datetime, AfterValidator(_not_expired)] | None, Field(exclude=True)
    ] = None
    # A message cannot change the limits of a task.
    timelimit: Annotated[tuple[Limit, Limit] | None, Field(exclude=True)] = None
    group: None = None
    group_index: None = None
    shadow: None = None
    compression: None = None
    ignore_result: bool | None = None
    argsrepr: Shown | None = None
    kwargsrepr: Shown | None = None
    origin: Name | None = None

    @model_validator(mode="after")
    def _drop_unknown(self) -> TaskHeaders:
        extra = self.__pydantic_extra__
        for name in [name for name in extra if not name.startswith(OWN_HEADERS)]:
            del extra[name]
        return self


class BroadcastHeaders(_Strict):
    """Headers of a remote-control command."""

    clock: Clock = 0
    expires: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


class ReplyHeaders(BroadcastHeaders):
    """Headers of a worker's answer."""

    ticket: Name


class _Properties(_Strict):
    delivery_tag: Name
    body_encoding: Literal["base64"] | None = None
    priority: Annotated[int, Field(ge=0, le=255)] = 0
    correlation_id: Id | None = None


H = TypeVar("H", bound=BaseModel)


class _Envelope(_Strict, Generic[H]):
    body: str
    content_type: Annotated[Literal["application/json"], Field(alias="content-type")]
    content_encoding: Annotated[Literal["utf-8"], Field(alias="content-encoding")]
    headers: H
    properties: _Properties


class _ReplyTo(_Strict):
    # With any other address, the sender could choose the key that a worker writes.
    exchange: Literal["reply.celery.pidbox"]
    routing_key: Annotated[str, StringConstraints(pattern=r"^[0-9a-f-]{36}$")]


class Command(_Strict):
    """A remote-control command, without patterns, since one can take for ever to match."""

    method: Name
    arguments: dict[Name, bool | list[Name] | None] | None = None
    destination: list[Name] | None = None
    pattern: None = None
    matcher: None = None
    ticket: Name | None = None
    reply_to: _ReplyTo | None = None

    @model_validator(mode="after")
    def _only_asks(self) -> Command:
        known = self.method in _QUERIES or self.method.startswith(OWN_HEADERS)
        handler = Panel.data.get(self.method) if known else None
        if handler is None:
            raise ValueError("it is not a read-only command")
        try:
            signature(handler).bind(None, **(self.arguments or {}))
        except TypeError:
            raise ValueError("its arguments are not those of the command") from None
        return self


@dataclass(frozen=True)
class Kind:
    """A kind of message: the schemas of its envelope and its body."""

    envelope: type[_Envelope[Any]]
    body: TypeAdapter[Any]

    def read(self, raw: bytes, routing_key: str) -> dict[str, Any]:
        """Return the envelope for Celery, as if it had just come from ``routing_key``.

        So the sender cannot choose the queue to which a lost worker's message is restored.

        Raises:
            MessageRefusedError: it does not match the schema.
        """
        if len(raw) > MAX_BYTES:
            raise MessageRefusedError(f"it is longer than {MAX_BYTES} bytes")
        try:
            found = self.envelope.model_validate_json(raw)
            encoded = found.body.encode()
            body = base64.b64decode(encoded) if found.properties.body_encoding else encoded
            call = self.body.validate_json(body, strict=True)
        except ValidationError as error:
            raise MessageRefusedError(_what_is_wrong(error)) from None
        except (binascii.Error, UnicodeError):
            raise MessageRefusedError("body: it is not in base64") from None
        properties = found.properties.model_dump(exclude={"body_encoding"})
        return {
            "body": self.body.dump_json(call).decode(),
            "content-type": found.content_type,
            "content-encoding": found.content_encoding,
            "headers": found.headers.model_dump(mode="json", exclude_none=True),
            "properties": {
                **properties,
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": routing_key},
            },
        }


TASK = Kind(
    _Envelope[TaskHeaders],
    TypeAdapter(tuple[list[JsonValue], dict[str, JsonValue], _NoCanvas]),
)
BROADCAST = Kind(_Envelope[BroadcastHeaders], TypeAdapter(Command))
REPLY = Kind(_Envelope[ReplyHeaders], TypeAdapter(dict[Name, dict[str, JsonValue]]))


def check_deployment(message: dict[str, Any], ours: str) -> None:
    """Accept messages of our own deployment, and those sent by hand.

    Raises:
        OtherDeploymentError: it is for workers of another deployment.
    """
    if message["headers"].get(DEPLOYMENT_HEADER, ours) != ours:
        raise OtherDeploymentError(
            "it is the work of another deployment, which shares this broker: see reconciler doctor"
        )


def _what_is_wrong(error: ValidationError) -> str:
    """Say which field is wrong, without its value."""
    first = error.errors(include_input=False, include_context=False, include_url=False)[0]
    place = ".".join(str(part)[:40] for part in first["loc"][:4])
    return f"{place}: {first['msg']}"[:_MAX_DETAIL] if place else first["msg"][:_MAX_DETAIL]


def describe(raw: object) -> dict[str, str]:
    """Return the task and the id of a refused message for the log, if it has them."""
    try:
        headers = from_json(raw)["headers"] if isinstance(raw, bytes) else {}
        named = {"task": headers.get("task"), "message_id": headers.get("id")}
    except (ValueError, LookupError, TypeError, AttributeError):
        return {}
    return {name: value[:_MAX_NAME] for name, value in named.items() if isinstance(value, str)}
