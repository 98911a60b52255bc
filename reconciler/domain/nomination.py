"""Nomination: which orchestrations a scan's rows cast suspicion on.

A scan is eventually consistent and cut by pages; it only ever nominates. Whatever the authority
would find wrong must be nominated, and nothing that is healthy need be: so a scan asks the same
diagnosis, after the plainest case has been set aside at the least cost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from reconciler.domain.diagnosis import Evidence, Policy, diagnose
from reconciler.domain.model import META, TERMINAL_CHILD, ChildStatus, Item, Orchestration, Task
from reconciler.domain.rows import is_marker, number, text

_TERMINAL = frozenset(status.value for status in TERMINAL_CHILD)


def plainly_settled(rows: Sequence[Item]) -> bool:
    """Whether these rows of one orchestration are all of it, terminal, and its parent settled.

    Most of a table is history; this is what it costs.
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
            if status is None or status.get("S") not in _TERMINAL:
                return False
    return (
        meta is not None
        and text(meta, "rollup_posted_at") is not None
        and number(meta, "child_count") == children
    )


def running_tasks(orchestration: Orchestration) -> list[str]:
    """Return the ids of the tasks without which it cannot be judged."""
    return [
        child.task_id
        for child in orchestration.children.values()
        if child.status is ChildStatus.RELEASED and child.task_id is not None
    ]


def suspicious(
    orchestration: Orchestration,
    tasks: Mapping[str, Task | None],
    policy: Policy,
    now: datetime,
) -> bool:
    """Whether the authority should look at it; ``orchestration`` may be a part of one.

    Fewer rows than ``child_count`` may be a page's doing; only a consistent read can tell.
    """
    meta = orchestration.meta
    if meta is not None and (meta.child_count or 0) > len(orchestration.children):
        return True
    return not diagnose(orchestration, Evidence(tasks=tasks), policy, now).healthy
