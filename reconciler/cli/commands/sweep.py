"""``reconciler sweep``: a sweep by the workers, or in this process."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import click
from rich.progress import Progress

from reconciler.cli.console import console, print_json, progress, show, update
from reconciler.cli.main import EXIT_WRONG
from reconciler.cli.options import report_option
from reconciler.cli.screens.sweep import render
from reconciler.cli.wiring import (
    asking_broker,
    broker_for_cli,
    operator,
    reconciler_for_cli,
    settings_for_cli,
    sweep_state,
)
from reconciler.domain.codes import count_alarming
from reconciler.errors import TemporaryError, UsageError
from reconciler.observability.printable import printable
from reconciler.repair.context import ActionOutcome, Evaluation
from reconciler.repair.counts import Counts
from reconciler.repair.reconciler import Reconciler
from reconciler.settings import Settings
from reconciler.sweeping.cron import CronSweep, run_cron_sweep
from reconciler.sweeping.inline import Hooks, SweepProgress, run_inline_sweep
from reconciler.sweeping.known_stuck import Finding, Known
from reconciler.sweeping.listing import list_entries
from reconciler.sweeping.overview import Sweep
from reconciler.sweeping.state import SweepState
from reconciler.sweeping.summary import SweepSummary

_POLL_SECONDS = 0.5
_ASK_AGAIN_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of the command."""

    inline: bool
    report: bool
    full: bool
    wait: bool
    timeout: int
    segments: int | None
    force: bool
    as_json: bool


@click.command()
@click.option("--inline", is_flag=True, help="Sweep in this process; needs no broker.")
@report_option
@click.option("--wait", is_flag=True, help="Wait for the workers' summary.")
@click.option(
    "--timeout", default=600, show_default=True, help="How long to wait, in seconds, with --wait."
)
@click.option("--full", is_flag=True, help="Read the whole table even if there is an index.")
@click.option(
    "--force", is_flag=True, help="Sweep even if another sweep holds the lock (with --inline)."
)
@click.option("--segments", type=click.IntRange(1, 100_000), help="Segments (with --inline).")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
def sweep(**options: Any) -> int:  # noqa: ANN401 - the options of `Asked`
    """Find and repair what is stuck, with the workers or in this process."""
    asked = Asked(**options)
    if not asked.inline and (asked.segments or asked.force):
        raise UsageError("--segments and --force go with --inline")
    settings = settings_for_cli(logs=asked.inline)
    return _inline(settings, asked) if asked.inline else _by_workers(settings, asked)


# -- in this process


@dataclass(slots=True)
class Witness:
    """Collects what a sweep in this process does and finds, and shows its progress."""

    bar: Progress | None = None
    acted: list[tuple[str, ActionOutcome]] = field(default_factory=list)
    known: dict[str, Known] = field(default_factory=dict)

    def hooks(self) -> Hooks:
        """Return the callbacks for the sweep."""
        return Hooks(progress=self._on_progress, on_evaluation=self._on_evaluation)

    def print(self, summary: SweepSummary) -> None:
        """Print what was done and found."""
        entries = list_entries(self.known, time.time())
        show(console(), *render(summary.to_json(), self.acted, entries, is_remembered=False))

    def _on_evaluation(self, evaluation: Evaluation) -> None:
        name, now = evaluation.orchestration_id, time.time()
        self.acted.extend((name, action) for action in evaluation.actions)
        self.known[name] = Known().evaluated(Finding.of(evaluation, now), 0.0, now)

    def _on_progress(self, so_far: SweepProgress) -> None:
        parts = f"{so_far.segments_done} of {so_far.segments} segments, {so_far.pages} pages"
        # With one segment the bar can only show activity.
        total = so_far.segments if so_far.segments > 1 else None
        update(self.bar, so_far.segments_done, total, f"{parts}, {_read(so_far.counts)}")


