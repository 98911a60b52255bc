"""Putting work on the queues: under a readable, deterministic id, and through the gate.

The id is of the attempt (it ends in the interval's number) and the gate's key is of the work: an
id that was used before would be thrown away, or shown with its old result.

While a deployment replaces workers, old ones get messages of the next version, and new ones those
of the version before. So the arguments of a message change by these rules only:

- A field that is added is optional, and leaving it out is safe: an older worker passes it over
  where the message bears our header, and a newer one gets messages without it.
- A field that must not be passed over (as ``report``, which keeps a sweep from writing) goes with
  a new name of the task. An older worker drops what it does not know, and counts it; the work is
  found again by the next sweep of a newer one.
- A field is taken away one version after the last one that reads it.

A message without our header was put there by hand. What is not understood in it is refused: a
misspelt ``report`` must not repair anything. ``tests/data/messages`` holds what versions sent.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from reconciler.domain.model import timestamp
from reconciler.errors import TemporaryError
from reconciler.observability.metrics import Metrics
from reconciler.operations.context import ReleaseRequest
from reconciler.operations.coverage import Coverage
from reconciler.operations.scan import SegmentCursor
from reconciler.settings import load_settings
from workers.gate import Gate, header_of
from workers.names import (
    ACTIVE,
    EVALUATE,
    MESSAGE_HEADER,
    MESSAGE_VERSION,
    RELEASE,
    RELEASE_QUEUE,
    SEGMENT,
    SWEEP,
)
from workers.resources import broker_client, metrics_of

_LEAST_ROOM = 20

UNREACHABLE = (OperationalError, RuntimeError, OSError, redis.RedisError)
"""What a publish raises when the broker is away or stalls."""


class BrokerUnavailableError(TemporaryError):
    """The broker cannot be reached; nothing was enqueued."""

    kind = "broker_unavailable"


def bucket_of(interval_seconds: float, at: float | None = None) -> int:
    """Return the number of the interval that ``at`` (epoch seconds; now) lies in."""
    return int((time.time() if at is None else at) // interval_seconds)


class Enqueuer:
    """Publishes tasks of one application."""

    def __init__(self, app: Celery, gate: Gate, metrics: Metrics, interval_seconds: int) -> None:
        self._app = app
        self._gate = gate
        self._metrics = metrics
        self._interval_seconds = interval_seconds

    def _publish(
        self,
        name: str,
        work: str,
        attempt: str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        sweep_id: str = "",
        given_back: bool = True,
        ttl_seconds: int | None = None,
    ) -> bool:
        """Publish, unless the same work is queued or under way; returns whether it was.

        ``given_back``: the key goes when the task ends; otherwise only by its expiry.

        Raises:
            BrokerUnavailableError: and the key has been given back.
        """
        # Shorter than an interval: should the message be lost, the next sweep sends another, and
        # it may come by a little earlier in its course than this one.
        ttl = ttl_seconds or max(1, self._interval_seconds * 3 // 4)
        try:
            nonce = self._gate.enter(work, ttl, sweep_id)
        except redis.RedisError as error:
            raise BrokerUnavailableError(f"the broker cannot be reached: {error}") from error
        if nonce is None:
            self._metrics.increment("reconciler_duplicates_dropped_total", task=name)
            return False
        gate = header_of(work, nonce) if given_back else {}
        try:
            self._app.send_task(
                name,
                args=args,
                kwargs=dict(kwargs),
                task_id=attempt,
                headers={MESSAGE_HEADER: MESSAGE_VERSION, **gate},
                # Nobody waits for the result; else each publish would subscribe to it, and fail
                # when only the result backend is away.
                ignore_result=True,
            )
        except UNREACHABLE as error:
            self._give_back(work, nonce)
            raise BrokerUnavailableError(f"{name} could not be published: {error}") from error
        return True

    def _give_back(self, work: str, nonce: str) -> None:
        try:
            self._gate.leave(work, nonce)
        except redis.RedisError:
            return  # its expiry will

    def sweep(self) -> bool:
        """Ask for this interval's sweep; False when it has been asked for."""
        name = f"sweep:{bucket_of(self._interval_seconds)}"
        return self._publish(
            SWEEP, name, name, (), {}, given_back=False, ttl_seconds=2 * self._interval_seconds
        )

    def segment(self, cursor: SegmentCursor, coverage: Coverage, *, report: bool) -> bool:
        """Send a step of a segment."""
        full = coverage is Coverage.FULL
        place = f"{cursor.segment + 1}of{cursor.total}"
        sweep = cursor.sweep_id.rpartition(":")[2]
        work = f"sweep-{'segment' if full else 'active'}:{place}:{sweep}:{cursor.step}"
        kwargs = {"report": True} if report else {}
        name = SEGMENT if full else ACTIVE
        return self._publish(name, work, work, (asdict(cursor),), kwargs, sweep_id=cursor.sweep_id)

    def evaluate(self, orchestration_id: str, sweep_id: str, *, report: bool) -> bool:
        """Send an orchestration to be looked at closely."""
        kwargs: dict[str, Any] = {"sweep_id": sweep_id}
        if report:
            kwargs["report"] = True
        work = f"evaluate:{orchestration_id}"
        attempt = f"{work}:{bucket_of(self._interval_seconds)}"
        return self._publish(
            EVALUATE, work, attempt, (orchestration_id,), kwargs, sweep_id=sweep_id
        )

    def has_room(self, per_minute: int) -> bool:
        """Whether the releases that are queued will have been made in half an interval.

        Beyond that they would be sent again by the next sweep while they still wait, and hold up
        its end. It finds them again, the oldest first.
        """
        room = max(_LEAST_ROOM, per_minute * self._interval_seconds // 120)
        try:
            queued: Any = self._gate.client.llen(RELEASE_QUEUE)
        except redis.RedisError as error:
            raise BrokerUnavailableError(f"the broker cannot be reached: {error}") from error
        return int(queued) < room

    def release(self, request: ReleaseRequest) -> bool:
        """Send a child to be released."""
        kwargs: dict[str, Any] = {
            "sweep_id": request.sweep_id,
            "idempotency_key": request.idempotency_key,
        }
        if request.depends_on is not None:
            kwargs["depends_on"] = list(request.depends_on)
        if request.due_since is not None:
            kwargs["due_since"] = timestamp(request.due_since)
        work = f"release:{request.idempotency_key}"
        attempt = f"{work}:{bucket_of(self._interval_seconds)}"
        args = (request.orchestration_id, request.sub_issue_id)
        return self._publish(RELEASE, work, attempt, args, kwargs, sweep_id=request.sweep_id)


def enqueue_sweep(app: Celery, metrics: Metrics | None = None) -> bool:
    """Ask for this interval's sweep, from a process that is not a worker.

    Raises:
        BrokerUnavailableError: the broker cannot be reached.
    """
    settings = load_settings()
    client = broker_client(settings)
    counted = metrics_of(settings, client)
    enqueuer = Enqueuer(app, Gate(client), metrics or counted, settings.sweep_interval_seconds)
    try:
        return enqueuer.sweep()
    finally:
        counted.flush()
        client.close()


def submit_sweep(app: Celery, *, report: bool = False, full: bool = False) -> str:
    """Ask for a sweep now, by hand, whatever the interval; returns its id.

    ``full``: of the whole table. An older worker passes that over, and reads all of it anyway.

    Raises:
        BrokerUnavailableError: the broker cannot be reached.
    """
    sweep_id = f"sweep:by-hand-{int(time.time() * 1000)}"
    kwargs = {name: True for name, asked in (("report", report), ("full", full)) if asked}
    try:
        app.send_task(
            SWEEP,
            kwargs=kwargs,
            task_id=sweep_id,
            headers={MESSAGE_HEADER: MESSAGE_VERSION},
            ignore_result=True,
        )
    except UNREACHABLE as error:
        raise BrokerUnavailableError(f"the broker cannot be reached: {error}") from error
    return sweep_id
