"""Puts work on the queues once, under a readable, deterministic task id.

The dedup key names the work. The task id names the attempt and ends in the interval number, because
Celery discards an id that was revoked before.

During a rolling deployment, old workers get messages of the new version and new workers those of
the old one. So the arguments of a message change only by these rules:

- A new field is optional, and safe to leave out: older workers ignore it if the message has our
  header, and newer workers get messages without it.
- A field that must not be ignored (such as ``report``, which keeps a sweep from writing) comes with
  a new task name. Older workers drop and count unknown tasks; the next sweep of a newer worker
  finds the work again.
- A field is removed one version after the last one that reads it.

A message without our header was sent by hand. Unknown arguments in it are refused: a misspelt
``report`` must not repair anything. ``tests/data/messages`` has the messages of each version.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from reconciler.domain.model import timestamp
from reconciler.errors import TemporaryError
from reconciler.observability.metrics import Metrics
from reconciler.repair.context import ReleaseRequest
from reconciler.settings import Settings, load_settings
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
"""Characters of what a task is about in its id: a worker refuses an id of more than 510."""

_MAX_QUEUED = 1000
"""Messages. Later asks send the rest, the longest unread first."""

Message = tuple[str, tuple[Any, ...], dict[str, Any]]
"""The attempt that the task's id names, and the arguments."""

UNREACHABLE = (OperationalError, RuntimeError, OSError, redis.RedisError)
"""Raised by a publish when the broker is away or stalls."""


class BrokerUnavailableError(TemporaryError, kind="broker_unavailable"):
    """The broker cannot be reached; nothing was enqueued."""


@contextmanager
def broker_reached() -> Iterator[None]:
    """Raise ``BrokerUnavailableError`` if a command in the block fails."""
    try:
        yield
    except redis.RedisError as error:
        raise BrokerUnavailableError(f"the broker cannot be reached: {error}") from error


