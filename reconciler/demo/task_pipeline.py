"""The platform's task pipeline, simulated: tasks are admitted, hydrated, run, and end.

``invoke`` stands for the orchestrator function; ``step`` moves every invoked task that is due. As
on the platform, nothing starts a task that was never invoked, a second run fails the task, and
there is only one run for each name.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from random import Random
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from reconciler.clock import Clock
from reconciler.demo.shapes import Outcome
from reconciler.demo.writes import conditional_set, lost_condition
from reconciler.domain.model import TERMINAL_TASK, timestamp
from reconciler.embedded.loopback import Answer, Request, answering
from reconciler.settings import Settings
from reconciler.stores.items import text

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

FUNCTION_ARN = "arn:aws:lambda:us-east-1:000000000000:function:demo-orchestrator:live"

Invoke = Callable[[str, str | None], None]
"""Takes a task's id, and the name of its execution, if any."""


def pipeline_endpoint(invoke: Invoke) -> AbstractContextManager[str]:
    """Serve Lambda's Invoke on loopback during the block; yields the endpoint URL."""

    def answer(request: Request) -> Answer:
        if request.headers.get("X-Amz-Invocation-Type") == "DryRun":
            return Answer(HTTPStatus.NO_CONTENT)
        try:
            task_id = json.loads(request.body)["task_id"]
        except (ValueError, KeyError, TypeError):
            return Answer(HTTPStatus.BAD_REQUEST)
        invoke(task_id, request.headers.get("X-Amz-Durable-Execution-Name"))
        return Answer(HTTPStatus.ACCEPTED)

    return answering(answer)


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a task has each status: uniform ranges in seconds."""

    submitted: tuple[float, float] = (0.2, 0.6)
    hydrating: tuple[float, float] = (0.3, 0.8)
    running: tuple[float, float] = (1.5, 4.0)


_AT_ONCE = (0.0, 0.0)
INSTANT = Pace(_AT_ONCE, _AT_ONCE, _AT_ONCE)
"""No step takes any time, for tests that move the clock themselves."""


class TaskPipeline:
    """Moves invoked tasks through their statuses in TaskTable.

    ``outcomes``: (orchestration id, sub-issue id) → how its task ends; the default is COMPLETED.
    Durations depend on the idempotency key, not on the order of events. ``invoke`` is thread-safe,
    ``step`` is for one thread.
    """

    def __init__(
        self,
        client: DynamoDBClient,
        settings: Settings,
        clock: Clock,
        *,
        seed: int = 0,
        pace: Pace = INSTANT,
    ) -> None:
        self._client = client
        self._settings = settings
        self._clock = clock
        self._seed = seed
        self._pace = pace
        self.outcomes: dict[tuple[str, str], Outcome] = {}
        self._lock = threading.Lock()
        self._invoked: list[str] = []
        self._names: set[str] = set()
        self._runs: dict[str, tuple[str, datetime]] = {}
        """Task id → its status, and when it leaves it."""

    def invoke(self, task_id: str, name: str | None = None) -> None:
        """Start a run of a task, unless one was started under the same ``name``."""
        with self._lock:
            if name is None or name not in self._names:
                self._invoked.append(task_id)
            if name is not None:
                self._names.add(name)

    @property
    def idle(self) -> bool:
        """Whether no task is running or invoked."""
        with self._lock:
            return not self._invoked and not self._runs

    def step(self) -> int:
        """Move every due task by one status; return how many moved."""
        with self._lock:
            invoked, self._invoked = self._invoked, []
        for task_id in invoked:
            self._start(task_id)
        now = self._clock()
        due = [task_id for task_id, (_, leaves_at) in self._runs.items() if leaves_at <= now]
        for task_id in due:
            self._advance(task_id, now)
        return len(due)

    # -- steps

    def _start(self, task_id: str) -> None:
        """Begin a run; a second one fails the task."""
        item = self._read(task_id)
        status = text(item, "status") if item is not None else None
        if item is None or status is None or status in TERMINAL_TASK:
            return
        if task_id in self._runs or status != "SUBMITTED":
            self._runs.pop(task_id, None)
            self._end(task_id, item, Outcome.FAILED, status, self._clock(), "it was started twice")
            return
        self._runs[task_id] = (status, self._clock() + self._seconds(item, status))

    def _advance(self, task_id: str, now: datetime) -> None:
        status, _ = self._runs.pop(task_id)
        item = self._read(task_id)
        if item is None or text(item, "status") != status:
            return  # somebody else ended it, for example a user's cancellation
        if status == "SUBMITTED":
            self._admit(task_id, item, now)
        elif status == "HYDRATING":
            self._enter(task_id, item, status, "RUNNING", now)
        else:
            self._end(task_id, item, self._outcome(item), status, now)

    def _admit(self, task_id: str, item: Mapping[str, Any], now: datetime) -> None:
        """Take one of the user's slots; without one, fail the task."""
        user = text(item, "user_id") or ""
        cap = self._settings.max_concurrent_tasks_per_user
        below = {
            "ConditionExpression": "attribute_not_exists(active_count) OR active_count < :cap",
            "ExpressionAttributeValues": {":by": {"N": "1"}, ":cap": {"N": str(cap)}},
        }
        try:
            self._count_running(user, **below)
        except ClientError as error:
            if not lost_condition(error):
                raise
            said = {"error_message": {"S": f"{user} is at the limit of {cap} running tasks"}}
            self._write(task_id, "SUBMITTED", "FAILED", now, said)
            return
        self._enter(task_id, item, "SUBMITTED", "HYDRATING", now)

    def _enter(
        self, task_id: str, item: Mapping[str, Any], before: str, status: str, now: datetime
    ) -> None:
        if self._write(task_id, before, status, now):
            self._runs[task_id] = (status, now + self._seconds(item, status))

    def _end(
        self,
        task_id: str,
        item: Mapping[str, Any],
        outcome: Outcome,
        before: str,
        now: datetime,
        error: str | None = None,
    ) -> None:
        extra: dict[str, Any] = {"completed_at": {"S": timestamp(now)}}
        if outcome.task_status == "COMPLETED":
            extra["build_passed"] = {"BOOL": outcome is Outcome.COMPLETED}
            repo = text(item, "repo") or ""
            extra["pr_url"] = {"S": f"https://github.com/{repo}/pull/{task_id[-6:].lower()}"}
        else:
            said = error or f"the task ended as {outcome.task_status}"
            extra["error_message"] = {"S": said}
        ended = self._write(task_id, before, outcome.task_status, now, extra)
        if ended and before in {"HYDRATING", "RUNNING"}:
            less = {":by": {"N": "-1"}}
            self._count_running(text(item, "user_id") or "", ExpressionAttributeValues=less)

    def _count_running(self, user: str, **request: Any) -> None:  # noqa: ANN401 - boto3's
        """Add ``:by`` to the number of a user's running tasks, if there is a table for it."""
        table = self._settings.user_concurrency_table_name
        if table is not None:
            self._client.update_item(
                TableName=table,
                Key={"user_id": {"S": user}},
                UpdateExpression="ADD active_count :by",
                **request,
            )

    # -- helpers

    def _write(
        self,
        task_id: str,
        before: str,
        status: str,
        now: datetime,
        extra: Mapping[str, Any] | None = None,
    ) -> bool:
        """Set the status if it still is ``before``; returns whether it was."""
        at = timestamp(now)
        values = {
            "status": status,
            "status_created_at": f"{status}#{at}",
            "updated_at": at,
            **(extra or {}),
        }
        return conditional_set(
            self._client,
            self._settings.task_table_name,
            {"task_id": task_id},
            values,
            "#status = :before",
            {"before": before},
        )

    def _read(self, task_id: str) -> Mapping[str, Any] | None:
        page = self._client.get_item(
            TableName=self._settings.task_table_name,
            Key={"task_id": {"S": task_id}},
            ConsistentRead=True,
        )
        return page.get("Item")

    def _outcome(self, item: Mapping[str, Any]) -> Outcome:
        metadata = item.get("channel_metadata", {}).get("M", {})
        orchestration = text(metadata, "orchestration_id") or ""
        child = text(metadata, "orchestration_sub_issue_id") or ""
        return self.outcomes.get((orchestration, child), Outcome.COMPLETED)

    def _seconds(self, item: Mapping[str, Any], status: str) -> timedelta:
        stage = status.lower()
        key = text(item, "idempotency_key") or text(item, "task_id") or ""
        drawn = Random(f"{self._seed}/{key}/{stage}")
        return timedelta(seconds=drawn.uniform(*getattr(self._pace, stage)))
