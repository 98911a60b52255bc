"""The task behind an orchestration's page in Flower, which has no access to the tables.

A worker reads the orchestration and answers with the output of ``reconciler inspect --json`` and
the picture.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from celery import Task

from reconciler.errors import DEFECTS, ReconcilerError, describe_error
from reconciler.inspection.explain import graph_of, to_json
from reconciler.inspection.find import Found
from reconciler.inspection.look import look
from reconciler.inspection.svg import svg_of
from reconciler.inspection.views import shown
from reconciler.observability.metrics import NULL_METRICS
from reconciler.repair.context import Context, Evaluation
from reconciler.repair.reporter import Reporter
from workers.application import app
from workers.names import DESCRIBE
from workers.replies import answer, checked_token
from workers.resources import Resources
from workers.running import OPTIONS, ReconcilerTask, checked, run
from workers.sweeping import state_of


class _Silent(Reporter):
    """Logs and counts nothing, because sweeps report the same."""

    def evaluated(self, evaluation: Evaluation, context: Context) -> None:
        """Report nothing."""


@app.task(name=DESCRIBE, base=ReconcilerTask, **OPTIONS)
def describe_orchestration(
    task: Task[..., Any], orchestration_id: str, reply_to: str
) -> dict[str, Any]:
    """Read one orchestration and answer under the key that ``reply_to`` names; change nothing.

    The answer has ``view`` and ``svg``, or ``error`` and its ``kind``.
    """

    def work(resources: Resources) -> dict[str, Any]:
        token = checked_token(reply_to)
        name = checked("orchestration_id", orchestration_id)
        error = {}
        try:
            found = _describe(resources, name)
        except (ReconcilerError, *DEFECTS) as raised:
            # Answer at once instead of retrying, because somebody is waiting.
            error = {"error": describe_error(raised), "kind": getattr(raised, "kind", "unexpected")}
        answer(resources.client, token, error or found)
        return {"outcome": "answered", **error}

    return run(task, work, orchestration_id=orchestration_id)


def _describe(resources: Resources, orchestration_id: str) -> dict[str, Any]:
    settings, reconciler = resources.settings, resources.reconciler
    evaluator = replace(reconciler.evaluator, reporter=_Silent(NULL_METRICS))
    seen = state_of(resources, None, report=False).overview()
    next_sweep = seen.next_start(settings.sweep_interval_seconds)
    view = look(replace(reconciler, evaluator=evaluator), Found(orchestration_id), next_sweep)
    svg = svg_of(graph_of(shown(view)), f"Orchestration {orchestration_id}")
    return {"view": to_json(view), "svg": svg}
