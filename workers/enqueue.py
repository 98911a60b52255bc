"""Putting work on the queues: under a readable, deterministic id, once.

The id names the attempt (it ends in the interval number) and the dedup key names the work. Celery
throws away an id that was revoked before, and shows it with its old result.

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
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from reconciler.domain.model import timestamp
from reconciler.errors import TemporaryError
from reconciler.observability.metrics import Metrics
from reconciler.repair.context import ReleaseRequest
from reconciler.settings import load_settings
from reconciler.sweeping.sender import SegmentTask
from workers.broker import broker_client, metrics_for
from workers.broker_records import broker_time
from workers.dedup import DedupKeys, header_of
from workers.names import (
    ASKS_PER_INTERVAL,
    BY_HAND_QUEUE,
    DEPLOYMENT_HEADER,
    EVALUATE,
    MESSAGE_HEADER,
    MESSAGE_VERSION,
    RELEASE,
    RELEASE_QUEUE,
    SEGMENT,
    SWEEP,
    SWEEP_QUEUE,
)

_MIN_ROOM = 10
_MAX_WORK = 400
_MAX_QUEUED = 1000
"""Messages. What is not asked for now is asked for later, the longest unread first."""

UNREACHABLE = (OperationalError, RuntimeError, OSError, redis.RedisError)
"""What a publish raises when the broker is away or stalls."""


class BrokerUnavailableError(TemporaryError):
    """The broker cannot be reached; nothing was enqueued."""

    kind = "broker_unavailable"


def interval_number(interval_seconds: float, at: float | None = None) -> int:
    """Return the number of the interval that ``at`` (epoch seconds; now) lies in."""
    return int((time.time() if at is None else at) // interval_seconds)


def ask_at(interval_seconds: float, at: float) -> tuple[str, int, float]:
    """Return a sweep's id, which of its asks is due, and when the next one is (epoch seconds).

    It is the sweep of the interval that ``at`` lies in.
    One ask for each interval would be too few: two lost messages would cost three intervals.
    """
    number = interval_number(interval_seconds, at)
    began, apart = number * interval_seconds, interval_seconds / ASKS_PER_INTERVAL
    ask = min(int((at - began) / apart), ASKS_PER_INTERVAL - 1)
    return f"sweep:{number}", ask, began + (ask + 1) * apart


def releases_between_asks(per_minute: int, interval_seconds: int) -> int:
    """Return how many releases a rate lets go between two asks; a few for the slowest one."""
    return max(_MIN_ROOM, per_minute * interval_seconds // (60 * ASKS_PER_INTERVAL))


class Enqueuer:
    """Publishes tasks of one application; the sender of ``Sweeper``.

    ``report``: what is sent changes nothing.
    """

    def __init__(
        self,
        app: Celery,
        dedup: DedupKeys,
        metrics: Metrics,
        interval_seconds: int,
        *,
        releases_per_minute: int = 600,
        report: bool = False,
    ) -> None:
        self._app = app
        self._dedup = dedup
        self._metrics = metrics
        self._interval_seconds = interval_seconds
        self._releases_per_minute = releases_per_minute
        self._report = {"report": True} if report else {}

    def _publish(
        self,
        name: str,
        work: str,
        attempt: str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        ttl_seconds: float,
        given_back: bool = True,
    ) -> bool:
        """Publish, unless the same work is queued or under way; returns whether it was.

        ``given_back``: the key goes when the task ends; otherwise only by its expiry.

        Raises:
            BrokerUnavailableError: and the key has been given back.
        """
        try:
            token = self._dedup.take(work, max(1, int(ttl_seconds)))
        except redis.RedisError as error:
            raise BrokerUnavailableError(f"the broker cannot be reached: {error}") from error
        if token is None:
            self._metrics.increment("reconciler_duplicates_dropped_total", task=name)
            return False
        key = header_of(work, token) if given_back else {}
        try:
            self._send(name, attempt, args, kwargs, key)
        except BrokerUnavailableError:
            self._give_back(work, token)
            raise
        return True

    def _send(
        self,
        name: str,
        attempt: str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        key: Mapping[str, Any],
    ) -> None:
        """Put a message on its queue; ``key``: the header that bears its dedup key.

        Raises:
            BrokerUnavailableError: the broker cannot be reached.
        """
        try:
            self._app.send_task(
                name,
                args=args,
                kwargs=dict(kwargs),
                task_id=attempt,
                headers={**_headers(self._dedup.deployment_id), **key},
                # Nobody waits for the result; else each publish would subscribe to it, and fail
                # when only the result backend is away.
                ignore_result=True,
            )
        except UNREACHABLE as error:
            raise BrokerUnavailableError(f"{name} could not be published: {error}") from error

    def _give_back(self, work: str, token: str) -> None:
        with suppress(redis.RedisError):  # its expiry will
            self._dedup.give_back(work, token)

    def sweep(self) -> float:
        """Ask for what this interval's sweep still lacks, unless another beat has just asked.

        Returns in how many seconds the next ask is due. The interval is that of the broker's
        clock, so all beats mean the same one, whatever their own clocks say.

        Raises:
            BrokerUnavailableError: the broker cannot be reached.
        """
        interval = self._interval_seconds
        try:
            now = broker_time(self._dedup.client)
        except redis.RedisError as error:
            raise BrokerUnavailableError(f"the broker cannot be reached: {error}") from error
        sweep_id, ask, following = ask_at(interval, now)
        attempt = f"{sweep_id}:{ask}" if ask else sweep_id
        self._publish(
            SWEEP,
            attempt,
            attempt,
            (),
            {"sweep_id": sweep_id, "by_hand": False},
            # Kept until the interval is over for every beat, however late its clock is.
            given_back=False,
            ttl_seconds=2 * interval,
        )
        return following - now

    def segment(self, task: SegmentTask) -> bool:
        """Send a step of a segment."""
        segment = task.segment
        work = f"sweep-segment:{segment.label}:{task.sweep_id.rpartition(':')[2]}:{task.step}"
        place = {
            "scope": segment.scope.value,
            "number": segment.number,
            "total": segment.total,
            "step": task.step,
        }
        kwargs = {"sweep_id": task.sweep_id, "since": task.since, **self._report}
        return self._publish(SEGMENT, work, work, (place,), kwargs, ttl_seconds=self._ask_seconds)

    def evaluate(self, orchestration_id: str, sweep_id: str, since: float) -> bool:
        """Send an orchestration to be evaluated."""
        kwargs = {"sweep_id": sweep_id, "since": since, **self._report}
        attempt = f"evaluate:{orchestration_id}:{interval_number(self._interval_seconds)}"
        # A report by hand must not take the place of an evaluation that may repair.
        work = f"evaluate:{orchestration_id}" + (f":{sweep_id}" if self._report else "")
        return self._publish(
            EVALUATE, work, attempt, (orchestration_id,), kwargs, ttl_seconds=self._ask_seconds
        )

    @property
    def _ask_seconds(self) -> float:
        """Should a message be lost, the next ask of the same interval sends another."""
        return 0.9 * self._interval_seconds / ASKS_PER_INTERVAL

    def room(self) -> int:
        """Return how many more segments and evaluations may be queued.

        Raises:
            BrokerUnavailableError: the broker cannot be reached.
        """
        return _MAX_QUEUED - self._length(SWEEP_QUEUE)

    def _length(self, queue: str) -> int:
        try:
            length: Any = self._dedup.client.llen(queue)
        except redis.RedisError as error:
            raise BrokerUnavailableError(f"the broker cannot be reached: {error}") from error
        return int(length)

    def room_for_releases(self, *, in_turn: bool) -> int:
        """Return how many more releases can be queued.

        As many as the rate lets go until the next ask, and as many again: that ask then finds the
        queue half full. What was found just now gets room up to that half only. So the queue never
        runs dry, and while there is a backlog the asks alone fill it, the oldest first.

        Raises:
            BrokerUnavailableError: the broker cannot be reached.
        """
        half = releases_between_asks(self._releases_per_minute, self._interval_seconds)
        queued = self._length(RELEASE_QUEUE)
        return 2 * half - queued if in_turn or queued < half else 0

    def release(self, requests: Sequence[ReleaseRequest]) -> None:
        """Send children to be released, but for those that are queued or under way.

        Raises:
            BrokerUnavailableError: some were not sent; their keys have been given back.
        """
        works = {f"release:{request.idempotency_key}": request for request in requests}
        # Shorter than an interval: should a message be lost, the next sweep sends another.
        ttl = max(1, int(0.75 * self._interval_seconds))
        try:
            tokens = self._dedup.take_all(works, ttl)
        except redis.RedisError as error:
            raise BrokerUnavailableError(f"the broker cannot be reached: {error}") from error
        for _ in range(len(works) - len(tokens)):
            self._metrics.increment("reconciler_duplicates_dropped_total", task=RELEASE)
        number = interval_number(self._interval_seconds)
        while tokens:
            work, token = next(iter(tokens.items()))
            args, kwargs = _release_arguments(works[work])
            try:
                self._send(RELEASE, f"{work}:{number}", args, kwargs, header_of(work, token))
            except BrokerUnavailableError:
                for left, its_token in tokens.items():
                    self._give_back(left, its_token)
                raise
            del tokens[work]


def _headers(deployment_id: str) -> dict[str, Any]:
    return {MESSAGE_HEADER: MESSAGE_VERSION, DEPLOYMENT_HEADER: deployment_id}


def _release_arguments(request: ReleaseRequest) -> tuple[tuple[str, str], dict[str, Any]]:
    kwargs: dict[str, Any] = {"sweep_id": request.sweep_id}
    if request.depends_on is not None:
        kwargs["depends_on"] = list(request.depends_on)
    if request.due_since is not None:
        kwargs["due_since"] = timestamp(request.due_since)
    if request.alone:
        kwargs["alone"] = True
    return (request.orchestration_id, request.sub_issue_id), kwargs


def ask_for_sweep(app: Celery) -> float:
    """Ask for this interval's sweep, from a process that is not a worker.

    Returns in how many seconds the next ask is due.

    Raises:
        BrokerUnavailableError: the broker cannot be reached.
    """
    settings = load_settings()
    client = broker_client(settings)
    metrics = metrics_for(settings, client)
    try:
        dedup = DedupKeys(client, settings.deployment_id)
        return Enqueuer(app, dedup, metrics, settings.sweep_interval_seconds).sweep()
    finally:
        metrics.flush()
        client.close()


def submit_sweep(
    app: Celery, *, report: bool = False, full: bool = False, sweep_id: str | None = None
) -> str:
    """Ask for a sweep now, by hand, whatever the interval; returns its id.

    ``full``: of the whole table. ``sweep_id``: ask again for what that sweep still lacks.

    Raises:
        BrokerUnavailableError: the broker cannot be reached.
    """
    attempt = f"sweep:by-hand-{int(time.time() * 1000)}"
    sweep_id = sweep_id or attempt
    kwargs: dict[str, Any] = {"sweep_id": sweep_id, **({"report": True} if report else {})}
    if full:
        kwargs["full"] = True
    _send_by_hand(app, SWEEP, attempt, kwargs=kwargs)
    return sweep_id


def submit(app: Celery, name: str, work: str, *args: str) -> str:
    """Send a task that a person waits for, ahead of what sweeps have queued; returns its id.

    ``work``: what the task is about, as its id shows it, such as ``evaluate:<orchestration>``.

    Raises:
        BrokerUnavailableError: the broker cannot be reached.
    """
    # Ids of our own are far shorter. A message with a longer id would be refused.
    attempt = f"{work[:_MAX_WORK]}:by-hand-{int(time.time() * 1000)}"
    _send_by_hand(app, name, attempt, args=args, queue=BY_HAND_QUEUE)
    return attempt


def _send_by_hand(app: Celery, name: str, attempt: str, **options: Any) -> None:  # noqa: ANN401
    headers = _headers(load_settings().deployment_id)
    try:
        app.send_task(name, task_id=attempt, headers=headers, ignore_result=True, **options)
    except UNREACHABLE as error:
        raise BrokerUnavailableError(f"the broker cannot be reached: {error}") from error
