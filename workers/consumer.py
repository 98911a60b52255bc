"""Celery's consumer, hardened: no message can end it or make it reconnect for ever.

Kombu does not separate reading from handling. An exception caused by a message looks like a lost
connection (to kombu, KeyError is one), so the message is restored and read again by the next
worker. Here, only failures of reading concern the connection. Whatever fails after that concerns
the message, which is dropped and counted (``workers.messages`` has the schema).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from queue import Empty
from typing import Any

import redis
from celery import Celery, current_app
from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown
from kombu.transport import redis as redis_transport
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps

from reconciler.settings import load_settings
from workers.broker import broker_client
from workers.heartbeat import Pulse
from workers.messages import (
    BROADCAST,
    REPLY,
    TASK,
    Kind,
    MessageRefusedError,
    check_deployment,
)
from workers.outage import LOST, Outage, check_broker
from workers.refusals import Refusals

# The stubs are incomplete.
_Channel: Any = redis_transport.Channel
_QoS: Any = redis_transport.QoS
_Consumer: Any = Consumer

_REPLIES = ".reply.celery.pidbox"
_EXCHANGES = ("celery.pidbox", "reply.celery.pidbox")
_POLL_SECONDS = 1.0
EVENT_SECONDS = 0.5
"""How long task events are collected before they are sent, so Flower shows them later."""


@cache
def _own_deployment() -> str:
    return load_settings().deployment_id


_refusals = Refusals(_own_deployment)


def drop_foreign_keys(app: Celery) -> None:
    """Delete Celery's keys that have a wrong type.

    Every command on such a key fails, so a worker would reconnect for ever. The two keys of
    unacknowledged messages need each other, so both go; sweeps find the lost work again.
    """
    channel = redis_transport.Channel
    unacked = {channel.unacked_key: b"hash", channel.unacked_index_key: b"zset"}
    expected = dict(unacked)
    expected |= {channel.keyprefix_queue % name: b"set" for name in _EXCHANGES}
    for queue in app.conf.task_queues:
        steps = [f"{channel.sep}{step}" for step in channel.priority_steps if step]
        expected |= {queue.name + step: b"list" for step in ("", *steps)}
    with broker_client(load_settings()) as client:
        for key, kind in expected.items():
            if client.type(key) not in {kind, b"none"}:
                client.delete(*(unacked if key in unacked else (key,)))
                wrong = MessageRefusedError(f"the key {key} was not a {kind.decode()}")
                _refusals.add(client, wrong)


class GuardedQoS(_QoS):  # type: ignore[misc] # it is Any
    """Unacknowledged messages; tolerates malformed entries."""

    @contextmanager
    def pipe_or_acquire(self, pipe: Any = None, client: Any = None) -> Iterator[Any]:  # noqa: ANN401
        """Send two commands together, as kombu does, but not as a transaction.

        Both arrive in one packet, and half an entry is harmless, since restoring needs both halves.
        MULTI and EXEC would cost four more commands per message.
        """
        if pipe is not None:
            yield pipe
            return
        with self.channel.conn_or_acquire(client) as connection:
            yield connection.pipeline(transaction=False)

    def ack(self, delivery_tag: Any) -> None:  # noqa: ANN401 - kombu's
        """Acknowledge a message; free its place even if the broker refuses.

        Celery logs a refused acknowledgement and goes on. But kombu would count the message as
        under way for ever, and with a prefetch of one the worker would never take another. The
        broker still has the message as unacknowledged, and delivers it again later.
        """
        try:
            super().ack(delivery_tag)
        finally:
            self._quick_ack(delivery_tag)

    def reject(self, delivery_tag: Any, requeue: bool = False) -> None:  # noqa: ANN401, FBT001, FBT002 - kombu's
        """Reject a message; likewise."""
        try:
            super().reject(delivery_tag, requeue=requeue)
        finally:
            self._quick_ack(delivery_tag)

    def restore_by_tag(self, tag: Any, client: Any = None, leftmost: bool = False) -> None:  # noqa: ANN401, FBT001, FBT002 - kombu's
        """Restore a message to its queue; drop it if it is malformed.

        Kombu would fail on it in every round, and never reach the messages behind it.
        """
        try:
            super().restore_by_tag(tag, client=client, leftmost=leftmost)
        except LOST:
            raise
        except Exception as error:  # noqa: BLE001 - it concerns only this entry
            self._remove_from_indices(tag).execute()
            with self.channel.conn_or_acquire(client) as connection:
                _refusals.add(connection, error)


class GuardedChannel(_Channel):  # type: ignore[misc] # it is Any
    """Celery's channel, which checks every message against the schema."""

    QoS = GuardedQoS
    _kept: redis.Redis | None = None

    def _create_client(self, asynchronous: bool = False) -> Any:  # noqa: ANN401, FBT001, FBT002 - kombu's
        """Return the client, which is kept as long as its connections.

        Kombu creates one for each command, which takes 7 % of the main process's time.
        """
        if asynchronous:
            return super()._create_client(asynchronous)
        if self._kept is None or self._kept.connection_pool is not self.pool:
            self._kept = super()._create_client()
        return self._kept

    def _brpop_read(self, **options: Any) -> bool:  # noqa: ANN401 - kombu's
        """Read the answer of BRPOP as kombu does, but handle the message separately."""
        try:
            answer = self.client.parse_response(self.client.connection, "BRPOP", **options)
        except self.connection_errors:
            self.client.connection.disconnect()
            raise
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        if not answer:
            raise Empty
        queue = bytes_to_str(answer[0]).rsplit(self.sep, 1)[0]
        self._queue_cycle.rotate(queue)
        self._deliver(REPLY if queue.endswith(_REPLIES) else TASK, answer[1], queue)
        return True

    def _receive_one(self, c: Any) -> bool | None:  # noqa: ANN401 - kombu's
        """Read a broadcast; likewise."""
        try:
            answer = c.parse_response()
        except self.connection_errors:
            self._in_listen = None
            raise
        if not isinstance(answer, list | tuple):
            return None
        found = self._handle_message(c, answer)
        if not bytes_to_str(found["type"]).endswith("message"):
            return None
        exchange = bytes_to_str(found["channel"]).partition(".")[2].split("/", 1)[0]
        self._deliver(BROADCAST, found["data"], self._fanout_to_queue.get(exchange))
        return True

    def _deliver(self, kind: Kind, raw: bytes, queue: str | None) -> None:
        """Deliver a valid message; drop and count one that is invalid or fails."""
        tag = None
        try:
            message = kind.read(raw, queue or "")
            tag = message["properties"]["delivery_tag"]
            check_deployment(message, _own_deployment())
            self.connection._deliver(message, queue)  # noqa: SLF001 - there is no other way
        except LOST:
            raise
        except Exception as error:  # noqa: BLE001 - the connection works, so it is the message
            if tag is not None:
                self.qos.reject(tag)
            with self.conn_or_acquire() as client:
                _refusals.add(client, error, raw)

    def _do_restore_message(
        self,
        payload: object,
        exchange: object,  # noqa: ARG002 - kombu's
        routing_key: object,
        pipe: Any,  # noqa: ANN401 - kombu's
        leftmost: bool = False,  # noqa: FBT001, FBT002 - kombu's
    ) -> None:
        """Restore a message to one of our queues; the contents of ``unacked`` are untrusted too."""
        if routing_key not in {queue.name for queue in current_app.conf.task_queues}:
            raise MessageRefusedError("it belongs to no queue of ours")
        sound = TASK.read(dumps(payload).encode(), str(routing_key))
        super()._do_restore_message(sound, "", routing_key, pipe, leftmost)

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002
        """Return the connection parameters, as kombu does.

        If the broker goes away while a task is unacknowledged, kombu 5.7.0 asks a closed channel,
        which has no connection: an AttributeError ends the worker. Remove this once a release fixes
        it (tests/integration/workers/test_broker_outage.py).
        """
        if getattr(self.connection, "client", None) is None:
            raise redis.ConnectionError("the channel is closed")
        found: dict[str, Any] = super()._connparams(asynchronous)
        return found


