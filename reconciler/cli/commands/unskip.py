"""``reconciler unskip``: set a skipped child back to ``blocked``."""

from __future__ import annotations

from dataclasses import asdict

import click

from reconciler.cli.console import count_rows, print_json, progress
from reconciler.cli.main import EXIT_WRONG
from reconciler.cli.options import report_option
from reconciler.cli.wiring import reconciler_for_cli, settings_for_cli
from reconciler.domain.outcomes import Outcome
from reconciler.inspection.find import find_child
from reconciler.observability.printable import printable
from reconciler.repair.context import ActionOutcome


@click.command()
@click.argument("name", metavar="ID")
@click.argument("child", required=False)
@report_option
@click.option("--json", "as_json", is_flag=True, help="Print the outcomes as JSON.")
def unskip(name: str, child: str | None, *, report: bool, as_json: bool) -> int:
    """Set a skipped child, and the dependents skipped because of it, back to blocked.

    ID and CHILD are as for `reconciler release`.

    Works only if no predecessor is failed or skipped. The child is released like any other once
    it has been due for STRANDED_GRACE_SECONDS.
    """
    reconciler = reconciler_for_cli(settings_for_cli())
    with progress(f"Setting back {printable(child or name)}", quiet=as_json) as bar:
        orchestration_id, sub_issue_id = find_child(reconciler, name, child, count_rows(bar))
        done = reconciler.unskip(orchestration_id, sub_issue_id, report=report)
    if as_json:
        print_json([asdict(action) for action in done])
    else:
        click.echo("".join(f"{_said(action)}\n" for action in done), nl=False)
    return EXIT_WRONG if any(action.outcome != Outcome.DONE for action in done) else 0


def _said(action: ActionOutcome) -> str:
    said = "blocked" if action.outcome == Outcome.DONE else f"{action.outcome}, {action.detail}"
    would = "" if action.applied else "nothing was changed: "
    return printable(f"{action.sub_issue_id}: {would}{said}")
