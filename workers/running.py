"""What surrounds each task: log context, limits, retries, and cleanup.

A failed task is shown as failed, with an error that says why. If there is merely nothing to do (a
lost race, a pause, a used-up budget), that is an outcome in the task's result.
"""

from __future__ import annotations

import contextlib
import inspect
import random
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import redis
import structlog
from celery import Task, signals
from celery.exceptions import Reject, SoftTimeLimitExceeded

from reconciler.errors import (
    CredentialsError,
    PermanentError,
    ReconcilerError,
    TemporaryError,
    UsageError,
    as_own_error,
    describe_error,
)
from workers.dedup import HEADER, from_headers
from workers.enqueue import UNREACHABLE, broker_reached
from workers.limits import (
    SOFT_TIME_LIMIT_SECONDS,
    TIME_LIMIT_SECONDS,
    WORKER_LOST_COUNTDOWN_SECONDS,
)
from workers.messages import MAX_RETRIES
from workers.names import MESSAGE_HEADER
from workers.resources import Resources, process_resources

T = TypeVar("T")
log = structlog.get_logger("reconciler")

MAX_ID_LENGTH = 2048
"""Bytes, as many as a key of a table can have. An id that is refused here would await its
evaluation for ever, and one that DynamoDB rejects would stay stuck for ever."""

MAX_CHILD_ID_LENGTH = 1024
"""Bytes; likewise, of a sort key."""

_MAX_LOGGED = 255

OPTIONS: dict[str, Any] = {
    "bind": True,
    # Acknowledge at the end, so that work of a lost worker is done again, up to three times.
    "acks_late": True,
    "max_retries": MAX_RETRIES,
    "default_retry_delay": WORKER_LOST_COUNTDOWN_SECONDS,
    "ignore_result": True,
    "time_limit": TIME_LIMIT_SECONDS,
    "soft_time_limit": SOFT_TIME_LIMIT_SECONDS,
    # Logged in one line, without a traceback, since they are not bugs.
    "throws": (ReconcilerError, SoftTimeLimitExceeded),
}


class MalformedMessageError(UsageError, kind="malformed_message"):
    """A message with invalid arguments, which its sender has to fix."""


class OutOfTimeError(PermanentError, kind="time_limit"):
    """A task used up its time; the next sweep tries again."""


_signature = cache(inspect.signature)


