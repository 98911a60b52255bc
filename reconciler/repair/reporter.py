"""Reports repairs as log events and metrics."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import structlog

from reconciler.domain.outcomes import Outcome
from reconciler.errors import OUTAGES, ReconcilerError
from reconciler.observability.metrics import Metrics
from reconciler.repair.context import ActionOutcome, Context, Evaluation, Stuck

log = structlog.get_logger("reconciler")


@dataclass(frozen=True, slots=True)
class Reporter:
    """Logs and counts; decides nothing.

    Errors of an outage are counted here; ``reconciler.observability.outages`` logs when one begins.
    """

    metrics: Metrics

    def evaluated(self, evaluation: Evaluation, context: Context) -> None:
        """Report what an evaluation repaired and what is stuck."""
        for action in evaluation.actions:
            self.acted(evaluation.orchestration_id, action, context)
        for entry in evaluation.stuck:
            self.stuck(entry, context)
        before, now = evaluation.found, evaluation.now
        changed = any(action.repaired for action in evaluation.actions)
        if changed and now is not None and before is not None and not now.children:
            log.info(
                "orch.complete",
                orchestration_id=evaluation.orchestration_id,
                code=now.code.value,
                sweep_id=context.sweep_id,
            )

    def acted(self, orchestration_id: str, action: ActionOutcome, context: Context) -> None:
        """Report the outcome of one action."""
        # A release that was handed on is counted where it ends, and a planned one was not made.
        ended = action.outcome is not Outcome.QUEUED and not action.planned
        if action.verb == "release" and ended:
            self.metrics.increment("reconciler_releases_total", outcome=action.outcome)
        if action.error_kind is not None:
            self.metrics.increment("reconciler_errors_total", kind=action.error_kind)
        fields: dict[str, object] = {
            "orchestration_id": orchestration_id,
            "sub_issue_id": action.sub_issue_id,
            "code": action.code,
            "action": action.verb,
            "outcome": action.outcome,
            "task_id": action.task_id,
            "stranded_seconds": action.stranded_seconds,
            "sweep_id": context.sweep_id,
        }
        if action.detail:
            fields["detail"] = action.detail
        if action.repaired:
            self._recovered(action, fields)
        elif _needs_a_warning(action):
            log.warning("orch.child.release_failed", **fields, error_kind=action.error_kind)

    def _recovered(self, action: ActionOutcome, fields: dict[str, object]) -> None:
        self.metrics.increment("reconciler_recoveries_total", code=action.code)
        if action.stranded_seconds is not None:
            self.metrics.observe("reconciler_recovery_latency_seconds", action.stranded_seconds)
        if action.outcome is Outcome.RELEASED:
            warnings = {"warnings": list(action.warnings)} if action.warnings else {}
            log.info("orch.child.released", **fields, **warnings)
        log.info("orch.sweep.recovered", **fields)

    def stuck(self, entry: Stuck, context: Context) -> None:
        """Report one stuck entry: once in each sweep."""
        log.warning("orch.sweep.stuck", **asdict(entry), sweep_id=context.sweep_id)

    def recoveries_unread(self, error: ReconcilerError, sweep_id: str) -> None:
        """Report that lost recoveries could not be looked for."""
        self.metrics.increment("reconciler_errors_total", kind=error.kind)
        if error.kind not in OUTAGES:
            log.warning(
                "orch.recoveries.unread",
                error_kind=error.kind,
                detail=str(error),
                sweep_id=sweep_id,
            )

    def failed(self, orchestration_id: str, error: ReconcilerError, context: Context) -> None:
        """Report that an orchestration could not be evaluated."""
        fields = self._count(orchestration_id, error, context)
        if error.kind not in OUTAGES:
            log.warning("orch.evaluation.failed", **fields)

    def incomplete(self, orchestration_id: str, error: ReconcilerError, context: Context) -> None:
        """Report that an evaluation lacked something that could not be read."""
        fields = self._count(orchestration_id, error, context)
        if error.kind not in OUTAGES:
            log.warning("orch.evaluation.incomplete", **fields)

    def _count(
        self, orchestration_id: str, error: ReconcilerError, context: Context
    ) -> dict[str, str]:
        self.metrics.increment("reconciler_errors_total", kind=error.kind)
        return {
            "orchestration_id": orchestration_id,
            "error_kind": error.kind,
            "detail": str(error),
            "sweep_id": context.sweep_id,
        }


def _needs_a_warning(action: ActionOutcome) -> bool:
    """Whether to log a warning; an outage is logged once, when it begins."""
    failed = action.outcome is Outcome.FAILED
    refused = action.outcome is Outcome.REFUSED and action.applied
    return (failed or refused) and action.error_kind not in OUTAGES
