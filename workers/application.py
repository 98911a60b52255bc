"""The Celery application: ``celery -A workers worker|beat|flower|call``."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import click
from celery import Celery, signals
from celery.apps import worker as celery_worker
from celery.apps.beat import Beat
from celery.beat import Service
from kombu.transport import redis as redis_transport
from redis.exceptions import ResponseError

from reconciler.clock import utc_now
from reconciler.domain.model import timestamp
from reconciler.errors import SettingsError
from reconciler.observability.logs import configure_logging
from reconciler.settings import load_settings
from workers.enqueue import UNREACHABLE
from workers.heartbeat import HeartbeatStep


def _in_a_pipe() -> bool:
    return not (sys.stdout and sys.stdout.isatty())


class QuietBeat(Beat):
    """Celery's beat, without its banner in a pipe, and stoppable at any time."""

    def __init__(self, *, quiet: bool = False, **options: Any) -> None:  # noqa: ANN401 - Celery's
        super().__init__(quiet=quiet or _in_a_pipe(), **options)

    def install_sync_handler(self, service: Service) -> None:
        """Create the scheduler before beat can be told to stop.

        Celery's handler closes the scheduler, and creates it if there is none. During its creation
        that fails on a half-imported module (5.7.0: a traceback, code 1).
        """
        _ = service.scheduler
        super().install_sync_handler(service)


class Application(Celery):
    """The application. In a pipe, every output line of its processes is a log line (JSON)."""

    @property
    def Beat(self) -> Any:  # noqa: ANN401, N802 - Celery's name
        """The class that `celery beat` runs."""
        return self.subclass_with_self(QuietBeat)

    def send_task(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - Celery's
        """Publish a task. In `celery call`, an unreachable broker gives one line and code 2."""
        command = click.get_current_context(silent=True)
        if command is None or command.info_name != "call":
            return super().send_task(*args, **options)
        # It only prints the id: subscribing to the result would wait for the backend.
        options["ignore_result"] = True
        try:
            return super().send_task(*args, **options)
        except UNREACHABLE as error:
            sys.stderr.write(f"reconciler: the broker cannot be reached: {error}\n")
            raise SystemExit(2) from None


try:
    settings = load_settings()
except SettingsError as error:
    # An operator's mistake: print one line, not a traceback.
    sys.stderr.write(f"reconciler: {error}\n")
    raise SystemExit(2) from None

app = Application(
    "reconciler",
    config_source="celeryconfig",
    include=["workers.tasks", "workers.about", "workers.describe"],
)

# A broker that answers READONLY, NOREPLICAS, OOM and so on is an outage like any other. Kombu takes
# that for a bug of the caller: a worker exits with code 1, and a publish does not raise an
# OperationalError. Remove this once kombu counts these among the connection errors.
_errors = redis_transport.Transport.connection_errors
if ResponseError not in _errors:
    redis_transport.Transport.connection_errors = (*_errors, ResponseError)


class _PassiveQoS(redis_transport.QoS):
    """Unacknowledged messages in a process that is not a worker.

    With kombu, every process that waits for a message also restores these to their queues. Only
    workers should (``workers.consumer``): Flower and the command line have no right to fill queues.
    """

    def restore_visible(self, *_: object, **__: object) -> None:
        """Leave it to the workers."""


redis_transport.Channel.QoS = _PassiveQoS
app.steps["worker"].add(HeartbeatStep)


@signals.setup_logging.connect
def _configure_logging(**_: Any) -> None:  # noqa: ANN401 - Celery's
    configure_logging(settings)


@signals.celeryd_init.connect
def _first_word(instance: Any = None, **_: Any) -> None:  # noqa: ANN401 - Celery's
    """Configure logging early, so that warnings at startup are log lines too."""
    configure_logging(settings)
    if _in_a_pipe():
        instance.quiet = True
        # Signal handlers bypass the logging and ``quiet``.
        celery_worker.safe_say = _say_in_one_line  # type: ignore[attr-defined] # not in its stub


def _say_in_one_line(said: str, _stream: object = None) -> None:
    """Write a log line in one system call, which is safe in a signal handler."""
    line = json.dumps({"event": said.strip(), "level": "info", "timestamp": timestamp(utc_now())})
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"{line}\n".encode())
