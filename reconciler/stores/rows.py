"""Parses rows into the model.

Nothing here raises on a malformed row: the problem is recorded in the result and surfaced.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NoReturn

from reconciler.domain.backoff import Attempts
from reconciler.domain.model import (
    ACTIVE_TASK,
    DEFAULT_CHANNEL,
    META,
    TERMINAL_TASK,
    WHOLE,
    Child,
    ChildStatus,
    Item,
    Meta,
    Orchestration,
    Task,
)
from reconciler.domain.task import Attachment, TaskSource
from reconciler.stores.items import MAX_LEVELS, decimal, number, text, texts, typed

_ATTEMPTS = "reconciler#attempts"


def attempts_marker(sub_issue_id: str) -> str:
    """Return the ``sub_issue_id`` of the failure record of a child or of ``WHOLE``."""
    return f"{_ATTEMPTS}#{sub_issue_id}" if sub_issue_id != WHOLE else _ATTEMPTS


_STATUS = {status.value: status for status in ChildStatus}
_FINISHED = frozenset({ChildStatus.SUCCEEDED.value, ChildStatus.FAILED.value})
_NULL: Mapping[str, bool] = {"NULL": True}
_ATTACHMENT_LEVELS = MAX_LEVELS - 2
"""The list of attachments and the record itself take two levels."""

SCAN_ATTRIBUTES = (
    "orchestration_id",
    "sub_issue_id",
    "child_status",
    "child_task_id",
    "depends_on",
    "child_count",
    "platform_user_id",
    "repo",
    "rollup_posted_at",
    "created_at",
    "updated_at",
    "channel_source",
    "ttl",
    "reconciler_written_at",
    "reconciler_effective_at",
    "failures",
    "last_error",
    "last_failed_at",
    "retry_at",
    "fingerprint",
)
"""The attributes that a diagnosis needs; a scan reads no others."""

ACTIVE_ATTRIBUTES = (
    "orchestration_id",
    "sub_issue_id",
    "child_status",
    "child_task_id",
    "depends_on",
    "updated_at",
)
"""What an index of active children has to project, including its keys and the table's."""

PREDECESSOR_ATTRIBUTES = (*ACTIVE_ATTRIBUTES, "reconciler_written_at", "reconciler_effective_at")
"""The attributes to read of a predecessor that is not in the index of active children."""

TASK_ATTRIBUTES = (
    "task_id",
    "user_id",
    "status",
    "status_created_at",
    "created_at",
    "updated_at",
    "completed_at",
    "build_passed",
    "idempotency_key",
    "branch_name",
    "channel_metadata",
    "reconciler_sweep_id",
    "reconciler_invoked_at",
    "reconciler_invoke_count",
    "reconcile_nudged_at",
    "reconcile_nudge_count",
)
"""The attributes of a task that a diagnosis needs."""


def is_marker(sub_issue_id: str) -> bool:
    """Whether a row is a marker row, not a child."""
    return "#" in sub_issue_id and sub_issue_id != META


def plainly_settled(rows: Sequence[Item]) -> bool:
    """Whether these rows are a complete, finished orchestration whose parent is settled.

    Most of a table is history, so this must be fast and does not parse the rows. Skipped children
    need a closer look, since a retry may have stopped before it reached them.
    """
    meta: Item | None = None
    children = 0
    for row in rows:
        key = row["sub_issue_id"]["S"]
        if key == META:
            meta = row
        elif not is_marker(key):
            children += 1
            status = row.get("child_status")
            if status is None or status.get("S") not in _FINISHED:
                return False
    return (
        meta is not None
        and text(meta, "rollup_posted_at") is not None
        and number(meta, "child_count") == children
    )


def parse_child(item: Item) -> Child:
    """Parse a child row; ``problem`` says what is malformed."""
    raw_status = text(item, "child_status") or ""
    depends_on, not_understood = _parse_depends_on(item)
    problem = not_understood or _problem_of_task_id(item)
    if not raw_status:
        problem = "child_status is missing or is not a string"
    return Child(
        orchestration_id=item["orchestration_id"]["S"],
        sub_issue_id=item["sub_issue_id"]["S"],
        status=_STATUS.get(raw_status),
        raw_status=raw_status,
        depends_on=depends_on,
        task_id=text(item, "child_task_id"),
        branch_name=text(item, "child_branch_name"),
        display_id=text(item, "display_id", "linear_identifier"),
        created_at=text(item, "created_at"),
        updated_at=text(item, "updated_at"),
        effective_at=_effective_at(item),
        ttl=number(item, "ttl"),
        problem=problem,
        item=item,
    )


def _parse_depends_on(item: Item) -> tuple[tuple[str, ...], str | None]:
    """Return the predecessors without duplicates, and what is malformed about the list."""
    entries = item.get("depends_on", {}).get("L")
    if entries is None:
        return (), "depends_on is missing or is not a list"
    names = [entry.get("S") for entry in entries]
    if not all(isinstance(name, str) and name for name in names):
        return (), "depends_on holds something that is not a sub-issue id"
    return tuple(dict.fromkeys(names)), None


def _problem_of_task_id(item: Item) -> str | None:
    value = item.get("child_task_id", _NULL)
    return None if "S" in value or "NULL" in value else "child_task_id is not a string"


def _effective_at(item: Item) -> str | None:
    """Return the effective time of the reconciler's last write, if nobody has written since."""
    written = text(item, "reconciler_written_at")
    if written is None or written != text(item, "updated_at"):
        return None
    return text(item, "reconciler_effective_at")


