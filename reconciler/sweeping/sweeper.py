"""The logic of sweeps: ask for what is due, read it, nominate, evaluate, release, record.

A ``Sender`` decides where the work is done: by Celery workers (``workers.sweeping``) or by threads
of this process (``reconciler.sweeping.inline``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog

from reconciler.clock import OutOfTime, after, never
from reconciler.domain.codes import Code
from reconciler.domain.model import moment
from reconciler.domain.touches import RECOVERY_HORIZON
from reconciler.errors import (
    OUTAGES,
    ReconcilerError,
    UnknownChildError,
    UnknownOrchestrationError,
)
from reconciler.repair.context import (
    Evaluation,
    RepairResult,
    Stuck,
    count_stuck,
)
from reconciler.repair.counts import Counts
from reconciler.repair.reconciler import Reconciler
from reconciler.stores.control import Pause
from reconciler.stores.dynamodb import measured
from reconciler.sweeping.handed_on import HandedOn, epoch_of
from reconciler.sweeping.known_stuck import Finding, age_at
from reconciler.sweeping.lease import LeaseHolder
from reconciler.sweeping.overview import Overview, Sweep
from reconciler.sweeping.scan import nominate_recoveries, scan_segment
from reconciler.sweeping.segments import (
    NEVER,
    Place,
    Scope,
    Segment,
    SegmentState,
    choose_by_rotation,
    choose_totals,
)
from reconciler.sweeping.sender import ReleaseSender, SegmentTask, Sender
from reconciler.sweeping.state import SweepState
from reconciler.sweeping.summary import SweepSummary, record_sweep, set_gauges

log = structlog.get_logger("reconciler")

_JUST_BEGUN = 0.25
_ALMOST_AN_INTERVAL = 0.75
"""Fractions of an interval: sweeps begin a little earlier or later in theirs."""

_MAX_FORGETTING_SECONDS = 5.0

_GIVEN_UP_AFTER = 3
"""Intervals. A sweep may take longer than one while workers are busy."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one step read. ``handed_on``: another step of the segment follows."""

    counts: Counts
    nominated: int = 0
    handed_on: bool = False


