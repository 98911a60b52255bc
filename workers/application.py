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
    """Celery's beat, without its banner where nobody looks at it, and one that can be stopped."""

    def __init__(self, *, quiet: bool = False, **options: Any) -> None:  # noqa: ANN401 - Celery's
        super().__init__(quiet=quiet or _in_a_pipe(), **options)

    def install_sync_handler(self, service: Service) -> None:
        """Have the scheduler made before it can be told to stop.

        Celery's handler closes the scheduler, and makes it for that where there is none: in the
        middle of its being made, of a module that is half imported (5.7.0: a traceback, code 1).
        """
        _ = service.scheduler
        super().install_sync_handler(service)


class Application(Celery):
    """The application. In a pipe every line of its processes is a log line (JSON)."""

    @property
    def Beat(self) -> Any:  # noqa: ANN401, N802 - Celery's name for it, and its own make of class
        """What `celery beat` runs."""
        return self.subclass_with_self(QuietBeat)

    def send_task(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - Celery's
        """Publish a task. For `celery call`, a broker that is away is one line and code 2."""
        command = click.get_current_context(silent=True)
        if command is None or command.info_name != "call":
            return super().send_task(*args, **options)
        # It prints the id and ends: to subscribe to the result, it would wait for the backend.
        options["ignore_result"] = True
        try:
            return super().send_task(*args, **options)
        except UNREACHABLE as error:
            sys.stderr.write(f"reconciler: the broker cannot be reached: {error}\n")
            raise SystemExit(2) from None


try:
    settings = load_settings()
except SettingsError as error:
    # An operator's mistake: one line that names it, and no traceback.
    sys.stderr.write(f"reconciler: {error}\n")
    raise SystemExit(2) from None

app = Application(
    "reconciler",
    config_source="celeryconfig",
    include=["workers.tasks", "workers.about", "workers.describe"],
)

# A broker that answers READONLY, NOREPLICAS, OOM and so on is an outage like any other. To kombu it
# is a mistake in the call, at which a worker exits with code 1 and a publish raises what is no
# OperationalError. To be removed once kombu counts these among the connection's errors.
_errors = redis_transport.Transport.connection_errors
if ResponseError not in _errors:
    redis_transport.Transport.connection_errors = (*_errors, ResponseError)


class _PassiveQoS(redis_transport.QoS):
    """What was delivered and not acknowledged, in a process that is no worker.

    Kombu has whoever waits for any message give these back to their queues. That is the workers'
    business (``workers.consumer``): Flower and the command line have no right to fill queues.
    """

    def restore_visible(self, *_: object, **__: object) -> None:
        """Leave them to the workers."""


redis_transport.Channel.QoS = _PassiveQoS
app.steps["worker"].add(HeartbeatStep)


@signals.setup_logging.connect
def _configure_logging(**_: Any) -> None:  # noqa: ANN401 - Celery's
    configure_logging(settings)


@signals.celeryd_init.connect
def _first_word(instance: Any = None, **_: Any) -> None:  # noqa: ANN401 - Celery's
    """Before a worker says anything: what it warns of as it starts is a line like any other."""
    configure_logging(settings)
    if _in_a_pipe():
        instance.quiet = True
        # What a signal's handler says goes past the logging, and past the banner's switch.
        celery_worker.safe_say = _say_in_one_line  # type: ignore[attr-defined] # not in its stub


def _say_in_one_line(said: str, _stream: object = None) -> None:
    """Write a log line by one system call: a handler of a signal may do no more."""
    line = json.dumps({"event": said.strip(), "level": "info", "timestamp": timestamp(utc_now())})
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"{line}\n".encode())
