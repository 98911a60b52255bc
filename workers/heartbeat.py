"""A worker's heartbeat, written by its event loop, so that it stops if the loop hangs."""

from __future__ import annotations

from typing import Any

import structlog
from celery import bootsteps

from reconciler.observability.heartbeat import BEAT_SECONDS, beat

log = structlog.get_logger("reconciler")


class Pulse:
    """Beats, and logs once if it cannot: that breaks only the probe, not the work."""

    def __init__(self) -> None:
        self._failed = False

    def beat(self) -> None:
        """Write that this process is alive."""
        try:
            beat()
        except OSError as error:
            if not self._failed:
                self._failed = True
                log.warning("orch.heartbeat.unwritten", detail=str(error))


class HeartbeatStep(bootsteps.StartStopStep):
    """Beats on the timer of the worker's event loop."""

    requires = ("celery.worker.components:Timer",)

    def __init__(self, worker: Any, **options: Any) -> None:  # noqa: ANN401 - Celery's
        super().__init__(worker, **options)
        self._pulse = Pulse()
        self._entry: Any = None

    def start(self, worker: Any) -> None:  # noqa: ANN401 - Celery's
        """Start with the event loop."""
        self._pulse.beat()
        self._entry = worker.timer.call_repeatedly(BEAT_SECONDS, self._pulse.beat)

    def stop(self, worker: Any) -> None:  # noqa: ANN401, ARG002 - Celery's
        """Stop; the process removes its file when it exits."""
        if self._entry is not None:
            self._entry.cancel()
