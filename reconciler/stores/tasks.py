"""TaskTable and TaskEventsTable: reads tasks in batches, creates tasks and events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from reconciler.domain.identity import event_id_for
from reconciler.domain.model import (
    LONG_AGO,
    TERMINAL_TASK,
    ChildStatus,
    Item,
    Task,
    moment,
    timestamp,
)
from reconciler.domain.task import TaskDraft
from reconciler.errors import ThrottledError
from reconciler.stores.conditions import Expression, Write, all_of, check, put_new, update
from reconciler.stores.dynamodb import MAX_KEYS_PER_BATCH, DynamoDB
from reconciler.stores.items import typed
from reconciler.stores.rows import TASK_ATTRIBUTES, parse_task

WORKFLOW_ID = "coding/new-task-v1"
WORKFLOW_VERSION = "1.0.0"
_EVENT_TTL_SECONDS = 90 * 86_400
_MAX_KEY_BYTES = 2048

_UNFINISHED = (("AWAITING_APPROVAL", "AWAITING_APPROVAL"), ("FINALIZING", "SUBMITTED"))
"""Ranges of unfinished statuses, in the order of an index. No finished status lies within them; a
status added later would probably be an unfinished one."""

NOT_ADMITTED = frozenset({"PENDING_UPLOADS", "QUEUED", "SUBMITTED"})
"""Statuses of tasks that the user's ``active_count`` does not include yet."""


def _only_iterations() -> dict[str, Any]:
    """Return a filter on an index. A task keeps its metadata, so an old copy of it decides, too."""
    return {
        "FilterExpression": "#metadata.#iteration = :true",
        "ExpressionAttributeNames": {
            "#metadata": "channel_metadata",
            "#iteration": "orchestration_iteration",
        },
        "ExpressionAttributeValues": {":true": {"S": "true"}},
    }


