"""When messages are sent and tasks begin, as the broker sees it (``MONITOR``).

Celery's publishes and its task events are commands to the broker. So the workers need no change,
and what a killed worker sent is not lost.
"""

from __future__ import annotations

import base64
import json
import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

import redis

from workers.names import RELEASE_QUEUE, SWEEP_QUEUE

_PUBLISHED = tuple(f"LPUSH {queue} " for queue in (SWEEP_QUEUE, RELEASE_QUEUE))
_TASK_ID = re.compile(r'"id": "([^"]+)"')
_BODY = re.compile(r'"body": "([A-Za-z0-9+/=]+)"')
_END = "end of the benchmark"
_PATIENCE_SECONDS = 60.0


class MessageTimes:
    """Times in epoch seconds, by work: a task id without the number of the attempt."""

    def __init__(self) -> None:
        self._sent: dict[str, list[float]] = defaultdict(list)
        self._begun: dict[str, list[float]] = defaultdict(list)

    def last_sent(self, work: str, until: float) -> float | None:
        """Return when the last message for ``work`` before ``until`` was sent."""
        return _last(self._sent, work, until)

    def last_begun(self, work: str, until: float) -> float | None:
        """Return when the last task for ``work`` before ``until`` began."""
        return _last(self._begun, work, until)

    def take(self, command: str, at: float) -> None:
        """Record a command to the broker."""
        if command.startswith(_PUBLISHED):
            found = _TASK_ID.search(command)
            if found is not None:
                self._sent[_work_of(found[1])].append(at)
        elif command.startswith("PUBLISH ") and "celeryev" in command:
            body = _BODY.search(command)
            for event in _events(json.loads(base64.b64decode(body[1]))) if body else ():
                if event.get("type") == "task-started":
                    self._begun[_work_of(event["uuid"])].append(event["timestamp"])


def _work_of(task_id: str) -> str:
    return task_id.rpartition(":")[0]


def _events(body: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - JSON
    return body if isinstance(body, list) else [body]


def _last(times: Mapping[str, list[float]], work: str, until: float) -> float | None:
    found = sorted(times.get(work, ()))
    place = bisect_right(found, until)
    return found[place - 1] if place else None


@contextmanager
def message_times(broker: str) -> Iterator[MessageTimes]:
    """Record all commands from now on; the record is complete when the block has ended.

    Raises:
        RuntimeError: the broker could not be followed to the end.
    """
    times, watching, ended = MessageTimes(), Event(), Event()

    def watch() -> None:
        with redis.Redis.from_url(f"{broker}/0") as client, client.monitor() as monitor:
            watching.set()
            for command in monitor.listen():
                if command["command"] == f"ECHO {_END}":
                    ended.set()
                    return
                times.take(command["command"], command["time"])

    Thread(target=watch, name="monitor", daemon=True).start()
    if not watching.wait(_PATIENCE_SECONDS):
        raise RuntimeError("the broker cannot be watched")
    yield times
    with redis.Redis.from_url(f"{broker}/0") as client:
        client.echo(_END)
    if not ended.wait(_PATIENCE_SECONDS):
        raise RuntimeError("the broker was not followed to the end")
