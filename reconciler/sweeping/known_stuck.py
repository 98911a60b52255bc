"""What is known of one orchestration between sweeps, and what changes it.

A scan *nominates* an orchestration: it then awaits evaluation. An evaluation clears that and leaves
what is still stuck. Every sweep evaluates again what is left, until an evaluation finds nothing.
So a lost message costs an interval at most, and no list has to be carried from sweep to sweep.
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
"""How long the time of a clean evaluation is kept, so that an older, slower one changes nothing."""

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
"""Codes that stay until somebody changes a row: neither time nor the end of a task changes them."""

_DUE = frozenset({Code.LOST_RELEASE, Code.OVER_BUDGET})
"""Codes of a child that is due and not released: what a release by its key finds out anew."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What an evaluation left. ``read_at``: when it began to read.

    ``fingerprint``: of the rows that it read. ``needs_person``: nothing changes until somebody
    changes those rows. ``repo``, ``user_id`` and ``display_ids`` (child → display id) are shown
    where it is listed.
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
        """Return what an evaluation left."""
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
    """What is stuck of an orchestration, as it is remembered; ``since``: epoch seconds."""

    sub_issue_id: str | None
    code: str
    reason: str
    since: float | None
    task_id: NotRequired[str | None]
    needs_action: NotRequired[bool]


class HandedOn(TypedDict):
    """A release that was handed on: when, and since when it is due (epoch seconds)."""

    at: float
    since: float | None


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of an orchestration.

    ``waiting``: scope → the mark, before the nomination, of the segment that nominated it.
    ``scanned``: scope → the fingerprint of the rows as that scan saw them.
    ``stuck``: what the last evaluation left, each with when it came to be stuck (None: unknown).
    ``handed_on``: child → when its release was handed on, and since when it is due.
    ``fingerprint``: of the rows that the last evaluation read.
    ``unchanged``: how many evaluations found these rows, and nothing but work for a person.
    ``evaluate_at``: not to be evaluated again before, unless its rows change.
    ``repo``, ``user_id``, ``display_ids``: of the last evaluation that read its rows.
    ``paced``: there was no room for all of its releases.
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
        """Read a record; a time that lies ahead of ``now`` counts as absent."""
        found = read_as(cls, record)
        if found is None:
            return cls()
        return replace(
            found,
            waiting={scope: _past(mark, now) for scope, mark in found.waiting.items()},
            # If the clock has jumped back a little, an evaluation from before it may be under way.
            nominated_at=min(_past(found.nominated_at, now + MAX_AHEAD_SECONDS), now),
            handed_on=_none_ahead(found.handed_on, now),
            read_at=_past(found.read_at, now),
            evaluate_at=_past(found.evaluate_at, now + MAX_PAUSE_SECONDS),
        )

    def to_record(self) -> dict[str, Any]:
        """Return it as JSON values."""
        # Not a copy of all that is in it: it may be hundreds of releases, for each of them.
        return {name: getattr(self, name) for name in self.__slots__}

    # -- what it asks for

    @property
    def needs_evaluation(self) -> bool:
        """Whether anything is left of it for a sweep to look at."""
        return bool(self.waiting or self.stuck or self.handed_on)

    def is_due(self, since: float, now: float) -> bool:
        """Whether a sweep that began at ``since`` should evaluate it."""
        if self.waiting:
            return True
        return self.needs_evaluation and self.read_at < since and self.evaluate_at <= now

    def was_evaluated(self, since: float) -> bool:
        """Whether it was evaluated since ``since``, and nothing has called for it after that."""
        return self.read_at >= since and not self.waiting and not self.paced

    @property
    def due_since(self) -> float:
        """Since when the oldest of what is stuck, or was handed on, is due (epoch seconds)."""
        left = (*self.stuck, *self.handed_on.values())
        return min((entry["since"] or NEVER for entry in left), default=NEVER)

    def is_forgettable(self, now: float) -> bool:
        """Whether nothing is lost with it."""
        return not self.needs_evaluation and now - self.read_at > KEEP_CLEAN_SECONDS

    def was_released_after(self, moment_: float) -> bool:
        """Whether a release of it, handed on since, has not reported its result."""
        return any(entry["at"] >= moment_ for entry in self.handed_on.values())

    def list_stuck(self, orchestration_id: str, now: float) -> tuple[Stuck, ...]:
        """Return what is stuck in it, with ages as of ``now``."""
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
        """Return it as awaiting evaluation, or as it is where a scan's word is no news.

        ``mark``: of the segment before this read, which began at ``began``. An evaluation that read
        since then has seen all that was overdue when the read began. What needs a person waits
        for its pause to end, or for the scan to see other rows; what there was no room for waits
        for its turn.
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
        """Return it with a finding in the place of the last one, unless that one read later.

        While the clock jumps back nobody can tell which one read later, so the finding is dropped.
        A nomination that came after the evaluation had begun to read survives it; so does a release
        that was handed on since.
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
            # The first pause is of one sweep only: it may be one that was asked for by hand.
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
        """Return it with releases handed on: child → since when it is due."""
        if not releases:
            return self
        entries = {child: HandedOn(at=now, since=since) for child, since in releases.items()}
        return replace(self, handed_on={**self.handed_on, **entries})

    def released(self, child: str, stuck: Iterable[Stuck], now: float, *, settled: bool) -> Known:
        """Return it with the result of a child's release: what is stuck of the child, if anything.

        Where several evaluations handed it on, the result ends them all. ``settled``: it brought
        the child on, or refused it for good. One that did neither knows only whether the child is
        due. If the last evaluation left the child for another reason, that stays until the next.
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
        """Return what is stuck, each with since when.

        Without an age of its own it is as old as what was remembered of it before, so that it ages
        and the alert on the oldest can ring.
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
    """Return what the children are called that an evaluation leaves to be listed."""
    left = {entry.sub_issue_id for entry in evaluation.stuck}
    left |= {action.sub_issue_id for action in evaluation.actions if not action.repaired}
    return {
        key: child.display_id
        for key, child in orchestration.children.items()
        if key in left and child.display_id
    }


def _needs_person(evaluation: Evaluation) -> bool:
    """Whether nothing changes until a person changes a row: its pause may grow."""
    codes = {child.code for child in evaluation.children} | {evaluation.code}
    return bool(evaluation.stuck) and not evaluation.actions and codes <= _UNCHANGED_BY_TIME


def _past(time: float, now: float) -> float:
    return time if time <= now else NEVER


def _none_ahead(handed_on: Mapping[str, HandedOn], now: float) -> Mapping[str, HandedOn]:
    # Hardly ever is one, and a copy of hundreds for each of their releases takes long.
    if all(entry["at"] <= now for entry in handed_on.values()):
        return handed_on
    return {child: {**entry, "at": _past(entry["at"], now)} for child, entry in handed_on.items()}


def age_at(since: float | None, now: float) -> float | None:
    """Return an age in seconds; None where it is unknown, or lies too far ahead to be believed."""
    if since is None or since > now + MAX_AHEAD_SECONDS:
        return None
    return max(0.0, now - since)
