"""A sweep within this process, without a broker: for cron, Lambda and the shell."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from threading import Lock

from ulid import ULID

from reconciler.clock import OutOfTime, never, never_back
from reconciler.errors import UnknownOrchestrationError, as_own_error
from reconciler.repair.context import Evaluation
from reconciler.repair.counts import Counts
from reconciler.repair.reconciler import Reconciler
from reconciler.repair.repair_pass import OPERATORS_MISTAKES
from reconciler.sweeping.records import MemoryRecords
from reconciler.sweeping.segments import Scope
from reconciler.sweeping.sender import SegmentTask
from reconciler.sweeping.state import SweepState
from reconciler.sweeping.summary import SweepSummary
from reconciler.sweeping.sweeper import Sweeper

_MAX_THREADS = 4
"""Threads mostly wait for the network."""


@dataclass(frozen=True, slots=True)
class SweepProgress:
    """How far a sweep is: segments completed, of how many, and the counts so far."""

    segments_done: int
    segments: int
    counts: Counts
    pages: int


@dataclass(frozen=True, slots=True)
class Hooks:
    """Callbacks of a sweep; one call at a time, from any thread.

    ``out_of_time``: asked between pages, and between the actions of an evaluation. Once it returns
    True, the rest is left to the next sweep.
    """

    out_of_time: OutOfTime = never
    progress: Callable[[SweepProgress], None] = lambda _: None
    on_evaluation: Callable[[Evaluation], None] = lambda _: None


class _Threads:
    """Does the work of a sweep on a few threads; serves as the ``Sender`` of its ``Sweeper``.

    Evaluations release children themselves, so releases are not sent.
    """

    def __init__(
        self, reconciler: Reconciler, state: SweepState, hooks: Hooks, *, report: bool
    ) -> None:
        self.sweeper = Sweeper(reconciler, state, self, report=report)
        self._state = state
        self._hooks = hooks
        self._lock = Lock()
        self._stopped = False
        self._pool: ThreadPoolExecutor | None = None
        self._asked: deque[Callable[[], None]] = deque()
        self._ended: SimpleQueue[Future[None]] = SimpleQueue()
        self._open = 0
        self._evaluating: set[str] = set()
        self.segments = self._done = self._pages = 0

    # -- the sender

    def room(self) -> int:
        return sys.maxsize

    def segment(self, task: SegmentTask) -> None:
        self._submit(partial(self._read, task))

    def evaluate(self, orchestration_id: str, sweep_id: str, since: float) -> None:
        with self._lock:
            # Two evaluations at once would conflict, and the second would find nothing to do.
            if orchestration_id in self._evaluating:
                return
            self._evaluating.add(orchestration_id)
        self._submit(partial(self._evaluate, orchestration_id, sweep_id, since))

    # -- the work

    def run(self) -> None:
        """Do all the work, and all that follows from it."""
        threads = min(self.segments, _MAX_THREADS)
        with ThreadPoolExecutor(threads, thread_name_prefix="sweep") as self._pool:
            for work in self._asked:
                self._submit(work)
            try:
                # In the order of their ends, so that a mistake stops the others at once.
                while self._open:
                    self._ended.get().result()
                    with self._lock:
                        self._open -= 1
            except BaseException:
                # Ctrl-C or an operator's mistake: running work stops at its next check, and what
                # still waits at its first.
                self._stopped = True
                raise

    def _out_of_time(self) -> bool:
        return self._stopped or self._hooks.out_of_time()

    def _submit(self, work: Callable[[], None]) -> None:
        if self._pool is None:
            self._asked.append(work)
            return
        with suppress(RuntimeError):  # shut down, after another thread has failed
            future = self._pool.submit(work)
            with self._lock:
                self._open += 1
            future.add_done_callback(self._ended.put)

    def _read(self, task: SegmentTask) -> None:
        if self._out_of_time():
            return
        token = f"{task.sweep_id}:{task.segment.label}"
        try:
            result = self.sweeper.read(task, token, partial(self._after_a_page, task.sweep_id))
        except Exception as error:
            # If the index is missing or forbidden, the whole table is read instead.
            if isinstance(error, OPERATORS_MISTAKES) and task.segment.scope is Scope.TABLE:
                raise
            self.sweeper.could_not_read(task, as_own_error(error))
            return
        with self._lock:
            read = result is not None and not result.handed_on
            self._done += read
            self._pages += read  # the last page is not followed by a call of _after_a_page
            self._tell(task.sweep_id)

    def _after_a_page(self, sweep_id: str) -> bool:
        with self._lock:
            self._pages += 1
            self._tell(sweep_id)
        return self._out_of_time()

    def _evaluate(self, orchestration_id: str, sweep_id: str, since: float) -> None:
        if self._out_of_time():
            return
        self._evaluate_once(orchestration_id, sweep_id, since)
        with self._lock:
            self._evaluating.discard(orchestration_id)
        if self._state.known(orchestration_id).waiting:
            self.evaluate(orchestration_id, sweep_id, since)  # nominated meanwhile

    def _evaluate_once(self, orchestration_id: str, sweep_id: str, since: float) -> None:
        try:
            evaluation = self.sweeper.evaluate(orchestration_id, sweep_id, since, self._out_of_time)
        except UnknownOrchestrationError:
            return  # deleted since it was scanned
        except OPERATORS_MISTAKES:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            # An orchestration that cannot be evaluated never stops the others.
            self.sweeper.could_not_evaluate(orchestration_id, as_own_error(error), sweep_id)
            return
        if evaluation is None:
            return
        with self._lock:
            self._hooks.on_evaluation(evaluation)
            self._tell(sweep_id)
        if evaluation.mistake is not None:
            raise evaluation.mistake

    def _tell(self, sweep_id: str) -> None:
        counts = self._state.counts(sweep_id)
        self._hooks.progress(SweepProgress(self._done, self.segments, counts, self._pages))


def run_inline_sweep(
    reconciler: Reconciler,
    *,
    state: SweepState | None = None,
    report: bool = False,
    full: bool = False,
    segments: int | None = None,
    hooks: Hooks | None = None,
) -> SweepSummary:
    """Sweep once and return the summary.

    ``state``: the state of earlier sweeps; without it, the whole table is read. ``report`` changes
    nothing. ``full``: read the whole table even if there is an index. ``segments``: number of
    segments of the table, instead of the setting.

    Raises:
        AccessError, TableMissingError, SettingsError: an operator's mistake.
    """
    state = state or new_state(reconciler)
    hooks = hooks or Hooks()
    threads = _Threads(reconciler, state, hooks, report=report)
    sweep_id = new_sweep_id()
    sweep = threads.sweeper.ask(
        sweep_id, full=full, segments=segments, workers=lambda: _MAX_THREADS
    )
    if sweep is not None:  # always: it was asked for by hand
        threads.segments = sweep.segments
    threads.run()
    summary = threads.sweeper.end(sweep_id)
    threads.sweeper.publish_gauges(state.overview())
    if summary is None:
        raise AssertionError(f"{sweep_id} ended twice")
    return summary


def new_sweep_id() -> str:
    """Return a new id for a sweep in this process."""
    return f"inline:{ULID()}"


def new_state(reconciler: Reconciler) -> SweepState:
    """Return an empty state."""
    return SweepState(MemoryRecords(never_back(reconciler.clock)))


def evaluate_inline(
    reconciler: Reconciler, orchestration_id: str, *, report: bool = False, hooks: Hooks
) -> SweepSummary:
    """Evaluate one orchestration by hand, and return a summary.

    Raises:
        AccessError, TableMissingError, SettingsError: an operator's mistake.
        UnknownOrchestrationError: it has no rows.
    """
    began = reconciler.clock()
    sweep_id = new_sweep_id()
    evaluation = reconciler.evaluate(
        orchestration_id,
        sweep_id=sweep_id,
        by_hand=True,
        report=report,
        out_of_time=hooks.out_of_time,
    )
    hooks.on_evaluation(evaluation)
    if evaluation.mistake is not None:
        raise evaluation.mistake
    mode: str = "report" if report else reconciler.settings.repair_mode
    if mode == "repair" and evaluation.withheld and reconciler.paused() is not None:
        mode = "paused"
    took = (reconciler.clock() - began).total_seconds()
    return SweepSummary(sweep_id, mode, True, 0, took, evaluation.counts)  # noqa: FBT003 - a field
