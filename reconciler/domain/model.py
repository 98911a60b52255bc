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
"""A row as stored. Decisions never look into it: ``reconciler.stores.rows`` parses it, and the
conditions of writes compare with it."""

META = "#meta"
WHOLE = ""
"""Used as a sub-issue id, means the orchestration as a whole."""

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
    """Parse an ISO 8601 time as an aware UTC time; None if it is missing or unreadable."""
    if not text:
        return None
    try:
        parsed = datetime.fromisoformat(text)
        return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


LONG_AGO = datetime.min.replace(tzinfo=UTC)
"""Used for a time that is missing or unreadable, which is safe because writes are conditional."""


def timestamp(at: datetime) -> str:
    """Format a time as the platform does: ISO 8601 UTC, milliseconds, ``Z``."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def known_timestamp(since: datetime | None) -> str | None:
    """Format a time as in rows; None if it is unknown."""
    return None if since is None or since == LONG_AGO else timestamp(since)


def seconds_since(since: datetime | None, now: datetime) -> float | None:
    """Return how long ago a time was, never negative; None if it is unknown."""
    if since is None or since == LONG_AGO:
        return None
    return max(0.0, (now - since).total_seconds())


@dataclass(frozen=True, slots=True)
class Child:
    """A child row.

    ``status`` is None if it is unknown to this version; ``problem`` says what is malformed.
    ``effective_at``: when the status of the reconciler's last write took effect, if nobody has
    written to the row since. ``ttl``: epoch seconds. ``item``: the row as read, complete or with
    the attributes of a scan.
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
        """Since when it has had its status; a repair does not restart the grace."""
        return self.effective_at or self.updated_at

    @property
    def terminal(self) -> bool:
        """Whether its status is final."""
        return self.status in TERMINAL_CHILD

    @property
    def is_integration(self) -> bool:
        """Whether it is the synthetic node that merges all leaves."""
        return self.sub_issue_id.endswith(INTEGRATION_SUFFIX)

    @property
    def idempotency_key(self) -> str:
        """The key of its next task; a retry's key includes the earlier task id."""
        base = f"{self.orchestration_id}_{self.sub_issue_id}"
        return f"{base}_{self.task_id}" if self.task_id else base

    def moved(
        self,
        status: ChildStatus,
        at: str | None,
        task_id: str | None = None,
        branch_name: str | None = None,
    ) -> Child:
        """Return the row after a write of ours, with ``status`` in effect since ``at``."""
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
    """The meta row. ``problem`` says why no task can be created from it."""

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
        """What is missing or malformed, if anything."""
        if self.child_count is None:
            return "meta row: child_count is missing or is not a whole number"
        for name, value in (("platform_user_id", self.user_id), ("repo", self.repo)):
            if not value:
                return f"meta row: {name} is missing"
        return None


@dataclass(frozen=True, slots=True)
class Task:
    """A task row, with what a diagnosis needs. The reconciler writes ``invo…`` and ``nudg…``.

    ``orchestration_id`` and ``sub_issue_id``: the child it works for, whether or not the child's
    row names it. ``sweep_id``: the sweep that created it; None if others did.
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
        """Whether the reconciler created it."""
        return self.sweep_id is not None

    @property
    def unrecorded(self) -> bool:
        """Whether the reconciler created it without recording an invocation of its pipeline."""
        return self.ours and self.invoked_at is None

    @property
    def outcome(self) -> ChildStatus:
        """The status that a terminal task gives its child; with a broken build, ``failed``."""
        # Like the platform, count a completed task without a verdict on the build as a success.
        if self.status == "COMPLETED" and self.build_passed is not False:
            return ChildStatus.SUCCEEDED
        return ChildStatus.FAILED

    @property
    def finished_at(self) -> str | None:
        """When it became terminal, if the row tells."""
        # In this order, because the agent's last write does not change `updated_at`.
        return self.completed_at or self.status_since or self.updated_at


@dataclass(frozen=True, slots=True)
class Orchestration:
    """One partition of OrchestrationTable: ``children`` by ``sub_issue_id``, without markers.

    ``attempts``: the failure records, by ``sub_issue_id`` or ``WHOLE``.
    """

    orchestration_id: str
    meta: Meta | None
    children: Mapping[str, Child]
    attempts: Mapping[str, Attempts] = field(default_factory=dict)

    def predecessors_of(self, child: Child) -> list[tuple[str, Child | None]]:
        """Return the predecessors of a child, each with its row, or None if it has none."""
        return [(key, self.children.get(key)) for key in child.depends_on]

    def with_child(self, child: Child) -> Orchestration:
        """Return the orchestration with one child replaced."""
        return replace(self, children={**self.children, child.sub_issue_id: child})

    @property
    def user_id(self) -> str | None:
        """The user it belongs to, if there is a meta row."""
        return self.meta.user_id if self.meta is not None else None

    @property
    def repo(self) -> str | None:
        """Its repository, if there is a meta row."""
        return self.meta.repo if self.meta is not None else None

    @property
    def channel(self) -> str:
        """Where the parent issue comes from."""
        return self.meta.channel if self.meta is not None else DEFAULT_CHANNEL

    @property
    def complete(self) -> bool:
        """Whether all rows exist that the meta row counts."""
        # There may be more: an extension raises the count after it has written its rows.
        return self.meta is not None and (self.meta.child_count or 0) <= len(self.children)

    @property
    def fingerprint(self) -> str:
        """A short text that changes when any row of the orchestration changes.

        It covers what every write of the platform changes, so that a manual repair ends a backoff
        at once. The order of rows does not matter.
        """
        return self._fingerprint(self.children.values())

    def fingerprint_of(self, sub_issue_id: str) -> str:
        """A fingerprint of the child and the meta row; for ``WHOLE``, of all rows."""
        if sub_issue_id == WHOLE:
            return self.fingerprint
        child = self.children.get(sub_issue_id)
        return self._fingerprint(() if child is None else (child,))

    def _fingerprint(self, children: Collection[Child]) -> str:
        # A sum does not depend on the order of rows.
        total = 0
        for child in children:
            parts = (child.sub_issue_id, child.raw_status, child.task_id, child.updated_at)
            total = (total + _stable_hash(parts)) & 0xFFFFFFFFFFFFFFFF
        if self.meta is not None:
            total += _stable_hash((META, self.meta.updated_at, str(self.meta.child_count)))
        return f"{len(children)}-{total & 0xFFFFFFFFFFFFFFFF:016x}"

    @property
    def failing(self) -> Collection[str]:
        """What failed lately, by ``sub_issue_id`` or ``WHOLE``, and has not changed since."""
        return {
            key
            for key, attempts in self.attempts.items()
            if attempts.fingerprint == self.fingerprint_of(key)
        }

    def backed_off(self, now: datetime) -> dict[str, Attempts]:
        """Return the failure records because of which something is left alone at ``now``."""
        return {
            key: attempts
            for key, attempts in self.attempts.items()
            if attempts.backed_off(now, self.fingerprint_of(key))
        }


def _stable_hash(parts: tuple[str | None, ...]) -> int:
    text = "\x00".join(part or "" for part in parts).encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())
