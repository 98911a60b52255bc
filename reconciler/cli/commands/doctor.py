"""``reconciler doctor``: what works, what does not, and what to do about it."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict

import click
from rich.table import Table
from rich.text import Text

from reconciler.cli.console import QUIET, console, print_json, progress, show
from reconciler.cli.main import EXIT_USAGE, EXIT_WRONG
from reconciler.cli.wiring import settings_for_cli
from reconciler.clock import utc_now
from reconciler.composition import aws_session
from reconciler.doctor.examine import examine
from reconciler.doctor.findings import Finding, Level, failure
from reconciler.errors import SettingsError
from reconciler.inspection.theme import SIGNS, Tone

_TONES = {Level.OK: Tone.DONE, Level.WARNING: Tone.REPAIR, Level.FAILURE: Tone.FAILED}


@click.command()
@click.option("--inline", is_flag=True, help="Skip broker and workers (for cron mode).")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as one JSON object.")
def doctor(*, inline: bool, as_json: bool) -> int:
    """Check all that a sweep needs: settings, credentials, permissions, tables, broker, clock.

    It writes nothing. Exits with 0 if no check failed (warnings are allowed), 1 if one failed, 2
    if a setting is invalid.
    """
    wrong = EXIT_WRONG
    try:
        settings = settings_for_cli()
        session = aws_session()
    except SettingsError as error:
        wrong = EXIT_USAGE
        findings = [
            failure("settings", re.split("[ =]", said)[0], said, "see docs/settings.md")
            for said in error.problems
        ]
    else:
        with progress("Looking", quiet=as_json):
            findings = list(examine(settings, os.environ, session, utc_now, inline=inline))
    levels = Counter(finding.level for finding in findings)
    if as_json:
        print_json(
            {
                "ok": not levels[Level.FAILURE],
                "failures": levels[Level.FAILURE],
                "warnings": levels[Level.WARNING],
                "checks": [asdict(finding) for finding in findings],
            }
        )
    else:
        show(console(), _table(findings), _verdict(levels))
    return wrong if levels[Level.FAILURE] else 0


def _table(findings: Iterable[Finding]) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(style=QUIET, no_wrap=True)
    grid.add_column(overflow="fold")
    for finding in findings:
        said = Text(f"{finding.subject}: {finding.found}")
        if finding.advice:
            said.append(f" → {finding.advice}", "cyan")
        sign = SIGNS[_TONES[finding.level]]
        grid.add_row(Text(sign.glyph, sign.style), finding.check, said)
    return grid


def _verdict(levels: Counter[Level]) -> Text:
    failed, warned = levels[Level.FAILURE], levels[Level.WARNING]
    if failed:
        return Text(f"{failed} failed, {warned} to look at", "bold red")
    if warned:
        return Text(f"nothing failed, {warned} to look at", "yellow")
    return Text("all is well", "green")
