"""Shows results as tables and records them as lines of JSON."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import recorded
from benchmarks.contention import Outcome
from benchmarks.drain import LATE_GOAL, RANK_GOAL
from benchmarks.drain import SECONDS_GOAL as DRAIN_GOAL
from benchmarks.drain import Outcome as DrainOutcome
from benchmarks.latency import PARTS
from benchmarks.latency import Outcome as LatencyOutcome
from benchmarks.measured import Measurement
from benchmarks.mix import Mix
from benchmarks.rotation import Outcome as RotationOutcome
from benchmarks.storm import GOALS as STORM_GOALS
from benchmarks.storm import Outcome as StormOutcome
from reconciler.domain.model import timestamp

RESULTS = Path(__file__).parent / "results"
_ROOT = Path(__file__).parents[1]

GOALS = {"read_units": 1.05, "requests": 1.2, "cpu_seconds": 1.5}
"""Maximum ratios of the steady state to the floor of the same run."""


@cache
def commit() -> str:
    """Return the measured commit, marked if the tree was not clean.

    The first call fixes the result, because somebody may commit during a long run.
    """
    try:
        name = _git("rev-parse", "--short=12", "HEAD")
        # Ignore files that the benchmark writes itself.
        changed = _git("status", "--porcelain", "--", ".", ":!benchmarks/results", ":!docs/images")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{name}+changes" if changed else name


def _git(*arguments: str) -> str:
    done = subprocess.run(  # noqa: S603
        ["git", *arguments],  # noqa: S607 - whatever git is on the path
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def save(scenario: str, facts: Mapping[str, Any], runs: Mapping[str, Measurement]) -> Path:
    """Append one line to the record of a scenario."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{scenario}.jsonl"
    line = {
        "commit": commit(),
        "at": timestamp(datetime.now(UTC)),
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version()},
        "load": round(os.getloadavg()[0], 1),
        **facts,
        "runs": {name: asdict(run) for name, run in runs.items()},
    }
    with path.open("a", encoding="utf-8") as record:
        record.write(json.dumps(line) + "\n")
    return path


def load(scenario: str) -> list[dict[str, Any]]:
    """Return the record of a scenario, oldest first."""
    path = RESULTS / f"{scenario}.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# -- for people


def show_runs(console: Console, title: str, runs: Mapping[str, Measurement]) -> None:
    """Print what each run cost."""
    table = Table(title=title, title_justify="left")
    table.add_column("run")
    columns = ("requests", "read units", "write units", "CPU s", "wall s", "peak MiB", "repairs/s")
    for column in columns:
        table.add_column(column, justify="right")
    for name, run in runs.items():
        recovered = run.facts.get("recovered") or 0
        table.add_row(
            name,
            f"{run.requests:,}",
            f"{run.read_units:,.1f}",
            f"{run.write_units:,.0f}",
            f"{run.cpu_seconds:.2f}",
            f"{run.wall_seconds:.2f}",
            f"{run.peak_mib:.0f}",
            f"{recovered / run.wall_seconds:.1f}" if recovered else "",
        )
    console.print(table)


def show_contention(console: Console, outcomes: Iterable[Outcome]) -> None:
    """Print how many transactions were needed, and how many conflicted."""
    table = Table(title="siblings released at once", title_justify="left")
    for column in ("workers", "locked", "releases", "transactions", "conflicts", "given up"):
        table.add_column(column, justify="right")
    for found in outcomes:
        numbers = (found.releases, found.transactions, found.conflicts, found.given_up)
        locked = "yes" if found.locked else "no"
        table.add_row(str(found.workers), locked, *(f"{number:,}" for number in numbers))
    console.print(table)


