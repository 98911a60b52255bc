"""The task behind an orchestration's page: a worker reads it, for Flower has no right to.

It answers with what ``reconciler inspect --json`` prints, and with the picture.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from celery import Task

from reconciler.cli.commands.inspect import draw, look
from reconciler.cli.explain import to_json
from reconciler.cli.find import Found
from reconciler.cli.views import shown
from reconciler.errors import DEFECTS, ReconcilerError, describe_error
from reconciler.observability.metrics import NULL_METRICS
from reconciler.repair.context import Context, Evaluation
from reconciler.repair.reconciler import Reconciler
from reconciler.repair.reporter import Reporter
from workers.application import app
from workers.names import DESCRIBE
from workers.replies import answer, checked_token
from workers.resources import Resources
from workers.running import OPTIONS, ReconcilerTask, checked, run


class _Silent(Reporter):
    """Logs and counts nothing: a person who looks at a page finds nothing new."""

    def evaluated(self, evaluation: Evaluation, context: Context) -> None:
        """Say nothing."""


@app.task(name=DESCRIBE, base=ReconcilerTask, **OPTIONS)
def describe_orchestration(
    task: Task[..., Any], orchestration_id: str, reply_to: str
) -> dict[str, Any]:
    """Read one orchestration, change nothing, and answer under the key that ``reply_to`` names."""

    def work(resources: Resources) -> dict[str, Any]:
        token = checked_token(reply_to)
        name = checked("orchestration_id", orchestration_id)
        try:
            found = describe(resources.reconciler, name)
        except ReconcilerError as error:
            # At once, and not after its retries: somebody is waiting.
            found = {"error": str(error), "kind": error.kind}
        except DEFECTS as error:
            found = {"error": describe_error(error)}
        answer(resources.client, token, found)
        return {"outcome": "answered", **{k: v for k, v in found.items() if k == "error"}}

    return run(task, work, orchestration_id=orchestration_id)


def describe(reconciler: Reconciler, orchestration_id: str) -> dict[str, Any]:
    """Return ``view`` (what ``inspect --json`` prints) and ``svg`` (None: nothing can be drawn).

    Raises:
        UnknownOrchestrationError: it has no rows.
        TemporaryError, PermanentError: it could not be read.
    """
    evaluator = replace(reconciler.evaluator, reporter=_Silent(NULL_METRICS))
    view = look(replace(reconciler, evaluator=evaluator), Found(orchestration_id))
    return {"view": to_json(view), "svg": draw(shown(view))}
