"""Nomination: which orchestrations look suspicious in a scan.

A scan is eventually consistent and cut into pages, so it only nominates. It must nominate whatever
an evaluation would find wrong, and should nominate nothing else. So it runs the same diagnosis,
after ``reconciler.stores.rows`` has cheaply sorted out what is plainly settled.

The index of active children shows neither meta rows nor finished children. A predecessor that is
not in it has finished or does not exist. If that is true of all predecessors, the child is due, has
to be skipped or is stuck, so it is nominated. If only some are missing, they are read, because one
of them may have failed, and then the diagnosis decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from reconciler.domain.diagnosis import Evidence, Policy, diagnose
from reconciler.domain.model import UNRELEASED, Child, ChildStatus, Meta, Orchestration, Task

_ASSUMED_META = Meta("")


def active_part(children: Orchestration) -> Orchestration:
    """Return the active children with an assumed meta row; only a full scan sees the real one."""
    return replace(children, meta=_ASSUMED_META)


def unseen_predecessors(part: Orchestration, *, watched: bool = False) -> Sequence[str] | None:
    """Return the predecessors to read before an active part can be judged.

    None if it is to be nominated anyway, because no predecessor of some child is active. Of a
    ``watched`` part they are read even then, to see whether anything has changed.
    """
    unseen: dict[str, None] = {}
    for child in part.children.values():
        if child.status in UNRELEASED and child.depends_on:
            missing = [key for key in child.depends_on if key not in part.children]
            if len(missing) == len(child.depends_on) and not watched:
                # It is due, has to be skipped or is stuck: the evaluation reads all rows anyway.
                return None
            unseen.update(dict.fromkeys(missing))
    return tuple(unseen)


def with_predecessors(part: Orchestration, read: Iterable[Child]) -> Orchestration:
    """Return an active part completed by predecessors that were not in it."""
    return replace(part, children={**part.children, **{c.sub_issue_id: c for c in read}})


def running_tasks(orchestration: Orchestration) -> list[str]:
    """Return the ids of the tasks that are needed to judge it."""
    return [
        child.task_id
        for child in orchestration.children.values()
        if child.status is ChildStatus.RELEASED and child.task_id is not None
    ]


def fingerprint_of(orchestration: Orchestration, tasks: Mapping[str, Task | None]) -> str:
    """Return a fingerprint of its rows and of how many of its running tasks have ended."""
    read = (tasks.get(task_id) for task_id in running_tasks(orchestration))
    ended = sum(task is not None and task.terminal for task in read)
    return f"{orchestration.fingerprint}+{ended}" if ended else orchestration.fingerprint


def suspicious(
    orchestration: Orchestration,
    tasks: Mapping[str, Task | None],
    policy: Policy,
    now: datetime,
) -> bool:
    """Whether to nominate an orchestration, of which ``orchestration`` may be only a part."""
    meta = orchestration.meta
    # Rows may be missing only because of a page boundary; an evaluation will tell.
    if meta is not None and (meta.child_count or 0) > len(orchestration.children):
        return True
    return not diagnose(orchestration, Evidence(tasks=tasks), policy, now).healthy
