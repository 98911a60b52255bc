"""``reconciler health``: for containers; fast, and no scan."""

from __future__ import annotations

import click

from reconciler.cli.console import print_json
from reconciler.cli.facts import read_facts
from reconciler.cli.main import EXIT_WRONG
from reconciler.cli.wiring import broker_for_cli, reconciler_for_cli, settings_for_cli


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the finding as JSON.")
def health(*, as_json: bool) -> None:
    """Fail, with the reason, unless coverage is recent and all can be reached."""
    settings = settings_for_cli()
    client = broker_for_cli(settings)
    facts = read_facts(settings, client, reconciler_for_cli(settings), details=False)
    if as_json:
        print_json(
            {
                "healthy": facts.problem is None,
                "reason": facts.problem,
                "covered_seconds_ago": facts.age_of("active"),
            }
        )
    elif facts.problem is None:
        paused = f"; repairs are paused since {facts.paused['since']}" if facts.paused else ""
        click.echo(f"healthy: covered as of {facts.age_of('active') or 0:.0f} s ago{paused}")
    else:
        click.echo(f"unhealthy: {facts.problem}")
    click.get_current_context().exit(0 if facts.problem is None else EXIT_WRONG)
