"""What comes off the broker is not trusted: a message that makes no sense is counted and dropped.

Celery refuses what it knows to refuse, and counts nothing of it. What it does not expect (an
envelope that is no JSON, a body that is no call, headers of the wrong kind) ends the worker, and
the message, given back at its end, the next one: one message is enough to stop them all. So its
consumer and its channel are guarded here, and nothing in a message can end either.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import Empty
from typing import Any

import redis
from celery.worker.consumer import Consumer
from kombu.message import Message
from kombu.transport import redis as redis_transport
from kombu.transport import virtual
from kombu.utils.encoding import safe_repr
from vine import promise

from workers.running import count_malformed

_MOST_SHOWN = 200
_SENSELESS = (ValueError, TypeError, LookupError, redis.DataError)
"""What reading something of the wrong shape raises. Not AttributeError, although it does: that is
what a lost connection raises (``workers.application``), so shapes are looked at beforehand."""

_HEADERS: dict[str, type | tuple[type, ...]] = {
    "task": str,
    "id": str,
    "eta": (str, type(None)),
    "expires": (str, int, float, type(None)),
    "retries": (int, type(None)),
    "timelimit": (list, type(None)),
    "argsrepr": (str, type(None)),
    "kwargsrepr": (str, type(None)),
}


class GuardedMessage(virtual.Message):
    """An envelope of the right shape; making one of anything else raises TypeError."""

    def __init__(self, payload: Any, channel: Any = None, **kwargs: Any) -> None:  # noqa: ANN401 - kombu's
        properties = payload.get("properties") if isinstance(payload, dict) else None
        if not (
            isinstance(properties, dict)
            and isinstance(properties.get("delivery_tag"), str)
            and isinstance(properties.get("delivery_info"), dict)
            and isinstance(payload.get("headers"), dict)
        ):
            raise TypeError("it is not what Celery puts on a broker")
        super().__init__(payload, channel=channel, **kwargs)


class GuardedChannel(redis_transport.Channel):
    """Celery's channel, for which an envelope that cannot be read is not the end."""

    Message = GuardedMessage

    def _brpop_read(self, **options: Any) -> Any:  # noqa: ANN401 - kombu's
        try:
            return super()._brpop_read(**options)  # type: ignore[misc] # of kombu, untyped
        except _SENSELESS as error:
            # It has been taken off the queue and belongs to nobody.
            _dropped("an envelope that cannot be read", error)
            raise Empty from None

    def _receive_one(self, c: Any) -> Any:  # noqa: ANN401 - kombu's
        try:
            return super()._receive_one(c)  # type: ignore[misc] # likewise
        except _SENSELESS as error:
            _dropped("a broadcast that cannot be read", error)
            return None


redis_transport.Transport.Channel = GuardedChannel


class GuardedConsumer(Consumer):
    """Celery's consumer, which no message can end."""

    def create_task_handler(self, promise: Any = promise) -> Callable[[Message], None]:  # noqa: ANN401
        """Return Celery's handler, behind a look at the message's shape."""
        handle = super().create_task_handler(promise)

        def on_task_received(message: Message) -> None:
            try:
                _check_shape(message)
                handle(message)
            except _SENSELESS as error:
                _dropped("a message that is no call", error)
                message.reject_log_error(redis_transport.logger, _lost(self))

        return on_task_received

    def on_decode_error(self, message: Message, exc: Exception) -> None:
        """Count a body that cannot be read, and drop it."""
        _dropped("a body that cannot be read", exc)
        message.ack_log_error(redis_transport.logger, _lost(self))


def _lost(consumer: Any) -> tuple[type[Exception], ...]:  # noqa: ANN401 - Celery's, untyped
    errors: tuple[type[Exception], ...] = consumer.connection_errors
    return errors


def _check_shape(message: Message) -> None:
    """Raise TypeError or ValueError unless a message is a call, in the present protocol.

    Its body is decoded here, once: Celery goes on with what it finds decoded.
    """
    for name, kind in _HEADERS.items():
        value = message.headers.get(name)
        if not isinstance(value, kind):
            raise TypeError(f"its {name} is {safe_repr(value)[:_MOST_SHOWN]}")
    try:
        body = message.payload
    except Exception:  # noqa: BLE001 - whatever it is, Celery meets it again, and refuses it
        return
    kinds = [type(part) for part in body] if isinstance(body, list) else None
    if kinds not in ([list, dict, dict], [list, dict, type(None)]):
        raise ValueError("its body is not a list of arguments and a map of them")


def _dropped(what: str, error: Exception) -> None:
    count_malformed("?", f"{what}: {safe_repr(error)[:_MOST_SHOWN]}")