def show_storms(console: Console, outcomes: Sequence[StormOutcome]) -> None:
    """Print the cost of a storm through Celery and with the plain program of the same run."""
    table = Table(title="a storm: Celery and a plain program", title_justify="left")
    table.add_column("stranded children")
    for found in outcomes:
        table.add_column(f"{found.children:,}, {found.each:,} each", justify="right")
    table.add_column("goal", justify="right")
    rows = {
        "CPU ms per release": [1000 * f.workers.cpu_seconds / f.children for f in outcomes],
        "… of the plain program": [1000 * f.plain.cpu_seconds / f.children for f in outcomes],
        "wall s": [f.workers.wall_seconds for f in outcomes],
        "… of the plain program (wall s)": [f.plain.wall_seconds for f in outcomes],
    }
    for name, numbers in rows.items():
        table.add_row(name, *(f"{number:,.1f}" for number in numbers))
    for name, goal in STORM_GOALS.items():
        figures = (f"{found.figures[name]:.2f}" for found in outcomes)
        table.add_row(name.replace("_per_", " per ").replace("_", " "), *figures, f"≤ {goal:g}")
    console.print(table)


def show_latencies(console: Console, outcomes: Sequence[LatencyOutcome]) -> None:
    """Print the time from due to released, and its parts."""
    table = Table(title="from due to released, seconds (÷ interval)", title_justify="left")
    table.add_column("")
    for found in outcomes:
        table.add_column(f"{found.setting}, {found.lost:,} lost", justify="right")

    def add(name: str, seconds: Sequence[float]) -> None:
        shown = zip(seconds, outcomes, strict=True)
        table.add_row(name, *(f"{s:,.1f} ({s / f.interval_seconds:.2f})" for s, f in shown))

    add("p50", [found.seconds.p50 for found in outcomes])
    add("p99", [found.seconds.p99 for found in outcomes])
    add("longest", [found.seconds.longest for found in outcomes])
    add("grace + interval + longest sweep", [found.bound for found in outcomes])
    for part in PARTS:
        add(f"{part}, mean", [found.parts[part].mean for found in outcomes])
    for name, counts in {
        "kills": [found.kills for found in outcomes],
        "sweeps": [found.sweeps for found in outcomes],
        "children with all parts known": [found.whole for found in outcomes],
        "worker killed before it invoked": [found.uninvoked for found in outcomes],
    }.items():
        table.add_row(name, *(f"{count:,}" for count in counts))
    console.print(table)


def show_rotation(console: Console, found: RotationOutcome) -> None:
    """Print what sweeps read while the table is read in rotation."""
    plan = found.plan
    table = Table(title="read units of a rotation", title_justify="left")
    for column in ("", "measured", "setting"):
        table.add_column(column, justify="right")
    ceiling = f"≤ {plan.ceiling:g}"
    for row in (
        ("first rotation, at once: seconds", f"{found.first_seconds:,.0f}", ""),
        ("… read units", f"{found.first_units:,.1f}", ""),
        ("… peak of any 10 s, a second", f"{found.first_peak_per_second:,.1f}", ceiling),
        ("a sweep after that, mean", f"{found.mean:,.1f}", f"each {plan.interval_seconds} s"),
        ("… most", f"{max(found.by_sweep):,.1f}", ""),
        ("… most ÷ mean", f"{found.peak_ratio:.2f}", ""),
        ("… peak of any 10 s, a second", f"{found.peak_per_second:,.1f}", ceiling),
    ):
        table.add_row(*row)
    console.print(table)


def show_drain(console: Console, found: DrainOutcome) -> None:
    """Print how long a backlog took, and how well its order was kept."""
    title = f"{found.children:,} children released at {found.rate_per_minute} per minute"
    table = Table(title=title, title_justify="left")
    for column in ("", "measured", "goal"):
        table.add_column(column, justify="right")
    order, after = found.order, found.after_queue
    late_goal = f"≤ {LATE_GOAL * found.queue:,.0f} ({LATE_GOAL:g} queues)"
    for row in (
        ("seconds", f"{found.seconds:,.0f}", ""),
        ("… ÷ what the rate allows", f"{found.seconds_ratio:.3f}", f"≤ {DRAIN_GOAL:g}"),
        ("places late, most", f"{order.most_places_late:,}", late_goal),
        ("… p99", f"{order.p99_places_late:,}", ""),
        ("… most, after the first queue", f"{after.most_places_late:,}", ""),
        ("rank correlation", f"{order.rank_correlation:.3f}", ""),
        ("… after the first queue", f"{after.rank_correlation:.3f}", f"≥ {RANK_GOAL:g}"),
    ):
        table.add_row(*row)
    console.print(table)


