"""What surrounds each task: its context in the logs, its limits, its tries, and its end.

A task that fails is shown as failed, with an error that says why. Work that is merely not to be
done (a lost race, a pause, a budget) is an outcome in the result of the task.
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
from workers.enqueue import UNREACHABLE, BrokerUnavailableError
from workers.limits import (
    MAX_COUNTDOWN_SECONDS,
    SOFT_TIME_LIMIT_SECONDS,
    TIME_LIMIT_SECONDS,
    WORKER_LOST_COUNTDOWN_SECONDS,
)
from workers.messages import MAX_RETRIES
from workers.names import MESSAGE_HEADER
from workers.resources import Resources, process_resources

T = TypeVar("T")
log = structlog.get_logger("reconciler")

MAX_ID_LENGTH = 255

OPTIONS: dict[str, Any] = {
    "bind": True,
    # Acknowledged at its end: work that a lost worker had begun is done again, up to three times.
    "acks_late": True,
    "max_retries": MAX_RETRIES,
    "default_retry_delay": WORKER_LOST_COUNTDOWN_SECONDS,
    "ignore_result": True,
    "time_limit": TIME_LIMIT_SECONDS,
    "soft_time_limit": SOFT_TIME_LIMIT_SECONDS,
    # Logged in one line: they are about the tables or the call, and not about our code.
    "throws": (ReconcilerError, SoftTimeLimitExceeded),
}


class MalformedMessageError(UsageError):
    """A message with invalid arguments; whoever put it on the broker should look."""

    kind = "malformed_message"


class OutOfTimeError(PermanentError):
    """A task used up its time; the next sweep comes by again."""

    kind = "time_limit"


_signature = cache(inspect.signature)


class ReconcilerTask(Task):  # type: ignore[type-arg]  # it takes none when it runs
    """A task that refuses wrong arguments with a clear message."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - Celery's
        """Run, unless the arguments are not those of the task.

        Fields that a newer version of ours adds are ignored (``workers.enqueue`` has the rule).
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

    A temporary failure is tried again, three times at most. ``gave_up`` is called once, when the
    task has failed for good, and completes its work item. ``end``: what comes after either.

    Raises:
        Retry: it is tried again.
        Exception: it failed for good, and its work item is complete.
    """
    structlog.contextvars.clear_contextvars()
    known = {name: str(value)[:MAX_ID_LENGTH] for name, value in ids.items() if value is not None}
    structlog.contextvars.bind_contextvars(celery_task_id=task.request.id, **known)
    resources = process_resources()
    try:
        done = work(resources)
        end(resources)
    except SoftTimeLimitExceeded:
        _give_up(resources, OutOfTimeError("it took longer than its time limit"), gave_up, end)
        raise
    except redis.RedisError as error:
        lost = BrokerUnavailableError(f"the broker cannot be reached: {error}")
        _try_again(task, lost)
        _give_up(resources, lost, gave_up, end)
        raise lost from error
    except Exception as error:
        if isinstance(error, TemporaryError):
            _try_again(task, error)
        if isinstance(error, CredentialsError):
            # A client keeps the credentials that it was made with. The next task makes others.
            resources.forget_clients()
        _give_up(resources, as_own_error(error), gave_up, end)
        raise
    else:
        return done
    finally:
        resources.flusher.soon()
        structlog.contextvars.clear_contextvars()


def _try_again(task: Task[..., Any], error: TemporaryError) -> None:
    """Raise a retry, unless there have been enough, or the broker does not take it."""
    if task.request.retries < MAX_RETRIES:
        pause = retry_pause(task.request.retries) * random.uniform(0.5, 1.0)  # noqa: S311
        # Celery makes a Reject of what its publish raises, and would drop the message unrecorded.
        with contextlib.suppress(Reject, *UNREACHABLE):
            task.retry(exc=error, countdown=pause)


def retry_pause(retries: int) -> float:
    """Return the longest pause after so many tries, in seconds."""
    return min(2.0**retries * 2, MAX_COUNTDOWN_SECONDS)


def _give_up(
    resources: Resources,
    error: ReconcilerError,
    gave_up: Callable[[Resources, ReconcilerError], None],
    end: Callable[[Resources], None],
) -> None:
    if isinstance(error, UsageError):
        resources.metrics.increment("reconciler_errors_total", kind=error.kind)
        log.warning("orch.message.refused", error_kind=error.kind, detail=str(error))
    try:
        gave_up(resources, error)
        end(resources)
    except (redis.RedisError, ReconcilerError) as another:
        # The state of sweeps cannot be written, or no clients can be made. The next sweep has it.
        log.debug("work item left to the next sweep", detail=describe_error(another))


def checked(name: str, value: object) -> str:
    """Return ``value`` if it can be an id.

    Raises:
        MalformedMessageError: it cannot.
    """
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID_LENGTH:
        raise MalformedMessageError(
            f"{name} must be a string of 1 to {MAX_ID_LENGTH} characters, not {value!r:.80}"
        )
    return value


def checked_sweep(value: object) -> str | None:
    """Return a sweep's id if it can be one, or None for work that a person asked for.

    Raises:
        MalformedMessageError: it cannot.
    """
    return None if value is None else checked("sweep_id", value)


def say_refused(detail: str, kind: str = MalformedMessageError.kind, **about: str | None) -> None:
    """Log a message that was dropped."""
    known = {name: value for name, value in about.items() if value is not None}
    log.warning("orch.message.refused", error_kind=kind, detail=detail[:MAX_ID_LENGTH], **known)


def take_key(task: Task[..., Any]) -> tuple[str, str] | None:
    """Return the dedup key that a task bears, with its token; whoever asks gives it back."""
    headers: Any = getattr(task.request, "headers", None)
    found = from_headers(headers)
    if found is not None:
        del headers[HEADER]
    return found


@signals.task_postrun.connect
def _give_back_key(task: Task[..., Any], state: str | None = None, **_: object) -> None:
    """Give back the key of the work when it has ended, in any way but to be tried again."""
    found = take_key(task) if state != "RETRY" else None
    if found is not None:
        try:
            process_resources().dedup.give_back(*found)
        except redis.RedisError:
            log.debug("dedup key kept until it expires", key=found[0])
