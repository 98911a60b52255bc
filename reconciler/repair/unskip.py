"""Un-skips a child, and the dependents skipped because of it, by hand."""

from __future__ import annotations

from dataclasses import replace

from reconciler.domain.codes import Code
from reconciler.domain.model import FAILURE, Child, ChildStatus, Orchestration, moment
from reconciler.domain.outcomes import Outcome
from reconciler.domain.planning import Unskip
from reconciler.repair.context import ActionOutcome, Context, RepairResult, name_state
from reconciler.repair.repairer import Repairer


def unskip_with_dependents(
    orchestration: Orchestration, child: Child, repairer: Repairer, context: Context
) -> list[ActionOutcome]:
    """Set ``child`` back to ``blocked``, and then the dependents skipped because of it.

    Leaves a child alone if it is not skipped, or a predecessor is failed, skipped or missing.
    """
    wrong = _why_not(orchestration, child)
    if wrong is not None:
        return [not_unskipped(child, Outcome.NO_LONGER_DUE, wrong, context)]
    done: list[ActionOutcome] = []
    waiting = [child]
    while waiting:
        # Breadth first: a child can follow once all its predecessors have been un-skipped.
        child = waiting.pop(0)
        result = repairer.unskip(orchestration, _action(child), context)
        done.append(_told(child, result, context))
        if result.outcome is Outcome.DONE and result.child is not None:
            orchestration = orchestration.with_child(result.child)
            waiting += [
                row
                for row in orchestration.children.values()
                if child.sub_issue_id in row.depends_on
                and row not in waiting
                and _why_not(orchestration, row) is None
            ]
    return done


def not_unskipped(child: Child, outcome: Outcome, why: str, context: Context) -> ActionOutcome:
    """Return the outcome for a child that is left alone."""
    return _told(child, RepairResult(outcome, child, detail=why, applied=False), context)


def _action(child: Child) -> Unskip:
    return Unskip(child.sub_issue_id, Code.LOST_UNSKIP, moment(child.updated_at))


def _told(child: Child, result: RepairResult, context: Context) -> ActionOutcome:
    # The time until a person noticed is not a latency of the sweep.
    return replace(ActionOutcome.of(_action(child), result, context), stranded_seconds=None)


def _why_not(orchestration: Orchestration, child: Child) -> str | None:
    """Return why a child must stay as it is, or None if it can be un-skipped."""
    if child.status is not ChildStatus.SKIPPED:
        return f"it is {child.raw_status}, not skipped"
    if child.problem is not None:
        return child.problem
    for key, row in orchestration.predecessors_of(child):
        if row is None or row.status in FAILURE:
            return name_state(key, row)
    return None
