"""``reconciler sweep``: by the workers, or in this process."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from reconciler.cli.console import console, print_json, progress, show, update
from reconciler.cli.main import EXIT_WRONG
from reconciler.cli.wiring import broker_for_cli, operator, reconciler_for_cli, settings_for_cli
from reconciler.errors import StoreUnavailableError, UsageError
from reconciler.inspection.theme import SIGNS, age, alarming, glyph, tone_of_code
from reconciler.observability.printable import printable
from reconciler.repair.context import ActionOutcome, Evaluation
from reconciler.repair.counts import REPAIRS
from reconciler.sweeping.summary import SweepSummary

if TYPE_CHECKING:
    from rich.progress import Progress

    from reconciler.repair.counts import Counts
    from reconciler.repair.reconciler import Reconciler
    from reconciler.settings import Settings
    from reconciler.sweeping.cron import CronSweep
    from reconciler.sweeping.inline import SweepProgress
    from reconciler.sweeping.state import SweepState

_MOST_ACTIONS_SHOWN = 200
_POLL_SECONDS = 0.5
_ASK_AGAIN_SECONDS = 5.0


@click.command()
@click.option("--inline", is_flag=True, help="Sweep in this process; needs no broker.")
@click.option("--report", is_flag=True, help="Say what would be done, and change nothing.")
@click.option("--wait", is_flag=True, help="Wait for the workers' summary.")
@click.option(
    "--timeout", default=600, show_default=True, help="Longest wait, in seconds, with --wait."
)
@click.option("--full", is_flag=True, help="Read the whole table, although an index would do.")
@click.option("--orchestration", metavar="ID", help="Look at this one only (with --inline).")
@click.option("--force", is_flag=True, help="Sweep although another does (with --inline).")
@click.option("--segments", type=click.IntRange(1, 100_000), help="Segments (with --inline).")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
def sweep(
    *,
    inline: bool,
    report: bool,
    full: bool,
    wait: bool,
    timeout: int,
    orchestration: str | None,
    segments: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Find and repair what is stuck, by the workers or in this process."""
    if not inline and (orchestration or segments or force):
        raise UsageError("--orchestration, --segments and --force go with --inline")
    settings = settings_for_cli(logs=inline)
    if inline:
        _inline(
            settings,
            report=report,
            full=full,
            orchestration=orchestration,
            segments=segments,
            force=force,
            as_json=as_json,
        )
    else:
        _by_workers(settings, report=report, full=full, wait=wait, timeout=timeout, as_json=as_json)


def _inline(
    settings: Settings,
    *,
    report: bool,
    full: bool,
    orchestration: str | None,
    segments: int | None,
    force: bool,
    as_json: bool,
) -> None:
    reconciler = reconciler_for_cli(settings)
    acted: list[tuple[str, ActionOutcome]] = []
    with progress("Sweeping", quiet=as_json) as shown:
        swept = _swept(
            reconciler,
            shown,
            acted,
            report=report,
            full=full,
            orchestration=orchestration,
            segments=segments,
            force=force,
        )
    if as_json:
        print_json(swept.to_json())
    elif swept.lease is None:
        _print_actions(acted)
        print_summary(swept.summary.to_json())
    else:
        click.echo(
            f"nothing done: {swept.lease.holder} has been sweeping since {swept.lease.since} "
            f"(--force sweeps even so; it does no harm)"
        )
    if swept.lease is not None:
        return
    _raise_if_unread(swept.summary)
    click.get_current_context().exit(EXIT_WRONG if swept.summary.alarming else 0)


def _swept(
    reconciler: Reconciler,
    shown: Progress | None,
    acted: list[tuple[str, ActionOutcome]],
    *,
    report: bool,
    full: bool,
    orchestration: str | None,
    segments: int | None,
    force: bool,
) -> CronSweep:
    """Sweep; how far it is goes to ``shown``, and what is done to ``acted``."""
    from reconciler.sweeping.cron import CronSweep, run_cron_sweep  # noqa: PLC0415 - start-up time
    from reconciler.sweeping.inline import (  # noqa: PLC0415 - start-up time
        Hooks,
        evaluate_inline,
        run_inline_sweep,
    )

    def on_evaluation(evaluation: Evaluation) -> None:
        acted.extend((evaluation.orchestration_id, action) for action in evaluation.actions)

    def on_progress(so_far: SweepProgress) -> None:
        parts = f"{so_far.segments_done} of {so_far.segments} segments, {so_far.pages} pages"
        said = f"{parts}, {_read(so_far.counts)}"
        # One segment has no middle: the bar only says that something moves.
        total = so_far.segments if so_far.segments > 1 else None
        update(shown, so_far.segments_done, total, said)

    hooks = Hooks(progress=on_progress, on_evaluation=on_evaluation)
    # A report writes nothing, and one orchestration is no sweep: neither needs the lock.
    if orchestration is not None:
        return CronSweep(evaluate_inline(reconciler, orchestration, report=report, hooks=hooks))
    if report:
        return CronSweep(run_inline_sweep(reconciler, report=True, segments=segments, hooks=hooks))
    return run_cron_sweep(
        reconciler,
        holder=f"{operator()} at {socket.gethostname()}, process {os.getpid()}",
        force=force,
        full=full,
        segments=segments,
        hooks=hooks,
    )


def _raise_if_unread(summary: SweepSummary) -> None:
    """A sweep that could read nothing at all is not a finding: what it needs was not there."""
    if not summary.complete and summary.counts.rows_scanned == 0:
        raise StoreUnavailableError("the orchestration table could not be read; see the log")


