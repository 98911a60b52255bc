"""Sweeps without a broker, one after the other: for cron, a scheduled container, and Lambda.

The lock keeps two from reading the table at once; whoever comes second steps aside and says so.
It is a courtesy: what keeps a task from existing twice is the condition on each write.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from threading import Event, Thread
from typing import Any

import structlog

from reconciler.errors import AccessError, ReconcilerError, TableMissingError, TemporaryError
from reconciler.operations.context import Evaluation, Stuck
from reconciler.operations.coverage import EVERYTHING, Coverage, Scope, choose_scope, known_from
from reconciler.operations.reconciler import Reconciler
from reconciler.operations.summary import SweepSummary
from reconciler.operations.sweep import OnEvaluation, Progress, new_sweep_id, run_inline_sweep
from reconciler.settings import Settings
from reconciler.stores.sweeps import LEASE_SECONDS, Lease

log = structlog.get_logger("reconciler")

RENEW_SECONDS = LEASE_SECONDS / 3
_MOST_STUCK = 400


@dataclass(frozen=True, slots=True)
class CronSweep:
    """A sweep's summary; ``aside`` is who was at work, where it stepped aside and did nothing."""

    summary: SweepSummary
    aside: Lease | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the summary's object, and beside it who was at work."""
        said = self.summary.to_json()
        if self.aside is not None:
            said["stepped_aside"] = {
                "holder": self.aside.holder,
                "since": self.aside.since,
                "expires": self.aside.expires.isoformat(),
            }
        return said


def run_cron_sweep(
    reconciler: Reconciler,
    settings: Settings,
    *,
    holder: str,
    force: bool = False,
    full: bool = False,
    segments: int | None = None,
    out_of_time: Callable[[], bool] | None = None,
    progress: Progress | None = None,
    on_evaluation: OnEvaluation | None = None,
) -> CronSweep:
    """Sweep the whole table under the lock, and record the summary in the table.

    With ``REPAIR_MODE=report`` nothing is written at all, neither lock nor record; so each such
    sweep is of the whole table.

    ``holder``: who sweeps, as a person should be shown. ``force``: sweep although another does.
    ``full``: read the whole table, although an index would do.
    ``out_of_time``: asked between pages and orchestrations; what is left then makes the sweep
    incomplete.

    Raises:
        AccessError, TableMissingError, SettingsError: an operator's mistake; nothing was done.
    """
    stuck: list[Stuck] = []

    def evaluated(evaluation: Evaluation) -> None:
        stuck.extend(evaluation.stuck)
        if on_evaluation is not None:
            on_evaluation(evaluation)

    def sweep(scope: Scope = EVERYTHING) -> SweepSummary:
        return run_inline_sweep(
            reconciler,
            settings,
            segments=segments,
            scope=scope,
            out_of_time=out_of_time,
            progress=progress,
            on_evaluation=evaluated,
        )

    if settings.repair_mode == "report":
        return CronSweep(sweep())
    with _lock(reconciler, holder, force=force) as aside:
        if aside is not None:
            reconciler.metrics.increment("reconciler_sweeps_total", outcome="overlapped")
            return CronSweep(SweepSummary(new_sweep_id(), "repair", False, 0, 0.0), aside)  # noqa: FBT003 - a field
        scope = _scope(reconciler, settings, full=full)
        try:
            summary = sweep(scope)
        except (AccessError, TableMissingError) as error:
            if scope.coverage is Coverage.FULL:
                raise
            # It may be the index alone that is forbidden, or gone: nobody is to wait for that.
            log.warning("orch.sweep.failed", error_kind=error.kind, detail=str(error))
            stuck.clear()  # all of it is looked at once more
            summary = sweep()
        _record(reconciler, summary, stuck)
    return CronSweep(summary)


def _scope(reconciler: Reconciler, settings: Settings, *, full: bool) -> Scope:
    if full or settings.active_index_name is None:
        return EVERYTHING
    try:
        recorded = reconciler.sweeps.recorded()
    except TemporaryError as error:
        log.debug("a full scan, since the last one is not known", detail=str(error))
        return EVERYTHING
    if recorded is None:
        return EVERYTHING
    known = known_from(recorded.last, recorded.last_full, recorded.last_complete, recorded.stuck)
    return choose_scope(settings, known, reconciler.clock().timestamp())


def _record(reconciler: Reconciler, summary: SweepSummary, stuck: list[Stuck]) -> None:
    stuck.sort(key=_youth)
    said = {
        **summary.to_json(),
        "oldest_stuck_seconds": dict(summary.counts.oldest_stuck_seconds),
        "ended_at": round(reconciler.clock().timestamp(), 3),
    }
    try:
        reconciler.sweeps.record(said, [asdict(entry) for entry in stuck[:_MOST_STUCK]])
    except TemporaryError as error:
        # The sweep was made; only `status` will not know of it.
        reconciler.metrics.increment("reconciler_errors_total", kind=error.kind)
        log.debug("sweep not recorded", detail=str(error))


def _youth(entry: Stuck) -> float:
    """Return what puts the oldest first; one whose age is not known has been there for long."""
    return -math.inf if entry.age_seconds is None else -entry.age_seconds


@contextmanager
def _lock(reconciler: Reconciler, holder: str, *, force: bool) -> Iterator[Lease | None]:
    """Hold the lock for as long as the block lasts; yields who has it, None where we do."""
    owner = secrets.token_hex(8)
    sweeps, clock = reconciler.sweeps, reconciler.clock
    try:
        held = sweeps.take(owner, holder, clock(), force=force)
    except TemporaryError as error:
        # Nothing rests on it: better twice than not at all.
        log.debug("sweep without its lock", detail=str(error))
        held = None
    if held is not None:
        yield held
        return
    over = Event()

    def renew() -> None:
        while not over.wait(RENEW_SECONDS):
            try:
                if not sweeps.renew(owner, clock()):
                    log.debug("sweep lock taken over by another")
                    return
            except ReconcilerError as error:
                log.debug("sweep lock not renewed", detail=str(error))

    renewing = Thread(target=renew, name="sweep-lock", daemon=True)
    renewing.start()
    try:
        yield None
    finally:
        over.set()
        renewing.join()
        with suppress(ReconcilerError):  # it expires
            sweeps.give_back(owner)
