"""The runs. Each is measured in its own process, on its own DynamoDB Local.

floor: everything stranded was released and runs; plain reads of everything. steady: the same
table, and a sweep that finds nothing wrong. outage: one lost event in each stranded orchestration,
and a sweep that repairs them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from benchmarks.measured import Job, Measurement, measure
from benchmarks.mix import Mix
from benchmarks.place import Place, fresh_place
from benchmarks.seeding import seed

Say = Callable[[str], None]

THREADS = 4
_LEAST_BYTES_PER_SEGMENT = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Plan:
    """How to run. ``segments``: if None, the sweep chooses."""

    mix: Mix
    segments: int | None = None
    latency_seconds: float = 0.0
    repeat: int = 1
    share: bool = False
    settings: dict[str, Any] | None = None

    def job(self, what: str, place: Place, **changes: Any) -> Job:  # noqa: ANN401 - of a Job
        """Return a measured run at ``place``."""
        return replace(
            Job(
                what,
                place.to_json(),
                segments=self.segments,
                threads=THREADS,
                latency_seconds=self.latency_seconds,
                settings=self.settings or {},
            ),
            **changes,
        )


@contextmanager
def seeded(
    mix: Mix, say: Say, prepare: Callable[[Place], None] = lambda _: None
) -> Iterator[Place]:
    """Provide a fresh instance that contains ``mix``; ``prepare`` runs on the empty tables."""
    with fresh_place() as place:
        say(f"seeding {mix.rows:,} rows")
        seed(place, mix, prepare)
        yield place


def compare(plan: Plan, say: Say) -> dict[str, Measurement]:
    """Measure steady state, floor and outage of one mix; medians if repeated."""
    found: dict[str, list[Measurement]] = {"steady": [], "floor": [], "outage": []}
    for _ in range(plan.repeat):
        steady, bare = steady_and_floor(plan, say)
        found["steady"].append(steady)
        found["floor"].append(bare)
        if plan.mix.stranded:
            with seeded(plan.mix, say) as place:
                say("a sweep after the outage")
                outage = measure(plan.job("sweep", place))
            repaired = outage.facts["recovered"]
            if repaired != plan.mix.dues or not outage.facts["complete"]:
                raise RuntimeError(f"repaired {repaired} of {plan.mix.dues}: {outage.facts}")
            found["outage"].append(outage)
    return {name: middle(runs) for name, runs in found.items() if runs}


def steady_and_floor(plan: Plan, say: Say) -> tuple[Measurement, Measurement]:
    """Measure a sweep that finds nothing wrong, and the floor for the same table."""
    mix = replace(plan.mix, repaired=True)
    with seeded(mix, say) as place:
        say("a sweep in which nothing is wrong")
        steady = measure(plan.job("sweep", place))
        segments = steady.facts["segments"]
        if plan.share:
            return steady, _floor(plan, place, segments, say)
    with seeded(mix, say) as place:
        return steady, _floor(plan, place, segments, say)


def _floor(plan: Plan, place: Place, segments: int, say: Say) -> Measurement:
    say(f"the floor, in {segments} segments")
    return measure(plan.job("floor", place, segments=segments))


def middle(runs: list[Measurement]) -> Measurement:
    """Return the run with the median CPU time."""
    at = median(run.cpu_seconds for run in runs)
    return min(runs, key=lambda run: abs(run.cpu_seconds - at))


def by_workers(plan: Plan, place: Place, workers: int) -> Measurement:
    """Share the segments among ``workers`` processes, and add up their costs."""
    jobs = [
        plan.job("segment_tasks", place, first=number, every=workers) for number in range(workers)
    ]
    with ThreadPoolExecutor(workers) as pool:
        parts = list(pool.map(measure, jobs))
    return replace(
        parts[0],
        requests=sum(part.requests for part in parts),
        read_units=sum(part.read_units for part in parts),
        cpu_seconds=round(sum(part.cpu_seconds for part in parts), 3),
        wall_seconds=max(part.wall_seconds for part in parts),
        peak_mib=max(part.peak_mib for part in parts),
        facts={"rows_scanned": sum(part.facts["rows_scanned"] for part in parts)},
    )
