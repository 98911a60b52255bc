"""The record of one orchestration between sweeps, and the rules that change it.

A scan *nominates* an orchestration, which then awaits evaluation. An evaluation clears the
nomination and records what is still stuck. Every sweep evaluates that again, until nothing is left.
So a lost message costs one interval at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NotRequired

from typing_extensions import TypedDict

from reconciler.domain.codes import Code, OrchestrationCode
from reconciler.domain.due import MAX_AHEAD
from reconciler.domain.model import Orchestration
from reconciler.domain.outcomes import Outcome
from reconciler.repair.context import Evaluation, Stuck
from reconciler.sweeping.records import read_as
from reconciler.sweeping.segments import NEVER, Scope

KEEP_CLEAN_SECONDS = 300.0
"""For how long a clean evaluation is remembered, so that an older, slower one cannot undo it."""

MAX_PAUSE_SECONDS = 3600.0
MAX_AHEAD_SECONDS = MAX_AHEAD.total_seconds()
_MAX_DOUBLINGS = 20

_UNCHANGED_BY_TIME = frozenset(
    {
        Code.WAITING,
        Code.DANGLING_DEPENDENCY,
        Code.DEPENDENCY_CYCLE,
        Code.ORPHAN_ROW,
        Code.UNKNOWN_STATUS,
        Code.MALFORMED_ROW,
        Code.IDEMPOTENCY_CONFLICT,
        OrchestrationCode.IN_PROGRESS,
        OrchestrationCode.SETTLED,
        OrchestrationCode.ROWS_MISSING,
    }
)
"""Codes that change only when somebody changes a row, not with time or the end of a task."""

_DUE = frozenset({Code.LOST_RELEASE, Code.OVER_BUDGET})
"""Codes of a child that is due and not released: each release of it finds them anew."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of an evaluation. ``read_at``: when it began to read.

    ``fingerprint``: of the rows that it read. ``needs_person``: nothing changes until somebody
    changes those rows. ``paced``: some releases found no room in the queue. ``repo``, ``user_id``
    and ``display_ids`` (child → display id) are for lists.
    """

    read_at: float
    stuck: tuple[Stuck, ...] = ()
    fingerprint: str | None = None
    needs_person: bool = False
    repo: str | None = None
    user_id: str | None = None
    display_ids: Mapping[str, str] = field(default_factory=dict)
    paced: bool = False

    @classmethod
    def of(cls, evaluation: Evaluation, read_at: float) -> Finding:
        """Return the finding of an evaluation."""
        orchestration, needs_person = evaluation.orchestration, _needs_person(evaluation)
        paced = any(action.outcome == Outcome.PACED for action in evaluation.actions)
        if orchestration is None:
            return cls(read_at, evaluation.stuck, needs_person=needs_person, paced=paced)
        meta = orchestration.meta
        return cls(
            read_at,
            evaluation.stuck,
            orchestration.fingerprint,
            needs_person,
            paced=paced,
            repo=meta.repo if meta is not None else None,
            user_id=meta.user_id if meta is not None else None,
            display_ids=_display_ids(evaluation, orchestration),
        )


class StuckEntry(TypedDict):
    """One stuck child or parent; ``since``: epoch seconds."""

    sub_issue_id: str | None
    code: str
    reason: str
    since: float | None
    task_id: NotRequired[str | None]
    needs_action: NotRequired[bool]


class HandedOn(TypedDict):
    """A release that was handed on at ``at`` and has been due since ``since`` (epoch seconds)."""

    at: float
    since: float | None


@dataclass(frozen=True, slots=True)
class Known:
    """The record of an orchestration.

    ``waiting``: scope → the mark that the nominating segment had before the nomination.
    ``scanned``: scope → the fingerprint of the rows in the scan that nominated it.
    ``stuck``: what the last evaluation found stuck, and since when (None: unknown).
    ``handed_on``: child → its release, if that was handed on and has not ended.
    ``fingerprint``: of the rows that the last evaluation read.
    ``unchanged``: how many evaluations in a row found these rows and only work for a person.
    ``evaluate_at``: the earliest time of the next evaluation, unless the rows change.
    ``repo``, ``user_id``, ``display_ids``: from the last evaluation that read the rows.
    ``paced``: some of its releases found no room in the queue.
    """

    waiting: Mapping[str, float] = field(default_factory=dict)
    nominated_at: float = NEVER
    scanned: Mapping[str, str | None] = field(default_factory=dict)
    read_at: float = NEVER
    stuck: tuple[StuckEntry, ...] = ()
    handed_on: Mapping[str, HandedOn] = field(default_factory=dict)
    fingerprint: str | None = None
    unchanged: int = 0
    evaluate_at: float = NEVER
    repo: str | None = None
    user_id: str | None = None
    display_ids: Mapping[str, str] = field(default_factory=dict)
    paced: bool = False

    @classmethod
    def from_record(cls, record: Mapping[str, Any] | None, now: float) -> Known:
        """Read a record; times ahead of ``now`` count as absent."""
        found = read_as(cls, record)
        if found is None:
            return cls()
        return replace(
            found,
            waiting={scope: _past(mark, now) for scope, mark in found.waiting.items()},
            # After a small jump back of the clock, an older evaluation may still be under way.
            nominated_at=min(_past(found.nominated_at, now + MAX_AHEAD_SECONDS), now),
            handed_on=_none_ahead(found.handed_on, now),
            read_at=_past(found.read_at, now),
            evaluate_at=_past(found.evaluate_at, now + MAX_PAUSE_SECONDS),
        )

    def to_record(self) -> dict[str, Any]:
        """Return it as JSON values."""
        # Not asdict: it would copy hundreds of entries for each of as many releases.
        return {name: getattr(self, name) for name in self.__slots__}

    # -- what it asks for

    @property
    def needs_evaluation(self) -> bool:
        """Whether sweeps still have to evaluate it."""
        return bool(self.waiting or self.stuck or self.handed_on)

    def is_due(self, since: float, now: float) -> bool:
        """Whether a sweep that began at ``since`` should evaluate it."""
        if self.waiting:
            return True
        return self.needs_evaluation and self.read_at < since and self.evaluate_at <= now

    def was_evaluated(self, since: float) -> bool:
        """Whether it was evaluated since ``since``, and neither nominated since then nor paced."""
        return self.read_at >= since and not self.waiting and not self.paced

    @property
    def due_since(self) -> float:
        """Since when its oldest stuck or handed-on child is due (epoch seconds)."""
        left = (*self.stuck, *self.handed_on.values())
        return min((entry["since"] or NEVER for entry in left), default=NEVER)

    def is_forgettable(self, now: float) -> bool:
        """Whether the record has become useless."""
        return not self.needs_evaluation and now - self.read_at > KEEP_CLEAN_SECONDS

    def was_released_after(self, moment_: float) -> bool:
        """Whether a release that was handed on since then has not ended."""
        return any(entry["at"] >= moment_ for entry in self.handed_on.values())

    def list_stuck(self, orchestration_id: str, now: float) -> tuple[Stuck, ...]:
        """Return its stuck work, with ages as of ``now``."""
        left = {entry["sub_issue_id"]: entry for entry in self.stuck}
        handed_on: list[StuckEntry] = [
            {
                "sub_issue_id": child,
                "code": Code.LOST_RELEASE.value,
                "reason": "its release was handed on and has not ended yet",
                "since": entry["since"],
            }
            for child, entry in self.handed_on.items()
            if child not in left
        ]
        return tuple(
            Stuck(
                orchestration_id,
                entry["sub_issue_id"],
                entry["code"],
                entry["reason"],
                age_at(entry["since"], now),
                entry.get("task_id"),
                entry.get("needs_action", False),
            )
            for entry in (*self.stuck, *handed_on)
        )

    # -- what changes it

    def nominated(
        self, scope: Scope, mark: float, began: float, rows: str | None, now: float
    ) -> Known:
        """Return it as awaiting evaluation, or unchanged if no evaluation is needed.

        ``mark``: the segment's, before this read, which began at ``began``. An evaluation that read
        later has seen everything that was overdue at ``began``. If only a person can help, the
        orchestration waits until its pause ends or a scan sees other rows; if its releases found no
        room, it waits for its turn.
        """
        if self.read_at >= began:
            return self
        waits = self.evaluate_at > now or self.paced
        if waits and rows is not None and self.scanned.get(scope) == rows:
            return self
        earliest = min(self.waiting.get(scope, mark), mark)
        return replace(
            self,
            waiting={**self.waiting, scope.value: earliest},
            nominated_at=now,
            scanned={**self.scanned, scope.value: rows},
        )

    def evaluated(self, finding: Finding, interval_seconds: float, now: float) -> Known:
        """Return it with ``finding`` in place of the last one, unless the last one read later.

        If the clock has jumped back, nobody can tell which one read later, so ``finding`` is
        dropped. Nominations and handed-on releases from after the evaluation's read stay.
        """
        if finding.read_at < self.read_at or finding.read_at > now:
            return self
        survives = self.nominated_at > finding.read_at
        unchanged = self._count_unchanged(finding)
        pause = min(interval_seconds * 2.0 ** min(unchanged, _MAX_DOUBLINGS), MAX_PAUSE_SECONDS)
        return replace(
            self,
            waiting=self.waiting if survives else {},
            nominated_at=self.nominated_at if survives else NEVER,
            read_at=finding.read_at,
            stuck=self._entries(finding.stuck, now),
            handed_on={
                child: entry
                for child, entry in self.handed_on.items()
                if entry["at"] >= finding.read_at
            },
            fingerprint=finding.fingerprint,
            unchanged=unchanged,
            # No pause after the first time: that evaluation may have been asked for by hand.
            evaluate_at=now + pause if unchanged > 1 else NEVER,
            paced=finding.paced,
            repo=finding.repo or self.repo,
            user_id=finding.user_id or self.user_id,
            display_ids=finding.display_ids if finding.fingerprint else self.display_ids,
        )

    def _count_unchanged(self, finding: Finding) -> int:
        if not finding.needs_person:
            return 0
        return self.unchanged + 1 if finding.fingerprint == self.fingerprint else 1

    def with_releases(self, releases: Mapping[str, float | None], now: float) -> Known:
        """Return it with more handed-on releases: child → since when it is due."""
        if not releases:
            return self
        entries = {child: HandedOn(at=now, since=since) for child, since in releases.items()}
        return replace(self, handed_on={**self.handed_on, **entries})

    def released(self, child: str, stuck: Iterable[Stuck], now: float, *, settled: bool) -> Known:
        """Return it with the result of a child's release. ``stuck``: what is still stuck of it.

        The result ends all handed-on releases of the child. ``settled``: the child was released, or
        refused for good. A release that did neither only knows whether the child is due: if the
        last evaluation recorded another reason for the child, that reason stays.
        """
        others = [entry for entry in self.stuck if entry["sub_issue_id"] != child]
        kept = [
            entry
            for entry in self.stuck
            if entry["sub_issue_id"] == child and not settled and entry["code"] not in _DUE
        ]
        return replace(
            self,
            stuck=(*others, *(kept or self._entries(stuck, now))),
            handed_on={name: entry for name, entry in self.handed_on.items() if name != child},
        )

    def _entries(self, stuck: Iterable[Stuck], now: float) -> tuple[StuckEntry, ...]:
        """Return entries for ``stuck``.

        Without an age of its own, an entry takes the time of the entry before it, so that it ages
        and the alert on the oldest can fire.
        """
        before = {(entry["sub_issue_id"], entry["code"]): entry["since"] for entry in self.stuck}
        return tuple(
            {
                "sub_issue_id": entry.sub_issue_id,
                "code": entry.code,
                "reason": entry.reason,
                "since": (
                    now - entry.age_seconds
                    if entry.age_seconds is not None
                    else before.get((entry.sub_issue_id, entry.code)) or now
                ),
                "task_id": entry.task_id,
                "needs_action": entry.needs_action,
            }
            for entry in stuck
        )


def _display_ids(evaluation: Evaluation, orchestration: Orchestration) -> dict[str, str]:
    """Return the display ids of the children that ``list`` may show."""
    left = {entry.sub_issue_id for entry in evaluation.stuck}
    left |= {action.sub_issue_id for action in evaluation.actions if not action.repaired}
    return {
        key: child.display_id
        for key, child in orchestration.children.items()
        if key in left and child.display_id
    }


def _needs_person(evaluation: Evaluation) -> bool:
    """Whether nothing changes until a person changes a row, so that its pause may grow."""
    codes = {child.code for child in evaluation.children} | {evaluation.code}
    return bool(evaluation.stuck) and not evaluation.actions and codes <= _UNCHANGED_BY_TIME


def _past(time: float, now: float) -> float:
    return time if time <= now else NEVER


def _none_ahead(handed_on: Mapping[str, HandedOn], now: float) -> Mapping[str, HandedOn]:
    # Copy only if needed: each of hundreds of releases reads all entries.
    if all(entry["at"] <= now for entry in handed_on.values()):
        return handed_on
    return {child: {**entry, "at": _past(entry["at"], now)} for child, entry in handed_on.items()}


def age_at(since: float | None, now: float) -> float | None:
    """Return an age in seconds; None if ``since`` is unknown, or no time to be believed."""
    if since is None or not 0.0 <= since <= now + MAX_AHEAD_SECONDS:
        return None
    return max(0.0, now - since)