class Sweeper:
    """Carries out sweeps; with ``report``, changes nothing in the tables.

    ``releases`` sends children to be released; without it, evaluations release them.
    """

    def __init__(
        self,
        reconciler: Reconciler,
        state: SweepState,
        sender: Sender,
        releases: ReleaseSender | None = None,
        *,
        report: bool = False,
    ) -> None:
        self._reconciler = reconciler
        self._state = state
        self._sender = sender
        self._report = report
        self._by_hand = report and reconciler.settings.repair_mode != "report"
        self._releases = releases
        self._settings = reconciler.settings
        self._metrics = reconciler.metrics

    # -- asking

    def ask(
        self,
        sweep_id: str,
        *,
        full: bool = False,
        by_hand: bool = True,
        segments: int | None = None,
        workers: Callable[[], int] = lambda: 1,
    ) -> Sweep | None:
        """Begin a sweep, or ask again for what it still lacks. Asking again is harmless.

        Returns None if another sweep has just begun, unless this one is asked for ``by_hand``:
        after an outage, the messages of many intervals may be waiting.
        ``full``: read the whole table even if there is an index. ``segments``: number of segments
        of the table, instead of the setting.
        """
        seen = self._state.overview()
        # First, so that a sweep never waits for one that died.
        self._end_done_or_overtaken(seen, sweep_id)
        sweep = self._state.sweep(sweep_id)
        if sweep is None or seen.is_undone(sweep):
            if not by_hand and self._has_one_just_begun(seen):
                return None
            self._choose_totals(segments, workers)
            seen = self._state.overview()
            sweep = self._begin(sweep_id, seen, full=full, instead_of=sweep)
        if sweep.summary is None:
            self._ask_for_segments(sweep, seen)
            self._ask_for_evaluations(sweep, seen)
        self.publish_gauges(seen)
        # After an outage there may be more than this task has time for. The next ask goes on.
        interval = self._settings.sweep_interval_seconds
        self._state.forget(seen, interval, after(_MAX_FORGETTING_SECONDS))
        return sweep

    def _has_one_just_begun(self, seen: Overview) -> bool:
        limit = seen.now - _JUST_BEGUN * self._settings.sweep_interval_seconds
        return any(limit < sweep.started_at <= seen.now for sweep in seen.sweeps)

    def _begin(
        self, sweep_id: str, seen: Overview, *, full: bool, instead_of: Sweep | None
    ) -> Sweep:
        owed = self._owed(seen, full=full)
        mode = "report" if self._report else self._settings.repair_mode
        totals = {scope: len(states) for scope, states in seen.segments.items()}
        sweep = self._state.begin(Sweep(sweep_id, mode, seen.now, owed, totals), instead_of)
        log.info("orch.sweep.started", sweep_id=sweep_id, mode=mode, segments=sweep.segments)
        return sweep

    def _choose_totals(self, segments: int | None, workers: Callable[[], int]) -> None:
        current = self._state.totals()
        setting = segments or self._settings.sweep_segments
        size = self._reconciler.orchestrations.size_bytes
        totals = choose_totals(setting, size, workers, current)
        if self._settings.active_index_name is None:
            del totals[Scope.ACTIVE]
        for scope, total in totals.items():
            self._state.set_total(scope, total)

    def _owed(self, seen: Overview, *, full: bool) -> dict[str, tuple[int, ...]]:
        """Return what a sweep must read: the whole table, or the index and part of the table."""
        table = tuple(seen.segments[Scope.TABLE])
        if self._settings.active_index_name is None:
            return {Scope.TABLE.value: table}
        # If the index was not read, it may be missing or forbidden: read the whole table.
        limit = seen.now - _ALMOST_AN_INTERVAL * self._settings.sweep_interval_seconds
        before = (s.started_at for s in seen.sweeps if s.summary or s.started_at <= limit)
        unread = seen.oldest_mark(Scope.ACTIVE) < max(before, default=NEVER)
        if not (full or unread):
            marks = {number: state.mark for number, state in seen.segments[Scope.TABLE].items()}
            every = self._settings.full_scan_interval_seconds
            table = tuple(choose_by_rotation(marks, seen.now, every))
        return {Scope.ACTIVE.value: tuple(seen.segments[Scope.ACTIVE]), Scope.TABLE.value: table}

    def _ask_for_segments(self, sweep: Sweep, seen: Overview) -> None:
        """Send the owed segments that nobody is reading, oldest mark first."""
        lacking: list[tuple[float, Segment, SegmentState]] = []
        for scope, owed in sweep.owed.items():
            states = seen.segments.get(scope, {})
            if len(states) != sweep.totals[scope]:
                continue
            for number in owed:
                state = states[number]
                if state.mark < sweep.started_at and state.token is None:
                    lacking.append((state.mark, Segment(Scope(scope), number, len(states)), state))
        # The oldest mark holds the watermark back.
        lacking.sort(key=lambda found: found[0])
        for _, segment, state in lacking[: max(0, self._sender.room())]:
            step = state.place.step if state.place is not None else 0
            self._sender.segment(SegmentTask(segment, sweep.sweep_id, sweep.started_at, step))

    def _ask_for_evaluations(self, sweep: Sweep, seen: Overview) -> None:
        due = sorted(
            (min([*known.waiting.values(), known.read_at]), name)
            for name, known in seen.known.items()
            if known.is_due(sweep.started_at, seen.now) and (known.waiting or not known.paced)
        )
        names = [name for _, name in due]
        if self._releases is not None and seen.has_paced:
            names += seen.choose_paced(self._releases.room_for_releases(in_turn=True))
        for name in names[: max(0, self._sender.room())]:
            self._sender.evaluate(name, sweep.sweep_id, sweep.started_at)

    # -- reading

    def read(self, task: SegmentTask, token: str, out_of_time: OutOfTime) -> StepResult | None:
        """Read one step of a segment; None if it has been read or somebody else is reading it.

        ``token`` identifies this reader. ``out_of_time`` is asked between pages. A task whose
        ``since`` is in the future was sent before the clock jumped back. It could never be
        satisfied, so it is dropped, and the next ask sends another.

        Raises:
            TemporaryError, PermanentError: it cannot be read; others may try again.
        """
        if not task.since <= self._state.now():
            return None
        taken = self._state.take(task.segment, token, task.since)
        if taken is None or taken.place is None:
            return None
        lease = LeaseHolder(self._state, task.segment, token, out_of_time)
        try:
            return self._read_step(task, taken, taken.place, token, lease)
        except BaseException:
            # Free it at once; otherwise nobody could read it until the lease expires.
            self._state.leave(task.segment, token, taken.place)
            raise

    def _read_step(
        self, task: SegmentTask, taken: SegmentState, place: Place, token: str, lease: LeaseHolder
    ) -> StepResult:
        segment = task.segment
        nominated = 0

        def nominate(orchestration_id: str, rows: str | None) -> None:
            nonlocal nominated
            lease.renew()
            news = self._state.nominate(
                orchestration_id, segment.scope, taken.mark, place.began, rows
            )
            if news:
                nominated += 1
                self._sender.evaluate(orchestration_id, task.sweep_id, task.since)

        if self._looks_for_recoveries(task, place):
            nominate_recoveries(self._reconciler, nominate, task.sweep_id)
        result = scan_segment(
            self._reconciler,
            segment,
            place,
            out_of_time=lease.is_over,
            nominate=nominate,
            watched=self._state.watched(segment.scope),
        )
        self._state.count(task.sweep_id, result.counts)
        handed_on = self._leave(task, place, token, result.next)
        return StepResult(result.counts, nominated, handed_on)

    def _looks_for_recoveries(self, task: SegmentTask, place: Place) -> bool:
        """Whether this is the first step of the first sweep in a ``FULL_SCAN_INTERVAL_SECONDS``.

        At least once a day, since each look goes back two days only.

        The sweep's start decides, by the store's clock, so all workers agree on the sweep
        whatever their own clocks say and however late the segment is read.
        """
        main = Scope.ACTIVE if self._settings.active_index_name is not None else Scope.TABLE
        begins = task.segment.scope is main and task.segment.number == 0 and place.step == 0
        most = RECOVERY_HORIZON.total_seconds() / 2
        into_rotation = task.since % min(self._settings.full_scan_interval_seconds, most)
        return begins and into_rotation < self._settings.sweep_interval_seconds

    def _leave(self, task: SegmentTask, place: Place, token: str, following: Place | None) -> bool:
        """Record how far a segment was read, send the rest, and return whether there is any.

        If the read began before the sweep, the segment is read once more.
        """
        if following is not None:
            if not self._state.leave(task.segment, token, following):
                return False
        elif not self._state.finish(task.segment, token) or place.began >= task.since:
            return False
        step = following.step if following is not None else 0
        # A message with this task's own name would be dropped as a duplicate of the running task.
        step += step == task.step
        self._sender.segment(SegmentTask(task.segment, task.sweep_id, task.since, step))
        return True

    def could_not_read(self, task: SegmentTask, error: ReconcilerError) -> None:
        """Count and log that a segment could not be read."""
        self._state.count(task.sweep_id, Counts(errors=1))
        self._metrics.increment("reconciler_errors_total", kind=error.kind)
        if error.kind not in OUTAGES:
            log.error(
                "orch.segment.unread",
                sweep_id=task.sweep_id,
                segment=task.segment.label,
                error_kind=error.kind,
                detail=str(error),
            )

    # -- evaluating and releasing

    def evaluate(
        self,
        orchestration_id: str,
        sweep_id: str | None,
        since: float | None,
        out_of_time: OutOfTime,
    ) -> Evaluation | None:
        """Evaluate an orchestration; None if it was since ``since`` and not nominated again.

        Without a sweep id, a person asked for it. ``out_of_time`` is asked between actions; the
        next sweep does what is left undone.

        Raises:
            UnknownOrchestrationError: it has no rows.
            TemporaryError, PermanentError: it could not be read; see ``could_not_evaluate``.
        """
        # Before anything is read: nominations after this moment survive the evaluation.
        known, read_at = self._state.look_up(orchestration_id)
        if since is not None and known.was_evaluated(since):
            return None
        # Releases for which there was no room are evaluated again when an ask chooses them.
        handed_on = self._hand_on(sweep_id, in_turn=known.paced and not known.waiting)
        try:
            evaluation = self._reconciler.evaluate(
                orchestration_id,
                sweep_id=sweep_id,
                report=self._report,
                release=handed_on.take if handed_on is not None else None,
                out_of_time=out_of_time,
            )
        except UnknownOrchestrationError:
            self._record(orchestration_id, Finding(read_at))
            self._state.count(sweep_id, Counts(orchestrations_evaluated=1))
            raise
        # Recorded first: if this process dies before sending, the next sweep evaluates it again.
        self._record(orchestration_id, Finding.of(evaluation, read_at), handed_on)
        self._state.count(sweep_id, evaluation.counts)
        if handed_on is not None:
            handed_on.send()
        return evaluation

    def could_not_evaluate(
        self, orchestration_id: str, error: ReconcilerError, sweep_id: str
    ) -> None:
        """Record as stuck an orchestration that could not be evaluated."""
        evaluation = self._reconciler.could_not_check(orchestration_id, error, sweep_id)
        self._record(orchestration_id, Finding.of(evaluation, self._state.now()))
        self._state.count(sweep_id, evaluation.counts)

    def _record(
        self, orchestration_id: str, finding: Finding, handed_on: HandedOn | None = None
    ) -> None:
        interval = self._settings.sweep_interval_seconds
        due = handed_on.due if handed_on is not None else {}
        self._state.evaluated(orchestration_id, finding, interval, due)

    def _hand_on(self, sweep_id: str | None, *, in_turn: bool = False) -> HandedOn | None:
        if self._releases is None:
            return None
        return HandedOn(self._releases, limited=sweep_id is not None, in_turn=in_turn)

    def release(
        self,
        orchestration_id: str,
        sub_issue_id: str,
        *,
        sweep_id: str | None = None,
        depends_on: tuple[str, ...] | None = None,
        due_since: datetime | None = None,
        alone: bool = False,
        out_of_time: OutOfTime = never,
    ) -> RepairResult:
        """Release a child if it is due, and record the result; see ``Reconciler.release``.

        Raises:
            UnknownOrchestrationError, UnknownChildError: there is no such row.
            TemporaryError, PermanentError: see ``could_not_release``.
        """
        handed_on = self._hand_on(sweep_id)
        try:
            result = self._reconciler.release(
                orchestration_id,
                sub_issue_id,
                sweep_id=sweep_id,
                depends_on=depends_on,
                due_since=due_since,
                alone=alone,
                dispatch=handed_on.take if handed_on is not None else None,
                out_of_time=out_of_time,
            )
        except (UnknownOrchestrationError, UnknownChildError):
            self._state.released(orchestration_id, sub_issue_id, settled=True)
            raise
        # A release by hand that is withheld does not show whether the child is due.
        if result.applied or sweep_id is not None:
            due = handed_on.due if handed_on is not None else {}
            self._state.released(
                orchestration_id, sub_issue_id, result.stuck, due, settled=result.settled
            )
        self._state.count(sweep_id, result.counts)
        if handed_on is not None:
            handed_on.send()
        return result

    def could_not_release(
        self,
        orchestration_id: str,
        sub_issue_id: str,
        error: ReconcilerError,
        *,
        sweep_id: str | None,
        due_since: datetime | None,
    ) -> None:
        """Record as stuck a child whose release failed.

        A release by hand records nothing, since the child may never have been due.
        """
        if sweep_id is None:
            return
        since = epoch_of(due_since)
        age = age_at(since, self._state.now())
        stuck = Stuck(orchestration_id, sub_issue_id, Code.LOST_RELEASE.value, str(error), age)
        self._state.released(orchestration_id, sub_issue_id, [stuck], settled=False)
        self._state.count(sweep_id, Counts(errors=1))

    # -- ending

    def end_what_is_done(self) -> list[SweepSummary]:
        """End each sweep that is complete and has nothing under way."""
        segments = self._state.overview(known=False)
        # What is known may be large, and most tasks end before all segments have been read.
        if not any(map(segments.is_read, segments.at_work())):
            return []
        seen = self._state.overview()
        done = filter(seen.is_done, seen.at_work())
        ended = [summary for sweep in done if (summary := self._end(sweep, seen)) is not None]
        if ended:
            self.publish_gauges(seen)
        return ended

    def _end_done_or_overtaken(self, seen: Overview, sweep_id: str) -> None:
        """End complete sweeps, and those that are so old that later ones cover what they lack."""
        limit = seen.now - _GIVEN_UP_AFTER * self._settings.sweep_interval_seconds
        for sweep in seen.at_work():
            overtaken = sweep.started_at <= limit and sweep.sweep_id != sweep_id
            if overtaken or seen.is_done(sweep):
                self._end(sweep, seen)

    def end(self, sweep_id: str) -> SweepSummary | None:
        """End a sweep, complete or not; None if it has ended already."""
        sweep = self._state.sweep(sweep_id)
        return None if sweep is None else self._end(sweep, self._state.overview())

    def _end(self, sweep: Sweep, seen: Overview) -> SweepSummary | None:
        with measured() as consumed:
            pause, is_known = self._read_pause()
        counts = self._state.counts(sweep.sweep_id).with_consumed(consumed)
        summary = SweepSummary(
            sweep_id=sweep.sweep_id,
            mode="paused" if pause is not None and sweep.mode == "repair" else sweep.mode,
            complete=seen.is_read(sweep),
            segments=sweep.segments,
            duration_seconds=max(0.0, seen.now - sweep.started_at),
            counts=counts + count_stuck(seen.list_stuck()),
            paused_since=_paused_since(pause, seen.now) if pause is not None else None,
        )
        if not self._state.end(sweep, summary.to_json()):
            return None
        record_sweep(summary, self._metrics, self._settings.repair_mode if is_known else None)
        return summary

    def _read_pause(self) -> tuple[Pause | None, bool]:
        """Return the pause, if any, and whether that is known.

        A report by hand does not ask, since it changes nothing anyway.
        """
        if self._by_hand:
            return None, False
        try:
            return self._reconciler.paused(), True
        except ReconcilerError:
            return None, False

    def publish_gauges(self, seen: Overview) -> None:
        """Record how far coverage reaches, and set the gauges of it and of what is stuck."""
        covered = self._state.advance_coverage(seen)
        if self._by_hand:
            return  # a report by hand repaired nothing, so its findings are not the current state
        set_gauges(self._metrics, covered, count_stuck(seen.list_stuck()))


def _paused_since(pause: Pause, now: float) -> float:
    """Return since when (epoch seconds); an unusable time counts as very long ago."""
    since = epoch_of(moment(pause.since))
    return 1.0 if age_at(since, now) is None else since or 1.0
