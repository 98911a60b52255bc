"""``reconciler release``: one child, now, if it is due."""

from __future__ import annotations

import click

from reconciler.cli.console import count_rows, print_json, progress
from reconciler.cli.main import EXIT_WRONG
from reconciler.cli.options import report_option
from reconciler.cli.wiring import reconciler_for_cli, settings_for_cli
from reconciler.domain.outcomes import REPAIRED, Outcome
from reconciler.inspection.find import find_child
from reconciler.observability.printable import printable

_FINE = REPAIRED | {Outcome.ALREADY_RELEASED}


@click.command()
@click.argument("name", metavar="ID")
@click.argument("child", required=False)
@report_option
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def release(name: str, child: str | None, *, report: bool, as_json: bool) -> int:
    """Release one child now, if it is due. Safe at any time, any number of times.

    ID is the child's: a sub-issue id, a display id such as ENG-42, or a task id. ID can also be any
    id of the orchestration; CHILD is then the child's id. The beginning of an id is enough.
    """
    reconciler = reconciler_for_cli(settings_for_cli())
    with progress(f"Releasing {printable(child or name)}", quiet=as_json) as bar:
        orchestration_id, sub_issue_id = find_child(reconciler, name, child, count_rows(bar))
        result = reconciler.release(orchestration_id, sub_issue_id, report=report)
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
        task = result.task_id and f"task {result.task_id}"
        said = ", ".join(filter(None, (result.outcome, task, result.detail)))
        click.echo(printable(f"{sub_issue_id}: {would}{said}"))
    return 0 if result.outcome in _FINE else EXIT_WRONG
