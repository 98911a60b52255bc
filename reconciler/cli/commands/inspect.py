"""``reconciler inspect``: an orchestration as a picture, and why it is stuck."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

import click
from rich.console import Console
from rich.text import Text

from reconciler.cli.console import count_rows, print_json, progress, repeat, show
from reconciler.cli.main import EXIT_WRONG
from reconciler.cli.options import watch_option
from reconciler.cli.screens.inspect import render
from reconciler.cli.wiring import broker_for_cli, reconciler_for_cli, settings_for_cli, sweep_state
from reconciler.inspection.explain import graph_of, to_json
from reconciler.inspection.find import Found, find
from reconciler.inspection.look import look
from reconciler.inspection.mermaid import mermaid
from reconciler.inspection.svg import svg_of
from reconciler.inspection.views import View, shown
from reconciler.settings import Settings


@click.command()
@click.argument("names", metavar="ID...", nargs=-1, required=True)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "svg", "mermaid"]),
    default="text",
    help="`svg` and `mermaid` print the picture alone.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per orchestration.")
@watch_option
def inspect(names: Sequence[str], *, form: str, as_json: bool, watch: bool) -> int:
    """Show an orchestration as a picture, and why it is stuck.

    ID is an orchestration id, a sub-issue id, a display id such as ENG-42, a task id, or the
    beginning of an id. To find a display id or the beginning of an id, the command scans the whole
    table. Exits with 1 if anything in the orchestration is stuck.
    """
    reconciler = reconciler_for_cli(settings_for_cli())
    with progress("Searching", quiet=as_json) as bar:
        found = _once_each(find(reconciler, name, count_rows(bar)) for name in names)
    form = "json" if as_json else form

    def draw(out: Console) -> int:
        next_at = next_sweep(reconciler.settings)
        views = []
        for one in found:
            with progress(f"Reading {one.orchestration_id}", quiet=as_json or watch):
                views.append(look(reconciler, one, next_at))
        for at, view in enumerate(views):
            if at and form == "text":
                show(out, Text())
            _print(out, view, form, reconciler.clock())
        return EXIT_WRONG if any(view.alarming for view in views) else 0

    return repeat(draw, watch=watch)


def _once_each(found: Iterable[Found]) -> list[Found]:
    """Keep each orchestration once; drop the child to point out unless only one was named."""
    kept: dict[str, Found] = {}
    for one in found:
        before = kept.get(one.orchestration_id)
        same = before is None or before.sub_issue_id == one.sub_issue_id
        kept[one.orchestration_id] = one if same else replace(one, sub_issue_id=None)
    return list(kept.values())


def _print(out: Console, view: View, form: str, now: datetime) -> None:
    if form == "json":
        print_json(to_json(view))
    elif form == "text":
        show(out, render(view, out, now))
    else:
        graph = graph_of(shown(view))
        title = f"Orchestration {view.orchestration_id}"
        click.echo(svg_of(graph, title) if form == "svg" else mermaid(graph), nl=False)


def next_sweep(settings: Settings) -> float | None:
    """Return when the next sweep should start (epoch seconds), by the last one; None if unknown.

    Asks the broker only if one is set, because cron mode has none.
    """
    if not os.environ.get("CELERY_BROKER_URL"):
        return None
    from redis.exceptions import RedisError  # noqa: PLC0415 - start-up time

    try:
        seen = sweep_state(settings, broker_for_cli(settings)).overview()
    except RedisError:
        return None
    return seen.next_start(settings.sweep_interval_seconds)
