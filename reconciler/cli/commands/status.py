"""``reconciler status``: is it alive, what is stuck, since when, and what was repaired."""

from __future__ import annotations

from collections import Counter
from statistics import median
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from reconciler.cli import theme
from reconciler.cli.console import console, print_json
from reconciler.cli.facts import HOUR_SECONDS, Facts, read_facts
from reconciler.cli.main import EXIT_WRONG
from reconciler.cli.wiring import broker_for_cli, reconciler_for_cli, settings_for_cli

_OLDEST_SHOWN = 10


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the state as one JSON object.")
def status(*, as_json: bool) -> None:
    """Say whether the backstop is alive, and what is stuck; costs no table scan."""
    settings = settings_for_cli()
    client = broker_for_cli(settings)
    facts = read_facts(settings, client, reconciler_for_cli(settings), details=True)
    if as_json:
        print_json(to_json(facts))
    else:
        _print(facts)
    wrong = facts.problem is not None or any(
        count for code, count in stuck_counts(facts).items() if code != "over_budget"
    )
    click.get_current_context().exit(EXIT_WRONG if wrong else 0)


def stuck_counts(facts: Facts) -> dict[str, int]:
    """Return code → how many were stuck after the last complete sweep."""
    return dict(facts.last_complete["stuck"]) if facts.last_complete is not None else {}


def latencies(facts: Facts, within_seconds: float) -> list[float]:
    """Return the latencies of the recoveries within a time, in seconds."""
    return [
        float(entry["latency"])
        for entry in facts.recoveries
        if entry["latency"] is not None and entry["at"] >= facts.now - within_seconds
    ]


def recovered(facts: Facts, within_seconds: float) -> int:
    """Return how many recoveries there were within a time."""
    return sum(entry["at"] >= facts.now - within_seconds for entry in facts.recoveries)


def to_json(facts: Facts) -> dict[str, Any]:
    """Return the state as plain JSON values; times in epoch seconds, ages in seconds."""
    found = latencies(facts, HOUR_SECONDS * 24)
    return {
        "healthy": facts.problem is None,
        "problem": facts.problem,
        "mode": "paused" if facts.paused else facts.repair_mode,
        "paused": facts.paused,
        "interval_seconds": facts.interval_seconds,
        "last_complete_sweep_age_seconds": facts.age_seconds,
        "last_sweep": facts.last,
        "workers": None if facts.workers is None else list(facts.workers),
        "queues": facts.queues,
        "stuck": stuck_counts(facts),
        "oldest_stuck_seconds": (facts.last_complete or {}).get("oldest_stuck_seconds", {}),
        "oldest": facts.stuck[:_OLDEST_SHOWN],
        "recoveries": {
            "last_hour": recovered(facts, HOUR_SECONDS),
            "last_day": recovered(facts, HOUR_SECONDS * 24),
            "median_latency_seconds": median(found) if found else None,
            "max_latency_seconds": max(found, default=None),
        },
    }


# -- for a person


def _print(facts: Facts) -> None:
    out = console()
    good = facts.problem is None
    head = Text("● alive", "bold green") if good else Text("■ NOT HEALTHY", "bold red")
    out.print(Text.assemble("Backstop  ", head, ("" if good else f"  {facts.problem}", "red")))
    for name, said in _lines(facts):
        out.print(Text.assemble((f"  {name:<11}", "bright_black"), said))
    _print_stuck(facts)


def _lines(facts: Facts) -> list[tuple[str, Text]]:
    lines = [("sweep", _sweep_line(facts)), ("mode", _mode_line(facts))]
    if facts.workers is None:
        workers = Text("nobody could be asked", "red")
    elif facts.workers:
        workers = Text(f"{len(facts.workers)} answering: {', '.join(facts.workers)}")
    else:
        workers = Text("none answers", "bold red")
    queued = ", ".join(f"{name} {count}" for name, count in facts.queues.items())
    lines += [("workers", workers), ("queues", Text(queued or "unknown"))]
    found = latencies(facts, HOUR_SECONDS * 24)
    latency = ""
    if found:
        latency = f"; latency median {theme.age(median(found))}, at most {theme.age(max(found))}"
    hour, day = recovered(facts, HOUR_SECONDS), recovered(facts, HOUR_SECONDS * 24)
    lines.append(("recovered", Text(f"{hour} in the last hour, {day} in the last day{latency}")))
    return lines


def _sweep_line(facts: Facts) -> Text:
    if facts.last_complete is None or facts.age_seconds is None:
        return Text("none has ever completed", "bold red")
    late = facts.age_seconds > 2 * facts.interval_seconds
    said = Text(
        f"complete {theme.age(facts.age_seconds)} ago, every {theme.age(facts.interval_seconds)}",
        "bold red" if late else "",
    )
    said.append(
        f"; {facts.last_complete['rows_scanned']} rows in "
        f"{theme.age(facts.last_complete['duration_seconds'])}",
        "bright_black",
    )
    if facts.last is not None and not facts.last["complete"]:
        said.append("; the last one did NOT complete", "bold red")
    return said


def _mode_line(facts: Facts) -> Text:
    if facts.paused is not None:
        held = facts.paused
        return Text(
            f"PAUSED since {held['since']} by {held['by']}: {held['reason']}", "bold yellow"
        )
    if facts.repair_mode == "report":
        return Text("report: finds and reports, changes nothing", "yellow")
    return Text("repair")


def _print_stuck(facts: Facts) -> None:
    out = console()
    counts = Counter(stuck_counts(facts))
    out.print()
    if not counts:
        said = "Nothing is stuck." if facts.last_complete is not None else "Nothing is known."
        out.print(Text(said, "green" if facts.last_complete is not None else "yellow"))
        return
    ages = (facts.last_complete or {}).get("oldest_stuck_seconds", {})
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
    table.add_column("Stuck")
    table.add_column("Count", justify="right")
    table.add_column("Oldest", justify="right")
    for code, count in counts.most_common():
        tone = theme.tone_of_code(code)
        sign = Text(f"{theme.glyph(tone)} {code}", style=theme.SIGNS[tone].style)
        table.add_row(sign, str(count), theme.short_age(ages.get(code)))
    out.print(table)
    if not facts.stuck:
        return
    out.print()
    oldest = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
    oldest.add_column("Age", justify="right")
    oldest.add_column("Code")
    oldest.add_column("Where and why", overflow="fold")
    for entry in facts.stuck[:_OLDEST_SHOWN]:
        where = Text(entry["orchestration_id"], "bold")
        if entry["sub_issue_id"]:
            where.append(f" {entry['sub_issue_id']}")
        where.append(f"\n{entry['reason']}", "bright_black")
        oldest.add_row(theme.short_age(entry["age_seconds"]), entry["code"], where)
    out.print(oldest)
    out.print()
    first = facts.stuck[0]["orchestration_id"]
    out.print(Text(f"`reconciler inspect {first}` shows the oldest.", "bright_black"))
