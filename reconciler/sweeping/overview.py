"""What the state of sweeps says at one moment: coverage, completeness, what is stuck.

Everything here is computed from records that ``reconciler.sweeping.state`` has read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from reconciler.repair.context import Stuck
from reconciler.sweeping.known_stuck import Known
from reconciler.sweeping.records import Record, read_as
from reconciler.sweeping.segments import NEVER, Scope, SegmentState
from reconciler.sweeping.summary import EndedSweep

KEEP_SWEEPS_SECONDS = 3600.0
MAX_SWEEPS_KEPT = 200


@dataclass(frozen=True, slots=True)
class Sweep:
    """The record of a sweep; times in epoch seconds.

    ``owed``: scope → the numbers of the segments that it must read. ``totals``: scope → the number
    of segments. ``summary``: set when it has ended.
    """

    sweep_id: str
    mode: str
    started_at: float
    owed: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    totals: Mapping[str, int] = field(default_factory=dict)
    ended_at: float | None = None
    summary: EndedSweep | None = None

    @property
    def segments(self) -> int:
        """Return how many segments it must read."""
        return sum(map(len, self.owed.values()))

    @property
    def complete(self) -> bool:
        """Whether it has ended, and read everything that it had to."""
        return self.summary is not None and bool(self.summary["complete"])

    @classmethod
    def from_record(cls, record: Record | None, now: float) -> Sweep | None:
        """Read a record; None if there is no valid one, or the clock has jumped back since then."""
        found = read_as(cls, record)
        if found is None or not found.is_valid:
            return None
        last = found.started_at if found.summary is None else found.summary["ended_at"]
        return found if max(found.started_at, last) <= now else None

    @property
    def is_valid(self) -> bool:
        """Whether it owes only segments that exist."""
        return all(
            scope in self.totals and all(0 <= number < self.totals[scope] for number in owed)
            for scope, owed in self.owed.items()
        )


@dataclass(frozen=True, slots=True)
class Overview:
    """The whole state as of one moment (``now``, epoch seconds)."""

    now: float
    segments: Mapping[str, Mapping[int, SegmentState]]
    known: Mapping[str, Known]
    floors: Mapping[str, float]
    sweeps: tuple[Sweep, ...]

    def covered_as_of(self, scope: Scope) -> float:
        """Return the watermark of a scope; ``NEVER`` while it is unknown.

        Everything that was overdue by then has been evaluated. The watermark is the earliest of the
        segments' marks and, for each nomination that awaits evaluation, its segment's mark before
        the nomination. A scan of the whole table covers active work too.
        """
        reached = max(self.floors.get(scope.value, NEVER), self._computed(scope))
        if scope is Scope.ACTIVE:
            return max(reached, self.covered_as_of(Scope.TABLE))
        return reached

    def _computed(self, scope: Scope) -> float:
        waiting = [known.waiting[scope] for known in self.known.values() if scope in known.waiting]
        return min([self.oldest_mark(scope), *waiting])

    def oldest_mark(self, scope: Scope) -> float:
        """Return the oldest mark of a scope's segments; ``NEVER`` if it has none."""
        states = self.segments.get(scope.value, {}).values()
        return min((state.mark for state in states), default=NEVER)

    def is_read(self, sweep: Sweep) -> bool:
        """Whether its segments were read since it began, and all nominations there evaluated."""
        return all(self._is_scope_read(sweep, scope, owed) for scope, owed in sweep.owed.items())

    def _is_scope_read(self, sweep: Sweep, scope: str, owed: Iterable[int]) -> bool:
        states = self.segments.get(scope, {})
        if len(states) != sweep.totals.get(scope):
            return False
        waiting = (known.waiting.get(scope, self.now) for known in self.known.values())
        marks = (states[number].mark for number in owed)
        return min([*marks, *waiting], default=self.now) >= sweep.started_at

    def count_unread(self, sweep: Sweep) -> int:
        """Return how many of a sweep's segments were not read since it began."""
        return sum(
            state.mark < sweep.started_at
            for scope, owed in sweep.owed.items()
            for number, state in self.segments.get(scope, {}).items()
            if number in owed
        )

    def is_undone(self, sweep: Sweep) -> bool:
        """Whether it was complete and its reads no longer count: the clock has jumped back."""
        same = all(len(self.segments.get(scope, {})) == n for scope, n in sweep.totals.items())
        return sweep.complete and same and self.count_unread(sweep) > 0

    def is_done(self, sweep: Sweep) -> bool:
        """Whether it is read, and no evaluation or release of it is under way.

        Then its counts are final. What is due only since it began was not asked for, so the next
        sweep looks at that: it would keep this one open until the next ask.
        """
        since = sweep.started_at
        return self.is_read(sweep) and not any(
            known.was_released_after(since) or known.is_due(since, since)
            for known in self.known.values()
        )

    @property
    def has_paced(self) -> bool:
        """Whether some releases found no room in the queue."""
        return any(known.paced for known in self.known.values())

    def choose_paced(self, room: int) -> list[str]:
        """Return orchestrations whose releases found no room, up to ``room``, the oldest due first.

        Called at each ask, so that the queue of releases never runs dry while there is a backlog.
        """
        paced = [
            (known.due_since, name)
            for name, known in self.known.items()
            if known.paced and not known.waiting
        ]
        chosen = []
        for _, name in sorted(paced):
            if room <= 0:
                break
            room -= len(self.known[name].stuck)
            chosen.append(name)
        return chosen

    def list_stuck(self) -> list[Stuck]:
        """Return all stuck work, the oldest first; an unknown age counts as oldest."""
        found = [
            entry
            for name, known in self.known.items()
            for entry in known.list_stuck(name, self.now)
        ]
        return sorted(found, key=_youth)

    def last(self, *, complete: bool = False) -> Mapping[str, Any] | None:
        """Return the summary of the last sweep, or of the last complete one."""
        ended = self.list_ended()
        return next((found for found in reversed(ended) if found["complete"] or not complete), None)

    def next_start(self, interval_seconds: float) -> float | None:
        """Return when the next sweep is to start, in epoch seconds; None if that is unknown."""
        last = self.last()
        if last is None or "by-hand" in last["sweep_id"]:
            return None
        at = float(last["started_at"]) + interval_seconds
        return at if at >= self.now else None

    def list_ended(self) -> list[Mapping[str, Any]]:
        """Return the summaries of ended sweeps, the oldest first."""
        ended = (sweep.summary for sweep in self.sweeps if sweep.summary is not None)
        return sorted(ended, key=lambda summary: float(summary["ended_at"]))

    def list_old(self, interval_seconds: float) -> list[Sweep]:
        """Return the sweeps to forget: those that ended long ago, and those beyond the maximum.

        The last sweep and the last complete one stay, because ``status`` and ``health`` show them.
        So does one whose interval may not be over, or a later ask would begin it again.
        """
        ended = sorted((sweep for sweep in self.sweeps if sweep.summary), key=_ended_at)
        complete = [sweep for sweep in ended if sweep.complete]
        kept = {sweep.sweep_id for sweep in (*complete[-1:], *ended[-1:])}
        limit = self.now - max(KEEP_SWEEPS_SECONDS, interval_seconds)
        young = [sweep for sweep in ended if _ended_at(sweep) >= limit]
        kept |= {sweep.sweep_id for sweep in young[-MAX_SWEEPS_KEPT:]}
        return [sweep for sweep in ended if sweep.sweep_id not in kept]

    def at_work(self) -> tuple[Sweep, ...]:
        """Return the sweeps that have not ended, the oldest first."""
        open_ = (sweep for sweep in self.sweeps if sweep.summary is None)
        return tuple(sorted(open_, key=lambda sweep: sweep.started_at))


def _ended_at(sweep: Sweep) -> float:
    return sweep.ended_at or NEVER


def _youth(entry: Stuck) -> float:
    return float("-inf") if entry.age_seconds is None else -entry.age_seconds
