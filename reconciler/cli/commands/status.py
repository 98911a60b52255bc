"""``reconciler status``: whether it is alive, what is stuck, and what was repaired."""

from __future__ import annotations

from collections import Counter
from typing import Any

import click
from rich.console import Console

from reconciler.cli.console import print_json, progress, repeat, show
from reconciler.cli.main import EXIT_UNREACHABLE, EXIT_WRONG
from reconciler.cli.options import watch_option
from reconciler.cli.screens import listing
from reconciler.cli.screens.status import render
from reconciler.cli.status import Status, read_status
from reconciler.cli.wiring import broker_for_cli, reconciler_for_cli, settings_for_cli
from reconciler.sweeping.overview import Overview, Sweep
from reconciler.sweeping.segments import Scope

_MAX_NAMED = 10


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the state as one JSON object.")
@watch_option
def status(*, as_json: bool, watch: bool) -> int:
    """Show whether the backstop is alive, and what is stuck. Does not scan the table.

    The backstop is healthy if a worker answers, a beat asks for sweeps, and the coverage of active
    work is recent. Exits with 1 if it is unhealthy or anything is stuck, and with 3 if the broker
    or the tables cannot be reached.
    """
    settings = settings_for_cli()
    client, reconciler = broker_for_cli(settings), reconciler_for_cli(settings)

    def draw(out: Console) -> int:
        with progress("Asking tables, broker and workers", quiet=as_json or watch):
            found = read_status(settings, client, reconciler, details=True)
        if as_json:
            print_json(to_json(found))
        else:
            show(out, render(found))
        if found.unreachable is not None:
            return EXIT_UNREACHABLE
        return EXIT_WRONG if found.problem is not None or found.alarming else 0

    return repeat(draw, watch=watch)


def to_json(status: Status) -> dict[str, Any]:
    """Return the status as JSON values; times in epoch seconds, ages in seconds."""
    entries = status.entries
    return {
        "healthy": status.problem is None,
        "problem": status.problem,
        "mode": "paused" if status.paused else status.repair_mode,
        "paused": status.paused,
        "without_broker": status.without_broker,
        "interval_seconds": status.interval_seconds,
        "covered_seconds_ago": {scope.value: status.age_of(scope) for scope in Scope},
        "full_scan_interval_seconds": status.full_scan_interval_seconds,
        "last_complete_sweep": status.seen.last(complete=True),
        "last_sweep": status.seen.last(),
        "sweeps_at_work": [_at_work(status.seen, sweep) for sweep in status.seen.at_work()],
        "awaiting_evaluation": status.awaiting_evaluation,
        "beat": {
            "asked_seconds_ago": status.asked_seconds_ago,
            "silent": status.beat_is_silent,
        },
        "workers": None if status.workers is None else list(status.workers),
        "queues": status.queues,
        "stuck": dict(Counter(entry.code for entry in entries)),
        "needs_action": sum(entry.needs_action for entry in entries),
        "oldest_stuck_seconds": listing.oldest(entries),
        "oldest": [listing.to_json(entry, status.seen.now) for entry in entries[:_MAX_NAMED]],
        "recoveries": status.recovered,
    }


def _at_work(seen: Overview, sweep: Sweep) -> dict[str, Any]:
    return {
        "sweep_id": sweep.sweep_id,
        "age_seconds": round(max(0.0, seen.now - sweep.started_at), 1),
        "segments": sweep.segments,
        "segments_left": seen.count_unread(sweep),
    }
