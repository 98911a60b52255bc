"""``reconciler sweep``: by the workers, or in this process."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from reconciler.cli.console import console, print_json, progress, show, update
from reconciler.cli.main import EXIT_WRONG
from reconciler.cli.theme import SIGNS, age, alarming, glyph, tone_of_code
from reconciler.cli.wiring import broker_for_cli, operator, reconciler_for_cli, settings_for_cli
from reconciler.errors import StoreUnavailableError, UsageError
from reconciler.observability.printable import printable
from reconciler.operations.context import ActionOutcome, Evaluation
from reconciler.operations.counts import REPAIRS
from reconciler.operations.summary import SweepSummary

if TYPE_CHECKING:
    from rich.progress import Progress

    from reconciler.operations.counts import Counts
    from reconciler.operations.cron import CronSweep
    from reconciler.operations.reconciler import Reconciler
    from reconciler.operations.sweep import SweepProgress
    from reconciler.settings import Settings
    from workers.ledger import Progress as LedgerProgress

_MOST_ACTIONS_SHOWN = 200


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
            settings,
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
    elif swept.aside is None:
        _print_actions(acted)
        print_summary(swept.summary.to_json())
    else:
        click.echo(
            f"stepped aside: {swept.aside.holder} has been sweeping since {swept.aside.since} "
            f"(--force sweeps all the same; it does no harm)"
        )
    if swept.aside is not None:
        return
    _raise_if_unread(swept.summary)
    click.get_current_context().exit(EXIT_WRONG if swept.summary.alarming else 0)


def _swept(
    settings: Settings,
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
    from reconciler.operations.cron import CronSweep, run_cron_sweep  # noqa: PLC0415 - start-up
    from reconciler.operations.sweep import run_inline_sweep  # noqa: PLC0415 - start-up time

    def on_evaluation(evaluation: Evaluation) -> None:
        acted.extend((evaluation.orchestration_id, action) for action in evaluation.actions)

    def on_progress(so_far: SweepProgress) -> None:
        parts = f"{so_far.segments_done} of {so_far.segments} segments, {so_far.pages} pages"
        said = f"{parts}, {_read(so_far.counts)}"
        # One segment has no middle: the bar only says that something moves.
        total = so_far.segments if so_far.segments > 1 else None
        update(shown, so_far.segments_done, total, said)

    if report or orchestration is not None:
        # A report writes nothing, and one orchestration is no sweep: neither needs the lock.
        return CronSweep(
            run_inline_sweep(
                reconciler,
                settings,
                report=report,
                orchestration_id=orchestration,
                segments=segments,
                progress=on_progress,
                on_evaluation=on_evaluation,
            )
        )
    return run_cron_sweep(
        reconciler,
        settings,
        holder=f"{operator()} at {socket.gethostname()}, process {os.getpid()}",
        force=force,
        full=full,
        segments=segments,
        progress=on_progress,
        on_evaluation=on_evaluation,
    )


def _raise_if_unread(summary: SweepSummary) -> None:
    """A sweep that could read nothing at all is not a finding: what it needs was not there."""
    if not summary.complete and summary.counts.rows_scanned == 0:
        raise StoreUnavailableError("the orchestration table could not be read; see the log")


def _by_workers(
    settings: Settings, *, report: bool, full: bool, wait: bool, timeout: int, as_json: bool
) -> None:
    from redis.exceptions import RedisError  # noqa: PLC0415 - start-up time

    from workers.application import app  # noqa: PLC0415 - start-up time
    from workers.enqueue import BrokerUnavailableError, submit_sweep  # noqa: PLC0415
    from workers.ledger import Ledger  # noqa: PLC0415

    try:
        ledger = Ledger(broker_for_cli(settings))
        sweep_id = submit_sweep(app, report=report, full=full)
        if not wait:
            if as_json:
                print_json({"sweep_id": sweep_id, "enqueued": True})
            else:
                click.echo(f"enqueued {sweep_id}")
            return
        with progress("Waiting for the workers", quiet=as_json) as shown:
            said = _wait(ledger, sweep_id, timeout, shown)
        other = said.get("stepped_aside_for")
        if other is not None:
            said = _wait_for_the_other(ledger, other, timeout, report=report, as_json=as_json)
    except RedisError as error:
        raise BrokerUnavailableError(f"the broker cannot be reached: {error}") from error
    said.pop("ended_at", None)
    said.pop("oldest_stuck_seconds", None)
    if as_json:
        print_json(said)
    else:
        print_summary(said)
    wrong = not said["complete"] or said["errors"] or alarming(said["stuck"])
    click.get_current_context().exit(EXIT_WRONG if wrong else 0)


def _wait(
    ledger: Any,  # noqa: ANN401 - imported late
    sweep_id: str,
    timeout: int,
    shown: Progress | None,
) -> dict[str, Any]:
    waited = 0
    while waited < timeout:
        if shown is not None:
            _show_progress(shown, ledger.progress(sweep_id))
        # In short turns, each below the socket's own time-out.
        found: dict[str, Any] | None = ledger.wait(sweep_id, 1)
        if found is not None:
            return found
        waited += 1
    raise StoreUnavailableError(
        f"no worker finished {sweep_id} within {timeout} s; is one running?"
    )


def _show_progress(shown: Progress, so_far: LedgerProgress | None) -> None:
    if so_far is None:
        update(shown, 0, None, "no worker has begun it yet")
        return
    counts = so_far.counts
    parts = f"{so_far.ended} of {so_far.known} parts"
    update(shown, so_far.ended, so_far.known, f"{parts}, {_read(counts)}")


def _read(counts: Counts) -> str:
    return f"{counts.rows_scanned} rows, {counts.repairs} repairs"


def _wait_for_the_other(
    ledger: Any,  # noqa: ANN401 - imported late
    sweep_id: str,
    timeout: int,
    *,
    report: bool,
    as_json: bool,
) -> dict[str, Any]:
    """A sweep that is at work already does as well, unless only a report was asked for."""
    if report:
        raise UsageError(f"{sweep_id} is at work; ask for a report when it has ended")
    with progress(f"{sweep_id} is at work already; waiting for it", quiet=as_json) as shown:
        return _wait(ledger, sweep_id, timeout, shown)


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
    active = "active " if summary.get("coverage") == "active" else ""
    read = (
        f"{summary['rows_scanned']} {active}rows of {summary['orchestrations_scanned']} "
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