class TaskStore:
    """TaskTable and TaskEventsTable."""

    def __init__(self, dynamodb: DynamoDB, table: str, events_table: str) -> None:
        self._dynamodb = dynamodb
        self.table = table
        self.events_table = events_table

    # -- reading

    def read(self, task_ids: Iterable[str], *, consistent: bool) -> dict[str, Task | None]:
        """Read tasks in batches of 100; None if one does not exist, absent if it was not read."""
        tasks: dict[str, Task | None] = {}
        wanted = list(dict.fromkeys(task_ids))
        for start in range(0, len(wanted), MAX_KEYS_PER_BATCH):
            chunk = wanted[start : start + MAX_KEYS_PER_BATCH]
            keys = [{"task_id": {"S": task_id}} for task_id in chunk]
            items = self._dynamodb.batch_get(
                self.table, keys, consistent=consistent, attributes=TASK_ATTRIBUTES
            )
            if items is None:
                continue
            tasks.update(dict.fromkeys(chunk))
            tasks.update((item["task_id"]["S"], parse_task(item)) for item in items)
        return tasks

    def read_all(self, task_ids: Iterable[str]) -> dict[str, Task | None]:
        """Read all of these tasks, strongly consistent; None if one does not exist.

        Raises:
            ThrottledError: some could not be read.
        """
        wanted = set(task_ids)
        tasks = self.read(wanted, consistent=True)
        if tasks.keys() != wanted:
            missing = len(wanted - tasks.keys())
            raise ThrottledError(f"{missing} of {len(wanted)} tasks could not be read")
        return tasks

    def read_existing(self, task_ids: Iterable[str]) -> list[Task]:
        """As ``read_all``, without the tasks that do not exist."""
        return [task for task in self.read_all(task_ids).values() if task is not None]

    def find(self, idempotency_key: str) -> Task | None:
        """Look up a task by its idempotency key; the oldest if there are several.

        The index is eventually consistent: None means that there was none a moment ago.

        Raises:
            TemporaryError, PermanentError: it is unknown whether there is one. Treating that as
                None would create a second task.
        """
        if len(idempotency_key.encode()) > _MAX_KEY_BYTES:
            return None  # no row of the index has it, and DynamoDB refuses the query
        page = self._dynamodb.call(
            "query",
            TableName=self.table,
            IndexName="IdempotencyIndex",
            KeyConditionExpression="idempotency_key = :key",
            ExpressionAttributeValues={":key": {"S": idempotency_key}},
        )
        tasks = self.read_existing(item["task_id"]["S"] for item in page["Items"])
        # The oldest has probably run for longest.
        return min(tasks, key=lambda task: (task.created_at or "", task.task_id), default=None)

    def not_admitted(self, user_id: str) -> list[str]:
        """Return the ids of a user's tasks that are on their way to admission.

        The index is eventually consistent. One query covers all these statuses: only RUNNING sorts
        between them, and the cap limits a user's running tasks.
        """
        items = self._of_user(user_id, f"{min(NOT_ADMITTED)}#", f"{max(NOT_ADMITTED)}#~")
        return [
            item["task_id"]["S"]
            for item in items
            if item["status_created_at"]["S"].partition("#")[0] in NOT_ADMITTED
        ]

    def unfinished(self, user_id: str) -> list[Task]:
        """Return a user's unfinished tasks: found by an index, then read again."""
        ids = [
            task_id
            for first, last in _UNFINISHED
            for task_id in self._ids_of_user(user_id, f"{first}#", f"{last}#~")
        ]
        return [task for task in self.read_existing(ids) if not task.terminal]

    def unfinished_of(self, user_id: str, orchestration_id: str, since: datetime) -> list[str]:
        """Return the ids of tasks that run for an orchestration, or that ended after ``since``.

        No row names iteration and restack tasks, so they are looked up by user. Tasks that have
        just ended count, because in a cascade nothing runs for a moment between two levels.
        """
        ended = [
            task_id
            for status in sorted(TERMINAL_TASK)
            for task_id in self._ids_of_user(user_id, f"{status}#{timestamp(since)}", f"{status}#~")
        ]
        tasks = [*self.unfinished(user_id), *self.read_existing(ended)]
        return [task.task_id for task in tasks if task.orchestration_id == orchestration_id]

    def iterations_of(
        self, user_id: str, orchestration_id: str, since: datetime
    ) -> dict[str, Task]:
        """Return the last successful iteration that ended after ``since``, by sub-issue id."""
        first, last = f"COMPLETED#{timestamp(since)}", "COMPLETED#~"
        ids = self._ids_of_user(user_id, first, last, _only_iterations())
        found: dict[str, Task] = {}
        # By time, not by text: the two differ for other forms of ISO 8601.
        for task in sorted(self._succeeded(ids), key=lambda t: moment(t.finished_at) or LONG_AGO):
            if task.orchestration_id == orchestration_id and task.sub_issue_id is not None:
                found[task.sub_issue_id] = task
        return found

    def orchestrations_iterated(self, since: datetime) -> list[str]:
        """Return the orchestrations with a successful iteration task created after ``since``.

        Reads all completed tasks since then from StatusIndex.
        """
        request = _only_iterations()
        request["ExpressionAttributeNames"]["#status"] = "status"
        request["ExpressionAttributeValues"] |= {
            ":status": {"S": "COMPLETED"},
            ":since": {"S": timestamp(since)},
        }
        items = self._dynamodb.query(
            TableName=self.table,
            IndexName="StatusIndex",
            KeyConditionExpression="#status = :status AND created_at >= :since",
            ProjectionExpression="task_id",
            **request,
        )
        tasks = self._succeeded([item["task_id"]["S"] for item in items])
        return sorted({t.orchestration_id for t in tasks if t.orchestration_id is not None})

    def _succeeded(self, task_ids: Iterable[str]) -> list[Task]:
        return [
            task for task in self.read_existing(task_ids) if task.outcome is ChildStatus.SUCCEEDED
        ]

    def _ids_of_user(
        self, user_id: str, first: str, last: str, only: Mapping[str, Any] | None = None
    ) -> list[str]:
        return [item["task_id"]["S"] for item in self._of_user(user_id, first, last, only)]

    def _of_user(
        self, user_id: str, first: str, last: str, only: Mapping[str, Any] | None = None
    ) -> list[Item]:
        """Return the keys of a user's tasks between two values of ``status_created_at``.

        ``only``: request parameters of a filter.
        """
        request = dict(only or {})
        values = {":user": {"S": user_id}, ":first": {"S": first}, ":last": {"S": last}}
        request["ExpressionAttributeValues"] = request.get("ExpressionAttributeValues", {}) | values
        # All pages: the index holds whole tasks, and three large ones fill a page of 1 MB.
        return self._dynamodb.query(
            TableName=self.table,
            IndexName="UserStatusIndex",
            KeyConditionExpression="user_id = :user AND status_created_at BETWEEN :first AND :last",
            ProjectionExpression="task_id, status_created_at",
            **request,
        )

    # -- actions of a transaction

    def create(self, draft: TaskDraft, sweep_id: str) -> Write:
        """The task, which must not exist yet, with the id of the sweep that creates it."""
        item = {**task_item(draft), "reconciler_sweep_id": {"S": sweep_id}}
        return put_new(self.table, item, "task_id")

    def expect_task(self, task: Task) -> Write:
        """Condition: the task exists with the same key and user."""
        build = Expression()
        conditions = [
            build.equals("idempotency_key", task.idempotency_key or ""),
            build.equals("user_id", task.user_id or ""),
        ]
        return check(self.table, {"task_id": {"S": task.task_id}}, all_of(*conditions), build)

    def event(
        self, task_id: str, event_type: str, metadata: Mapping[str, Any], now: datetime
    ) -> Write:
        """An event of a task; ``metadata``: strings, numbers, and mappings of them."""
        item: Item = {
            "task_id": {"S": task_id},
            "event_id": {"S": event_id_for(task_id, f"{event_type}{dict(metadata)}", now)},
            "event_type": {"S": event_type},
            "timestamp": {"S": timestamp(now)},
            "metadata": typed(metadata),
            "ttl": {"N": str(int(now.timestamp()) + _EVENT_TTL_SECONDS)},
        }
        return {"Put": {"TableName": self.events_table, "Item": item}}

    def set_invoked(self, task_id: str, now: datetime) -> Write:
        """Record that the pipeline was invoked under the task's name."""
        build = Expression()
        values = {"reconciler_invoked_at": {"S": timestamp(now)}}
        return self._touch(task_id, build.assign(values), build.exists("task_id"), build)

    def set_last_invocation(self, task_id: str, now: datetime) -> Write:
        """Record, in advance, the last invocation of a task that has not started.

        Only one writer ever succeeds, so nobody else invokes the task after that.
        """
        build = Expression()
        values = {
            "reconciler_invoked_at": {"S": timestamp(now)},
            "reconciler_invoke_count": {"N": "1"},
        }
        condition = all_of(
            build.equals("status", "SUBMITTED"),
            build.absent("reconciler_invoke_count"),
        )
        return self._touch(task_id, build.assign(values), condition, build)

    def unset_last_invocation(self, task: Task, now: datetime) -> Write:
        """Undo the ``set_last_invocation`` of ``now``; ``task``: as read before it."""
        build = Expression()
        condition = build.equals("reconciler_invoked_at", timestamp(now))
        change = f"REMOVE {build.name('reconciler_invoke_count')}"
        if task.invoked_at is None:
            change += f", {build.name('reconciler_invoked_at')}"
        else:
            change += " " + build.assign({"reconciler_invoked_at": {"S": task.invoked_at}})
        return self._touch(task.task_id, change, condition, build)

    def set_nudged(self, task: Task, now: datetime) -> Write:
        """Touch a finished task, so that its record is streamed again, if it is unchanged."""
        build = Expression()
        values = {
            "reconcile_nudged_at": {"S": timestamp(now)},
            "reconcile_nudge_count": {"N": str(task.nudge_count + 1)},
        }
        condition = all_of(
            build.equals("status", task.status),
            build.count_is("reconcile_nudge_count", task.nudge_count),
        )
        return self._touch(task.task_id, build.assign(values), condition, build)

    def _touch(self, task_id: str, change: str, condition: str, build: Expression) -> Write:
        return update(self.table, {"task_id": {"S": task_id}}, change, condition, build)

    # -- events

    def events(self, task_id: str, event_type: str) -> list[Item]:
        """Return a task's events of one type, oldest first."""
        # All pages: an agent writes many events, and those filtered out count towards a page.
        return self._dynamodb.query(
            TableName=self.events_table,
            KeyConditionExpression="task_id = :id",
            FilterExpression="event_type = :type",
            ExpressionAttributeValues={":id": {"S": task_id}, ":type": {"S": event_type}},
        )


