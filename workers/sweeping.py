"""Runs sweeps on Celery workers."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import redis
from celery import Task

from reconciler.errors import TemporaryError
from reconciler.sweeping.state import SweepState
from reconciler.sweeping.sweeper import Sweeper
from workers.about import count_processes
from workers.application import app
from workers.broker_records import BrokerRecords
from workers.enqueue import Enqueuer
from workers.names import RELEASE_QUEUE, SWEEP_QUEUE
from workers.resources import Resources
from workers.running import take_key

STEP_SECONDS = 5.0
"""The length of a step: a killed worker loses at most this much reading."""

_MIN_PROCESSES = 8
"""Split a table for at least so many processes, since some may not answer in time."""

_ANSWER_SECONDS = 1.0


def state_of(resources: Resources, sweep_id: str | None, *, report: bool) -> SweepState:
    """Return the state of sweeps; a report by hand has its own."""
    settings = resources.settings
    by_hand = report and settings.repair_mode != "report"
    report_id = (sweep_id or "by-hand") if by_hand else None
    records = BrokerRecords(resources.client, settings.deployment_id, report_id, resources.outbox)
    return SweepState(records)


def sweeper_of(resources: Resources, sweep_id: str | None, *, report: bool) -> Sweeper:
    """Return the sweeper of this process."""
    state = state_of(resources, sweep_id, report=report)
    enqueuer = Enqueuer(app, resources.dedup, resources.metrics, resources.settings, report=report)
    return Sweeper(resources.reconciler, state, enqueuer, enqueuer, report=report)


def count_sweeping_processes(resources: Resources) -> int:
    """Return for how many processes to split a table."""
    tables = resources.settings.main_tables
    return max(_MIN_PROCESSES, count_processes(app, tables, _ANSWER_SECONDS))


def end_task(
    resources: Resources, task: Task[..., Any], sweep_id: str | None, *, report: bool
) -> None:
    """Give a task's key back and send the outbox; if the queues are empty, end finished sweeps.

    If the broker cannot be reached, the key expires, and the next ask ends them.
    """
    key = take_key(task)
    if key is not None:
        resources.dedup.give_back_with(resources.outbox, *key)
    with suppress(TemporaryError, redis.RedisError):
        # An empty list does not exist.
        resources.outbox.exists(SWEEP_QUEUE, RELEASE_QUEUE)
        if not resources.outbox.execute()[-1]:
            sweeper_of(resources, sweep_id, report=report).end_what_is_done()