def _by_workers(
    settings: Settings, *, report: bool, full: bool, wait: bool, timeout: int, as_json: bool
) -> None:
    from redis.exceptions import RedisError  # noqa: PLC0415 - start-up time

    from reconciler.sweeping.state import SweepState  # noqa: PLC0415
    from workers.application import app  # noqa: PLC0415
    from workers.broker_records import records_of  # noqa: PLC0415
    from workers.enqueue import BrokerUnavailableError, submit_sweep  # noqa: PLC0415

    def ask_again() -> None:
        submit_sweep(app, report=report, full=full, sweep_id=sweep_id)

    try:
        sweep_id = submit_sweep(app, report=report, full=full)
        if not wait:
            if as_json:
                print_json({"sweep_id": sweep_id, "enqueued": True})
            else:
                click.echo(f"enqueued {sweep_id}")
            return
        by_hand = report and settings.repair_mode != "report"
        state = SweepState(records_of(broker_for_cli(settings), sweep_id if by_hand else None))
        with progress("Waiting for the workers", quiet=as_json) as shown:
            summary = _wait(state, sweep_id, timeout, shown, ask_again)
    except RedisError as error:
        raise BrokerUnavailableError(f"the broker cannot be reached: {error}") from error
    for name in ("started_at", "ended_at"):
        summary.pop(name, None)
    if as_json:
        print_json(summary)
    else:
        print_summary(summary)
    wrong = not summary["complete"] or summary["errors"] or alarming(summary["stuck"])
    click.get_current_context().exit(EXIT_WRONG if wrong else 0)


def _wait(
    state: SweepState,
    sweep_id: str,
    timeout: int,
    shown: Progress | None,
    ask_again: Callable[[], None],
) -> dict[str, Any]:
    """Wait for a sweep's summary; asks again for what others were reading, or what got lost."""
    started = asked = time.monotonic()
    while time.monotonic() - started < timeout:
        sweep = state.sweep(sweep_id)
        if sweep is not None and sweep.summary is not None:
            return dict(sweep.summary)
        if shown is not None:
            _show_progress(shown, state, sweep_id)
        if sweep is not None and time.monotonic() - asked >= _ASK_AGAIN_SECONDS:
            asked = time.monotonic()
            ask_again()
        time.sleep(_POLL_SECONDS)
    raise StoreUnavailableError(
        f"no worker finished {sweep_id} within {timeout} s; is one running?"
    )


def _show_progress(shown: Progress, state: SweepState, sweep_id: str) -> None:
    sweep = state.sweep(sweep_id)
    if sweep is None:
        update(shown, 0, None, "no worker has begun it yet")
        return
    read = sweep.segments - state.overview().count_unread(sweep)
    parts = f"{read} of {sweep.segments} segments"
    update(shown, read, sweep.segments, f"{parts}, {_read(state.counts(sweep_id))}")


def _read(counts: Counts) -> str:
    return f"{counts.rows_scanned} rows, {counts.repairs} repairs"


# -- what a person reads


def _print_actions(acted: list[tuple[str, ActionOutcome]]) -> None:
    if not acted:
        return
    lines: list[RenderableType] = []
    for orchestration_id, action in acted[:_MOST_ACTIONS_SHOWN]:
        outcome = action.outcome if action.applied else f"would be {action.outcome}"
        tone = tone_of_code(action.code)
        detail = f" ({action.detail})" if action.detail else ""
        lines.append(
            Text.assemble(
                (f"{glyph(tone)} {action.code}", SIGNS[tone].style),
                f"  {orchestration_id} {printable(action.sub_issue_id)}",
            )
        )
        said = Text(printable(f"{action.verb}: {outcome}{detail}"), "bright_black")
        lines.append(Padding(said, (0, 0, 0, 4)))
    left = len(acted) - _MOST_ACTIONS_SHOWN
    more = [Text(f"and {left} more", "bright_black")] if left > 0 else []
    show(console(), *lines, *more, Text())


def print_summary(summary: dict[str, Any]) -> None:
    """Print a sweep's summary for a person."""
    out = console()
    complete = summary["complete"]
    sign = Text("✓ complete", "green") if complete else Text("✗ NOT complete", "bold red")
    mode = "" if summary["mode"] == "repair" else f"  ({summary['mode']}: nothing was changed)"
    head = Text.assemble(("Sweep ", "bold"), summary["sweep_id"], "  ", sign, (mode, "yellow"))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bright_black", no_wrap=True)
    grid.add_column()
    for name, said, style in _summary_lines(summary):
        grid.add_row(f"  {name}", Text(said, style))
    show(out, head, grid)


def _summary_lines(summary: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    read = (
        f"{summary['rows_scanned']} rows of {summary['orchestrations_scanned']} "
        f"orchestrations in {_plural(summary['segments'], 'segment')}; "
        f"{summary['orchestrations_evaluated']} looked at closely"
    )
    yield "read", read, ""
    done = {name: summary[name] for name in REPAIRS if summary[name]}
    yield "repaired", _listed(done), ""
    if summary.get("planned"):
        yield "would be", _listed(summary["planned"]), "yellow"
    stuck = summary["stuck"]
    yield "stuck", _listed(stuck), "bold red" if alarming(stuck) else ""
    if summary["errors"]:
        yield "errors", str(summary["errors"]), "bold red"
    used = summary["consumed"]
    consumed = (
        f"{used['requests']} requests, {used['read_units']:g} read and "
        f"{used['write_units']:g} write units, in {age(summary['duration_seconds'])}"
    )
    yield "consumed", consumed, "bright_black"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing"
