"""``reconciler health``: for containers; fast, and no scan."""

from __future__ import annotations

import click

from reconciler.cli.console import print_json
from reconciler.cli.main import EXIT_UNREACHABLE, EXIT_WRONG
from reconciler.cli.status import read_status
from reconciler.cli.wiring import broker_for_cli, reconciler_for_cli, settings_for_cli
from reconciler.sweeping.scan_step import Scope


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the finding as JSON.")
def health(*, as_json: bool) -> None:
    """Fail, with the reason, unless coverage is recent and all can be reached.

    Exits with 1 when coverage is too old, and with 3 when broker or tables cannot be reached.
    """
    settings = settings_for_cli()
    client = broker_for_cli(settings)
    status = read_status(settings, client, reconciler_for_cli(settings), details=False)
    age = status.age_of(Scope.ACTIVE)
    if as_json:
        print_json(
            {
                "healthy": status.problem is None,
                "reason": status.problem,
                "covered_seconds_ago": age,
            }
        )
    elif status.problem is None:
        paused = f"; repairs are paused since {status.paused['since']}" if status.paused else ""
        click.echo(f"healthy: covered as of {age or 0:.0f} s ago{paused}")
    else:
        click.echo(f"unhealthy: {status.problem}")
    code = EXIT_UNREACHABLE if status.unreachable else EXIT_WRONG if status.problem else 0
    click.get_current_context().exit(code)
