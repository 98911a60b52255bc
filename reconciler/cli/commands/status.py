"""``reconciler status``: is it alive, what is stuck, since when, and what was repaired."""

from __future__ import annotations

from statistics import median
from typing import Any

import click

from reconciler.cli.console import console, print_json, progress, show
from reconciler.cli.facts import DAY_SECONDS, HOUR_SECONDS, Facts, read_facts
from reconciler.cli.main import EXIT_WRONG
from reconciler.cli.screens.status import OLDEST_SHOWN, render
from reconciler.cli.wiring import broker_for_cli, reconciler_for_cli, settings_for_cli
from reconciler.inspection.theme import alarming


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the state as one JSON object.")
def status(*, as_json: bool) -> None:
    """Say whether the backstop is alive, and what is stuck; costs no table scan."""
    settings = settings_for_cli()
    client = broker_for_cli(settings)
    with progress("Asking tables, broker and workers", quiet=as_json):
        facts = read_facts(settings, client, reconciler_for_cli(settings), details=True)
    if as_json:
        print_json(to_json(facts))
    else:
        out = console()
        show(out, render(facts, out))
    wrong = facts.problem is not None or alarming(facts.stuck_counts)
    click.get_current_context().exit(EXIT_WRONG if wrong else 0)


def to_json(facts: Facts) -> dict[str, Any]:
    """Return the state as plain JSON values; times in epoch seconds, ages in seconds."""
    found = facts.latencies(DAY_SECONDS)
    return {
        "healthy": facts.problem is None,
        "problem": facts.problem,
        "mode": "paused" if facts.paused else facts.repair_mode,
        "paused": facts.paused,
        "without_broker": facts.without_broker,
        "interval_seconds": facts.interval_seconds,
        "covered_seconds_ago": {scope: facts.age_of(scope) for scope in ("active", "table")},
        "full_scan_interval_seconds": facts.full_scan_interval_seconds,
        "last_complete_sweep": facts.last_complete,
        "last_sweep": facts.last,
        "sweeps_at_work": facts.at_work,
        "awaiting_evaluation": facts.awaiting_evaluation,
        "workers": None if facts.workers is None else list(facts.workers),
        "queues": facts.queues,
        "stuck": facts.stuck_counts,
        "oldest_stuck_seconds": facts.oldest_seconds,
        "oldest": facts.stuck[:OLDEST_SHOWN],
        "recoveries": {
            "last_hour": facts.recovered(HOUR_SECONDS),
            "last_day": facts.recovered(DAY_SECONDS),
            "median_latency_seconds": median(found) if found else None,
            "max_latency_seconds": max(found, default=None),
        },
    }
