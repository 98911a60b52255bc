"""The platform's rows as values: orchestrations, their children, and the children's tasks."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reconciler.domain.backoff import Attempts

Item = Mapping[str, Mapping[str, Any]]
"""A row as the store has it. Nothing that is decided looks into one: ``reconciler.stores.rows``
reads it, and the conditions of writes compare with it."""

META = "#meta"
WHOLE = ""
"""Stands for the orchestration itself where others name one of its children."""

INTEGRATION_SUFFIX = "__integration"
DEFAULT_CHANNEL = "linear"


class ChildStatus(StrEnum):
    """``child_status`` of a child row."""

    BLOCKED = "blocked"
    READY = "ready"
    RELEASING = "releasing"
    RELEASED = "released"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"


TERMINAL_CHILD = frozenset({ChildStatus.SUCCEEDED, ChildStatus.FAILED, ChildStatus.SKIPPED})
ACTIVE_CHILD = tuple(status for status in ChildStatus if status not in TERMINAL_CHILD)
UNRELEASED = frozenset({ChildStatus.BLOCKED, ChildStatus.READY})
FAILURE = frozenset({ChildStatus.FAILED, ChildStatus.SKIPPED})

TERMINAL_TASK = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"})
ACTIVE_TASK = frozenset(
    {
        "PENDING_UPLOADS",
        "QUEUED",
        "SUBMITTED",
        "HYDRATING",
        "RUNNING",
        "AWAITING_APPROVAL",
        "FINALIZING",
    }
)


def moment(text: str | None) -> datetime | None:
    """Read any ISO 8601 time as an aware UTC time; None for what is missing or unreadable."""
    if not text:
        return None
    try:
        parsed = datetime.fromisoformat(text)
        return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


LONG_AGO = datetime.min.replace(tzinfo=UTC)
"""Stands for a time that is missing or unreadable: the write conditions protect anyway."""


def timestamp(at: datetime) -> str:
    """Write a time as the platform does: ISO 8601 UTC, milliseconds, ``Z``."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def known_timestamp(since: datetime | None) -> str | None:
    """Return a moment as rows have it; None where it is not known."""
    return None if since is None or since == LONG_AGO else timestamp(since)


def seconds_since(since: datetime | None, now: datetime) -> float | None:
    """Return how long ago a moment was, never negative; None where it is not known."""
    if since is None or since == LONG_AGO:
        return None
    return max(0.0, (now - since).total_seconds())


@dataclass(frozen=True, slots=True)
class Child:
    """A child row.

    ``status`` is None for a status that is not known; ``problem`` says what is malformed.
    ``effective_at``: when the state that our last write recorded had really come about, as long as
    nobody has written to the row since. ``ttl``: epoch seconds. ``item`` is the row as it was read:
    whole, or only the attributes of the scan.
    """

    orchestration_id: str
    sub_issue_id: str
    status: ChildStatus | None
    raw_status: str
    depends_on: tuple[str, ...] = ()
    task_id: str | None = None
    branch_name: str | None = None
    display_id: str | None = None
    created_at: str | None = None
    updated_at: str | None = None
    effective_at: str | None = None
    ttl: int | None = None
    problem: str | None = None
    item: Item = field(default_factory=dict, repr=False, compare=False)

    @property
    def since(self) -> str | None:
        """Since when it has been in its status: our own repair must not restart a grace."""
        return self.effective_at or self.updated_at

    @property
    def terminal(self) -> bool:
        """Whether nothing more can happen to it."""
        return self.status in TERMINAL_CHILD

    @property
    def is_integration(self) -> bool:
        """Whether it is the synthetic node that merges all leaves."""
        return self.sub_issue_id.endswith(INTEGRATION_SUFFIX)

    @property
    def idempotency_key(self) -> str:
        """The key of its next task: a retry's key names the earlier task."""
        base = f"{self.orchestration_id}_{self.sub_issue_id}"
        return f"{base}_{self.task_id}" if self.task_id else base

    def moved(
        self,
        status: ChildStatus,
        at: str | None,
        task_id: str | None = None,
        branch_name: str | None = None,
    ) -> Child:
        """Return the row as it is after a write of ours: in ``status``, in effect since ``at``."""
        return replace(
            self,
            status=status,
            raw_status=status.value,
            updated_at=at,
            effective_at=None,
            task_id=task_id or self.task_id,
            branch_name=branch_name or self.branch_name,
        )


@dataclass(frozen=True, slots=True)
class Meta:
    """The meta row. ``problem`` says why no task can be made from it, if so."""

    orchestration_id: str
    child_count: int | None = None
    user_id: str | None = None
    repo: str | None = None
    created_at: str | None = None
    updated_at: str | None = None
    settled: bool = False
    channel: str = DEFAULT_CHANNEL
    ttl: int | None = None
    item: Item = field(default_factory=dict, repr=False, compare=False)

    @property
    def problem(self) -> str | None:
        """What is missing or malformed on it, if anything."""
        if self.child_count is None:
            return "meta row: child_count is missing or is not a whole number"
        for name, value in (("platform_user_id", self.user_id), ("repo", self.repo)):
            if not value:
                return f"meta row: {name} is missing"
        return None


