"""``reconciler inspect``: one orchestration as a picture, and why it is stuck."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from reconciler.cli.console import console, print_json, progress, show, update
from reconciler.cli.main import EXIT_WRONG
from reconciler.cli.screens.inspect import render
from reconciler.cli.wiring import broker_for_cli, reconciler_for_cli, settings_for_cli
from reconciler.inspection.explain import graph_of, to_json
from reconciler.inspection.find import find
from reconciler.inspection.look import look
from reconciler.inspection.mermaid import mermaid
from reconciler.inspection.svg import svg_of
from reconciler.inspection.views import shown

if TYPE_CHECKING:
    from reconciler.settings import Settings


@click.command()
@click.argument("name", metavar="ID")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "svg", "mermaid"]),
    default="text",
    help="`svg` and `mermaid` print the picture alone.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object.")
def inspect(name: str, *, form: str, as_json: bool) -> None:
    """Show one orchestration as a picture, and why it is stuck.

    ID is an orchestration id, a sub-issue id, a display id such as ENG-42, or a task id. A display
    id has no index: it is searched for in the whole table.
    """
    reconciler = reconciler_for_cli(settings_for_cli())
    with progress("Searching", quiet=as_json) as bar:
        found = find(reconciler, name, lambda rows: update(bar, rows, None, f"{rows} rows"))
        update(bar, 0, None, f"reading {found.orchestration_id}")
        view = look(reconciler, found, next_sweep(reconciler.settings))
    if as_json:
        print_json(to_json(view))
    elif form == "mermaid":
        click.echo(mermaid(graph_of(shown(view))), nl=False)
    elif form == "svg":
        click.echo(
            svg_of(graph_of(shown(view)), f"Orchestration {view.orchestration_id}"), nl=False
        )
    else:
        out = console()
        show(out, render(view, out, reconciler.clock()))
    click.get_current_context().exit(EXIT_WRONG if view.alarming else 0)


def next_sweep(settings: Settings) -> datetime | None:
    """Return when the next sweep is to start, from when the last one did; None if unknown.

    Asked of the broker, and only where one is set: there is none in cron mode.
    """
    if not os.environ.get("CELERY_BROKER_URL"):
        return None
    from redis.exceptions import RedisError  # noqa: PLC0415 - start-up time

    from reconciler.sweeping.state import SweepState  # noqa: PLC0415
    from workers.broker_records import BrokerRecords  # noqa: PLC0415

    try:
        seen = SweepState(BrokerRecords(broker_for_cli(settings))).overview()
    except RedisError:
        return None
    at = seen.next_start(settings.sweep_interval_seconds)
    return None if at is None else datetime.fromtimestamp(at, UTC)
