"""A whole sweep in one process, with no broker: for cron, and for a person at a shell."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from random import Random
from threading import Lock

import structlog
from ulid import ULID

from reconciler.errors import ReconcilerError, UnknownOrchestrationError
from reconciler.operations.context import Evaluation
from reconciler.operations.counts import Counts
from reconciler.operations.coverage import EVERYTHING, Coverage, Scope
from reconciler.operations.reconciler import Reconciler
from reconciler.operations.repair_pass import OPERATORS_MISTAKES
from reconciler.operations.scan import SegmentCursor
from reconciler.operations.summary import SweepSummary, record_sweep
from reconciler.settings import Settings

log = structlog.get_logger("reconciler")

_MOST_THREADS = 4
"""A thread each for some segments: it is the network that is waited for."""


@dataclass(frozen=True, slots=True)
class SweepProgress:
    """How far a sweep is: segments read to their end, of how many; what was counted so far."""

    segments_done: int
    segments: int
    counts: Counts
    pages: int


OutOfTime = Callable[[], bool]
Progress = Callable[[SweepProgress], None]
OnEvaluation = Callable[[Evaluation], None]


class _Tally:
    """What the threads of one sweep add up."""

    def __init__(
        self, segments: int, progress: Progress | None, on_evaluation: OnEvaluation | None
    ) -> None:
        self._lock = Lock()
        self._progress = progress
        self._on_evaluation = on_evaluation
        self.segments = segments
        self.done = 0
        self.pages = 0
        self.complete = True
        self.withheld: set[str] = set()
        self.paused_since: str | None = None
        self._nominated: set[str] = set()
        self.counts = Counts()

    def add(self, counts: Counts, *, segment_done: bool = False) -> None:
        with self._lock:
            self.counts += counts
            self.done += segment_done
            self.pages += segment_done
            self._tell()

    def leave(self, counts: Counts | None = None) -> None:
        """A segment was not read to its end."""
        with self._lock:
            self.complete = False
        self.add(counts or Counts())

    def page_read(self) -> None:
        """Count a page."""
        with self._lock:
            self.pages += 1
            self._tell()

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(SweepProgress(self.done, self.segments, self.counts, self.pages))

    def evaluated(self, evaluation: Evaluation) -> None:
        with self._lock:
            if evaluation.withheld is not None:
                self.withheld.add(evaluation.withheld)
            if self._on_evaluation is not None:
                self._on_evaluation(evaluation)
        self.add(evaluation.counts)
        if evaluation.mistake is not None:
            raise evaluation.mistake

    def first_time(self, orchestration_id: str) -> bool:
        """Whether it has not been nominated yet: a very large one may be in several segments."""
        with self._lock:
            new = orchestration_id not in self._nominated
            self._nominated.add(orchestration_id)
            return new


def run_inline_sweep(
    reconciler: Reconciler,
    settings: Settings,
    *,
    report: bool = False,
    orchestration_id: str | None = None,
    segments: int | None = None,
    scope: Scope = EVERYTHING,
    out_of_time: OutOfTime | None = None,
    progress: Progress | None = None,
    on_evaluation: OnEvaluation | None = None,
) -> SweepSummary:
    """Sweep the whole table, or one orchestration, and return what it came to.

    ``report`` changes nothing. ``scope``: what a sweep of the whole looks at. ``out_of_time`` is
    asked between pages and orchestrations; what is left when it says so makes the sweep incomplete.
    ``progress`` is called with how far it is, ``on_evaluation`` with each orchestration that was
    looked at closely; one at a time, from any thread.

    Raises:
        AccessError, TableMissingError, SettingsError: an operator's mistake; nothing was done.
        UnknownOrchestrationError: ``orchestration_id`` has no rows.
    """
    started = time.monotonic()
    sweep_id = new_sweep_id()
    mode: str = "report" if report else settings.repair_mode
    whole = orchestration_id is None
    total, coverage = 0, scope.coverage
    if whole:
        total = segments or reconciler.choose_segments(lambda: _MOST_THREADS, coverage)
    said = {"mode": mode, "segments": total, "coverage": coverage.value}
    log.info("orch.sweep.started", sweep_id=sweep_id, **said)
    tally = _Tally(total, progress, on_evaluation)
    if orchestration_id is not None:
        tally.evaluated(
            reconciler.evaluate(orchestration_id, sweep_id=sweep_id, by_hand=True, report=report)
        )
    else:
        _sweep_segments(reconciler, tally, sweep_id, scope, out_of_time, report=report)
    paused = tally.paused_since is not None or (tally.withheld and reconciler.paused() is not None)
    if mode == "repair" and paused:
        mode = "paused"
    summary = SweepSummary(
        sweep_id=sweep_id,
        mode=mode,
        complete=tally.complete,
        segments=total,
        duration_seconds=time.monotonic() - started,
        counts=tally.counts,
        paused_since=tally.paused_since,
        coverage=coverage,
    )
    if whole:
        record_sweep(summary, reconciler.metrics, reconciler.clock(), settings.repair_mode)
    return summary


def new_sweep_id() -> str:
    """Return an id for a sweep in this process."""
    return f"inline:{ULID()}"


def _sweep_segments(
    reconciler: Reconciler,
    tally: _Tally,
    sweep_id: str,
    scope: Scope,
    out_of_time: OutOfTime | None,
    *,
    report: bool,
) -> None:
    over = out_of_time or _never
    starts = list(cursors(sweep_id, tally.segments))
    if out_of_time is not None:
        # Should the time not suffice, it must not be the same segments each time that are left.
        Random(sweep_id).shuffle(starts)  # noqa: S311 - an order, no secret
    with ThreadPoolExecutor(min(tally.segments, _MOST_THREADS)) as threads:
        futures = [
            threads.submit(
                _sweep_segment, reconciler, tally, cursor, scope.coverage, over, report=report
            )
            for cursor in starts
        ]
        if scope.carried:
            futures.append(
                threads.submit(
                    _look_again, reconciler, tally, sweep_id, scope.carried, over, report=report
                )
            )
        try:
            for future in futures:
                future.result()
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise


def _never() -> bool:
    return False


def cursors(sweep_id: str, total: int) -> Iterable[SegmentCursor]:
    """Return where each of ``total`` segments begins."""
    return (SegmentCursor(sweep_id, segment, total) for segment in range(total))


def _sweep_segment(
    reconciler: Reconciler,
    tally: _Tally,
    cursor: SegmentCursor,
    coverage: Coverage,
    out_of_time: OutOfTime,
    *,
    report: bool,
) -> None:
    left = False

    def evaluate(orchestration_id: str) -> None:
        nonlocal left
        if out_of_time():
            left = True
        elif tally.first_time(orchestration_id):
            _evaluate(reconciler, tally, cursor.sweep_id, orchestration_id, report=report)

    if out_of_time():
        tally.leave()
        return

    def after_a_page() -> bool:
        tally.page_read()
        return out_of_time()

    try:
        result = reconciler.scan_segment(
            cursor, out_of_time=after_a_page, nominate=evaluate, coverage=coverage
        )
    except OPERATORS_MISTAKES:
        raise
    except ReconcilerError as error:
        tally.leave(Counts(errors=1))
        reconciler.metrics.increment("reconciler_errors_total", kind=error.kind)
        log.error(  # noqa: TRY400 - an outage, told in one line
            "orch.sweep.failed",
            sweep_id=cursor.sweep_id,
            segment=cursor.segment,
            error_kind=error.kind,
            detail=str(error),
        )
        return
    if result.paused_since is not None:
        tally.paused_since = result.paused_since
    if left or result.next is not None:
        tally.leave(result.counts)
    else:
        tally.add(result.counts, segment_done=True)


def _look_again(
    reconciler: Reconciler,
    tally: _Tally,
    sweep_id: str,
    carried: Iterable[str],
    out_of_time: OutOfTime,
    *,
    report: bool,
) -> None:
    """Look at what was known to be stuck, and what the index may not show."""
    for orchestration_id in carried:
        if out_of_time():
            tally.leave()
            return
        if tally.first_time(orchestration_id):
            _evaluate(reconciler, tally, sweep_id, orchestration_id, report=report)


def _evaluate(
    reconciler: Reconciler, tally: _Tally, sweep_id: str, orchestration_id: str, *, report: bool
) -> None:
    try:
        evaluation = reconciler.evaluate(orchestration_id, sweep_id=sweep_id, report=report)
    except UnknownOrchestrationError:
        tally.add(Counts(orchestrations_evaluated=1))  # gone since it was scanned
    except OPERATORS_MISTAKES:
        raise
    except ReconcilerError as error:
        # One that cannot be evaluated never stops the others.
        tally.add(reconciler.could_not_check(orchestration_id, error, sweep_id))
    else:
        tally.evaluated(evaluation)
