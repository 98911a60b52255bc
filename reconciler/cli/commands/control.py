"""``reconciler pause`` and ``resume``: one switch for all workers and for cron mode."""

from __future__ import annotations

import time

import click

from reconciler.cli.console import print_json
from reconciler.cli.wiring import operator, reconciler_for_cli, settings_for_cli
from reconciler.observability.printable import printable
from reconciler.stores.control import CACHE_SECONDS


@click.command()
@click.option("--reason", default="", help="Shown to everybody during the pause.")
@click.option("--json", "as_json", is_flag=True, help="Print the pause as JSON.")
def pause(*, reason: str, as_json: bool) -> None:
    """Stop all repairs: none begins after this returns. Sweeps continue to report."""
    held = reconciler_for_cli(settings_for_cli()).pause(reason, operator())
    # Workers may use what they read before for so long.
    time.sleep(CACHE_SECONDS)
    if as_json:
        print_json({"paused": True, "since": held.since, "by": held.by, "reason": held.reason})
    else:
        click.echo(printable(f"paused since {held.since} by {held.by}: {held.reason}"))
        click.echo("`reconciler resume` ends the pause")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the state as JSON.")
def resume(*, as_json: bool) -> None:
    """End the pause."""
    reconciler = reconciler_for_cli(settings_for_cli())
    held = reconciler.paused()
    reconciler.resume()
    if as_json:
        print_json({"paused": False, "was_paused": held is not None})
    elif held is None:
        click.echo("nothing was paused")
    else:
        said = f"it was paused since {held.since} by {held.by}: {held.reason}"
        click.echo(f"resumed; {printable(said)}")
