"""A sweep's summary, the same for Celery and for ``sweep --inline``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog
from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from reconciler.domain.codes import STUCK_CODES, count_alarming
from reconciler.observability.metrics import MODES, Metrics
from reconciler.repair.counts import INTEGERS, Counts
from reconciler.sweeping.segments import Scope

log = structlog.get_logger("reconciler")

TOTAL_FAILURE = "RECONCILER_TOTAL_FAILURE"
PARTIAL_FAILURE = "RECONCILER_PARTIAL_FAILURE"


@with_config(ConfigDict(extra="allow"))
class EndedSweep(TypedDict):
    """The fields of a recorded summary that later decisions need; it holds the others as well."""

    sweep_id: str
    complete: bool
    started_at: float
    ended_at: float


@dataclass(frozen=True, slots=True)
class SweepSummary:
    """The result of a sweep.

    ``complete``: every segment it owed was read completely (I6), and what was nominated there was
    evaluated. ``counts.stuck``: everything known to be stuck when it ended.
    ``paused_since``: since when repairs were paused at its end (epoch seconds); None: no pause.
    """

    sweep_id: str
    mode: str
    complete: bool
    segments: int
    duration_seconds: float
    counts: Counts = field(default_factory=Counts)
    paused_since: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values; a report adds what a repair would have done."""
        counts = self.counts
        summary: dict[str, Any] = {
            "sweep_id": self.sweep_id,
            "mode": self.mode,
            "complete": self.complete,
            "segments": self.segments,
            **{name: getattr(counts, name) for name in INTEGERS},
            "duration_seconds": round(self.duration_seconds, 3),
            "stuck": dict(sorted(counts.stuck.items())),
            "consumed": {
                "read_units": round(counts.read_units, 1),
                "write_units": round(counts.write_units, 1),
                "requests": counts.requests,
            },
        }
        if self.mode != "repair":
            summary["planned"] = dict(sorted(counts.planned.items()))
        return summary

    @property
    def alarming(self) -> bool:
        """Whether it needs attention: something is stuck, failed, or was not read."""
        stuck = count_alarming(self.counts.stuck) > 0
        return stuck or not self.complete or self.counts.errors > 0

    @property
    def outcome(self) -> str:
        """The ``outcome`` label of ``reconciler_sweeps_total``."""
        return "complete" if self.complete else "incomplete"


def record_sweep(summary: SweepSummary, metrics: Metrics, repair_mode: str | None) -> None:
    """Log a finished sweep and set the metrics of whole sweeps.

    ``repair_mode``: the setting; None if the mode is unknown, because this is a report by hand or
    the pause could not be read.
    """
    counts = summary.counts
    metrics.increment("reconciler_sweeps_total", outcome=summary.outcome)
    metrics.observe("reconciler_sweep_duration_seconds", summary.duration_seconds)
    metrics.increment("reconciler_rows_scanned_total", counts.rows_scanned)
    if repair_mode is not None:
        _set_mode(summary.paused_since, metrics, repair_mode)
    facts = summary.to_json()
    if counts.errors and not counts.repairs:
        metrics.increment("reconciler_sweep_failures_total", extent="total")
        log.error("orch.sweep.completed", error_id=TOTAL_FAILURE, **facts)
    elif counts.errors or not summary.complete:
        metrics.increment("reconciler_sweep_failures_total", extent="partial")
        log.warning("orch.sweep.completed", error_id=PARTIAL_FAILURE, **facts)
    else:
        log.info("orch.sweep.completed", **facts)


def set_gauges(metrics: Metrics, covered_as_of: Mapping[Scope, float], counts: Counts) -> None:
    """Set the gauges of coverage (epoch seconds), where it has advanced, and of what is stuck.

    Alarms that cannot compute an age check that the coverage gauge is still being set.
    """
    for scope, as_of in covered_as_of.items():
        metrics.set_gauge(
            "reconciler_covered_as_of_timestamp_seconds", round(as_of, 3), scope=scope.value
        )
    metrics.set_gauge("reconciler_stuck_work", count_alarming(counts.stuck))
    for code in STUCK_CODES:
        stuck = counts.stuck.get(code, 0)
        oldest = counts.oldest_stuck_seconds.get(code, 0.0)
        metrics.set_gauge("reconciler_stuck_children", stuck, code=code)
        metrics.set_gauge("reconciler_oldest_stuck_seconds", oldest, code=code)


def _set_mode(paused_since: float | None, metrics: Metrics, repair_mode: str) -> None:
    mode = repair_mode if paused_since is None else "paused"
    metrics.set_gauge("reconciler_paused_since_timestamp_seconds", paused_since or 0.0)
    for name in MODES:
        metrics.set_gauge("reconciler_mode", float(name == mode), mode=name)