_AS_EVERY_TASK: Item = {
    "status": {"S": "SUBMITTED"},
    "workflow_ref": {"S": WORKFLOW_ID},
    "resolved_workflow": typed({"id": WORKFLOW_ID, "version": WORKFLOW_VERSION}),
    "approval_gate_count": {"N": "0"},
}


def task_item(draft: TaskDraft) -> Item:
    """Return the row of a new task."""
    texts = {
        "task_id": draft.task_id,
        "user_id": draft.user_id,
        "repo": draft.repo,
        "task_description": draft.description,
        "branch_name": draft.branch_name,
        "idempotency_key": draft.idempotency_key,
        "channel_source": draft.channel_source,
        "status_created_at": f"SUBMITTED#{draft.created_at}",
        "created_at": draft.created_at,
        "updated_at": draft.created_at,
        **draft.issue,
    }
    item: dict[str, Any] = {
        **_AS_EVERY_TASK,
        **{name: {"S": value} for name, value in texts.items()},
        "channel_metadata": {"M": {name: {"S": v} for name, v in draft.metadata.items()}},
        "approval_gate_cap": {"N": str(draft.approval_gate_cap)},
    }
    # Like the platform, omit empty lists.
    if draft.attachments:
        item["attachments"] = {"L": [attachment.stored for attachment in draft.attachments]}
    if draft.team_ids:
        item["team_ids"] = {"L": [{"S": team} for team in draft.team_ids]}
    return item
