"""The platform's live reconciler, simulated.

It reacts to one stream record per finished task: marks the child, releases what that unblocks,
skips what it dooms, and settles the parent. What it is not told of, it never looks for; that is
the gap which the backstop closes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from enum import StrEnum
from random import Random
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError
from ulid import ULID

from reconciler.clock import Clock
from reconciler.demo.task_pipeline import lost_condition
from reconciler.domain.identity import slug
from reconciler.domain.model import (
    FAILURE,
    META,
    TERMINAL_CHILD,
    TERMINAL_TASK,
    UNRELEASED,
    Child,
    ChildStatus,
    Item,
    Orchestration,
    Task,
    timestamp,
)
from reconciler.domain.rows import parse_orchestration, parse_task, text
from reconciler.domain.task import Refusal, draft_task, own_text
from reconciler.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_EVENT_TTL = timedelta(days=90)


class Step(StrEnum):
    """Moments of a release just before which a hook is called."""

    CLAIM = "claim"
    CREATE = "create"
    FLIP = "flip"
    INVOKE = "invoke"


class LiveReconcilerCrashError(Exception):
    """Raised by a hook: the live reconciler dies there, with whatever it has written."""


Hook = Callable[[Step, Child], None]
"""Called before each step of a release: may crash it, or do what a rival would do just then."""


def undisturbed(_step: Step, _child: Child) -> None:
    """Do nothing."""


class LiveReconciler:
    """Reacts to what ends: claims the row, creates the task, flips the row to ``released``.

    A crash after the claim leaves ``releasing``, with or without a task. ``invoke`` starts a task's
    pipeline. ``lost`` collects the tasks whose terminal record arrived while it was down, and
    ``crashed`` the children at whose release it died.
    """

    def __init__(
        self,
        client: DynamoDBClient,
        settings: Settings,
        clock: Clock,
        invoke: Callable[[str], None],
        *,
        seed: int = 0,
        hook: Hook = undisturbed,
    ) -> None:
        self.client = client
        self.settings = settings
        self.clock = clock
        self.invoke = invoke
        self.hook = hook
        self.up = True
        self.lost: list[Task] = []
        self.crashed: list[tuple[str, str]] = []
        self._rng = Random(f"{seed}/live")

    # -- events

    def receive(self, record: Item) -> None:
        """Take one NEW_IMAGE of TaskTable; while down, a terminal one is lost for good."""
        task = parse_task(record)
        if task.status not in TERMINAL_TASK:
            return
        if not self.up:
            self.lost.append(task)
            return
        try:
            self.handle(record)
        except LiveReconcilerCrashError:
            self.lost.append(task)

    def handle(self, record: Item) -> None:
        """React to a terminal task, as the platform's stream handler does.

        Raises:
            LiveReconcilerCrashError: the hook asked for it.
        """
        metadata = record.get("channel_metadata", {}).get("M", {})
        orchestration_id = text(metadata, "orchestration_id")
        sub_issue_id = text(metadata, "orchestration_sub_issue_id")
        if orchestration_id is None or sub_issue_id is None:
            return
        task = parse_task(record)
        self._set_status(
            orchestration_id,
            sub_issue_id,
            task.outcome,
            "child_status = :released AND child_task_id = :task",
            {":released": ChildStatus.RELEASED.value, ":task": task.task_id},
        )
        self.react(orchestration_id)

    def react(self, orchestration_id: str) -> None:
        """Skip what is doomed, release what is due, settle what is finished.

        Raises:
            LiveReconcilerCrashError: the hook asked for it.
        """
        orchestration = self.read(orchestration_id)
        if orchestration is None or orchestration.meta is None:
            return
        children = self._skip_doomed(orchestration)
        current = {row.sub_issue_id: row for row in children}
        for child in children:
            before = [current[key].status for key in child.depends_on if key in current]
            ready = len(before) == len(child.depends_on) and set(before) <= {ChildStatus.SUCCEEDED}
            if child.status in UNRELEASED and ready:
                self._release(orchestration, child)
        if all(child.status in TERMINAL_CHILD for child in children):
            self._settle(orchestration)

    def read(self, orchestration_id: str) -> Orchestration | None:
        """Read an orchestration, strongly consistent."""
        items: list[Item] = []
        for page in self.client.get_paginator("query").paginate(
            TableName=self.settings.orchestration_table_name,
            ConsistentRead=True,
            KeyConditionExpression="orchestration_id = :id",
            ExpressionAttributeValues={":id": {"S": orchestration_id}},
        ):
            items.extend(page["Items"])
        return parse_orchestration(orchestration_id, items)

    # -- what follows from an event

    def _skip_doomed(self, orchestration: Orchestration) -> list[Child]:
        """Skip, transitively, everything behind a failure; return the rows as they stand then."""
        rows = dict(orchestration.children)
        moved = True
        while moved:
            moved = False
            for key, child in rows.items():
                doomed = any(
                    rows[name].status in FAILURE for name in child.depends_on if name in rows
                )
                if doomed and child.status in UNRELEASED and self._skip(child):
                    rows[key] = child.moved(ChildStatus.SKIPPED, None)
                    moved = True
        return list(rows.values())

    def _skip(self, child: Child) -> bool:
        return self._set_status(
            child.orchestration_id,
            child.sub_issue_id,
            ChildStatus.SKIPPED,
            "child_status IN (:blocked, :ready)",
            {":blocked": ChildStatus.BLOCKED.value, ":ready": ChildStatus.READY.value},
        )

    def _settle(self, orchestration: Orchestration) -> None:
        """Post the roll-up on the parent issue, once."""
        at = timestamp(self.clock())
        self._update(
            orchestration.orchestration_id,
            META,
            "SET rollup_posted_at = :at, updated_at = :at",
            "attribute_not_exists(rollup_posted_at)",
            {":at": at},
        )

    def _release(self, orchestration: Orchestration, child: Child) -> None:
        try:
            self.release(orchestration, child)
        except LiveReconcilerCrashError:
            self.crashed.append((child.orchestration_id, child.sub_issue_id))
            raise

    def release(self, orchestration: Orchestration, child: Child) -> None:
        """Release ``child``, which was read as due; whoever loses the claim leaves it alone."""
        self.hook(Step.CLAIM, child)
        claimed = self._set_status(
            child.orchestration_id,
            child.sub_issue_id,
            ChildStatus.RELEASING,
            "child_status = :read",
            {":read": child.raw_status},
        )
        if not claimed:
            return
        self.hook(Step.CREATE, child)
        task = self._find_or_create(orchestration, child)
        if task is None:
            return
        self.hook(Step.FLIP, child)
        if self._flip(child, task, ChildStatus.RELEASING):
            self.hook(Step.INVOKE, child)
            self.invoke(task["task_id"]["S"])

    # -- the parts of a release

    def _find_or_create(self, orchestration: Orchestration, child: Child) -> Item | None:
        """Return the task under the child's idempotency key, created if there is none yet."""
        found = self.client.query(
            TableName=self.settings.task_table_name,
            IndexName="IdempotencyIndex",
            KeyConditionExpression="idempotency_key = :key",
            ExpressionAttributeValues={":key": {"S": child.idempotency_key}},
        )["Items"]
        if found:
            key = {"task_id": found[0]["task_id"]}
            table = self.settings.task_table_name
            return self.client.get_item(TableName=table, Key=key, ConsistentRead=True).get("Item")
        return self._create(orchestration, child)

    def _create(self, orchestration: Orchestration, child: Child) -> Item | None:
        now = self.clock()
        draft = draft_task(orchestration, child, now=now)
        if isinstance(draft, Refusal):
            return None
        milliseconds = int(now.timestamp() * 1000)
        task_id = str(ULID(milliseconds.to_bytes(6) + self._rng.randbytes(10)))
        branch = f"bgagent/{task_id}/{slug(own_text(child).partition(chr(10))[0])}"
        item = {**draft.item, "task_id": {"S": task_id}, "branch_name": {"S": branch}}
        self.client.put_item(
            TableName=self.settings.task_table_name,
            Item=item,
            ConditionExpression="attribute_not_exists(task_id)",
        )
        event_id = str(ULID(milliseconds.to_bytes(6) + self._rng.randbytes(10)))
        created = {"repo": item["repo"], "channel_source": item["channel_source"]}
        self.client.put_item(
            TableName=self.settings.task_events_table_name,
            Item={
                "task_id": {"S": task_id},
                "event_id": {"S": event_id},
                "event_type": {"S": "task_created"},
                "timestamp": {"S": timestamp(now)},
                "metadata": {"M": created},
                "ttl": {"N": str(int((now + _EVENT_TTL).timestamp()))},
            },
        )
        return item

    def _flip(self, child: Child, task: Item, *expected: ChildStatus) -> bool:
        """Set the row to ``released`` with its task, if it is in one of the ``expected`` states."""
        names = {f":from{i}": status.value for i, status in enumerate(expected)}
        return self._update(
            child.orchestration_id,
            child.sub_issue_id,
            "SET child_status = :released, child_task_id = :task, "
            "child_branch_name = :branch, updated_at = :at",
            f"child_status IN ({', '.join(names)})",
            {
                ":released": ChildStatus.RELEASED.value,
                ":task": task["task_id"]["S"],
                ":branch": task["branch_name"]["S"],
                ":at": timestamp(self.clock()),
                **names,
            },
        )

    def _set_status(
        self,
        orchestration_id: str,
        sub_issue_id: str,
        status: ChildStatus,
        condition: str,
        values: Mapping[str, str],
    ) -> bool:
        return self._update(
            orchestration_id,
            sub_issue_id,
            "SET child_status = :status, updated_at = :at",
            condition,
            {":status": status.value, ":at": timestamp(self.clock()), **values},
        )

    def _update(
        self,
        orchestration_id: str,
        sub_issue_id: str,
        change: str,
        condition: str,
        values: Mapping[str, str],
    ) -> bool:
        """Update one row under a condition; False when it is lost."""
        try:
            self.client.update_item(
                TableName=self.settings.orchestration_table_name,
                Key={
                    "orchestration_id": {"S": orchestration_id},
                    "sub_issue_id": {"S": sub_issue_id},
                },
                UpdateExpression=change,
                ConditionExpression=f"attribute_exists(sub_issue_id) AND {condition}",
                ExpressionAttributeValues={name: {"S": value} for name, value in values.items()},
            )
        except ClientError as error:
            if not lost_condition(error):
                raise
            return False
        return True
