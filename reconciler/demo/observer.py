"""The observer: reads the tables and records violations.

It does not use the reconciler's logic: it determines what is stranded, and since when, by plain
rules of its own. Pure, over snapshots.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from reconciler.domain.codes import OrchestrationCode
from reconciler.domain.model import (
    FAILURE,
    UNRELEASED,
    Child,
    ChildStatus,
    Orchestration,
    Task,
    moment,
)
from reconciler.settings import Settings

ChildKey = tuple[str, str]
"""(orchestration id, sub-issue id)."""

UNSETTLED = OrchestrationCode.UNSETTLED_PARENT.value
"""Code of a repair that concerns no child."""

_RANK = {
    None: -1,
    ChildStatus.BLOCKED: 0,
    ChildStatus.READY: 0,
    ChildStatus.RELEASING: 0,
    ChildStatus.RELEASED: 1,
    ChildStatus.SUCCEEDED: 2,
    ChildStatus.FAILED: 2,
    ChildStatus.SKIPPED: 2,
}
"""The progress of a child. A claim counts for nothing, because an abandoned one may be reset."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """One ``orchestration_recovered`` event."""

    child: ChildKey
    code: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The contents of the tables at ``at``; the tasks were read just after the rows."""

    at: datetime
    orchestrations: Mapping[str, Orchestration]
    tasks: Mapping[str, Task]
    recoveries: tuple[Recovery, ...] = ()

    def is_settled(self, orchestration_id: str) -> bool:
        """Whether the parent of an orchestration was settled."""
        found = self.orchestrations.get(orchestration_id)
        return found is not None and found.meta is not None and found.meta.settled

    def children(self) -> Iterator[tuple[ChildKey, Child]]:
        """Yield every child."""
        for orchestration_id, orchestration in self.orchestrations.items():
            for key, child in orchestration.children.items():
                yield (orchestration_id, key), child


@dataclass(slots=True)
class Observer:
    """Observes one snapshot after the other.

    ``stranded``: what is stranded in the latest snapshot; ``ever_stranded``: what ever was.
    ``regressions`` and ``early``: one sentence for each violation.
    """

    settings: Settings
    latest: Snapshot | None = None
    stranded: dict[ChildKey, datetime] = field(default_factory=dict)
    ever_stranded: set[ChildKey] = field(default_factory=set)
    regressions: list[str] = field(default_factory=list)
    early: dict[ChildKey, str] = field(default_factory=dict)
    samples: int = 0

    def observe(self, snapshot: Snapshot) -> None:
        """Take in the next snapshot."""
        before, self.latest = self.latest, snapshot
        self.samples += 1
        if before is not None:
            self.regressions.extend(_regressions(before, snapshot))
        for key, sentence in _early_releases(snapshot):
            self.early.setdefault(key, sentence)
        self.stranded = dict(self._stranded(snapshot))
        self.ever_stranded.update(self.stranded)
        self.ever_stranded.update(
            recovery.child for recovery in snapshot.recoveries if recovery.code != UNSETTLED
        )

    def _stranded(self, snapshot: Snapshot) -> Iterator[tuple[ChildKey, datetime]]:
        for key, child in snapshot.children():
            due = due_since(snapshot, child, self.settings)
            if due is not None and snapshot.at - due[0] > due[1]:
                yield key, due[0]


def due_since(
    snapshot: Snapshot, child: Child, settings: Settings
) -> tuple[datetime, timedelta] | None:
    """Return since when something is due for ``child``, and how long it may be due, or None.

    A released child is due when its task has ended or should have started, a claimed one when it
    was claimed, and a waiting one when its predecessors determine whether it runs.
    """
    allowed, since = settings.stranded_grace_seconds, None
    task = snapshot.tasks.get(child.task_id or "")
    if child.status is ChildStatus.RELEASED and task is not None:
        if task.terminal:
            since = moment(task.finished_at)
        elif task.status == "SUBMITTED":
            allowed, since = settings.task_start_timeout_seconds, moment(task.created_at)
    elif child.status is ChildStatus.RELEASING:
        allowed, since = settings.claim_timeout_seconds, moment(child.updated_at)
    elif child.status in UNRELEASED:
        since = turn_came_at(snapshot, child)
    return (since, timedelta(seconds=allowed)) if since is not None else None


def turn_came_at(snapshot: Snapshot, child: Child) -> datetime | None:
    """Return when its predecessors determined that a child runs or is skipped.

    None while that is open. For a root it is the time of seeding.
    """
    turn = _turn(snapshot, child)
    return turn[1] if turn is not None else None


def _turn(snapshot: Snapshot, child: Child) -> tuple[bool, datetime] | None:
    """Return whether a child must be skipped, and when that was determined; None while open."""
    rows = snapshot.orchestrations[child.orchestration_id].children
    ends = [_end(snapshot, rows.get(key)) for key in child.depends_on]
    known = [end for end in ends if end is not None]
    failed_at = [at for status, at in known if status in FAILURE]
    if failed_at:
        return True, min(failed_at)
    if len(known) < len(ends):
        return None
    settled_at = max((at for _, at in known), default=moment(child.created_at))
    return (False, settled_at) if settled_at is not None else None


def _end(snapshot: Snapshot, child: Child | None) -> tuple[ChildStatus, datetime] | None:
    """Return how and when a child ended, even if its row does not show it."""
    if child is None:
        return None
    task = snapshot.tasks.get(child.task_id or "")
    if task is not None:
        at = moment(task.finished_at) if task.terminal else None
        return (task.outcome, at) if at is not None else None
    turn = _turn(snapshot, child)
    return (ChildStatus.SKIPPED, turn[1]) if turn is not None and turn[0] else None


def _regressions(before: Snapshot, after: Snapshot) -> Iterator[str]:
    rows = dict(after.children())
    for key, child in before.children():
        said = _regression(child, rows.get(key))
        if said is not None:
            yield f"child {key[1]} of {key[0]} {said}"
    for task_id, task in before.tasks.items():
        current = after.tasks.get(task_id)
        if current is None:
            yield f"task {task_id} is gone"
        elif task.terminal and current.status != task.status:
            yield f"task {task_id} went from {task.status} to {current.status}"


def _regression(child: Child, row: Child | None) -> str | None:
    if row is None:
        return "is gone"
    if child.terminal and (row.status, row.task_id) != (child.status, child.task_id):
        return f"went from {child.raw_status} to {row.raw_status}"
    if _RANK[row.status] < _RANK[child.status]:
        return f"went back from {child.raw_status} to {row.raw_status}"
    if child.task_id is not None and row.task_id != child.task_id:
        return f"changed its task from {child.task_id} to {row.task_id}"
    return None


def _early_releases(snapshot: Snapshot) -> Iterator[tuple[ChildKey, str]]:
    for key, child in snapshot.children():
        if child.task_id is None:
            continue
        rows = snapshot.orchestrations[key[0]].children
        for name in child.depends_on:
            row = rows.get(name)
            if row is None or row.status is not ChildStatus.SUCCEEDED:
                state = row.raw_status if row is not None else "missing"
                yield key, f"child {key[1]} of {key[0]} was released while {name} was {state}"


def duplicates(tasks: Mapping[str, Task]) -> list[str]:
    """Return the idempotency keys with more than one task, sorted."""
    counts = Counter(task.idempotency_key for task in tasks.values())
    return sorted(key for key, count in counts.items() if key is not None and count > 1)
