"""The content of ``inspect``: each child's state, why, what happens next, and when.

Pure: it uses rows, an evaluation in report mode, and the settings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from itertools import chain
from typing import Any

from reconciler.domain.codes import SURFACED, Code, OrchestrationCode
from reconciler.domain.diagnosis import ChildDiagnosis
from reconciler.domain.model import Child, Orchestration, moment, seconds_since
from reconciler.domain.outcomes import Outcome
from reconciler.inspection import theme
from reconciler.inspection.advice import commands_for, fixes_of, parent_fixes_of, runbook_of
from reconciler.inspection.graph import Graph, Node
from reconciler.inspection.theme import Tone
from reconciler.inspection.views import ChildView, Circumstances, Command, Outlook, View
from reconciler.repair.context import ActionOutcome, Evaluation
from reconciler.stores.items import text

_SHORT_ID = 8


def build_view(orchestration: Orchestration, evaluation: Evaluation, given: Circumstances) -> View:
    """Build the view of an orchestration; ``evaluation``: in report mode."""
    # Reversed, because the first action on a child counts.
    actions = {action.sub_issue_id: action for action in reversed(evaluation.actions)}
    children, meta, found = orchestration.children, orchestration.meta, evaluation.found
    diagnoses = found.children if found is not None else {}
    needing = {entry.sub_issue_id for entry in evaluation.stuck if entry.needs_action}
    view = View(
        orchestration_id=orchestration.orchestration_id,
        given=given,
        children=tuple(
            _child_view(
                child, diagnoses.get(key), actions.get(key), given, needs_action=key in needing
            )
            for key, child in children.items()
        ),
        outlook=_parent_outlook(evaluation, given),
        needs_action=None in needing,
        statuses=Counter(child.raw_status or "?" for child in children.values()),
    )
    if meta is not None:
        view = replace(
            view,
            repo=meta.repo,
            parent=text(meta.item, "parent_issue_ref", "parent_linear_issue_id"),
            user_id=meta.user_id,
            child_count=meta.child_count,
        )
    if found is None:
        return view
    of_parent = (entry.reason for entry in evaluation.stuck if entry.sub_issue_id is None)
    return replace(
        view,
        code=str(found.code),
        reason=next(of_parent, found.reason),
        age_seconds=seconds_since(found.since, given.now),
    )


def _child_view(
    child: Child,
    diagnosis: ChildDiagnosis | None,
    action: ActionOutcome | None,
    given: Circumstances,
    *,
    needs_action: bool,
) -> ChildView:
    view = ChildView(
        sub_issue_id=child.sub_issue_id,
        label=label_of(child),
        title=text(child.item, "title") or "",
        status=child.raw_status or "?",
        code=None,
        reason=text(child.item, "failure_reason") or "",
        tone=theme.tone_of_status(child.status),
        age_seconds=seconds_since(moment(child.updated_at), given.now),
        depends_on=child.depends_on,
        task_id=child.task_id,
        branch=child.branch_name,
        outlook=None,
        needs_action=needs_action,
        malformed=child.problem is not None or child.status is None,
    )
    if diagnosis is None:
        return view
    return replace(
        view,
        code=str(diagnosis.code),
        reason=diagnosis.reason,
        tone=Tone.ALARM if needs_action else theme.tone_of_code(diagnosis.code),
        age_seconds=diagnosis.age_seconds(given.now),
        outlook=_outlook(diagnosis, action, given),
    )


def label_of(child: Child) -> str:
    """Return a child's display id, or else the beginning of its id."""
    if child.display_id:
        return child.display_id
    return "integration" if child.is_integration else short_id(child.sub_issue_id)


def short_id(sub_issue_id: str) -> str:
    """Return the beginning of a long id."""
    return sub_issue_id if len(sub_issue_id) <= 2 * _SHORT_ID else f"{sub_issue_id[:_SHORT_ID]}…"


# -- what happens next, and when


_RELEASES = {
    Outcome.RELEASED: "releases it as a new task",
    Outcome.ADOPTED: "adopts the task {task_id}, which an interrupted releaser left",
    Outcome.REFUSED: "marks it failed ({detail})",
    Outcome.REINVOKED: "invokes the pipeline of its task {task_id}",
    Outcome.OVER_BUDGET: "releases it as soon as its user has a free slot, the oldest due first",
    Outcome.IDEMPOTENCY_CONFLICT: "leaves it alone ({detail})",
}
_REPAIRS = {
    "advance": "sets it to what its task {task_id} says, and goes on to its dependents",
    "skip": "skips it",
    "adopt": "adopts the task {task_id}, which an interrupted releaser left",
    "reset claim": "takes the dead claim away and releases it",
    "reinvoke": "invokes the pipeline of its task {task_id} again",
    "nudge": "touches task {task_id}, so that the live reconciler hears of its end again",
}


def _action_in_words(action: ActionOutcome) -> str:
    if action.outcome == Outcome.FAILED:
        return f"tries again what failed just now ({action.detail})"
    words = _RELEASES.get(action.outcome) if action.verb == "release" else _REPAIRS[action.verb]
    if words is None:
        words = "looks at it again ({detail})" if action.detail else "looks at it again"
    return words.format(task_id=action.task_id or "it has", detail=action.detail)