def show_ratios(console: Console, runs: Mapping[str, Measurement]) -> None:
    """Print the steady sweep as ratios to the floor of the same run."""
    table = Table(title="steady sweep ÷ floor", title_justify="left")
    for column in ("", "ratio", "goal", ""):
        table.add_column(column, justify="right")
    for name, ratio in ratios(runs).items():
        goal = GOALS.get(name)
        met = "" if goal is None else "met" if ratio <= goal else "NOT MET"
        table.add_row(
            name.replace("_", " "), f"{ratio:.3f}", f"≤ {goal}" if goal is not None else "", met
        )
    console.print(table)


def unmet(runs: Mapping[str, Measurement]) -> list[str]:
    """Return the goals that the steady sweep does not meet."""
    found = ratios(runs)
    return [name for name, goal in GOALS.items() if found[name] > goal]


def ratios(runs: Mapping[str, Measurement]) -> dict[str, float]:
    """Return the ratios steady ÷ floor."""
    steady, floor = runs["steady"], runs["floor"]
    names = ("read_units", "requests", "cpu_seconds", "wall_seconds", "peak_mib")
    return {name: getattr(steady, name) / getattr(floor, name) for name in names}


def show_recorded(console: Console, mix: Mix, runs: Mapping[str, Measurement]) -> None:
    """Compare with the platform's own sweep, if the table is the same."""
    same = (mix.orchestrations, mix.children) == (recorded.ORCHESTRATIONS, recorded.CHILDREN)
    if not same or (mix.in_flight, mix.stranded) != (0.2, 0.1):
        return
    floor = runs["floor"].facts
    cpu = floor["scan_cpu_seconds"] / recorded.FLOOR_SCAN_CPU_SECONDS
    wall = floor["scan_wall_seconds"] / recorded.FLOOR_SCAN_WALL_SECONDS
    table = Table(title="the platform's own sweep (recorded) ÷ ours", title_justify="left")
    for column in ("", "recorded", "ours", "ratio", "goal", ""):
        table.add_column(column, justify="right")
    for row in _against(runs, cpu, wall):
        table.add_row(*row)
    console.print(table)
    console.print(
        "The recorded seconds are scaled by the floor's scan, here ÷ recorded: "
        f"CPU {cpu:.2f}, wall {wall:.2f}.",
        style="dim",
    )


def _against(runs: Mapping[str, Measurement], cpu: float, wall: float) -> Iterable[tuple[str, ...]]:
    steady, outage = runs["steady"], runs["outage"]
    theirs, theirs_outage = recorded.STEADY, recorded.OUTAGE
    yield _row("steady: requests", theirs.requests, steady.requests, 150)
    yield _row("steady: read units", theirs.read_units, steady.read_units, 2.2)
    yield _row("steady: CPU s", theirs.cpu_seconds * cpu, steady.cpu_seconds, 4)
    yield _row("steady: wall s", theirs.wall_seconds * wall, steady.wall_seconds, 4)
    yield _row("outage: requests", theirs_outage.requests, outage.requests, 2.5)
    yield _row("outage: CPU s", theirs_outage.cpu_seconds * cpu, outage.cpu_seconds)


def _row(name: str, theirs: float, ours: float, goal: float | None = None) -> tuple[str, ...]:
    times = theirs / ours
    met = "" if goal is None else "met" if times >= goal else "NOT MET"
    shown = f"≥ {goal:g}" if goal is not None else ""
    return name, f"{theirs:,.1f}", f"{ours:,.1f}", f"{times:.1f}", shown, met
