"""``reconciler evaluate``, ``release`` and ``unskip``: repairs of one orchestration by hand."""

from __future__ import annotations

from dataclasses import asdict

import click

from reconciler.cli.commands.sweep import Witness
from reconciler.cli.console import count_rows, print_json, progress
from reconciler.cli.main import EXIT_WRONG
from reconciler.cli.options import report_option
from reconciler.cli.wiring import reconciler_for_cli, settings_for_cli
from reconciler.domain.outcomes import REPAIRED, Outcome
from reconciler.inspection.find import find, find_child
from reconciler.observability.printable import printable
from reconciler.sweeping.inline import evaluate_inline

_FINE = REPAIRED | {Outcome.ALREADY_RELEASED}


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
    with progress(f"Releasing {child or name}", quiet=as_json) as bar:
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
        task = result.task_id and f"task {result.task_id}"
        _tell(sub_issue_id, result.outcome, task, result.detail, applied=result.applied)
    return 0 if result.outcome in _FINE else EXIT_WRONG


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
    with progress(f"Setting back {child or name}", quiet=as_json) as bar:
        orchestration_id, sub_issue_id = find_child(reconciler, name, child, count_rows(bar))
        actions = reconciler.unskip(orchestration_id, sub_issue_id, report=report)
    failed = [action for action in actions if action.outcome != Outcome.DONE]
    if as_json:
        print_json([asdict(action) for action in actions])
    else:
        for action in actions:
            said = (action.outcome, action.detail) if action in failed else ("blocked",)
            _tell(action.sub_issue_id, *said, applied=action.applied)
    return EXIT_WRONG if failed else 0


def _tell(sub_issue_id: str, *parts: str | None, applied: bool) -> None:
    would = "" if applied else "nothing was changed: "
    click.echo(printable(f"{sub_issue_id}: {would}{', '.join(filter(None, parts))}"))
