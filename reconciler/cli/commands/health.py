"""``reconciler health``: for alarms, and with ``--self`` for containers; fast, and no scan."""

from __future__ import annotations

import click

from reconciler.cli.console import print_json
from reconciler.cli.main import EXIT_WRONG
from reconciler.observability import heartbeat


@click.command()
@click.option(
    "--self",
    "this_host",
    is_flag=True,
    help="Ask only whether the workers and beats of this host or container are alive.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the finding as JSON.")
def health(*, this_host: bool, as_json: bool) -> None:
    """Fail, with the reason, unless coverage is recent and all can be reached.

    With --self, neither broker nor tables are asked: a probe must not restart every worker because
    the broker is away.
    """
    problem, finding, said = _find_alive() if this_host else _find_covered()
    if as_json:
        print_json({"healthy": problem is None, "reason": problem, **finding})
    else:
        click.echo(f"healthy: {said}" if problem is None else f"unhealthy: {problem}")
    click.get_current_context().exit(0 if problem is None else EXIT_WRONG)


def _find_alive() -> tuple[str | None, dict[str, object], str]:
    silences = heartbeat.read_silences()
    longest = max((seconds for seconds in silences.values() if seconds is not None), default=None)
    finding: dict[str, object] = {
        "processes": len(silences),
        "seconds_since_at_work": None if longest is None else round(longest, 1),
    }
    said = f"at work {longest or 0:.0f} s ago"
    return heartbeat.problem_of(silences), finding, said


def _find_covered() -> tuple[str | None, dict[str, object], str]:
    from reconciler.cli.facts import read_facts  # noqa: PLC0415 - start-up time of --self
    from reconciler.cli.wiring import (  # noqa: PLC0415
        broker_for_cli,
        reconciler_for_cli,
        settings_for_cli,
    )

    settings = settings_for_cli()
    client = broker_for_cli(settings)
    facts = read_facts(settings, client, reconciler_for_cli(settings), details=False)
    age = facts.age_of("active")
    paused = f"; repairs are paused since {facts.paused['since']}" if facts.paused else ""
    return (
        facts.problem,
        {"covered_seconds_ago": age},
        f"covered as of {age or 0:.0f} s ago{paused}",
    )
