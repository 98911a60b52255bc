"""One measured run in its own process, which reads its job from stdin and answers on stdout.

Counting starts when everything is imported and every client exists, and stops when the work ends.
"""

from __future__ import annotations

import json
import logging
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import structlog

from benchmarks import floor, index, ours
from benchmarks.metering import Capacity, Meter, Run
from benchmarks.place import Place

_KIB = 1024


@dataclass(frozen=True, slots=True)
class Job:
    """What to run: ``floor``, ``sweep``, ``segment_tasks``, ``active`` or ``active floor``.

    Several processes can share ``segment_tasks``: each starts at ``first`` and takes one in
    ``every``.
    """

    what: str
    place: dict[str, str]
    segments: int | None = None
    threads: int = 4
    latency_seconds: float = 0.0
    capacity: float | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    every: int = 1
    first: int = 0


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a run cost. ``facts``: what the run itself returned."""

    requests: int
    read_units: float
    write_units: float
    cpu_seconds: float
    wall_seconds: float
    peak_mib: float
    idle_mib: float
    throttled: int
    operations: dict[str, int]
    refusals: dict[str, int]
    facts: dict[str, Any]


def measure(job: Job) -> Measurement:
    """Run ``job`` in a fresh process and return what it cost."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.measured"],
        input=json.dumps(asdict(job)),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{job.what} failed:\n{done.stderr[-4000:]}")
    return Measurement(**json.loads(done.stdout))


_STATUS = Path("/proc/self/status")


def _peak_mib() -> float:
    """Return the peak memory of this process.

    ``getrusage`` may return the peak of the parent process, which Linux passes on.
    """
    if _STATUS.exists():
        lines = _STATUS.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) / _KIB for line in lines if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _KIB


def _run(job: Job) -> Measurement:
    place = Place(**job.place)
    capacity = Capacity(job.capacity) if job.capacity else None
    meter = Meter(latency_seconds=job.latency_seconds, capacity=capacity)
    run = _prepare(job, place, meter)
    idle = _peak_mib()
    wall, cpu = time.perf_counter(), time.process_time()
    facts = run()
    return Measurement(
        requests=meter.requests,
        read_units=round(meter.read_units, 1),
        write_units=round(meter.write_units, 1),
        cpu_seconds=round(time.process_time() - cpu, 3),
        wall_seconds=round(time.perf_counter() - wall, 3),
        peak_mib=round(_peak_mib(), 1),
        idle_mib=round(idle, 1),
        throttled=meter.throttled,
        operations=dict(sorted(meter.operations.items())),
        refusals=dict(sorted(meter.refusals.items())),
        facts=facts,
    )


def _prepare(job: Job, place: Place, meter: Meter) -> Run:
    if job.what == "floor":
        return floor.prepare(place, meter, job.segments or 1, job.threads)
    if job.what == "active floor":
        return index.prepare(place, meter)
    reconciler = ours.make_reconciler(place, meter, job.settings)
    if job.what == "sweep":
        return ours.prepare_sweep(reconciler, job.segments)
    if job.what == "active":
        return ours.prepare_active_sweep(reconciler, job.segments)
    return ours.prepare_segment_tasks(reconciler, job.segments, job.first, job.every)


def quieten() -> None:
    """Disable logging, so that only the work is measured."""
    logging.disable(logging.CRITICAL)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
        cache_logger_on_first_use=True,
    )


def main() -> None:
    """Read a job, run it, print what it cost."""
    quieten()
    measurement = _run(Job(**json.load(sys.stdin)))
    json.dump(asdict(measurement), sys.stdout)


if __name__ == "__main__":
    main()
