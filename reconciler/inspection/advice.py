"""Commands that a person can run about what is stuck, each with its purpose.

Commands are meant to be pasted, and ids come from a table, so ids are quoted for the shell.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence

from reconciler.domain.codes import Code, OrchestrationCode
from reconciler.domain.model import META, ChildStatus
from reconciler.inspection.views import ChildView, Command, View
from reconciler.sweeping.listing import Entry

_RUNBOOK = "docs/operating.md"
_ORCHESTRATIONS, _TASKS = '"$ORCHESTRATION_TABLE_NAME"', '"$TASK_TABLE_NAME"'
_NOW = "'$(date -u +%FT%T.000Z)'"
"""Closes and reopens the single quotes around it, so that the shell inserts the current time."""


def runbook_of(section: str) -> str:
    """Return the runbook's section for a code, or for another anchor."""
    return f"{_RUNBOOK}#{section}"


def fix_of(entry: Entry) -> str:
    """Return the command that resolves a stuck entry, or else one that shows how."""
    if entry.code == Code.LOST_UNSKIP and entry.sub_issue_id is not None:
        return _line("unskip", entry.orchestration_id, entry.sub_issue_id)
    if entry.code == Code.UNSTARTED_TASK:
        return "reconciler doctor"
    command = "evaluate" if entry.code == Code.QUARANTINED else "inspect"
    return _line(command, entry.orchestration_id)


def fixes_of(view: View, child: ChildView) -> Sequence[Command]:
    """Return the commands that resolve a stuck child, in order."""
    make = _FIXES.get(child.code or "")
    return tuple(make(view, child)) if make is not None else ()


def parent_fixes_of(view: View) -> Sequence[Command]:
    """Return the commands that resolve an orchestration that is stuck as a whole."""
    if view.code == OrchestrationCode.ROWS_MISSING and view.child_count is not None:
        count, was = len(view.children), view.child_count
        change = _update(
            view,
            META,
            "SET child_count = :count, updated_at = :now",
            "child_count = :was",
            count={"N": str(count)},
            was={"N": str(was)},
        )
        return (Command(change, f"if {count} is right, because rows were removed on purpose"),)
    if view.code == OrchestrationCode.UNSETTLED_PARENT and view.needs_action:
        if not view.given.policy.settles:
            return (_touch_anyway(view),)
        change = _update(
            view,
            META,
            "SET rollup_posted_at = :now, updated_at = :now",
            "attribute_not_exists(rollup_posted_at)",
        )
        return (Command(change, "when its roll-up has been posted by hand"),)
    return ()


def _touch_anyway(view: View) -> Command:
    line = f"SETTLE_MODE=nudge {_line('evaluate', view.orchestration_id)}"
    return Command(line, "touch a finished task once, although SETTLE_MODE is off")


def commands_for(view: View) -> Sequence[Command]:
    """Return commands for the orchestration as a whole, the most useful first."""
    commands: list[Command] = []
    if view.given.paused:
        commands.append(Command("reconciler resume", "end the pause, everywhere"))
    settles = view.code == OrchestrationCode.UNSETTLED_PARENT and not view.needs_action
    if settles or any(not child.needs_action for child in view.stuck):
        line = _line("evaluate", view.orchestration_id)
        commands.append(Command(line, "do now what the next sweep would do"))
    return commands


def _unskip(view: View, child: ChildView) -> Iterator[Command]:
    line = _line("unskip", view.orchestration_id, child.sub_issue_id)
    yield Command(line, f"set {child.label}, and what was skipped because of it, back to blocked")


def _release(view: View, child: ChildView) -> Iterator[Command]:
    line = _line("release", view.orchestration_id, child.sub_issue_id)
    yield Command(line, f"release only {child.label}, if it is due")


def _try_again(view: View, _child: ChildView) -> Iterator[Command]:
    yield Command(_line("evaluate", view.orchestration_id), "try again now, and end the backoff")


def _check_pipeline(_view: View, child: ChildView) -> Iterator[Command]:
    if child.needs_action:
        yield Command("reconciler doctor", "check the pipeline's settings and permissions")


def _recover(view: View, child: ChildView) -> Iterator[Command]:
    if child.needs_action:
        yield _touch_anyway(view)


def _put_back(view: View, child: ChildView) -> Iterator[Command]:
    line = _update(
        view,
        child.sub_issue_id,
        "SET child_status = :ready, updated_at = :now",
        "child_status = :was",
        ready={"S": "ready"},
        was={"S": child.status},
    )
    yield Command(line, f"if the work of {child.label} was never done: put it back")
    again = _line("release", view.orchestration_id, child.sub_issue_id)
    yield Command(again, "then release it again")