def _inline(settings: Settings, asked: Asked) -> int:
    reconciler = reconciler_for_cli(settings, logs=True)
    witness = Witness()
    with progress("Sweeping", quiet=asked.as_json) as witness.bar:
        swept = _swept(reconciler, asked, witness.hooks())
    if asked.as_json:
        print_json(swept.to_json())
    elif swept.lease is None:
        witness.print(swept.summary)
    else:
        held = printable(f"{swept.lease.holder} has been sweeping since {swept.lease.since}")
        click.echo(f"nothing done: {held} (--force sweeps anyway, which is safe)")
    if swept.lease is not None:
        return 0
    if not swept.summary.complete and swept.summary.counts.rows_scanned == 0:
        # Not a finding: the sweep could not read anything.
        raise TemporaryError("the orchestration table could not be read; see the log")
    return EXIT_WRONG if swept.summary.alarming else 0


def _swept(reconciler: Reconciler, asked: Asked, hooks: Hooks) -> CronSweep:
    if asked.report:  # it writes nothing, not even the lock
        return CronSweep(
            run_inline_sweep(reconciler, report=True, segments=asked.segments, hooks=hooks)
        )
    return run_cron_sweep(
        reconciler,
        holder=f"{operator()} at {socket.gethostname()}, process {os.getpid()}",
        force=asked.force,
        full=asked.full,
        segments=asked.segments,
        hooks=hooks,
    )


# -- by the workers


def _by_workers(settings: Settings, asked: Asked) -> int:
    # Importing it reads the settings, which `sweep --help` does not need.
    from workers.application import app  # noqa: PLC0415
    from workers.enqueue import submit_sweep  # noqa: PLC0415

    ask = partial(submit_sweep, app, report=asked.report, full=asked.full)
    with asking_broker("`reconciler sweep --inline`"):
        sweep_id = ask()
        report_id = sweep_id if asked.report and settings.repair_mode != "report" else None
        if not asked.wait:
            _print_enqueued(sweep_id, report_id, as_json=asked.as_json)
            return 0
        state = sweep_state(settings, broker_for_cli(settings), report_id)
        with progress("Waiting for the workers", quiet=asked.as_json) as bar:
            ask_again = partial(ask, sweep_id=sweep_id)
            summary = _wait(state, sweep_id, asked.timeout, bar, ask_again)
        seen = state.overview()
    if asked.as_json:
        print_json(summary)
    else:
        entries = list_entries(seen.known, seen.now)
        show(console(), *render(summary, (), entries, is_remembered=True))
        if entries:
            click.echo(_where_to_list(report_id))
    wrong = not summary["complete"] or summary["errors"] or count_alarming(summary["stuck"])
    return EXIT_WRONG if wrong else 0


def _print_enqueued(sweep_id: str, report_id: str | None, *, as_json: bool) -> None:
    if as_json:
        print_json({"sweep_id": sweep_id, "enqueued": True})
    else:
        click.echo(f"enqueued {sweep_id}")
        click.echo(_where_to_list(report_id))


def _where_to_list(report_id: str | None) -> str:
    of_report = f" --report {report_id}" if report_id is not None else ""
    return f"reconciler list{of_report}  shows all that it found"


def _wait(
    state: SweepState,
    sweep_id: str,
    timeout: int,
    bar: Progress | None,
    ask_again: Callable[[], object],
) -> dict[str, Any]:
    """Wait for a sweep's summary; ask again for what others were reading or what got lost."""
    started = asked = time.monotonic()
    while time.monotonic() - started < timeout:
        sweep = state.sweep(sweep_id)
        if sweep is not None and sweep.summary is not None:
            without = ("started_at", "ended_at")
            return {name: said for name, said in sweep.summary.items() if name not in without}
        if bar is not None:
            _show_progress(bar, state, sweep)
        if sweep is not None and time.monotonic() - asked >= _ASK_AGAIN_SECONDS:
            asked = time.monotonic()
            ask_again()
        time.sleep(_POLL_SECONDS)
    raise TemporaryError(
        f"no worker finished {sweep_id} within {timeout} s; is one running? `reconciler status`"
    )


def _show_progress(bar: Progress, state: SweepState, sweep: Sweep | None) -> None:
    if sweep is None:
        update(bar, 0, None, "no worker has begun it yet")
        return
    read = sweep.segments - state.overview().count_unread(sweep)
    parts = f"{read} of {sweep.segments} segments"
    update(bar, read, sweep.segments, f"{parts}, {_read(state.counts(sweep.sweep_id))}")


def _read(counts: Counts) -> str:
    return f"{counts.rows_scanned} rows, {counts.repairs} repairs"
