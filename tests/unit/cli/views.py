"""Orchestrations as ``inspect`` sees them, built without a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from reconciler.domain.codes import HEALTHY
from reconciler.domain.diagnosis import Evidence, Policy, diagnose
from reconciler.domain.model import Orchestration, timestamp
from reconciler.domain.planning import child_needs_action
from reconciler.inspection.explain import build_view
from reconciler.inspection.views import Circumstances, View
from reconciler.repair.context import ActionOutcome, Evaluation, Stuck
from reconciler.repair.counts import Counts
from reconciler.stores.rows import parse_orchestration

NOW = datetime(2026, 6, 9, 12, 0, tzinfo=UTC)
NAME = "orch_" + "0" * 32
POLICY = Policy(
    grace=timedelta(seconds=120),
    claim_timeout=timedelta(seconds=900),
    start_timeout=timedelta(seconds=900),
    long_running=timedelta(days=1),
    interval=timedelta(seconds=300),
    can_invoke=True,
)


def orchestration(
    graph: Mapping[str, Sequence[str]],
    statuses: Mapping[str, str] | None = None,
    *,
    age: float = 3600,
    rows: Mapping[str, Mapping[str, Any]] | None = None,
) -> Orchestration:
    """Return an orchestration whose children are ``blocked`` unless ``statuses`` differs."""
    at = {"S": timestamp(NOW - timedelta(seconds=age))}
    name = {"orchestration_id": {"S": NAME}}
    items: list[dict[str, Any]] = [
        {
            **name,
            "sub_issue_id": {"S": key},
            "display_id": {"S": f"ENG-{number}"},
            "title": {"S": f"Do {key}"},
            "depends_on": {"L": [{"S": before} for before in after]},
            "child_status": {"S": (statuses or {}).get(key, "blocked")},
            "updated_at": at,
            **((rows or {}).get(key, {})),
        }
        for number, (key, after) in enumerate(graph.items(), start=1)
    ]
    items.append(
        {
            **name,
            "sub_issue_id": {"S": "#meta"},
            "child_count": {"N": str(len(items))},
            "platform_user_id": {"S": "user-1"},
            "repo": {"S": "acme/shop"},
            "updated_at": at,
        }
    )
    found = parse_orchestration(NAME, items)
    assert found is not None
    return found


def view_of(
    found: Orchestration,
    evidence: Evidence | None = None,
    *,
    actions: Sequence[ActionOutcome] = (),
    withheld: str | None = None,
    paused: bool = False,
    next_sweep_at: datetime | None = None,
) -> View:
    """Return what ``inspect`` would show of an orchestration."""
    diagnosis = diagnose(found, evidence or Evidence(), POLICY, NOW)
    planned = {action.sub_issue_id for action in actions}
    stuck = tuple(
        Stuck(
            NAME,
            key,
            child.code,
            child.reason,
            child.age_seconds(NOW),
            needs_action=key not in planned and child_needs_action(child.code, POLICY),
        )
        for key, child in diagnosis.children.items()
        if child.code not in HEALTHY
    )
    evaluation = Evaluation(NAME, diagnosis, diagnosis, tuple(actions), Counts(), stuck)
    given = Circumstances(POLICY, NOW, next_sweep_at, withheld, paused)
    return build_view(found, evaluation, given)
