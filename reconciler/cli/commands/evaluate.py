"""``reconciler evaluate``: one orchestration, now, as the next sweep would."""

from __future__ import annotations

import click

from reconciler.cli.commands.sweep import Witness
from reconciler.cli.console import count_rows, print_json, progress
from reconciler.cli.main import EXIT_WRONG
from reconciler.cli.options import report_option
from reconciler.cli.wiring import reconciler_for_cli, settings_for_cli
from reconciler.inspection.find import find
from reconciler.sweeping.inline import evaluate_inline


@click.command()
@click.argument("name", metavar="ID")
@report_option
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as one JSON object.")
def evaluate(name: str, *, report: bool, as_json: bool) -> int:
    """Evaluate one orchestration and repair what is due in it. Safe at any time.

    ID is an orchestration id, a sub-issue id, a display id such as ENG-42, a task id, or the
    beginning of an id. This ends a backoff. Needs no broker.
    """
    reconciler = reconciler_for_cli(settings_for_cli())
    witness = Witness()
    with progress("Evaluating", quiet=as_json) as bar:
        found = find(reconciler, name, count_rows(bar))
        summary = evaluate_inline(
            reconciler, found.orchestration_id, report=report, hooks=witness.hooks()
        )
    if as_json:
        print_json(summary.to_json())
    else:
        witness.print(summary)
    return EXIT_WRONG if summary.alarming else 0