class ReconcilerTask(Task):  # type: ignore[type-arg]  # it takes none when it runs
    """A task that refuses invalid arguments with a clear message."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - Celery's
        """Run, if the arguments are valid.

        Fields added by a newer version are ignored (``workers.enqueue`` has the rule).
        """
        signature = _signature(self.run)
        if MESSAGE_HEADER in (self.request.headers or {}):
            kwargs = {name: value for name, value in kwargs.items() if name in signature.parameters}
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            resources = process_resources()
            resources.metrics.increment("reconciler_errors_total", kind=MalformedMessageError.kind)
            say_refused(str(error), task=self.name, message_id=self.request.id)
            resources.flusher.soon()
            raise MalformedMessageError(f"{self.name}: {error}") from None
        return self.run(*args, **kwargs)


def run(
    task: Task[..., Any],
    work: Callable[[Resources], T],
    gave_up: Callable[[Resources, ReconcilerError], None] = lambda *_: None,
    end: Callable[[Resources], None] = lambda _: None,
    **ids: object,
) -> T:
    """Do a task's work, with ``ids`` bound for the logs.

    A temporary failure is retried at most three times. ``gave_up`` is called once the task has
    failed for good, and completes its work item; not if the message was refused, which its sender
    has to fix. ``end`` is called in any case.

    Raises:
        Retry: it will be retried.
        Exception: it failed for good, and its work item is complete.
    """
    structlog.contextvars.clear_contextvars()
    known = {name: str(value)[:_MAX_LOGGED] for name, value in ids.items() if value is not None}
    structlog.contextvars.bind_contextvars(celery_task_id=task.request.id, **known)
    resources = process_resources()
    try:
        with broker_reached():
            done = work(resources)
            end(resources)
    except SoftTimeLimitExceeded:
        _give_up(resources, OutOfTimeError("it took longer than its time limit"), gave_up, end)
        raise
    except Exception as error:
        if isinstance(error, TemporaryError):
            _try_again(task, error)
        if isinstance(error, CredentialsError):
            # A client keeps its credentials for ever, so the next task creates a new one.
            resources.forget_clients()
        _give_up(resources, as_own_error(error), gave_up, end)
        raise
    else:
        return done
    finally:
        resources.flusher.soon()
        structlog.contextvars.clear_contextvars()


def _try_again(task: Task[..., Any], error: TemporaryError) -> None:
    """Raise a retry, unless there were enough or the broker does not take it."""
    if task.request.retries < MAX_RETRIES:
        pause = retry_pause(task.request.retries) * random.uniform(0.5, 1.0)  # noqa: S311
        # If publishing fails, Celery raises Reject, which would drop the message unrecorded.
        with contextlib.suppress(Reject, *UNREACHABLE):
            task.retry(exc=error, countdown=pause)


def retry_pause(retries: int) -> float:
    """Return the longest pause in seconds after so many retries."""
    return 2.0 ** (retries + 1)


def _give_up(
    resources: Resources,
    error: ReconcilerError,
    gave_up: Callable[[Resources, ReconcilerError], None],
    end: Callable[[Resources], None],
) -> None:
    try:
        if isinstance(error, UsageError):
            resources.metrics.increment("reconciler_errors_total", kind=error.kind)
            log.warning("orch.message.refused", error_kind=error.kind, detail=str(error))
        else:
            gave_up(resources, error)
        end(resources)
    except (redis.RedisError, ReconcilerError) as another:
        # The state cannot be written, or no clients can be created. The next sweep does it.
        log.debug("work item left to the next sweep", detail=describe_error(another))


def checked(name: str, value: object, most: int = MAX_ID_LENGTH) -> str:
    """Return ``value`` if it can be an id of at most so many bytes.

    Raises:
        MalformedMessageError: it cannot.
    """
    try:
        if isinstance(value, str) and 0 < len(value.encode()) <= most:
            return value
    except UnicodeEncodeError:
        pass  # a lone surrogate
    raise MalformedMessageError(f"{name} must be a string of 1 to {most} bytes, not {value!r:.80}")


def checked_child(value: object) -> str:
    """Return ``value`` if it can be the id of a child.

    Raises:
        MalformedMessageError: it cannot.
    """
    return checked("sub_issue_id", value, MAX_CHILD_ID_LENGTH)


def checked_sweep(value: object) -> str | None:
    """Return ``value`` if it can be a sweep's id, or None for work by hand.

    Raises:
        MalformedMessageError: it cannot.
    """
    return None if value is None else checked("sweep_id", value)


def say_refused(detail: str, kind: str = MalformedMessageError.kind, **about: str | None) -> None:
    """Log a dropped message."""
    known = {name: value for name, value in about.items() if value is not None}
    log.warning("orch.message.refused", error_kind=kind, detail=detail[:_MAX_LOGGED], **known)


def take_key(task: Task[..., Any]) -> tuple[str, str] | None:
    """Remove a task's dedup key from its headers; the caller must give the key back."""
    headers: Any = getattr(task.request, "headers", None)
    found = from_headers(headers)
    if found is not None:
        del headers[HEADER]
    return found


@signals.task_postrun.connect
def _give_back_key(task: Task[..., Any], state: str | None = None, **_: object) -> None:
    """Give back the dedup key of ended work, unless it will be retried."""
    found = take_key(task) if state != "RETRY" else None
    if found is not None:
        try:
            process_resources().dedup.give_back(*found)
        except redis.RedisError:
            log.debug("dedup key kept until it expires", key=found[0])
