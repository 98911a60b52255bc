"""Celery's consumer, which no message can end or send into reconnecting for ever.

What is read off the broker is a reply of the broker first, and a message second. Kombu does not
tell the two apart: an exception that a message caused looks like a lost connection (KeyError is
one, to kombu), and the message is given back and read again, by each worker in turn. So reading
is kombu's here, and only what fails while reading is about the connection. Whatever fails after
that is about the message, which is dropped and counted (``workers.messages`` has the schema).
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

# Their stubs know less than half of them.
_Channel: Any = redis_transport.Channel
_QoS: Any = redis_transport.QoS
_Consumer: Any = Consumer

_REPLIES = ".reply.celery.pidbox"
_EXCHANGES = ("celery.pidbox", "reply.celery.pidbox")
_POLL_SECONDS = 1.0
EVENT_SECONDS = 0.5
"""For how long events of tasks are collected. Flower shows them so much later."""


@cache
def _own_deployment() -> str:
    return load_settings().deployment_id


_refusals = Refusals(_own_deployment)


def drop_foreign_keys(app: Celery) -> None:
    """Delete what is of the wrong type under a key of Celery's.

    Each command on it fails, so a worker would reconnect for ever. Of what is unacknowledged, one
    key is of no use without the other; the sweep finds again what was in them.
    """
    channel = redis_transport.Channel
    unacked = {channel.unacked_key: b"hash", channel.unacked_index_key: b"zset"}
    expected = dict(unacked)
    expected |= {channel.keyprefix_queue % name: b"set" for name in _EXCHANGES}
    for queue in app.conf.task_queues:
        steps = [f"{channel.sep}{step}" for step in channel.priority_steps if step]
        expected |= {queue.name + step: b"list" for step in ("", *steps)}
    client = broker_client(load_settings())
    try:
        for key, kind in expected.items():
            if client.type(key) not in {kind, b"none"}:
                client.delete(*(unacked if key in unacked else (key,)))
                wrong = MessageRefusedError(f"the key {key} was no {kind.decode()}")
                _refusals.add(client, wrong)
    finally:
        client.close()


class GuardedQoS(_QoS):  # type: ignore[misc] # it is Any
    """What was delivered and not acknowledged, with room for entries that make no sense."""

    @contextmanager
    def pipe_or_acquire(self, pipe: Any = None, client: Any = None) -> Iterator[Any]:  # noqa: ANN401
        """Send two commands together, as kombu does, but not as a transaction.

        Both come in one packet, and neither half of an entry does any harm: what is restored needs
        both. MULTI and EXEC would be four commands more for each message.
        """
        if pipe is not None:
            yield pipe
            return
        with self.channel.conn_or_acquire(client) as connection:
            yield connection.pipeline(transaction=False)

    def ack(self, delivery_tag: Any) -> None:  # noqa: ANN401 - kombu's
        """Acknowledge a message; free its place here also where the broker refuses.

        Celery logs a refused acknowledgement and goes on. Kombu would count the message as under
        way for ever, and with a prefetch of one the worker would never take another. The broker
        still has it as unacknowledged, and delivers it again later.
        """
        try:
            super().ack(delivery_tag)
        finally:
            self._quick_ack(delivery_tag)

    def reject(self, delivery_tag: Any, requeue: bool = False) -> None:  # noqa: ANN401, FBT001, FBT002 - kombu's
        """Reject a message, with the same care."""
        try:
            super().reject(delivery_tag, requeue=requeue)
        finally:
            self._quick_ack(delivery_tag)

    def restore_by_tag(self, tag: Any, client: Any = None, leftmost: bool = False) -> None:  # noqa: ANN401, FBT001, FBT002 - kombu's
        """Give a message back to its queue; drop it if it is none.

        Kombu would meet it again in each round, and never come to the ones behind it.
        """
        try:
            super().restore_by_tag(tag, client=client, leftmost=leftmost)
        except LOST:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is about this entry
            self._remove_from_indices(tag).execute()
            with self.channel.conn_or_acquire(client) as connection:
                _refusals.add(connection, error)


class GuardedChannel(_Channel):  # type: ignore[misc] # it is Any
    """Celery's channel, with a schema between the broker and everything else."""

    QoS = GuardedQoS
    _kept: redis.Redis | None = None

    def _create_client(self, asynchronous: bool = False) -> Any:  # noqa: ANN401, FBT001, FBT002 - kombu's
        """Return a client, the same for as long as its connections last.

        Kombu makes one for each command: a fourteenth of what a worker's main process does.
        """
        if asynchronous:
            return super()._create_client(asynchronous)
        if self._kept is None or self._kept.connection_pool is not self.pool:
            self._kept = super()._create_client()
        return self._kept

    def _brpop_read(self, **options: Any) -> bool:  # noqa: ANN401 - kombu's
        """Read what BRPOP answered: as kombu's own does, up to where the message begins."""
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
        kind: Kind[Any, Any] = REPLY if queue.endswith(_REPLIES) else TASK
        self._deliver(kind, answer[1], queue)
        return True

    def _receive_one(self, c: Any) -> bool | None:  # noqa: ANN401 - kombu's
        """Read what was broadcast: likewise."""
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

    def _deliver(self, kind: Kind[Any, Any], raw: bytes, queue: str | None) -> None:
        """Hand a message over if it is sound; drop and count it if it is not, or if it fails."""
        tag = None
        try:
            message = kind.read(raw, queue or "")
            tag = message["properties"]["delivery_tag"]
            check_deployment(message, _own_deployment())
            self.connection._deliver(message, queue)  # noqa: SLF001 - there is no other way
        except LOST:
            raise
        except Exception as error:  # noqa: BLE001 - the connection is sound, so it is the message
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
        """Put a message back on one of our queues; what stands in ``unacked`` is data too."""
        if routing_key not in {queue.name for queue in current_app.conf.task_queues}:
            raise MessageRefusedError("it belongs to no queue of ours")
        sound = TASK.read(dumps(payload).encode(), str(routing_key))
        super()._do_restore_message(sound, "", routing_key, pipe, leftmost)

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002
        """Return how to connect, as kombu does.

        A channel that was closed has no connection to ask. Kombu 5.7.0 runs into an AttributeError
        there, at which the worker exits: when the broker goes away while a task is unacknowledged.
        To be removed once a release mends it (tests/integration/workers/test_broker_outage.py).
        """
        if getattr(self.connection, "client", None) is None:
            raise redis.ConnectionError("the channel is closed")
        found: dict[str, Any] = super()._connparams(asynchronous)
        return found