def parse_meta(item: Item) -> Meta:
    """Parse a meta row."""
    return Meta(
        orchestration_id=item["orchestration_id"]["S"],
        child_count=number(item, "child_count"),
        user_id=text(item, "platform_user_id"),
        repo=text(item, "repo"),
        created_at=text(item, "created_at"),
        updated_at=text(item, "updated_at"),
        settled=text(item, "rollup_posted_at") is not None,
        channel=text(item, "channel_source") or DEFAULT_CHANNEL,
        ttl=number(item, "ttl"),
        item=item,
    )


def parse_attempts(item: Item) -> Attempts:
    """Parse a failure record."""
    return Attempts(
        failures=number(item, "failures") or 0,
        last_error=text(item, "last_error") or "",
        last_failed_at=text(item, "last_failed_at") or "",
        retry_at=text(item, "retry_at"),
        fingerprint=text(item, "fingerprint") or "",
    )


def parse_orchestration(orchestration_id: str, items: Iterable[Item]) -> Orchestration | None:
    """Parse the rows of one partition, in any order; None if all of them are markers."""
    meta: Meta | None = None
    attempts: dict[str, Attempts] = {}
    children: dict[str, Child] = {}
    for item in items:
        key = item["sub_issue_id"]["S"]
        if key == META:
            meta = parse_meta(item)
        elif not is_marker(key):
            children[key] = parse_child(item)
        elif key.startswith(_ATTEMPTS):
            attempts[key.removeprefix(_ATTEMPTS).removeprefix("#")] = parse_attempts(item)
    if meta is None and not children:
        return None
    return Orchestration(orchestration_id, meta, children, attempts)


def parse_task(item: Item) -> Task:
    """Parse a task row; ``problem`` says what is malformed."""
    status = text(item, "status") or ""
    metadata = item.get("channel_metadata", {}).get("M") or {}
    return Task(
        task_id=item["task_id"]["S"],
        status=status,
        user_id=text(item, "user_id"),
        status_since=_status_since(item, status),
        created_at=text(item, "created_at"),
        updated_at=text(item, "updated_at"),
        completed_at=text(item, "completed_at"),
        build_passed=item.get("build_passed", {}).get("BOOL"),
        idempotency_key=text(item, "idempotency_key"),
        branch_name=text(item, "branch_name"),
        orchestration_id=text(metadata, "orchestration_id"),
        sub_issue_id=text(metadata, "orchestration_sub_issue_id"),
        sweep_id=text(item, "reconciler_sweep_id"),
        invoked_at=text(item, "reconciler_invoked_at"),
        invoke_count=number(item, "reconciler_invoke_count") or 0,
        nudged_at=text(item, "reconcile_nudged_at"),
        nudge_count=number(item, "reconcile_nudge_count") or 0,
        problem=_problem_of_task(item, status),
    )


def _status_since(item: Item, status: str) -> str | None:
    """Return since when a task has had its status, from the index key that holds both."""
    entered, _, since = (text(item, "status_created_at") or "").partition("#")
    # If the key holds another status, its time is of that one.
    return since if since and entered == status else None


def _problem_of_task(item: Item, status: str) -> str | None:
    if not status:
        return "the task's status is missing or is not a string"
    if status not in TERMINAL_TASK and status not in ACTIVE_TASK:
        return f"the task's status {status!r} is not known"
    built = item.get("build_passed", _NULL)
    if "BOOL" not in built and "NULL" not in built:
        return "the task's build_passed is not a boolean"
    return None


def with_written(child: Child, **texts: str) -> Child:
    """Return ``child`` with its row updated by what was just written."""
    written = {name: {"S": value} for name, value in texts.items()}
    return replace(child, item={**child.item, **written})


# -- the source of a task


def parse_source(orchestration: Orchestration, child: Child) -> TaskSource:
    """Collect from the rows what the task of ``child`` is made of."""
    meta: Item = orchestration.meta.item if orchestration.meta is not None else {}
    warnings: list[str] = []
    metadata = child.item.get("channel_metadata", {}).get("M")
    listed = child.item.get("pre_screened_attachments", {}).get("L")
    records = [*(listed if isinstance(listed, list) else ()), *_parents_records(meta, warnings)]
    return TaskSource(
        own=texts(child.item),
        parent=texts(meta),
        metadata=texts(metadata) if isinstance(metadata, Mapping) else {},
        attachments=tuple(_parse_attachments(records, warnings)),
        warnings=warnings,
    )


def _parse_attachments(records: Iterable[Item], warnings: list[str]) -> Iterator[Attachment]:
    for record in records:
        fields = record.get("M")
        if not isinstance(fields, Mapping):
            warnings.append("an attachment record that is not a map was left out")
            continue
        screening = fields.get("screening", {}).get("M")
        yield Attachment(
            attachment_id=text(fields, "attachment_id"),
            passed=isinstance(screening, Mapping) and text(screening, "status") == "passed",
            size_bytes=decimal(fields, "size_bytes"),
            stored=record,
        )


def _parents_records(meta: Item, warnings: list[str]) -> Iterator[Item]:
    """Yield the parent's attachments, which its row holds as JSON text."""
    raw = text(meta, "pre_screened_attachments_json")
    if raw is None:
        return
    try:
        records = json.loads(raw, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        warnings.append("the parent's pre_screened_attachments_json cannot be read; none passed on")
        return
    if not isinstance(records, list):
        warnings.append("the parent's pre_screened_attachments_json is not a list; none passed on")
        return
    for record in records:
        try:
            yield typed(record, _ATTACHMENT_LEVELS)
        except ValueError as error:
            warnings.append(f"an attachment of the parent was left out: {error}")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