def _outlook(
    diagnosis: ChildDiagnosis, action: ActionOutcome | None, given: Circumstances
) -> Outlook:
    if action is not None:
        return given.with_next_sweep(_action_in_words(action))
    since, policy, code = diagnosis.since, given.policy, diagnosis.code
    if code is Code.WITHIN_GRACE:
        return _after(since, policy.grace, "steps in if the live reconciler has not", given)
    if code is Code.CLAIM_IN_PROGRESS:
        return _after(since, policy.claim_timeout, "leaves the live claim alone", given)
    if code is Code.UNSTARTED_TASK:
        if not policy.can_invoke:
            return Outlook("nothing: ORCHESTRATOR_FUNCTION_ARN is not set")
        if diagnosis.invoked_again:
            return Outlook("nothing more: the platform fails the task itself")
        return Outlook("invokes the pipeline once more when the start timeout has passed")
    if code is Code.LOST_RECOVERY and not policy.settles:
        return Outlook("nothing: SETTLE_MODE is off")
    if code in _LOOKS_AGAIN:
        return given.with_next_sweep("looks again")
    return Outlook(_PASSIVE.get(code, _NOTHING))


_NOTHING = "nothing: it needs manual action"
_LOOKS_AGAIN = frozenset(
    {Code.CHECK_FAILED, Code.LOST_RELEASE, Code.LOST_TERMINAL, Code.LOST_SKIP, Code.ABANDONED_CLAIM}
)
_PASSIVE = {
    Code.WAITING: "releases it once everything before it has succeeded",
    Code.RUNNING: "nothing: its task has not ended",
    Code.OVER_BUDGET: "releases it as soon as its user has a free slot, the oldest due first",
    Code.LOST_RECOVERY: "touches the fix's task again after a pause that doubles each time",
    Code.LOST_UNSKIP: "nothing: `reconciler unskip` sets it back to blocked",
    Code.MISSING_TASK_ID: "nothing: no task exists under its idempotency key",
    Code.QUARANTINED: "tries again when the pause is over, or as soon as any of its rows changes",
}


def _after(since: datetime | None, wait: timedelta, does: str, given: Circumstances) -> Outlook:
    return Outlook(does, max(since + wait, given.now) if since is not None else None)


def _parent_outlook(evaluation: Evaluation, given: Circumstances) -> Outlook | None:
    if evaluation.found is None or evaluation.found.code not in SURFACED:
        return None
    for action in evaluation.actions:
        if action.verb == "nudge" and action.code == OrchestrationCode.UNSETTLED_PARENT:
            return given.with_next_sweep(_action_in_words(action))
    if evaluation.stuck and not any(e.needs_action for e in evaluation.stuck if not e.sub_issue_id):
        return given.with_next_sweep("looks again")
    return Outlook(_NOTHING)


# -- the picture, and JSON


def graph_of(view: View) -> Graph:
    """Return the orchestration as a graph; predecessors without a row are ghosts."""
    nodes = {
        child.sub_issue_id: Node(
            key=child.sub_issue_id,
            label=child.label,
            state=child.state,
            tone=child.tone,
            title=child.title,
            age_seconds=child.age_seconds,
        )
        for child in view.children
    }
    before = {child.sub_issue_id: child.depends_on for child in view.children}
    for name in chain.from_iterable(before.values()):
        nodes.setdefault(name, Node(name, short_id(name), "no such row", Tone.GHOST))
    return Graph(nodes, before)


def to_json(view: View) -> dict[str, Any]:
    """Return the view as JSON values; times are ISO 8601 UTC, ages are in seconds."""
    return {
        "orchestration_id": view.orchestration_id,
        "repo": view.repo,
        "parent_issue_ref": view.parent,
        "platform_user_id": view.user_id,
        "code": view.code,
        "reason": view.reason,
        "age_seconds": _rounded(view.age_seconds),
        "withheld": view.given.withheld,
        "next_sweep_at": _iso(view.given.next_sweep_at),
        "will": _outlook_json(view.outlook),
        "statuses": dict(sorted(view.statuses.items())),
        "stuck": len(view.stuck),
        "needs_action": view.needs_action or any(child.needs_action for child in view.children),
        "fixes": _commands_json(parent_fixes_of(view)),
        "children": [_child_json(view, child) for child in view.children],
        "repairs": [asdict(repair) for repair in view.repairs],
        "commands": _commands_json(commands_for(view)),
        "slot_holders": list(view.slot_holders),
        "focus": view.focus,
        "notes": [*view.notes, *((view.repairs_partial,) if view.repairs_partial else ())],
    }


def _commands_json(commands: Sequence[Command]) -> list[dict[str, str]]:
    return [{"run": command.line, "purpose": command.purpose} for command in commands]


def _child_json(view: View, child: ChildView) -> dict[str, Any]:
    return {
        "sub_issue_id": child.sub_issue_id,
        "display_id": child.label,
        "title": child.title,
        "status": child.status,
        "code": child.code,
        "stuck": child.stuck,
        "needs_action": child.needs_action,
        "reason": child.reason,
        "age_seconds": _rounded(child.age_seconds),
        "depends_on": list(child.depends_on),
        "task_id": child.task_id,
        "branch_name": child.branch,
        "will": _outlook_json(child.outlook),
        "fixes": _commands_json(fixes_of(view, child)),
        "runbook": runbook_of(child.code) if child.stuck and child.code else None,
    }


def _outlook_json(outlook: Outlook | None) -> dict[str, Any] | None:
    return None if outlook is None else {"do": outlook.does, "at": _iso(outlook.at)}


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat().replace("+00:00", "Z")


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