def ask_at(interval_seconds: float, at: float) -> tuple[str, int, float]:
    """Return the id of the sweep at ``at``, the number of its ask, and when the next ask is due.

    Times are epoch seconds. A sweep is asked for several times in its interval: with one ask, two
    lost messages would cost three intervals.
    """
    number = int(at // interval_seconds)
    began, apart = number * interval_seconds, interval_seconds / ASKS_PER_INTERVAL
    ask = min(int((at - began) / apart), ASKS_PER_INTERVAL - 1)
    return f"sweep:{number}", ask, began + (ask + 1) * apart


def releases_between_asks(per_minute: int, interval_seconds: int) -> int:
    """Return how many releases a rate allows between two asks, at least a few."""
    return max(_MIN_ROOM, per_minute * interval_seconds // (60 * ASKS_PER_INTERVAL))


class Enqueuer:
    """Publishes tasks; the sender of ``Sweeper``.

    ``report``: the tasks change nothing in the tables.
    """

    def __init__(
        self,
        app: Celery,
        dedup: DedupKeys,
        metrics: Metrics,
        settings: Settings,
        *,
        report: bool = False,
    ) -> None:
        self._app = app
        self._dedup = dedup
        self._metrics = metrics
        self._settings = settings
        self._interval_seconds = settings.sweep_interval_seconds
        self._report = {"report": True} if report else {}

    def _publish(
        self,
        name: str,
        messages: Mapping[str, Message],
        ttl_seconds: float,
        *,
        given_back: bool = True,
    ) -> bool:
        """Publish each message whose work is not queued or under way; returns whether any was.

        ``messages``: by the work that they are about. ``given_back``: the task gives the dedup key
        back when it ends; otherwise the key expires.

        Raises:
            BrokerUnavailableError: some were not published; their keys have been given back.
        """
        with broker_reached():
            tokens = self._dedup.take(messages, max(1, int(ttl_seconds)))
        for _ in range(len(messages) - len(tokens)):
            self._metrics.increment("reconciler_duplicates_dropped_total", task=name)
        unsent = dict(tokens)
        try:
            for work, token in tokens.items():
                attempt, args, kwargs = messages[work]
                key = header_of(work, token) if given_back else {}
                self._app.send_task(
                    name,
                    args=args,
                    kwargs=kwargs,
                    task_id=_task_id(attempt),
                    headers={**_headers(self._settings.deployment_id), **key},
                    # Nobody waits for the result. Otherwise each publish would subscribe to it, and
                    # fail if only the result backend is away.
                    ignore_result=True,
                )
                del unsent[work]
        except UNREACHABLE as error:
            with suppress(redis.RedisError):  # they expire
                for work, token in unsent.items():
                    self._dedup.give_back(work, token)
            raise BrokerUnavailableError(f"{name} could not be published: {error}") from error
        return bool(tokens)

    def sweep(self) -> float:
        """Ask for the rest of this interval's sweep, unless another beat has just asked.

        Returns in how many seconds the next ask is due. The broker's clock defines the interval, so
        all beats agree on it, whatever their own clocks say.

        Raises:
            BrokerUnavailableError: the broker cannot be reached.
        """
        interval = self._interval_seconds
        with broker_reached():
            now = broker_time(self._dedup.client)
        sweep_id, ask, following = ask_at(interval, now)
        attempt = f"{sweep_id}:{ask}" if ask else sweep_id
        message = (attempt, (), {"sweep_id": sweep_id, "by_hand": False})
        # The key is kept until the interval is over for every beat.
        self._publish(SWEEP, {attempt: message}, 2 * interval, given_back=False)
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
        return self._publish(SEGMENT, {work: (work, (place,), kwargs)}, self._ask_seconds)

    def evaluate(self, orchestration_id: str, sweep_id: str, since: float) -> bool:
        """Send an orchestration to be evaluated."""
        kwargs = {"sweep_id": sweep_id, "since": since, **self._report}
        attempt = f"evaluate:{orchestration_id}:{self._interval_number()}"
        # A report by hand must not take the place of an evaluation that may repair.
        work = f"evaluate:{orchestration_id}" + (f":{sweep_id}" if self._report else "")
        message = (attempt, (orchestration_id,), kwargs)
        return self._publish(EVALUATE, {work: message}, self._ask_seconds)

    def _interval_number(self) -> int:
        return int(time.time() // self._interval_seconds)

    @property
    def _ask_seconds(self) -> float:
        """Shorter than the time between asks: the next ask replaces a lost message."""
        return 0.9 * self._interval_seconds / ASKS_PER_INTERVAL

    def room(self) -> int:
        """Return how many more segments and evaluations may be queued.

        Raises:
            BrokerUnavailableError: the broker cannot be reached.
        """
        return _MAX_QUEUED - self._length(SWEEP_QUEUE)

    def _length(self, queue: str) -> int:
        with broker_reached():
            length: Any = self._dedup.client.llen(queue)
        return int(length)

    def room_for_releases(self, *, in_turn: bool) -> int:
        """Return how many more releases can be queued.

        The queue holds twice as many releases as the rate allows between two asks, so that the next
        ask finds it half full. Releases that were found just now may fill only the first half. So
        the queue never runs dry, and with a backlog only the asks fill it, the oldest first.

        Raises:
            BrokerUnavailableError: the broker cannot be reached.
        """
        per_minute = self._settings.release_rate_per_minute
        half = releases_between_asks(per_minute, self._interval_seconds)
        queued = self._length(RELEASE_QUEUE)
        return 2 * half - queued if in_turn or queued < half else 0

    def release(self, requests: Sequence[ReleaseRequest]) -> None:
        """Send children to be released, except those that are queued or under way.

        Raises:
            BrokerUnavailableError: some were not sent; their keys have been given back.
        """
        number = self._interval_number()
        messages = {}
        for request in requests:
            work = f"release:{request.idempotency_key}"
            messages[work] = (f"{work}:{number}", *_release_arguments(request))
        # Shorter than an interval, so that the next sweep replaces a lost message.
        self._publish(RELEASE, messages, 0.75 * self._interval_seconds)


def _task_id(attempt: str) -> str:
    """Return the id of an attempt, which may be about rows with the longest keys of a table."""
    if len(attempt) <= _MAX_WORK:
        return attempt
    return f"{attempt[:_MAX_WORK]}:{hashlib.sha256(attempt.encode()).hexdigest()}"


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
    """Ask for this interval's sweep from a process other than a worker.

    Returns in how many seconds the next ask is due.

    Raises:
        BrokerUnavailableError: the broker cannot be reached.
    """
    settings = load_settings()
    with broker_client(settings) as client:
        metrics = metrics_for(settings, client)
        dedup = DedupKeys(client, settings.deployment_id)
        try:
            return Enqueuer(app, dedup, metrics, settings).sweep()
        finally:
            metrics.flush()


def submit_sweep(
    app: Celery, *, report: bool = False, full: bool = False, sweep_id: str | None = None
) -> str:
    """Ask for a sweep now, by hand; returns its id.

    ``full``: of the whole table. ``sweep_id``: ask for the rest of that sweep.

    Raises:
        BrokerUnavailableError: the broker cannot be reached.
    """
    attempt = f"sweep:by-hand-{int(time.time() * 1000)}"
    sweep_id = sweep_id or attempt
    options = {"report": report, "full": full}
    kwargs = {"sweep_id": sweep_id, **{name: True for name, given in options.items() if given}}
    _send_by_hand(app, SWEEP, attempt, kwargs=kwargs)
    return sweep_id


def submit(app: Celery, name: str, work: str, *args: str) -> str:
    """Send a task that a person waits for, ahead of the sweeps' tasks; returns its id.

    ``work``: names the work in the id, such as ``evaluate:<orchestration>``.

    Raises:
        BrokerUnavailableError: the broker cannot be reached.
    """
    attempt = f"{work[:_MAX_WORK]}:by-hand-{int(time.time() * 1000)}"
    _send_by_hand(app, name, attempt, args=args, queue=BY_HAND_QUEUE)
    return attempt


def _send_by_hand(app: Celery, name: str, attempt: str, **options: Any) -> None:  # noqa: ANN401
    headers = _headers(load_settings().deployment_id)
    try:
        app.send_task(name, task_id=attempt, headers=headers, ignore_result=True, **options)
    except UNREACHABLE as error:
        raise BrokerUnavailableError(f"the broker cannot be reached: {error}") from error