@dataclass(frozen=True, slots=True)
class Task:
    """A task row, as far as a diagnosis needs it. What begins with ``invo``/``nudg`` is ours.

    ``orchestration_id`` and ``sub_issue_id``: the child that it works for, whether or not the
    child's row names it. ``iteration``: a person's fix, made by a comment on a finished child.
    ``sweep_id``: of the sweep of ours that made it; None: others did.
    """

    task_id: str
    status: str
    user_id: str | None = None
    status_since: str | None = None
    created_at: str | None = None
    updated_at: str | None = None
    completed_at: str | None = None
    build_passed: bool | None = None
    idempotency_key: str | None = None
    branch_name: str | None = None
    orchestration_id: str | None = None
    sub_issue_id: str | None = None
    iteration: bool = False
    sweep_id: str | None = None
    invoked_at: str | None = None
    invoke_count: int = 0
    nudged_at: str | None = None
    nudge_count: int = 0
    problem: str | None = None

    @property
    def terminal(self) -> bool:
        """Whether its status is final."""
        return self.status in TERMINAL_TASK

    @property
    def ours(self) -> bool:
        """Whether we made it."""
        return self.sweep_id is not None

    @property
    def unrecorded(self) -> bool:
        """Whether we made it, and no invocation of its pipeline is recorded."""
        return self.ours and self.invoked_at is None

    @property
    def outcome(self) -> ChildStatus:
        """What a terminal task makes of its child: a completed task with a broken build failed."""
        # Without a verdict on the build, the platform takes a completed task for a success.
        if self.status == "COMPLETED" and self.build_passed is not False:
            return ChildStatus.SUCCEEDED
        return ChildStatus.FAILED

    @property
    def finished_at(self) -> str | None:
        """When it became terminal, as far as the row tells."""
        # In this order: the agent's last write leaves `updated_at` as it was.
        return self.completed_at or self.status_since or self.updated_at


@dataclass(frozen=True, slots=True)
class Orchestration:
    """One partition of OrchestrationTable: ``children`` by ``sub_issue_id``, markers left out.

    ``attempts``: our record of failures, by ``sub_issue_id``, or ``WHOLE``.
    """

    orchestration_id: str
    meta: Meta | None
    children: Mapping[str, Child]
    attempts: Mapping[str, Attempts] = field(default_factory=dict)

    def predecessors_of(self, child: Child) -> list[tuple[str, Child | None]]:
        """Return what a child waits for, each with its row; None where it has none."""
        return [(key, self.children.get(key)) for key in child.depends_on]

    def with_child(self, child: Child) -> Orchestration:
        """Return the orchestration with one child replaced."""
        return replace(self, children={**self.children, child.sub_issue_id: child})

    @property
    def user_id(self) -> str | None:
        """Whose it is, as far as its rows tell."""
        return self.meta.user_id if self.meta is not None else None

    @property
    def repo(self) -> str | None:
        """The repository that it is about, as far as its rows tell."""
        return self.meta.repo if self.meta is not None else None

    @property
    def channel(self) -> str:
        """Where the parent issue comes from."""
        return self.meta.channel if self.meta is not None else DEFAULT_CHANNEL

    @property
    def complete(self) -> bool:
        """Whether every row that the meta row counts is there."""
        # There may be more: an extension writes its rows first, and raises the count after that.
        return self.meta is not None and (self.meta.child_count or 0) <= len(self.children)

    @property
    def fingerprint(self) -> str:
        """A short text that changes when any row of the orchestration changes.

        Made of what every write of the platform touches, so that a person's repair by hand
        brings back at once what is backed off. Order of rows does not matter.
        """
        return self._fingerprint(self.children.values())

    def fingerprint_of(self, sub_issue_id: str) -> str:
        """A short text that changes when the child or the meta row changes; of ``WHOLE``: any."""
        if sub_issue_id == WHOLE:
            return self.fingerprint
        child = self.children.get(sub_issue_id)
        return self._fingerprint(() if child is None else (child,))

    def _fingerprint(self, children: Collection[Child]) -> str:
        # A sum, since rows come in any order.
        total = 0
        for child in children:
            parts = (child.sub_issue_id, child.raw_status, child.task_id, child.updated_at)
            total = (total + _stable_hash(parts)) & 0xFFFFFFFFFFFFFFFF
        if self.meta is not None:
            total += _stable_hash((META, self.meta.updated_at, str(self.meta.child_count)))
        return f"{len(children)}-{total & 0xFFFFFFFFFFFFFFFF:016x}"

    def backed_off(self, now: datetime) -> dict[str, Attempts]:
        """Return the records of what is to be left alone at ``now``."""
        return {
            key: attempts
            for key, attempts in self.attempts.items()
            if attempts.backed_off(now, self.fingerprint_of(key))
        }


def _stable_hash(parts: tuple[str | None, ...]) -> int:
    text = "\x00".join(part or "" for part in parts).encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())
