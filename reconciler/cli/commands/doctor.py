"""``reconciler doctor``: what is there, what is not, and what to do about it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence

import click
from rich.table import Table
from rich.text import Text

from reconciler.cli.console import console, print_json, progress
from reconciler.cli.main import EXIT_USAGE, EXIT_WRONG
from reconciler.cli.wiring import settings_for_cli
from reconciler.doctor.findings import Finding, Level, failure
from reconciler.errors import SettingsError
from reconciler.inspection.theme import SIGNS, Tone, glyph, speaks_unicode

_TONES = {Level.OK: Tone.DONE, Level.WARNING: Tone.REPAIR, Level.FAILURE: Tone.FAILED}


@click.command()
@click.option("--inline", is_flag=True, help="Leave out broker and workers (for cron mode).")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as one JSON object.")
def doctor(*, inline: bool, as_json: bool) -> None:
    """Check all that a sweep needs: settings, credentials, permissions, tables, broker, clock.

    Nothing is written anywhere. Exits with 0 when nothing failed (warnings included), 1 when
    something did, 2 when a setting is invalid.
    """
    code = 0
    try:
        settings = settings_for_cli()
    except SettingsError as error:
        code = EXIT_USAGE
        findings = [
            failure(
                "settings", said.partition(" ")[0].partition("=")[0], said, "see docs/settings.md"
            )
            for said in str(error).split("; ")
        ]
    else:
        from reconciler.clock import utc_now  # noqa: PLC0415 - start-up time
        from reconciler.composition import aws_session  # noqa: PLC0415
        from reconciler.doctor.examine import examine  # noqa: PLC0415

        session = aws_session()
        with progress("Looking", quiet=as_json):
            findings = list(examine(settings, os.environ, session, utc_now, inline=inline))
    levels = Counter(finding.level for finding in findings)
    if as_json:
        print_json(
            {
                "ok": not levels[Level.FAILURE],
                "failures": levels[Level.FAILURE],
                "warnings": levels[Level.WARNING],
                "checks": [finding.to_json() for finding in findings],
            }
        )
    else:
        _print(findings)
    if code == 0 and levels[Level.FAILURE]:
        code = EXIT_WRONG
    click.get_current_context().exit(code)


def _print(findings: Sequence[Finding]) -> None:
    out = console()
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for finding in findings:
        cells = _cells(finding, unicode=speaks_unicode(out))
        if out.is_terminal:
            grid.add_row(*cells)
        else:
            # A line each, however long: for grep.
            sign, check, said = (cell.plain for cell in cells)
            click.echo(f"{sign:<2}{check:<12}{said}")
    if out.is_terminal:
        out.print(grid)
    out.print(_verdict(findings))


def _cells(finding: Finding, *, unicode: bool) -> tuple[Text, Text, Text]:
    tone = _TONES[finding.level]
    said = Text(f"{finding.subject}: {finding.found}")
    if finding.advice:
        said.append(f" {'→' if unicode else '->'} {finding.advice}", "cyan")
    return (
        Text(glyph(tone, unicode=unicode), SIGNS[tone].style),
        Text(finding.check, "bright_black"),
        said,
    )


def _verdict(findings: Iterable[Finding]) -> Text:
    levels = Counter(finding.level for finding in findings)
    failed, warned = levels[Level.FAILURE], levels[Level.WARNING]
    if failed:
        return Text(f"{failed} failed, {warned} to look at", "bold red")
    if warned:
        return Text(f"nothing failed, {warned} to look at", "yellow")
    return Text("all is well", "green")
