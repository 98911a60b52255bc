"""Measures how evenly sweeps with an index read the table in rotation, with a limit on reads.

One process sweeps at the interval, with one state. The first sweep reads the whole table as fast as
the limit allows. Later sweeps read the index and the segments that are due. Each answer is recorded
with its time and read units, to find the peaks per sweep and within any ten seconds.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks import index, ours
from benchmarks.measured import quieten
from benchmarks.metering import Meter
from benchmarks.mix import Mix
from benchmarks.runs import Say, seeded
from reconciler.sweeping.inline import new_state, run_inline_sweep

WINDOW_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Plan:
    """The settings: segments of the table, seconds, and read units per second."""

    segments: int = 64
    interval_seconds: int = 30
    full_scan_interval_seconds: int = 180
    ceiling: float = 300.0
    rotations: int = 2


@dataclass(slots=True)
class TimedMeter(Meter):
    """Also records each read. ``readings``: (monotonic seconds, read units)."""

    readings: list[tuple[float, float]] = field(default_factory=list)

    def attach(self, client: Any) -> None:  # noqa: ANN401 - any service's
        """Count and record what ``client`` reads from now on."""
        Meter.attach(self, client)
        client.meta.events.register("after-call.dynamodb", self._note)

    def _note(self, parsed: dict[str, Any], **_: Any) -> None:  # noqa: ANN401 - botocore's
        consumed = parsed.get("ConsumedCapacity") or []
        entries = consumed if isinstance(consumed, list) else [consumed]
        units = sum(float(entry.get("CapacityUnits", 0.0)) for entry in entries)
        self.readings.append((time.monotonic(), units))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What sweeps read, in read units. ``by_sweep``: for each sweep after the first."""

    rows: int
    plan: Plan
    first_seconds: float
    first_units: float
    first_peak_per_second: float
    by_sweep: Sequence[float]
    segments_by_sweep: Sequence[int]
    peak_per_second: float

    @property
    def mean(self) -> float:
        """The mean of the sweeps."""
        return sum(self.by_sweep) / len(self.by_sweep)

    @property
    def peak_ratio(self) -> float:
        """The maximum of the sweeps ÷ the mean."""
        return max(self.by_sweep) / self.mean

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as a line of the record."""
        return {
            **asdict(self),
            "mean": round(self.mean, 1),
            "peak_ratio": round(self.peak_ratio, 3),
        }


def run(mix: Mix, plan: Plan, say: Say) -> Outcome:
    """Read a table in rotation, as often as planned."""
    quieten()
    settings = {
        "active_index_name": index.INDEX,
        "sweep_interval_seconds": plan.interval_seconds,
        "full_scan_interval_seconds": plan.full_scan_interval_seconds,
        "scan_read_units_per_second": plan.ceiling,
        "sweep_segments": plan.segments,
    }
    with seeded(mix, say, index.add) as place:
        meter = TimedMeter()
        reconciler = ours.make_reconciler(place, meter, settings)
        state = new_state(reconciler)
        say("the first rotation, at once")
        began = time.monotonic()
        run_inline_sweep(reconciler, state=state)
        first, first_seconds = meter.readings, time.monotonic() - began
        meter.readings = []
        count = plan.rotations * plan.full_scan_interval_seconds // plan.interval_seconds
        say(f"{plan.rotations} rotations: {count} sweeps, {plan.interval_seconds} s apart")
        later: list[list[tuple[float, float]]] = []
        segments: list[int] = []
        began = time.monotonic()
        for number in range(count):
            time.sleep(max(0.0, began + number * plan.interval_seconds - time.monotonic()))
            summary = run_inline_sweep(reconciler, state=state)
            later.append(meter.readings)
            segments.append(summary.segments)
            meter.readings = []
    return Outcome(
        mix.rows,
        plan,
        round(first_seconds, 1),
        _units(first),
        peak_per_second(first),
        [_units(readings) for readings in later],
        segments,
        peak_per_second([reading for readings in later for reading in readings]),
    )


def _units(readings: Sequence[tuple[float, float]]) -> float:
    return sum(units for _, units in readings)


def peak_per_second(readings: Sequence[tuple[float, float]]) -> float:
    """Return the highest read units per second, averaged over any ten seconds."""
    window: deque[tuple[float, float]] = deque()
    most = held = 0.0
    for at, units in sorted(readings):
        window.append((at, units))
        held += units
        while window[0][0] <= at - WINDOW_SECONDS:
            held -= window.popleft()[1]
        most = max(most, held)
    return round(most / WINDOW_SECONDS, 1)
