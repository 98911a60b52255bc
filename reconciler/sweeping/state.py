"""The state of sweeps: segments, what is known of orchestrations, coverage, and summaries.

Each key is updated in one atomic step. Nothing is merged, and no sweep waits for another.

    layout         scope → how many segments it has
    segments:…     by scope and total: number → mark, place, lease (``….segments``)
    known          orchestration → nominations, and what is stuck (``….known_stuck``)
    covered        scope → up to when everything is covered
    sweeps         sweep → when it began, what it must read, and its summary once it has ended
    tally:…        counts of a sweep
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import Field

from reconciler.clock import OutOfTime
from reconciler.repair.context import BY_HAND, Stuck
from reconciler.repair.counts import Counts
from reconciler.settings import MAX_SEGMENTS
from reconciler.sweeping.known_stuck import Finding, Known
from reconciler.sweeping.overview import Overview, Sweep
from reconciler.sweeping.records import Change, Record, Records, read_as
from reconciler.sweeping.segments import NEVER, Place, Scope, Segment, SegmentState

_NONE: Mapping[str, float | None] = MappingProxyType({})

_LAYOUT, _KNOWN, COVERED, SWEEPS = "layout", "known", "covered", "sweeps"


@dataclass(frozen=True, slots=True)
class _Layout:
    total: Annotated[int, Field(ge=1, le=MAX_SEGMENTS)]


@dataclass(frozen=True, slots=True)
class _Covered:
    as_of: float


class SweepState:
    """Reads and changes the state. The rules are in the classes of the records."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def now(self) -> float:
        """Return the time by the clock of the state."""
        return self._records.now()

    def overview(self, *, known: bool = True) -> Overview:
        """Return the whole state, as of one moment.

        Without ``known``, nothing of orchestrations is read.
        """
        totals = self.totals()
        kinds = [COVERED, SWEEPS, *(_segments_of(scope, n) for scope, n in totals.items())]
        covered, sweeps, *states = self._records.read(*kinds, *([_KNOWN] if known else []))
        orchestrations = states.pop() if known else {}
        now = self.now()
        segments = {
            scope.value: {
                number: SegmentState.from_record(found.get(str(number)), now)
                for number in range(total)
            }
            for (scope, total), found in zip(totals.items(), states, strict=True)
        }
        return Overview(
            now=now,
            segments=segments,
            known={name: Known.from_record(record, now) for name, record in orchestrations.items()},
            floors={
                scope: found.as_of
                for scope, record in covered.items()
                if (found := read_as(_Covered, record)) is not None and found.as_of <= now
            },
            sweeps=tuple(
                sweep
                for record in sweeps.values()
                if (sweep := Sweep.from_record(record, now)) is not None
            ),
        )

    # -- segments

    def totals(self) -> dict[Scope, int]:
        """Return the number of segments of each scope that has one."""
        (layout,) = self._records.read(_LAYOUT)
        found = {scope: read_as(_Layout, layout.get(scope)) for scope in Scope}
        return {scope: kept.total for scope, kept in found.items() if kept is not None}

    def set_total(self, scope: Scope, total: int) -> None:
        """Set the number of a scope's segments.

        The marks of the old segments are dropped. The coverage they amount to is kept as a floor.
        """
        before = self.totals().get(scope)
        if before == total:
            return
        # Before the marks of the old segments are dropped.
        self.advance_coverage(self.overview())
        self._records.update(_LAYOUT, scope, lambda _old, _now: {"total": total})
        if before is not None:
            self._records.drop(_segments_of(scope, before))

    def take(self, segment: Segment, token: str, since: float) -> SegmentState | None:
        """Lease a segment; None if it was read since ``since``, or somebody is reading it."""
        if self.totals().get(segment.scope) != segment.total:
            return None

        def change(old: Record | None, now: float) -> Record | None:
            found = SegmentState.from_record(old, now)
            # Already read, or being read: a message that was delivered twice does nothing.
            if found.mark >= since or found.token not in {None, token}:
                return old
            return found.taken_by(token, now).to_record()

        taken = SegmentState.from_record(self._update(segment, change), self.now())
        return taken if taken.token == token else None

    def renew(self, segment: Segment, token: str) -> bool:
        """Extend a lease; False if somebody else has taken it."""
        return self._change_leased(segment, token, lambda found, now: found.leased_to(token, now))

    def leave(self, segment: Segment, token: str, place: Place | None) -> bool:
        """Give up a segment at ``place``; False if the lease was lost."""
        return self._change_leased(segment, token, lambda found, _: found.left_at(place))

    def finish(self, segment: Segment, token: str) -> bool:
        """Mark a segment as read to its end; False if the lease was lost."""
        return self._change_leased(segment, token, lambda found, _: found.read_to_its_end())

    def _change_leased(
        self, segment: Segment, token: str, to: Callable[[SegmentState, float], SegmentState]
    ) -> bool:
        done = False

        def change(old: Record | None, now: float) -> Record | None:
            nonlocal done
            # The lease may have expired. As long as the token is ours, nobody else has read on. If
            # we gave up the page here, a page slower than the lease would be read again for ever.
            done = old is not None and old.get("token") == token
            return to(SegmentState.from_record(old, now), now).to_record() if done else old

        self._update(segment, change)
        return done

    def _update(self, segment: Segment, change: Change) -> Record | None:
        kind = _segments_of(segment.scope, segment.total)
        return self._records.update(kind, str(segment.number), change)

    # -- orchestrations

    def known(self, orchestration_id: str) -> Known:
        """Return what is known of an orchestration."""
        return self.look_up(orchestration_id)[0]

    def look_up(self, orchestration_id: str) -> tuple[Known, float]:
        """Return what is known of an orchestration, and the time by the clock of the state."""
        read_at = NEVER

        def unchanged(old: Known, now: float) -> Known:
            nonlocal read_at
            read_at = now
            return old

        known = self._change_known(orchestration_id, unchanged)
        return known, read_at

    def watched(self, scope: Scope) -> dict[str, str]:
        """Return orchestrations that are left alone until they change → the last fingerprint."""
        (records,) = self._records.read(_KNOWN)
        known = {name: read_as(Known, record) for name, record in records.items()}
        return {
            name: rows
            for name, entry in known.items()
            if entry is not None
            and (entry.unchanged or entry.paced)
            and (rows := entry.scanned.get(scope))
        }

    def nominate(
        self, orchestration_id: str, scope: Scope, mark: float, began: float, rows: str | None
    ) -> bool:
        """Have an orchestration await evaluation; False if its last evaluation still counts."""
        known = self._change_known(
            orchestration_id, lambda old, now: old.nominated(scope, mark, began, rows, now)
        )
        return bool(known.waiting)

    def evaluated(
        self,
        orchestration_id: str,
        finding: Finding,
        interval_seconds: float,
        handed_on: Mapping[str, float | None] = _NONE,
    ) -> None:
        """Replace what is known of an orchestration by an evaluation's finding.

        ``handed_on``: child → since when it is due, for each release that is handed on.
        """
        self._change_known(
            orchestration_id,
            lambda old, now: old.evaluated(finding, interval_seconds, now).with_releases(
                handed_on, now
            ),
        )

    def released(
        self,
        orchestration_id: str,
        child: str,
        stuck: Iterable[Stuck] = (),
        handed_on: Mapping[str, float | None] = _NONE,
        *,
        settled: bool,
    ) -> None:
        """Record the result of a child's release, and the releases that it hands on."""
        left = tuple(stuck)

        def change(old: Known, now: float) -> Known:
            return old.released(child, left, now, settled=settled).with_releases(handed_on, now)

        self._change_known(orchestration_id, change)

    def _change_known(self, orchestration_id: str, to: Callable[[Known, float], Known]) -> Known:
        changed = Known()

        def change(old: Record | None, now: float) -> Record | None:
            nonlocal changed
            found = Known.from_record(old, now)
            changed = to(found, now)
            return old if changed is found else changed.to_record()

        self._records.update(_KNOWN, orchestration_id, change)
        return changed

    def forget(self, seen: Overview, interval_seconds: float, out_of_time: OutOfTime) -> None:
        """Forget ended sweeps and clean orchestrations after a while, as many as there is time."""
        old = [sweep.sweep_id for sweep in seen.list_old(interval_seconds)]
        self._records.drop(SWEEPS, old)
        for sweep_id in old:
            self._records.drop(_counts_of(sweep_id))
        for name, known in seen.known.items():
            if known.is_forgettable(seen.now):
                if out_of_time():
                    return
                # It may have been nominated meanwhile, so the atomic step checks again.
                self._records.update(_KNOWN, name, _unless_left)

    # -- coverage

    def advance_coverage(self, seen: Overview) -> dict[Scope, float]:
        """Record how far coverage reaches; it only moves forward. Return the scopes that moved."""
        moved = {
            scope: as_of
            for scope in Scope
            if (as_of := seen.covered_as_of(scope)) > seen.floors.get(scope.value, NEVER)
        }
        for scope, as_of in moved.items():
            self._records.update(COVERED, scope, partial(_later, as_of))
        return moved

    # -- sweeps

    def begin(self, sweep: Sweep, instead_of: Sweep | None = None) -> Sweep:
        """Record a sweep, unless it has begun; returns the recorded one.

        ``instead_of``: a sweep of the same id that no longer counts.
        """
        begins = False

        def change(old: Record | None, now: float) -> Record | None:
            nonlocal begins
            # So two that ask at once agree on what the sweep must read.
            begins = Sweep.from_record(old, now) in (None, instead_of)
            return asdict(sweep) if begins else old

        record = self._records.update(SWEEPS, sweep.sweep_id, change)
        if begins:
            # After a clock jump back, there may be counts of an earlier sweep of this id.
            self._records.drop(_counts_of(sweep.sweep_id))
        return read_as(Sweep, record) or sweep

    def sweep(self, sweep_id: str) -> Sweep | None:
        """Return a sweep; None if there is no record of it."""
        return Sweep.from_record(self._records.get(SWEEPS, sweep_id), self.now())

    def count(self, sweep_id: str | None, counts: Counts) -> None:
        """Add to the counts of a sweep. Stuck work is not counted: the state has it."""
        if sweep_id is not None and not sweep_id.startswith(BY_HAND):
            self._records.add(_counts_of(sweep_id), counts.flatten())

    def counts(self, sweep_id: str) -> Counts:
        """Return the counts of a sweep so far."""
        return Counts.from_flat(self._records.numbers(_counts_of(sweep_id)))

    def end(self, sweep: Sweep, summary: Mapping[str, Any]) -> bool:
        """Store a sweep's summary; False if the sweep had already ended."""
        ours = False

        def change(old: Record | None, now: float) -> Record | None:
            nonlocal ours
            begun = read_as(Sweep, old)
            ours = begun is not None and begun.summary is None
            if begun is None or not ours:
                return old
            times = {"started_at": begun.started_at, "ended_at": now}
            return asdict(begun) | {"ended_at": now, "summary": {**summary, **times}}

        self._records.update(SWEEPS, sweep.sweep_id, change)
        return ours


def _unless_left(old: Record | None, now: float) -> Record | None:
    return None if Known.from_record(old, now).is_forgettable(now) else old


def _later(as_of: float, old: Record | None, now: float) -> Record | None:
    covered = read_as(_Covered, old)
    before = covered.as_of if covered is not None and covered.as_of <= now else NEVER
    return old if before >= as_of else {"as_of": as_of}


def _segments_of(scope: Scope, total: int) -> str:
    return f"segments:{scope.value}:{total}"


def _counts_of(sweep_id: str) -> str:
    return f"tally:{sweep_id}"
