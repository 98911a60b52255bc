"""OrchestrationTable: reading orchestrations, and the writes on their child rows.

The condition of every write states what must still be true of the row, so writes are safe alongside
the live reconciler, retries and cancellations by users, and other workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from reconciler.domain.backoff import Attempts
from reconciler.domain.model import (
    FAILURE,
    LONG_AGO,
    META,
    UNRELEASED,
    WHOLE,
    Child,
    ChildStatus,
    Item,
    Orchestration,
    Task,
    moment,
    timestamp,
)
from reconciler.errors import ThrottledError
from reconciler.stores.conditions import Expression, Write, all_of, check, projection, update
from reconciler.stores.control import PAUSED_AT
from reconciler.stores.dynamodb import DynamoDB
from reconciler.stores.items import row_key
from reconciler.stores.rows import (
    ACTIVE_ATTRIBUTES,
    PREDECESSOR_ATTRIBUTES,
    SCAN_ATTRIBUTES,
    attempts_marker,
    parse_child,
    parse_orchestration,
)

_SCANNED = (*SCAN_ATTRIBUTES, PAUSED_AT)
_ATTEMPTS_TTL_SECONDS = 30 * 86_400
_MAX_SORT_KEY_BYTES = 1024
"""DynamoDB's limit: no row has a longer ``sub_issue_id``."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of rows, with the requested attributes.

    ``next_key``: where the next page starts; None on the last one. ``retries``: how often the
    request was retried. ``rows_read``: number of rows read, if it differs from ``len(items)``.
    """

    items: Sequence[Item]
    next_key: dict[str, Any] | None
    read_units: float
    retries: int = 0
    rows_read: int | None = None

    @property
    def last(self) -> bool:
        """Whether this is the last page."""
        return self.next_key is None

    @property
    def rows(self) -> int:
        """How many rows were read."""
        return len(self.items) if self.rows_read is None else self.rows_read


class OrchestrationStore:
    """OrchestrationTable."""

    def __init__(self, dynamodb: DynamoDB, table: str) -> None:
        self._dynamodb = dynamodb
        self.table = table

    # -- reading

    def read(self, orchestration_id: str) -> Orchestration | None:
        """Read all rows of an orchestration, strongly consistent; None if it has none."""
        items = self._dynamodb.query(
            TableName=self.table,
            ConsistentRead=True,
            KeyConditionExpression="orchestration_id = :id",
            ExpressionAttributeValues={":id": {"S": orchestration_id}},
        )
        return parse_orchestration(orchestration_id, items)

    def read_around(
        self, orchestration_id: str, sub_issue_id: str, predecessors: Sequence[str]
    ) -> Orchestration | None:
        """Read one child, its predecessors and the meta row in one request, strongly consistent.

        So releasing thousands of children takes linear time. At most 98 predecessors.
        """
        wanted = dict.fromkeys((META, sub_issue_id, *predecessors))
        keys = [row_key(orchestration_id, name) for name in wanted]
        items = self._dynamodb.batch_get(self.table, keys, consistent=True)
        if items is None:
            msg = f"orchestration {orchestration_id} could not be read completely"
            raise ThrottledError(msg)
        return parse_orchestration(orchestration_id, items)

    def read_failing(self, orchestration_id: str, sub_issue_id: str) -> Orchestration | None:
        """Read a child, its failure record and the meta row; for ``WHOLE``, everything."""
        if sub_issue_id == WHOLE:
            return self.read(orchestration_id)
        return self.read_around(orchestration_id, sub_issue_id, (attempts_marker(sub_issue_id),))

    def scan_page(
        self, segment: int, total: int, start_key: dict[str, Any] | None, limit: int | None = None
    ) -> Page:
        """Scan one page of a segment, eventually consistent."""
        return self._page(
            "scan",
            start_key,
            limit,
            Segment=segment,
            TotalSegments=total,
            **projection(_SCANNED),
        )

    def active_page(
        self,
        index: str,
        status: ChildStatus,
        between: tuple[str | None, str | None],
        start_key: dict[str, Any] | None,
        limit: int | None = None,
    ) -> Page:
        """Query an index for one page of the children of a status, by orchestration id.

        ``between``: lowest and highest orchestration id, both inclusive; None: no bound.

        Raises:
            PermanentError: there is no such index, or its sort key is not orchestration_id.
        """
        build = Expression()
        conditions = [build.equals("child_status", status)]
        name = build.name("orchestration_id")
        low, high = (None if bound is None else build.value({"S": bound}) for bound in between)
        if low is not None and high is not None:
            conditions.append(f"{name} BETWEEN {low} AND {high}")
        elif low is not None:
            conditions.append(f"{name} >= {low}")
        elif high is not None:
            conditions.append(f"{name} <= {high}")
        return self._page(
            "query",
            start_key,
            limit,
            IndexName=index,
            KeyConditionExpression=all_of(*conditions),
            ProjectionExpression=", ".join(build.name(name) for name in ACTIVE_ATTRIBUTES),
            **build.arguments(),
        )

    def _page(
        self,
        operation: str,
        start_key: dict[str, Any] | None,
        limit: int | None,
        **request: Any,  # noqa: ANN401 - the client's
    ) -> Page:
        if start_key is not None:
            request["ExclusiveStartKey"] = start_key
        if limit is not None:
            request["Limit"] = limit
        answer = self._dynamodb.call(operation, TableName=self.table, **request)
        units = float((answer.get("ConsumedCapacity") or {}).get("CapacityUnits", 0.0))
        retries = answer.get("ResponseMetadata", {}).get("RetryAttempts", 0)
        return Page(answer["Items"], answer.get("LastEvaluatedKey"), units, retries)

    def read_children(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Child]:
        """Read up to 100 children by (orchestration id, sub-issue id), eventually consistent.

        Only with the attributes that the diagnosis of their dependents needs. Children that do not
        exist are absent; if reads were throttled, all are.
        """
        # Dependencies are arbitrary text, and one that is too long would fail the whole batch.
        wanted = [row_key(*key) for key in keys if len(key[1].encode()) <= _MAX_SORT_KEY_BYTES]
        if not wanted:
            return {}
        items = self._dynamodb.batch_get(
            self.table, wanted, consistent=False, attributes=PREDECESSOR_ATTRIBUTES
        )
        children = map(parse_child, items or ())
        return {(child.orchestration_id, child.sub_issue_id): child for child in children}

    def size_bytes(self) -> int:
        """Return the table's size, which DynamoDB updates about every six hours."""
        described = self._dynamodb.call("describe_table", TableName=self.table)
        return int(described["Table"].get("TableSizeBytes", 0))

    def children_by_task(self, task_id: str) -> tuple[str, str] | None:
        """Return (orchestration id, sub-issue id) of the child with the task ``task_id``."""
        page = self._dynamodb.call(
            "query",
            TableName=self.table,
            IndexName="ChildTaskIndex",
            KeyConditionExpression="child_task_id = :id",
            ExpressionAttributeValues={":id": {"S": task_id}},
            Limit=1,
        )
        for item in page["Items"]:
            return item["orchestration_id"]["S"], item["sub_issue_id"]["S"]
        return None

    def search(self, name: str) -> Iterator[tuple[list[Child], int]]:
        """Scan for children whose display id is ``name``, or whose other ids begin with it.

        Yields the matches of each page and how many rows it had. There is no index for this, so it
        reads the whole table.
        """
        ids = ("sub_issue_id", "orchestration_id", "child_task_id")
        names = ("display_id", "linear_identifier")
        equal = [f"{attribute} = :n" for attribute in names]
        begun = [f"begins_with({attribute}, :n)" for attribute in ids]
        for page in self._dynamodb.pages(
            "scan",
            TableName=self.table,
            ProjectionExpression=", ".join((*ids, *names)),
            FilterExpression=" OR ".join((*equal, *begun)),
            ExpressionAttributeValues={":n": {"S": name}},
        ):
            rows = (item for item in page["Items"] if "#" not in item["sub_issue_id"]["S"])
            yield [parse_child(item) for item in rows], int(page["ScannedCount"])

    # -- writing on child rows: actions of a transaction

    def _change(
        self,
        child: Child,
        values: dict[str, str],
        build: Expression,
        *conditions: str,
        since: datetime | None = None,
    ) -> Write:
        """Set ``values`` of a child row; ``since``: when the new status took effect."""
        typed = {name: {"S": value} for name, value in values.items()}
        if since is not None:
            # If we die before repairing its dependents, their grace does not start anew.
            typed["reconciler_written_at"] = typed["updated_at"]
            typed["reconciler_effective_at"] = {"S": timestamp(since)}
        key = row_key(child.orchestration_id, child.sub_issue_id)
        return update(self.table, key, build.assign(typed), all_of(*conditions), build)

    def _check(self, child: Child, condition: str, build: Expression) -> Write:
        key = row_key(child.orchestration_id, child.sub_issue_id)
        return check(self.table, key, condition, build)

    def expect_succeeded(self, predecessor: Child) -> Write:
        """Condition: the predecessor is ``succeeded`` (I1)."""
        build = Expression()
        return self._check(predecessor, build.equals("child_status", ChildStatus.SUCCEEDED), build)

    def expect_row(self, child: Child) -> Write:
        """Condition: the child has the same status and task as ``child``."""
        build = Expression()
        named = {} if child.task_id is None else {"child_task_id": {"S": child.task_id}}
        condition = all_of(
            build.equals("child_status", child.raw_status),
            build.unchanged("child_task_id", named),
        )
        return self._check(child, condition, build)

    def expect_meta(self, orchestration: Orchestration) -> Write:
        """Condition: nobody has reopened or settled the orchestration since it was read."""
        build = Expression()
        read = orchestration.meta.item if orchestration.meta is not None else {}
        condition = all_of(
            build.unchanged("rollup_posted_at", read), build.unchanged("updated_at", read)
        )
        key = row_key(orchestration.orchestration_id, META)
        return check(self.table, key, condition, build)

    def expect_failure(self, predecessor: Child) -> Write:
        """Condition: the predecessor is still ``failed`` or ``skipped``, not retried."""
        build = Expression()
        return self._check(predecessor, build.one_of("child_status", FAILURE), build)

    def _change_unreleased(
        self, child: Child, values: dict[str, str], since: datetime | None = None
    ) -> Write:
        """Change a ``blocked`` or ``ready`` row, if it is still the attempt that was read."""
        build = Expression()
        # The prior task id identifies the attempt; the dependencies are those that were checked.
        conditions = (
            build.one_of("child_status", UNRELEASED),
            build.unchanged("child_task_id", child.item),
            build.unchanged("depends_on", child.item),
        )
        return self._change(child, values, build, *conditions, since=since)

    def set_released(self, child: Child, task_id: str, branch: str, at: str) -> Write:
        """``blocked``/``ready`` → ``released``, if it is still the attempt that was read."""
        values = {
            "child_status": ChildStatus.RELEASED,
            "child_task_id": task_id,
            "child_branch_name": branch,
            "updated_at": at,
        }
        return self._change_unreleased(child, values)

    def set_adopted(self, child: Child, task_id: str, branch: str | None, at: str) -> Write:
        """The status as read → ``released``, with the task that already exists.

        A claim must not have changed, since a changed one is in use.
        """
        build = Expression()
        values = {
            "child_status": ChildStatus.RELEASED.value,
            "child_task_id": task_id,
            "updated_at": at,
        }
        if branch:
            values["child_branch_name"] = branch
        conditions = [
            build.equals("child_status", child.raw_status),
            build.unchanged("child_task_id", child.item),
        ]
        if child.status is ChildStatus.RELEASING:
            conditions.append(build.unchanged("updated_at", child.item))
        return self._change(child, values, build, *conditions)

    def set_outcome(self, child: Child, task: Task, at: str) -> Write:
        """``released`` → the outcome of its task, if it still has that task (I4)."""
        build = Expression()
        return self._change(
            child,
            {"child_status": task.outcome, "updated_at": at},
            build,
            build.equals("child_status", ChildStatus.RELEASED),
            build.equals("child_task_id", task.task_id),
            since=moment(task.finished_at) or LONG_AGO,
        )

    def set_skipped(self, child: Child, at: str, since: datetime) -> Write:
        """``blocked``/``ready`` → ``skipped``, if it is still the attempt that was read."""
        values = {"child_status": ChildStatus.SKIPPED.value, "updated_at": at}
        return self._change_unreleased(child, values, since)

    def set_refused(self, child: Child, reason: str, at: str, since: datetime) -> Write:
        """``blocked``/``ready`` → ``failed`` with the reason, if it is still the same attempt."""
        values = {
            "child_status": ChildStatus.FAILED.value,
            "failure_reason": reason,
            "updated_at": at,
        }
        return self._change_unreleased(child, values, since)

    def set_claim_reset(self, child: Child, at: str) -> Write:
        """Abandoned ``releasing`` → ``ready``, if nobody has touched the row since it was read."""
        build = Expression()
        return self._change(
            child,
            {"child_status": ChildStatus.READY, "updated_at": at},
            build,
            build.equals("child_status", ChildStatus.RELEASING),
            build.unchanged("updated_at", child.item),
            build.unchanged("child_task_id", child.item),
            since=moment(child.updated_at) or LONG_AGO,
        )

    def set_unskipped(self, child: Child, at: str) -> Write:
        """``skipped`` → ``blocked``, if nobody has touched the row since it was read."""
        build = Expression()
        return self._change(
            child,
            {"child_status": ChildStatus.BLOCKED, "updated_at": at},
            build,
            build.equals("child_status", ChildStatus.SKIPPED),
            build.unchanged("updated_at", child.item),
            build.unchanged("depends_on", child.item),
        )

    def expect_no_failure(self, predecessor: Child) -> Write:
        """Condition: the predecessor exists, and is neither ``failed`` nor ``skipped``."""
        build = Expression()
        condition = all_of(
            build.exists("child_status"), f"NOT ({build.one_of('child_status', FAILURE)})"
        )
        return self._check(predecessor, condition, build)

    def set_reopened(self, orchestration_id: str, at: str) -> Write:
        """Remove the mark that the parent was settled; the meta row must exist."""
        build = Expression()
        change = build.assign({"updated_at": {"S": at}})
        change += f" REMOVE {build.name('rollup_posted_at')}"
        exists = build.exists("child_count")
        return update(self.table, row_key(orchestration_id, META), change, exists, build)

    # -- records of failures

    def record_attempts(
        self, orchestration_id: str, sub_issue_id: str, attempts: Attempts, now_epoch: int
    ) -> None:
        """Write the failure record of a child or of ``WHOLE`` (a marker row)."""
        build = Expression()
        values: dict[str, Any] = {
            "failures": {"N": str(attempts.failures)},
            "last_error": {"S": attempts.last_error},
            "last_failed_at": {"S": attempts.last_failed_at},
            "fingerprint": {"S": attempts.fingerprint},
            "ttl": {"N": str(now_epoch + _ATTEMPTS_TTL_SECONDS)},
        }
        if attempts.retry_at is not None:
            values["retry_at"] = {"S": attempts.retry_at}
        change = build.assign(values)
        if attempts.retry_at is None:
            change += f" REMOVE {build.name('retry_at')}"
        self._dynamodb.call(
            "update_item",
            TableName=self.table,
            Key=row_key(orchestration_id, attempts_marker(sub_issue_id)),
            UpdateExpression=change,
            **build.arguments(),
        )

    def clear_attempts(self, orchestration_id: str, sub_issue_id: str) -> None:
        """Delete the failure record of a child or of ``WHOLE``, if there is one."""
        self._dynamodb.call(
            "delete_item",
            TableName=self.table,
            Key=row_key(orchestration_id, attempts_marker(sub_issue_id)),
        )