def _stop_waiting(view: View, child: ChildView) -> Iterator[Command]:
    """Remove one predecessor from ``depends_on`` that has no row or is on the same cycle."""
    rows = {other.sub_issue_id for other in view.children}
    cyclic = {c.sub_issue_id for c in view.children if c.code == Code.DEPENDENCY_CYCLE}
    unwanted = cyclic if child.code == Code.DEPENDENCY_CYCLE else set(child.depends_on) - rows
    for at, before in enumerate(child.depends_on):
        if before in unwanted:
            line = _update(
                view,
                child.sub_issue_id,
                f"REMOVE depends_on[{at}] SET updated_at = :now",
                f"depends_on[{at}] = :gone",
                gone={"S": before},
            )
            what = "itself" if before == child.sub_issue_id else before
            yield Command(line, f"if {child.label} need not wait for {what}")
            return


def _task(_view: View, child: ChildView) -> Iterator[Command]:
    if child.task_id is not None:
        key = _key(task_id=child.task_id)
        line = f"aws dynamodb get-item --table-name {_TASKS} --key {key}"
        yield Command(line, f"see whether the task of {child.label} still works; if not, cancel it")


def _row(view: View, child: ChildView) -> Iterator[Command]:
    """Show the row that is malformed: the child's own, its task's, or the meta row."""
    table, whose = _ORCHESTRATIONS, f"the row of {child.label}"
    key = _key(orchestration_id=view.orchestration_id, sub_issue_id=child.sub_issue_id)
    purpose = f"look at {whose}, and correct it"
    if child.code == Code.ORPHAN_ROW:
        purpose = f"see in {whose} which parent issue to have seeded again"
    elif not child.malformed and child.status == ChildStatus.RELEASED and child.task_id is not None:
        table, key = _TASKS, _key(task_id=child.task_id)
        purpose = f"look at the task of {child.label}, and correct it"
    elif not child.malformed:
        key = _key(orchestration_id=view.orchestration_id, sub_issue_id=META)
        purpose = "look at the meta row, and correct it"
    yield Command(f"aws dynamodb get-item --table-name {table} --key {key}", purpose)


def _holder(view: View, child: ChildView) -> Iterator[Command]:
    key = f"{view.orchestration_id}_{child.sub_issue_id}"
    values = {":k": {"S": f"{key}_{child.task_id}" if child.task_id else key}}
    yield Command(
        f"aws dynamodb query --table-name {_TASKS} --index-name IdempotencyIndex "
        "--key-condition-expression 'idempotency_key = :k' "
        f"--expression-attribute-values {shlex.quote(json.dumps(values))}",
        f"find the task that holds the key of {child.label}",
    )


_FIXES: Mapping[str, Callable[[View, ChildView], Iterator[Command]]] = {
    Code.LOST_RELEASE: _release,
    Code.ABANDONED_CLAIM: _release,
    Code.UNSTARTED_TASK: _check_pipeline,
    Code.LOST_RECOVERY: _recover,
    Code.LOST_UNSKIP: _unskip,
    Code.QUARANTINED: _try_again,
    Code.LONG_RUNNING: _task,
    Code.MISSING_TASK: _put_back,
    Code.MISSING_TASK_ID: _put_back,
    Code.DANGLING_DEPENDENCY: _stop_waiting,
    Code.DEPENDENCY_CYCLE: _stop_waiting,
    Code.ORPHAN_ROW: _row,
    Code.UNKNOWN_STATUS: _row,
    Code.MALFORMED_ROW: _row,
    Code.IDEMPOTENCY_CONFLICT: _holder,
}


def _line(command: str, *ids: str) -> str:
    return " ".join(("reconciler", command, *map(shlex.quote, ids)))


def _key(**attributes: str) -> str:
    """Return the key of an item, quoted for the shell."""
    return shlex.quote(json.dumps({name: {"S": value} for name, value in attributes.items()}))


def _update(view: View, row: str, change: str, condition: str, **values: Mapping[str, str]) -> str:
    """Return the command that updates a row; ``values`` are its placeholders besides ``:now``."""
    named = {f":{name}": value for name, value in values.items()}
    quoted = shlex.quote(json.dumps({**named, ":now": {"S": "\x00"}})).replace("\\u0000", _NOW)
    return (
        f"aws dynamodb update-item --table-name {_ORCHESTRATIONS} "
        f"--key {_key(orchestration_id=view.orchestration_id, sub_issue_id=row)} "
        f"--update-expression {shlex.quote(change)} "
        f"--condition-expression {shlex.quote(condition)} "
        f"--expression-attribute-values {quoted}"
    )
