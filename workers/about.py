"""A remote-control command that asks workers for version, queues, processes and tables."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from celery.worker.control import inspect_command

from reconciler.composition import aws_session
from reconciler.settings import Settings, load_settings
from reconciler.version import describe
from workers.names import SWEEP_QUEUE

COMMAND = "reconciler_about"
_version = cache(describe)


@inspect_command(name=COMMAND)
def reconciler_about(state: Any) -> dict[str, Any]:  # noqa: ANN401 - Celery's
    """Answer ``reconciler doctor``; read only."""
    consumer = state.consumer.task_consumer
    queues = sorted(queue.name for queue in consumer.queues) if consumer else []
    processes = getattr(state.consumer.pool, "num_processes", 1)
    about = {"version": _version(), "queues": queues, "processes": processes}
    return {**about, **whereabouts(load_settings())}


def whereabouts(settings: Settings) -> dict[str, Any]:
    """Return the tables, and the region and endpoint used for them."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_DYNAMODB") or os.environ.get("AWS_ENDPOINT_URL")
    region = aws_session().region_name
    return {"tables": settings.main_tables, "region": region, "endpoint": endpoint}


def ask_workers(app: Any, timeout_seconds: float) -> dict[str, dict[str, Any]]:  # noqa: ANN401
    """Ask every worker; worker name → answer (with ``error`` if it does not know the command).

    Raises whatever the transport raises.
    """
    answers = app.control.broadcast(COMMAND, reply=True, timeout=timeout_seconds) or []
    return {name: about for answer in answers for name, about in answer.items()}


def of_tables(said: dict[str, dict[str, Any]], tables: list[str]) -> dict[str, dict[str, Any]]:
    """Return the answers of workers of these tables; older versions do not name theirs."""
    return {name: about for name, about in said.items() if about.get("tables", tables) == tables}


def count_processes(app: Any, tables: list[str], timeout_seconds: float) -> int:  # noqa: ANN401
    """Return how many processes sweep these tables; only workers that answer in time count."""
    try:
        answers = of_tables(ask_workers(app, timeout_seconds), tables).values()
        sweeping = [answer for answer in answers if SWEEP_QUEUE in answer.get("queues", ())]
        return sum(int(answer.get("processes", 1)) for answer in sweeping)
    except Exception:  # noqa: BLE001 - of the transport or an answer; the number is only a hint
        return 0
