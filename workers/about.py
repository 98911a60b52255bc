"""What a worker says of itself when it is asked: its version, and the queues that it serves."""

from __future__ import annotations

from functools import cache
from typing import Any

from celery.worker.control import inspect_command

from reconciler.version import describe

COMMAND = "reconciler_about"
_version = cache(describe)


@inspect_command(name=COMMAND)
def reconciler_about(state: Any) -> dict[str, Any]:  # noqa: ANN401 - Celery's
    """Answer ``reconciler doctor``; read only."""
    consumer = state.consumer.task_consumer
    queues = sorted(queue.name for queue in consumer.queues) if consumer else []
    return {"version": _version(), "queues": queues}


def ask_workers(app: Any, timeout_seconds: float) -> dict[str, dict[str, Any]]:  # noqa: ANN401
    """Ask every worker; name → what it said (``error`` from one that does not know the question).

    Raises whatever the transport raises.
    """
    answers = app.control.broadcast(COMMAND, reply=True, timeout=timeout_seconds) or []
    return {name: said for answer in answers for name, said in answer.items()}
