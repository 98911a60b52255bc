"""The platform's live reconciler, simulated.

It reacts to the stream record of a finished task: marks the child, releases or skips its
dependents, and settles the parent. It never looks for lost events; that is the backstop's work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING

from ulid import ULID

from reconciler.clock import Clock
from reconciler.demo.writes import conditional_set
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
from reconciler.domain.task import Refusal, draft_task, own_text
from reconciler.settings import Settings
from reconciler.stores.rows import parse_orchestration, parse_source, parse_task
from reconciler.stores.tasks import task_item

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_EVENT_TTL = timedelta(days=90)


class LiveReconciler:
    """Reacts to finished tasks. A release claims the row, creates the task, sets ``released``.

    ``invoke`` starts a task's pipeline. While ``up`` is False, records are lost, and ``lost``
    collects their tasks.
    """

    def __init__(
        self,
        client: DynamoDBClient,
        settings: Settings,
        clock: Clock,
        invoke: Callable[[str], None],
        *,
        seed: int = 0,
    ) -> None:
        self.client = client
        self.settings = settings
        self.clock = clock
        self.invoke = invoke
        self.up = True
        self.lost: list[Task] = []
        self._rng = Random(f"{seed}/live")

    # -- events

    def receive(self, record: Item) -> None:
        """Take one NEW_IMAGE of TaskTable; while down, terminal ones are lost."""
        task = parse_task(record)
        if task.status not in TERMINAL_TASK:
            return
        if not self.up:
            self.lost.append(task)
        elif task.orchestration_id is not None and task.sub_issue_id is not None:
            self._set(
                task.orchestration_id,
                task.sub_issue_id,
                {"child_status": task.outcome},
                "#child_status = :released AND child_task_id = :task",
                released=ChildStatus.RELEASED,
                task=task.task_id,
            )
            self.react(task.orchestration_id)

    def react(self, orchestration_id: str) -> None:
        """Skip, release and settle what is due."""
        orchestration = self.read(orchestration_id)
        if orchestration is None or orchestration.meta is None:
            return
        children = self._skip_doomed(orchestration)
        done = {row.sub_issue_id for row in children if row.status is ChildStatus.SUCCEEDED}
        for child in children:
            if child.status in UNRELEASED and done.issuperset(child.depends_on):
                self.release(orchestration, child)
        if all(child.status in TERMINAL_CHILD for child in children):
            # The roll-up is posted on the parent issue, once.
            at = timestamp(self.clock())
            absent = "attribute_not_exists(#rollup_posted_at)"
            self._set(orchestration_id, META, {"rollup_posted_at": at}, absent)

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
        """Skip, transitively, everything behind a failure; return the updated rows."""
        rows = dict(orchestration.children)
        skipped = {"child_status": ChildStatus.SKIPPED}
        moved = True
        while moved:
            moved = False
            for key, child in rows.items():
                doomed = any(
                    rows[name].status in FAILURE for name in child.depends_on if name in rows
                )
                if not doomed or child.status not in UNRELEASED:
                    continue
                if self._set_child(child, skipped, *sorted(UNRELEASED)):
                    rows[key] = child.moved(ChildStatus.SKIPPED, None)
                    moved = True
        return list(rows.values())

    def release(self, orchestration: Orchestration, child: Child) -> None:
        """Release ``child``, which was read as due, unless another one has claimed it."""
        claim = {"child_status": ChildStatus.RELEASING}
        if not self._set_child(child, claim, child.raw_status):
            return
        task = self._find_or_create(orchestration, child)
        if task is not None and self._flip(child, task, ChildStatus.RELEASING):
            self.invoke(task["task_id"]["S"])

    # -- the parts of a release

    def _find_or_create(self, orchestration: Orchestration, child: Child) -> Item | None:
        """Return the task under the child's idempotency key, created if there is none yet."""
        table = self.settings.task_table_name
        found = self.client.query(
            TableName=table,
            IndexName="IdempotencyIndex",
            KeyConditionExpression="idempotency_key = :key",
            ExpressionAttributeValues={":key": {"S": child.idempotency_key}},
        )["Items"]
        if found:
            key = {"task_id": found[0]["task_id"]}
            return self.client.get_item(TableName=table, Key=key, ConsistentRead=True).get("Item")
        return self._create(orchestration, child)

    def _create(self, orchestration: Orchestration, child: Child) -> Item | None:
        now = self.clock()
        source = parse_source(orchestration, child)
        draft = draft_task(orchestration, child, source=source, now=now)
        if isinstance(draft, Refusal):
            return None
        task_id = self._ulid()
        branch = f"bgagent/{task_id}/{slug(own_text(child, source.own).partition(chr(10))[0])}"
        item = {**task_item(draft), "task_id": {"S": task_id}, "branch_name": {"S": branch}}
        self.client.put_item(
            TableName=self.settings.task_table_name,
            Item=item,
            ConditionExpression="attribute_not_exists(task_id)",
        )
        created = {"repo": item["repo"], "channel_source": item["channel_source"]}
        self.client.put_item(
            TableName=self.settings.task_events_table_name,
            Item={
                "task_id": {"S": task_id},
                "event_id": {"S": self._ulid()},
                "event_type": {"S": "task_created"},
                "timestamp": {"S": timestamp(now)},
                "metadata": {"M": created},
                "ttl": {"N": str(int((now + _EVENT_TTL).timestamp()))},
            },
        )
        return item

    def _ulid(self) -> str:
        milliseconds = int(self.clock().timestamp() * 1000)
        return str(ULID(milliseconds.to_bytes(6) + self._rng.randbytes(10)))

    def _flip(self, child: Child, task: Item, *expected: str) -> bool:
        """Set the row to ``released`` with its task, if it is in one of the ``expected`` states."""
        values = {
            "child_status": ChildStatus.RELEASED,
            "child_task_id": task["task_id"]["S"],
            "child_branch_name": task["branch_name"]["S"],
        }
        return self._set_child(child, values, *expected)

    def _set_child(self, child: Child, values: Mapping[str, str], *expected: str) -> bool:
        given = {f"from{i}": status for i, status in enumerate(expected)}
        condition = f"#child_status IN ({', '.join(f':{name}' for name in given)})"
        return self._set(child.orchestration_id, child.sub_issue_id, values, condition, **given)

    def _set(
        self,
        orchestration_id: str,
        sub_issue_id: str,
        values: Mapping[str, str],
        condition: str,
        **given: str,
    ) -> bool:
        return conditional_set(
            self.client,
            self.settings.orchestration_table_name,
            {"orchestration_id": orchestration_id, "sub_issue_id": sub_issue_id},
            {**values, "updated_at": timestamp(self.clock())},
            f"attribute_exists(sub_issue_id) AND {condition}",
            given,
        )