redis_transport.Transport.Channel = GuardedChannel


class GuardedConsumer(_Consumer):  # type: ignore[misc] # it is Any
    """Celery's consumer, behind that channel, and patient with a broker that refuses."""

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - Celery's
        # Workers need not hear of each other, and what they hear could come from anybody.
        apart = {"without_gossip": True, "without_mingle": True}
        self._outage = Outage()
        self._events_leave_at = 0.0
        self._pulse = Pulse()
        super().__init__(*args, **{**options, **apart})

    def connect(self) -> Any:  # noqa: ANN401 - Celery's
        """Connect once the broker takes writes.

        Celery reconnects at once to a broker that refuses, fails in its first write, and begins
        anew, with a handful of lines each time.
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
        """Publish events of tasks together.

        Celery publishes each as soon as it is back in its loop, three for a task: with many small
        tasks, that is half of what a worker's main process does. A plan that was lost with a
        connection is made anew by the next event.
        """
        now = time.monotonic()
        if self.hub and now >= self._events_leave_at:
            self._events_leave_at = now + EVENT_SECONDS
            self.hub.call_later(EVENT_SECONDS, self._flush_events)

    def shutdown(self) -> None:
        """Publish what is left of them: the loop does not run any more."""
        self._flush_events()
        super().shutdown()

    def update_strategies(self) -> None:
        """Take our own tasks, and none of Celery's (``celery.chord``, ``celery.map``, …)."""
        super().update_strategies()
        for name in [name for name in self.strategies if name.startswith("celery.")]:
            del self.strategies[name]

    def _refuse(self, *about: Any) -> None:  # noqa: ANN401 - Celery's
        """Leave it to the channel; Celery would log all of the message, and count nothing."""
        raise about[-1]

    on_decode_error = on_invalid_task = _refuse

    def on_unknown_task(self, *_: object) -> None:
        """Likewise."""
        raise MessageRefusedError("there is no such task")
