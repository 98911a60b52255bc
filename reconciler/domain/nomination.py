"""Nomination: which orchestrations a scan's rows cast suspicion on.

A scan is eventually consistent and cut by pages; it only ever nominates. Whatever the authority
would find wrong must be nominated, and nothing that is healthy need be: so a scan asks the same
diagnosis, after ``reconciler.stores.rows`` has set the plainest case aside at the least cost.

An index of active children shows less: neither the meta row nor whatever is finished. A predecessor
that it does not show has finished, or does not exist. Where that is so of all of a child's, it is
due, to be skipped or stuck, and nominated; of a child that waits for others besides, those that are
not shown are read, since one of them may have failed. Then the same diagnosis is asked again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from reconciler.domain.diagnosis import Evidence, Policy, diagnose
from reconciler.domain.model import UNRELEASED, Child, ChildStatus, Meta, Orchestration, Task

_ASSUMED_META = Meta("")


def active_part(children: Orchestration) -> Orchestration:
    """Return the active children of an orchestration as a part that can be judged.

    Whether there is a meta row, and what it says, only a full scan sees.
    """
    return replace(children, meta=_ASSUMED_META)


def unseen_predecessors(part: Orchestration) -> Sequence[str] | None:
    """Return the predecessors that have to be read before an active part can be judged.

    None when that is not worth it: a child has predecessors, and nothing of them is active.
    """
    unseen: dict[str, None] = {}
    for child in part.children.values():
        if child.status in UNRELEASED and child.depends_on:
            missing = [key for key in child.depends_on if key not in part.children]
            if len(missing) == len(child.depends_on):
                # It is due, to be skipped, or stuck. The authority reads all rows for that in any
                # case.
                return None
            unseen.update(dict.fromkeys(missing))
    return tuple(unseen)


def with_predecessors(part: Orchestration, read: Iterable[Child]) -> Orchestration:
    """Return an active part and those of its predecessors that were not in it."""
    return replace(part, children={**part.children, **{c.sub_issue_id: c for c in read}})


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
