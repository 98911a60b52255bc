"""What a person could run about an orchestration: each command whole, and what it is for.

Ids come from a table, and a command is there to be pasted: whatever a shell could take for more
than a word is quoted.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence

from reconciler.domain.codes import Code, OrchestrationCode
from reconciler.inspection.theme import Tone
from reconciler.inspection.views import ChildView, Command, View

BY_HAND = frozenset(
    {
        Code.LOST_RELEASE.value,
        Code.OVER_BUDGET.value,
        Code.QUARANTINED.value,
        Code.ABANDONED_CLAIM.value,
    }
)
"""Codes of a child that `reconciler release` may bring on."""

_SKIPPED = frozenset({Code.LOST_UNSKIP.value})
_LOOK_AT_TASK = frozenset(
    {Code.LONG_RUNNING.value, Code.MISSING_TASK.value, Code.UNSTARTED_TASK.value}
)
_LOOK_AT_ROW = frozenset(
    {
        Code.DANGLING_DEPENDENCY.value,
        Code.DEPENDENCY_CYCLE.value,
        Code.ORPHAN_ROW.value,
        Code.UNKNOWN_STATUS.value,
        Code.MALFORMED_ROW.value,
        Code.MISSING_TASK_ID.value,
    }
)


def commands_for(view: View) -> Sequence[Command]:
    """Return what would help, the most useful first; at most one of a kind."""
    commands: list[Command] = []
    name = view.orchestration_id
    if view.withheld is not None and view.withheld.startswith("paused"):
        commands.append(Command("reconciler resume", "let repairs go on, everywhere"))
    repairs = any(child.tone is Tone.REPAIR for child in view.stuck)
    quarantined = any(child.code == Code.QUARANTINED for child in view.stuck)
    if repairs or quarantined or view.code == OrchestrationCode.UNSETTLED_PARENT:
        purpose = "do now what the next sweep would do"
        if quarantined:
            purpose = "try again now: a call by hand ends the quarantine"
        commands.append(Command(f"reconciler sweep --inline --orchestration {name}", purpose))
    for codes, make in (
        (_SKIPPED, _unskip),
        (BY_HAND, _release),
        (_LOOK_AT_TASK, _task),
        (_LOOK_AT_ROW, _row),
    ):
        child = next((child for child in view.stuck if child.code in codes), None)
        if child is not None:
            commands.extend(make(name, child))
    conflict = next((c for c in view.stuck if c.code == Code.IDEMPOTENCY_CONFLICT), None)
    if conflict is not None:
        commands.extend(_holder(name, conflict))
    if view.alarming:
        line = f"reconciler inspect {name} --format mermaid"
        commands.append(Command(line, "the picture, for an issue or a wiki"))
    return commands


def _release(name: str, child: ChildView) -> Iterator[Command]:
    line = f"reconciler release {name} {shlex.quote(child.sub_issue_id)}"
    yield Command(line, f"release only {child.label}, if it is due")


def _unskip(name: str, child: ChildView) -> Iterator[Command]:
    line = f"reconciler unskip {name} {shlex.quote(child.sub_issue_id)}"
    yield Command(line, f"set {child.label} back to blocked, with what was skipped for it")


def _task(_name: str, child: ChildView) -> Iterator[Command]:
    if child.task_id is not None:
        yield _get_item("TASK", {"task_id": child.task_id}, f"look at the task of {child.label}")


def _row(name: str, child: ChildView) -> Iterator[Command]:
    key = {"orchestration_id": name, "sub_issue_id": child.sub_issue_id}
    yield _get_item("ORCHESTRATION", key, f"look at the row of {child.label}")


def _get_item(table: str, key: Mapping[str, str], purpose: str) -> Command:
    typed = json.dumps({attribute: {"S": value} for attribute, value in key.items()})
    return Command(
        f'aws dynamodb get-item --table-name "${table}_TABLE_NAME" --key {shlex.quote(typed)}',
        purpose,
    )


def _holder(name: str, child: ChildView) -> Iterator[Command]:
    key = f"{name}_{child.sub_issue_id}"
    values = shlex.quote(
        json.dumps({":k": {"S": f"{key}_{child.task_id}" if child.task_id else key}})
    )
    yield Command(
        'aws dynamodb query --table-name "$TASK_TABLE_NAME" --index-name IdempotencyIndex '
        f"--key-condition-expression 'idempotency_key = :k' --expression-attribute-values {values}",
        f"find the task that holds the key of {child.label}",
    )
