"""``reconciler health``: for alarms and, with ``--self``, for containers. Fast, without a scan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import click

from reconciler.cli.console import print_json
from reconciler.cli.main import EXIT_UNREACHABLE, EXIT_WRONG
from reconciler.observability import heartbeat
from reconciler.observability.printable import printable


@dataclass(frozen=True, slots=True)
class _Finding:
    """``problem``: why it is unhealthy, or None. ``detail``: the message if it is healthy."""

    problem: str | None
    detail: str
    facts: dict[str, Any]
    code: int = EXIT_WRONG


@click.command()
@click.option(
    "--self",
    "this_host",
    is_flag=True,
    help="Check only that the workers and beats of this host or container are alive.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the finding as JSON.")
def health(*, this_host: bool, as_json: bool) -> int:
    """Check that coverage is recent and everything can be reached; if not, fail with the reason.

    Exits with 1 if coverage is too old, and with 3 if the broker or the tables cannot be reached.

    --self checks neither broker nor tables, so that a probe does not restart every worker while
    the broker is away.
    """
    finding = _find_alive() if this_host else _find_covered()
    problem = finding.problem
    if as_json:
        print_json({"healthy": problem is None, "reason": problem, **finding.facts})
    else:
        said = f"healthy: {finding.detail}" if problem is None else f"unhealthy: {problem}"
        click.echo(printable(said))
    return 0 if problem is None else finding.code


def _find_alive() -> _Finding:
    silences = heartbeat.read_silences()
    longest = max((seconds for seconds in silences.values() if seconds is not None), default=0.0)
    facts = {"processes": len(silences), "at_work_seconds_ago": round(longest, 1)}
    return _Finding(heartbeat.problem_of(silences), f"at work {longest:.0f} s ago", facts)


def _find_covered() -> _Finding:
    from reconciler.cli.status import read_status  # noqa: PLC0415 - start-up time of --self
    from reconciler.cli.wiring import (  # noqa: PLC0415
        broker_for_cli,
        reconciler_for_cli,
        settings_for_cli,
    )
    from reconciler.sweeping.segments import Scope  # noqa: PLC0415

    settings = settings_for_cli()
    client = broker_for_cli(settings)
    status = read_status(settings, client, reconciler_for_cli(settings), details=False)
    age = status.age_of(Scope.ACTIVE)
    paused = f"; repairs are paused since {status.paused['since']}" if status.paused else ""
    return _Finding(
        status.problem,
        f"covered as of {age or 0:.0f} s ago{paused}",
        {"covered_seconds_ago": age},
        EXIT_UNREACHABLE if status.unreachable else EXIT_WRONG,
    )
