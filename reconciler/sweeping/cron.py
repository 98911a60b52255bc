"""Sweeps without a broker, one after the other: for cron, a scheduled container, and Lambda.

A sweep keeps its state for the next one in the table, and takes a lock so that two do not read the
table at once. Correctness depends on neither: every write is conditional on the state that
justified it, and without recorded state a sweep reads the whole table.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any

import structlog

from reconciler.clock import never_back
from reconciler.errors import ReconcilerError, TemporaryError
from reconciler.repair.reconciler import Reconciler
from reconciler.stores.sweeps import LEASE_SECONDS, Lease, SweepStore
from reconciler.sweeping.inline import Hooks, new_sweep_id, run_inline_sweep
from reconciler.sweeping.records import MemoryRecords
from reconciler.sweeping.state import COVERED, SWEEPS, SweepState
from reconciler.sweeping.summary import SweepSummary

log = structlog.get_logger("reconciler")

RENEW_SECONDS = LEASE_SECONDS / 3


@dataclass(frozen=True, slots=True)
class CronSweep:
    """A sweep's summary; ``lease`` is set if another one held the lock, and nothing was done."""

    summary: SweepSummary
    lease: Lease | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the summary, and who held the lock if another sweep did."""
        summary = self.summary.to_json()
        if self.lease is not None:
            summary["stepped_aside"] = {
                "holder": self.lease.holder,
                "since": self.lease.since,
                "expires": self.lease.expires.isoformat(),
            }
        return summary


def run_cron_sweep(
    reconciler: Reconciler,
    *,
    holder: str,
    force: bool = False,
    full: bool = False,
    segments: int | None = None,
    hooks: Hooks | None = None,
) -> CronSweep:
    """Sweep under the lock, go on from what the last sweep recorded, and record the new state.

    With ``REPAIR_MODE=report`` nothing is written, neither lock nor state, so each such sweep reads
    the whole table.

    ``holder``: who sweeps, to be shown to people. ``force``: sweep even if another sweep holds
    the lock. ``full``: read the whole table even if there is an index.

    Raises:
        AccessError, TableMissingError, SettingsError: an operator's mistake.
    """
    if reconciler.settings.repair_mode == "report":
        return CronSweep(run_inline_sweep(reconciler, segments=segments, hooks=hooks))
    with _lock(reconciler, holder, force=force) as lease:
        if lease is not None:
            reconciler.metrics.increment("reconciler_sweeps_total", outcome="overlapped")
            return CronSweep(SweepSummary(new_sweep_id(), "repair", False, 0, 0.0), lease)  # noqa: FBT003 - a field
        records = _recorded(reconciler)
        try:
            summary = run_inline_sweep(
                reconciler, state=SweepState(records), full=full, segments=segments, hooks=hooks
            )
        finally:
            _record(reconciler, records)
    return CronSweep(summary)


def _recorded(reconciler: Reconciler) -> MemoryRecords:
    try:
        return recorded_state(reconciler.sweeps, never_back(reconciler.clock))
    except TemporaryError as error:
        log.debug("recorded state unavailable, reading the whole table", detail=str(error))
        return MemoryRecords(never_back(reconciler.clock))


def recorded_state(sweeps: SweepStore, now: Callable[[], float]) -> MemoryRecords:
    """Return the state that the last sweep without a broker recorded; empty if there is none."""
    records = MemoryRecords(now)
    dumped = sweeps.recorded()
    if dumped is None:
        return records
    with suppress(ValueError):  # written by another version; this sweep overwrites it
        records.load(dumped)
    return records


def _record(reconciler: Reconciler, records: MemoryRecords) -> None:
    try:
        if not reconciler.sweeps.record(records.dump()):
            # Too large for one row. Without it the next sweep reads the whole table.
            reconciler.sweeps.record(records.dump(only=(SWEEPS, COVERED)))
    except TemporaryError as error:
        # The sweep itself succeeded; only the next one and `status` will not know of it.
        reconciler.metrics.increment("reconciler_errors_total", kind=error.kind)
        log.debug("sweep not recorded", detail=str(error))


@contextmanager
def _lock(reconciler: Reconciler, holder: str, *, force: bool) -> Iterator[Lease | None]:
    """Hold the lock during the block; yields None, or the lease if another sweep holds it."""
    owner = secrets.token_hex()
    sweeps, clock = reconciler.sweeps, reconciler.clock
    try:
        held = sweeps.take(owner, holder, clock(), force=force)
    except TemporaryError as error:
        # Correctness does not depend on the lock: better two sweeps than none.
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
