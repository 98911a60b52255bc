"""What a message may look like: one strict schema, checked before kombu or Celery see the message.

Anybody who can reach the broker can put anything on it. Kombu and Celery trust what they read: one
wrong type in a header is enough to end a worker, and the message then ends the next one. So the
raw bytes are checked here, and Celery gets an envelope that is built anew from the checked values.
A field that the schema does not name goes no further.

These never get through: calls of Celery's own tasks, callbacks, chords, chains and groups, limits
that the sender chose, and remote-control commands that change or stop a worker.
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
"""More than a release with the most predecessors that fit in a row of DynamoDB."""

OWN_HEADERS = "reconciler_"
_MAX_DETAIL = 200
_MAX_NAME = 255
_QUERIES = frozenset(
    {
        "active",
        "active_queues",
        "clock",
        "conf",
        "enable_events",  # which Flower sends every few seconds
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
    """A message that no worker acts on. Its text quotes nothing of what is in the message."""

    kind = "malformed_message"


class OtherDeploymentError(MessageRefusedError):
    """A message of another deployment, whose tables are not ours."""

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
    """What would make Celery call something else, before or after the task."""

    callbacks: tuple[()] | None = None
    errbacks: tuple[()] | None = None
    chain: tuple[()] | None = None
    chord: None = None


class TaskHeaders(_NoCanvas):
    """Of Celery's protocol 2; and our own, whose names begin with ``reconciler_``."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, JsonValue]

    task: Name
    id: Id
    root_id: Id | None = None
    parent_id: Id | None = None
    # Below zero a task would be tried again for ever.
    retries: Annotated[int, Field(ge=0, le=MAX_RETRIES)] = 0
    eta: Annotated[datetime, AfterValidator(_briefly_ahead)] | None = None
    # Celery remembers an expired id and throws it away when it is sent again. Ours are
    # deterministic, so an expired message is refused here, and Celery is not told of any expiry.
    expires: Annotated[
        Annotated[datetime, AfterValidator(_not_expired)] | None, Field(exclude=True)
    ] = None
    # A task has its own limits, whatever a message says.
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
    """Of a remote-control command."""

    clock: Clock = 0
    expires: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


class ReplyHeaders(BroadcastHeaders):
    """Of what a worker answers."""

    ticket: Name


class _Properties(_Strict):
    delivery_tag: Name
    body_encoding: Literal["base64"] | None = None
    priority: Annotated[int, Field(ge=0, le=255)] = 0
    correlation_id: Id | None = None


H = TypeVar("H", bound=BaseModel)
B = TypeVar("B")


class _Envelope(_Strict, Generic[H]):
    body: str
    content_type: Annotated[Literal["application/json"], Field(alias="content-type")]
    content_encoding: Annotated[Literal["utf-8"], Field(alias="content-encoding")]
    headers: H
    properties: _Properties


class _ReplyTo(_Strict):
    # Any other address would have the worker write to a key of the sender's choice.
    exchange: Literal["reply.celery.pidbox"]
    routing_key: Annotated[str, StringConstraints(pattern=r"^[0-9a-f-]{36}$")]


class Command(_Strict):
    """A remote-control command; by name only: a pattern can take for ever to match."""

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
            raise ValueError("it is no command that only asks")
        try:
            signature(handler).bind(None, **(self.arguments or {}))
        except TypeError:
            raise ValueError("its arguments are not those of the command") from None
        return self


@dataclass(frozen=True)
class Kind(Generic[H, B]):
    """One kind of message: the schema of its envelope, and that of its body."""

    envelope: type[_Envelope[H]]
    body: TypeAdapter[B]

    def read(self, raw: bytes, routing_key: str) -> dict[str, Any]:
        """Return the envelope that Celery may have, as if it had just come from ``routing_key``.

        Where a message goes back to when its worker is lost is thus never the sender's choice.

        Raises:
            MessageRefusedError: it is not of this kind.
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
    """Pass what is our own work, and what somebody sent by hand.

    Raises:
        OtherDeploymentError: it is for workers of other tables.
    """
    if message["headers"].get(DEPLOYMENT_HEADER, ours) != ours:
        raise OtherDeploymentError(
            "it is the work of another deployment, which shares this broker: see reconciler doctor"
        )


def _what_is_wrong(error: ValidationError) -> str:
    """Say which field is wrong, and not what is in it."""
    first = error.errors(include_input=False, include_context=False, include_url=False)[0]
    place = ".".join(str(part)[:40] for part in first["loc"][:4])
    return f"{place}: {first['msg']}"[:_MAX_DETAIL] if place else first["msg"][:_MAX_DETAIL]


def describe(raw: object) -> dict[str, str]:
    """Return what can be read of a refused message for a log: its task and id, if it has them."""
    try:
        headers = from_json(raw)["headers"] if isinstance(raw, bytes) else {}
        named = {"task": headers.get("task"), "message_id": headers.get("id")}
    except (ValueError, LookupError, TypeError, AttributeError):
        return {}
    return {name: value[:_MAX_NAME] for name, value in named.items() if isinstance(value, str)}
