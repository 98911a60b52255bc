"""``reconciler release``: one child, now, if it is due."""

from __future__ import annotations

import click

from reconciler.cli.console import print_json, progress
from reconciler.cli.main import EXIT_WRONG
from reconciler.cli.wiring import reconciler_for_cli, settings_for_cli
from reconciler.domain.outcomes import REPAIRED, Outcome
from reconciler.observability.printable import printable

_FINE = REPAIRED | {Outcome.ALREADY_RELEASED}


@click.command()
@click.argument("orchestration_id")
@click.argument("sub_issue_id")
@click.option("--report", is_flag=True, help="Say what would be done, and change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def release(orchestration_id: str, sub_issue_id: str, *, report: bool, as_json: bool) -> None:
    """Release one child now, if it is due; safe at any time, any number of times."""
    reconciler = reconciler_for_cli(settings_for_cli())
    with progress(f"Releasing {printable(sub_issue_id)}", quiet=as_json):
        result = reconciler.release(orchestration_id, sub_issue_id, by_hand=True, report=report)
    if as_json:
        print_json(
            {
                "orchestration_id": orchestration_id,
                "sub_issue_id": sub_issue_id,
                "outcome": result.outcome,
                "applied": result.applied,
                "task_id": result.task_id,
                "branch_name": result.child and result.child.branch_name,
                "detail": result.detail,
            }
        )
    else:
        would = "" if result.applied else "nothing was changed: "
        parts = [f"{would}{result.outcome}"]
        parts += [f"task {result.task_id}"] if result.task_id else []
        parts += [result.detail] if result.detail else []
        click.echo(printable(f"{sub_issue_id}: {', '.join(parts)}"))
    click.get_current_context().exit(0 if result.outcome in _FINE else EXIT_WRONG)