redis_transport.Transport.Channel = GuardedChannel


class GuardedConsumer(_Consumer):  # type: ignore[misc] # it is Any
    """Celery's consumer with that channel, and patient with a broker that refuses."""

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - Celery's
        # Workers need not know each other, and such messages could come from anybody.
        apart = {"without_gossip": True, "without_mingle": True}
        self._outage = Outage()
        self._events_leave_at = 0.0
        self._pulse = Pulse()
        super().__init__(*args, **{**options, **apart})

    def connect(self) -> Any:  # noqa: ANN401 - Celery's
        """Connect once the broker takes writes.

        Celery would reconnect at once to a broker that refuses writes, fail, and start again, with
        several log lines each time.
        """
        while True:
            self._pulse.beat()  # the event loop is not running here
            try:
                check_broker()
            except LOST as error:
                self._outage.began(error)
            else:
                self._outage.ended()
                break
            maybe_shutdown()
            time.sleep(_POLL_SECONDS)
        drop_foreign_keys(self.app)
        return super().connect()

    def on_send_event_buffered(self) -> None:
        """Publish task events in batches.

        Celery publishes each of three events per task at once, which with many small tasks takes
        half of the main process's time. If a scheduled flush is lost with a connection, the next
        event schedules another.
        """
        now = time.monotonic()
        if self.hub and now >= self._events_leave_at:
            self._events_leave_at = now + EVENT_SECONDS
            self.hub.call_later(EVENT_SECONDS, self._flush_events)

    def shutdown(self) -> None:
        """Publish the remaining events, since the event loop has ended."""
        self._flush_events()
        super().shutdown()

    def update_strategies(self) -> None:
        """Accept our own tasks, but none of Celery's (``celery.chord``, ``celery.map``, …)."""
        super().update_strategies()
        for name in [name for name in self.strategies if name.startswith("celery.")]:
            del self.strategies[name]

    def _refuse(self, *about: Any) -> None:  # noqa: ANN401 - Celery's
        """Leave it to the channel; Celery would log the whole message and count nothing."""
        raise about[-1]

    on_decode_error = on_invalid_task = _refuse

    def on_unknown_task(self, *_: object) -> None:
        """Refuse the message; likewise."""
        raise MessageRefusedError("there is no such task")
