"""The values that ``inspect`` shows: an orchestration and its children."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

from reconciler.domain.codes import BENIGN, SURFACED, Code
from reconciler.domain.diagnosis import Policy
from reconciler.inspection import theme
from reconciler.inspection.theme import Tone
from reconciler.observability.printable import printable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Outlook:
    """What the reconciler does next, and when; ``at`` is None if that is unknown."""

    does: str
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ChildView:
    """A child for display. ``code`` is None for a terminal child; ``malformed``: its own row."""

    sub_issue_id: str
    label: str
    title: str
    status: str
    code: str | None
    reason: str
    tone: Tone
    age_seconds: float | None
    depends_on: tuple[str, ...]
    task_id: str | None
    branch: str | None
    outlook: Outlook | None
    needs_action: bool = False
    malformed: bool = False

    @property
    def stuck(self) -> bool:
        """Whether it is neither finished, nor healthy, nor over budget."""
        return self.code is not None and self.code not in BENIGN

    @property
    def state(self) -> str:
        """Its diagnosis, or else its status, in one word."""
        return self.code or self.status


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What an outlook depends on besides the rows.

    ``next_sweep_at``: None if unknown; then it comes within the policy's interval. ``withheld``:
    why nothing is changed. ``paused``: whether that is because of a pause.
    """

    policy: Policy
    now: datetime
    next_sweep_at: datetime | None = None
    withheld: str | None = None
    paused: bool = False

    def with_next_sweep(self, does: str) -> Outlook:
        """Return the outlook for what the next sweep does."""
        if self.withheld is not None:
            return Outlook(f"nothing now ({self.withheld}); else it {does}")
        if self.next_sweep_at is not None:
            return Outlook(f"{does} with the next sweep", self.next_sweep_at)
        within = theme.age(self.policy.interval.total_seconds())
        return Outlook(f"{does} with the next sweep, within {within}")


@dataclass(frozen=True, slots=True)
class Repair:
    """One ``orchestration_recovered`` event."""

    at: str
    sub_issue_id: str
    task_id: str
    code: str
    before: str
    after: str
    stranded_seconds: float | None
    sweep_id: str


@dataclass(frozen=True, slots=True)
class Command:
    """A command that a person can run, and its purpose."""

    line: str
    purpose: str


@dataclass(frozen=True, slots=True)
class View:
    """Everything that ``inspect`` shows of an orchestration; ages in seconds.

    ``needs_action``: for the orchestration as a whole. ``child_count``: from the meta row.
    ``slot_holders``: the unfinished tasks of its user, if a child waits for a slot.
    """

    orchestration_id: str
    given: Circumstances
    children: tuple[ChildView, ...]
    outlook: Outlook | None
    repo: str | None = None
    parent: str | None = None
    user_id: str | None = None
    code: str = ""
    reason: str = ""
    age_seconds: float | None = None
    child_count: int | None = None
    needs_action: bool = False
    repairs: tuple[Repair, ...] = ()
    repairs_partial: str | None = None
    slot_holders: tuple[str, ...] = ()
    focus: str | None = None
    notes: tuple[str, ...] = ()
    statuses: Mapping[str, int] = field(default_factory=dict)

    @property
    def stuck(self) -> tuple[ChildView, ...]:
        """The stuck children, oldest first; an unknown age counts as the oldest."""
        return _oldest_first(child for child in self.children if child.stuck)

    @property
    def waiting_for_slot(self) -> tuple[ChildView, ...]:
        """The children that only wait for a slot of their user, oldest first."""
        return _oldest_first(child for child in self.children if child.code == Code.OVER_BUDGET)

    @property
    def alarming(self) -> bool:
        """Whether it needs attention."""
        return bool(self.stuck) or self.code in SURFACED


def _oldest_first(children: Iterable[ChildView]) -> tuple[ChildView, ...]:
    endless = float("inf")
    ages = {c: endless if c.age_seconds is None else c.age_seconds for c in children}
    return tuple(sorted(ages, key=lambda child: -ages[child]))


def shown(value: T) -> T:
    """Return a view, or a part of one, with all its texts made printable."""
    found: Any = value
    if type(value) is str:  # not a StrEnum
        found = printable(str(value))
    elif isinstance(value, tuple):
        found = tuple(shown(part) for part in value)
    elif isinstance(value, Mapping):
        found = {shown(name): shown(part) for name, part in value.items()}
    elif is_dataclass(value) and not isinstance(value, type):
        parts = {part.name: shown(getattr(value, part.name)) for part in fields(value)}
        found = replace(value, **parts)
    safe: T = found
    return safe
