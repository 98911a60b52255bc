"""Sweeps on Celery workers: what ``reconciler.sweeping`` asks for becomes messages."""

from __future__ import annotations

from contextlib import suppress

import redis

from reconciler.errors import TemporaryError
from reconciler.operations.context import ReleaseRequest
from reconciler.sweeping.state import SweepState
from reconciler.sweeping.sweeper import SegmentTask, Sweeper
from workers.about import count_processes
from workers.application import app
from workers.broker_records import records_of
from workers.enqueue import Enqueuer
from workers.resources import Resources

STEP_SECONDS = 5.0
"""A worker that is killed loses at most this much reading of a segment."""

_MIN_PROCESSES = 8
"""For how many processes a table is split at least: some may not have answered in time."""

_ANSWER_SECONDS = 1.0
_MAX_QUEUED = 1000
"""Messages. What is not asked for now is asked for later, the longest unread first."""


class Messages:
    """Sends work to the queues; the sender of ``Sweeper``."""

    def __init__(self, resources: Resources, *, report: bool) -> None:
        self._report = report
        self._per_minute = resources.settings.release_rate_per_minute
        self._enqueuer = Enqueuer(
            app, resources.gate, resources.metrics, resources.settings.sweep_interval_seconds
        )

    def room(self) -> int:
        """Return how many more messages may be put on the queue."""
        return _MAX_QUEUED - self._enqueuer.count_queued()

    def segment(self, task: SegmentTask) -> None:
        """Send a step of a segment."""
        self._enqueuer.segment(task, report=self._report)

    def evaluate(self, orchestration_id: str, sweep_id: str, since: float) -> None:
        """Send an orchestration to be evaluated."""
        self._enqueuer.evaluate(orchestration_id, sweep_id, since, report=self._report)

    def are_done(self) -> bool:
        """Whether nothing is queued."""
        return self._enqueuer.is_idle()

    def has_room_for_releases(self) -> bool:
        """Whether the releases that are queued will have been made in half an interval."""
        return self._enqueuer.has_room(self._per_minute)

    def release(self, request: ReleaseRequest) -> None:
        """Send a child to be released."""
        self._enqueuer.release(request)


def state_of(resources: Resources, sweep_id: str | None, *, report: bool) -> SweepState:
    """Return the state of sweeps; that of a report by hand is its own."""
    by_hand = report and resources.settings.repair_mode != "report"
    return SweepState(records_of(resources.client, sweep_id if by_hand else None))


def sweeper_of(resources: Resources, sweep_id: str | None, *, report: bool) -> Sweeper:
    """Return what sweeps for this process."""
    state = state_of(resources, sweep_id, report=report)
    return Sweeper(resources.reconciler, state, Messages(resources, report=report), report=report)


def count_sweeping_processes() -> int:
    """Return for how many processes a table should be split."""
    return max(_MIN_PROCESSES, count_processes(app, _ANSWER_SECONDS))


def end_if_idle(resources: Resources, sweeper: Sweeper) -> None:
    """End what is done, where nothing is queued: most tasks have others behind them.

    If the broker cannot be reached, the next ask does it.
    """
    with suppress(TemporaryError, redis.RedisError):
        if Messages(resources, report=False).are_done():
            sweeper.end_what_is_done()
