"""Faults for a while, then calm, in which everything must recover. ``make chaos``."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest

from reconciler.clock import utc_now
from reconciler.demo.shapes import Blueprint, mix
from reconciler.demo.snapshots import take_snapshot
from reconciler.sweeping.segments import LEASE_SECONDS
from tests.chaos.crashing import CrashError
from tests.chaos.mayhem import Mayhem
from tests.chaos.record import write_record
from tests.chaos.stage import INTERVAL_SECONDS, MODES, SKEW_SECONDS, Stage, pause, staged
from tests.chaos.summary import Bound, Run
from tests.conftest import Servers

pytestmark = pytest.mark.chaos

SHARE = 0.75
"""The share of the minutes with faults; the rest is for recovery."""

SEED_EVERY_SECONDS = 1.5
GIVE_UP_SECONDS = 240.0
"""The limit on recovery, on however slow a machine, after which the run ends."""


@pytest.mark.timeout(24 * 3600)
def test_the_system_recovers_and_releases_nothing_twice(
    servers: Servers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After the faults every child has ended as it should, and no claim of health was false."""
    seed = int(os.environ.get("CHAOS_SEED") or 1)
    minutes = float(os.environ.get("CHAOS_MINUTES") or 1)
    record = os.environ.get("CHAOS_RECORD")
    runs: dict[str, Run] = {}
    modes = os.environ.get("CHAOS_MODES", "").split() or MODES
    for mode in modes:
        directory = tmp_path / mode
        directory.mkdir()
        with staged(seed, servers.endpoint("dynamodb_local"), directory, mode) as stage:
            if not stage.skewed:
                if os.environ.get("CI") or record:
                    pytest.fail("a C compiler is needed, to set the clocks of some hosts")
                with capsys.disabled():
                    print("\nno C compiler here: all clocks are right")  # noqa: T201
            run = runs[mode] = play(stage, 60.0 * minutes * SHARE / len(modes))
        with capsys.disabled():
            print(f"\n{mode}: " + "\n".join(run.lines()))  # noqa: T201 - what the run is for
    if record:
        command = f"make chaos MINUTES={minutes:g} SEED={seed}"
        write_record(Path(record), runs, utc_now(), command)
    problems = [f"{mode}: {said}" for mode, run in runs.items() for said in run.problems()]
    assert not problems, "\n".join(problems)


def play(stage: Stage, seconds: float) -> Run:
    """Break things for ``seconds``, then wait until everything has recovered."""
    mayhem = Mayhem(stage)
    blueprints = shapes(Random(stage.seed))
    began = time.monotonic()
    next_seed, next_look = 0.0, 0.0
    # However slow the machine is, every fault happens at least once.
    while (elapsed := time.monotonic() - began) < seconds or not mayhem.all_dealt:
        mayhem.turn(elapsed)
        if elapsed >= next_seed:
            number = len(stage.platform.seeded)
            with stage.turns.lock, suppress(CrashError):
                stage.platform.seed(next(blueprints), user_id=f"user-{number % 4}")
            next_seed = elapsed + SEED_EVERY_SECONDS
        if elapsed >= next_look:
            next_look = elapsed + look(stage)
        pause()
    mayhem.calm()
    return recover(stage, mayhem, elapsed)


def shapes(rng: Random) -> Iterator[Blueprint]:
    while True:
        yield from mix(6, rng)


def look(stage: Stage) -> float:
    """Observe everything; returns after how many seconds to look again."""
    began = time.monotonic()
    overview = stage.overview()
    snapshot = take_snapshot(stage.client, stage.settings)
    stage.observer.observe(snapshot)
    if overview is not None:
        stage.claims.check(overview, stage.observer)
        stage.note_sweeps(overview)
    stage.fail_unstarted(snapshot)
    stage.supervisor.check()
    stage.turns.check()
    # Leave the platform time for its turns: reading a large table takes long.
    return max(0.3, 3 * (time.monotonic() - began))


def recover(stage: Stage, mayhem: Mayhem, seconds: float) -> Run:
    calm_at, began = utc_now(), time.monotonic()
    unrecovered: set[tuple[str, str]] = set()
    settings = stage.settings
    while True:
        look(stage)
        complete = [sweep for sweep in stage.sweeps.values() if sweep["complete"]]
        longest = max((sweep["duration_seconds"] for sweep in complete), default=0.0)
        allowed = (
            max(settings.claim_timeout_seconds, settings.task_start_timeout_seconds)
            + LEASE_SECONDS
            + 2 * INTERVAL_SECONDS
            + 2 * SKEW_SECONDS
            + longest
        )
        unrecovered.update(Bound(calm_at, timedelta(seconds=allowed)).over(stage.observer))
        run = Run(
            seed=stage.seed,
            seconds=seconds,
            observer=stage.observer,
            expected={key: found.expected() for key, found in stage.platform.seeded.items()},
            faults={
                **mayhem.injected,
                **{f"request: {name}": count for name, count in stage.tables.injected.items()},
                **{f"invocation: {name}": n for name, n in stage.pipeline.injected.items()},
                "live reconciler crashed": len(stage.live.crashed),
                "events lost": len(stage.live.lost),
            },
            sweeps=len(stage.sweeps),
            incomplete_sweeps=len(stage.sweeps) - len(complete),
            lost=tuple(stage.live.lost),
            shown_unsettled=stage.shown_unsettled(),
            never_started=frozenset(stage.never_started),
            exits=stage.supervisor.last_words,
            unrecovered=frozenset(unrecovered),
            bound_seconds=allowed,
            recovered_in_seconds=time.monotonic() - began,
            claims_checked=stage.claims.checked,
            false_healthy=tuple(stage.claims.false_healthy.values()),
            false_complete=tuple(stage.claims.false_complete.values()),
        )
        if run.settled() or time.monotonic() - began > GIVE_UP_SECONDS:
            return run
        pause()
