"""Evaluation: reads an orchestration again, repairs it, and reports its state."""

from __future__ import annotations

from dataclasses import dataclass, replace

from reconciler.domain.codes import Code
from reconciler.domain.model import WHOLE, Orchestration, moment, seconds_since
from reconciler.errors import DEFECTS, ReconcilerError
from reconciler.repair.context import (
    Context,
    Evaluation,
    ReleaseDispatch,
    Stuck,
    count_outcomes,
    count_stuck,
)
from reconciler.repair.counts import Counts
from reconciler.repair.failures import FailureRecords
from reconciler.repair.repair_pass import Parts, RepairPass
from reconciler.repair.reporter import Reporter
from reconciler.stores.dynamodb import Consumed, measured


@dataclass(frozen=True, slots=True)
class Evaluator:
    """Reads, diagnoses and repairs orchestrations."""

    parts: Parts
    failures: FailureRecords
    reporter: Reporter

    def evaluate(
        self,
        orchestration_id: str,
        context: Context,
        dispatch: ReleaseDispatch | None = None,
        stuck_only: str | None = None,
    ) -> Evaluation | None:
        """Read, diagnose and repair one orchestration; None if it has no rows.

        Due children are handed to ``dispatch``, oldest first, or released here without it.
        Nothing is changed if ``context.apply`` is False. ``stuck_only``: the one child to report if
        it is stuck, because the sweep has already reported the others.

        Raises:
            TemporaryError, PermanentError: it could not be read; nothing was changed.
        """
        with measured() as consumed:
            orchestration = self.parts.orchestrations.read(orchestration_id)
            if orchestration is None:
                return None
            if context.by_hand:
                # Asking by hand ends the backoff.
                orchestration = replace(orchestration, attempts={})
            work = self._pass(orchestration, context, dispatch)
            try:
                work.run()
            except DEFECTS:
                left_alone = _left_alone(orchestration, context)
                if left_alone is None:
                    raise
                evaluation = Evaluation.without_diagnosis(left_alone)
                self.reporter.evaluated(evaluation, context)
                return evaluation
            finally:
                # Even after an error: what has failed so far must not be retried at once.
                if work.outcomes or work.unread:
                    self._remember(orchestration, work)
            work.finish()
        evaluation = _evaluation_of(orchestration_id, work, consumed, stuck_only)
        for error in work.unread:
            self.reporter.incomplete(orchestration_id, error, work.context)
        self.reporter.evaluated(evaluation, work.context)
        return evaluation

    def _remember(self, orchestration: Orchestration, work: RepairPass) -> None:
        try:
            work.ask_whether_to_apply()
            if work.context.apply:
                self.failures.remember(orchestration, work)
        except ReconcilerError as error:
            work.unread.append(error)  # the repairs are done and still have to be reported

    def _pass(
        self, orchestration: Orchestration, context: Context, dispatch: ReleaseDispatch | None
    ) -> RepairPass:
        return RepairPass(self.parts, self.parts.snapshot(orchestration), context, dispatch)


def _evaluation_of(
    orchestration_id: str, work: RepairPass, consumed: Consumed, stuck_only: str | None
) -> Evaluation:
    stuck = tuple(left for left in work.stuck() if stuck_only in {None, left.sub_issue_id})
    read = Counts(orchestrations_evaluated=1, errors=len(work.unread))
    counts = read + count_outcomes(work.outcomes) + count_stuck(stuck)
    return Evaluation(
        orchestration_id=orchestration_id,
        found=work.found,
        now=work.now,
        actions=tuple(work.outcomes),
        counts=counts.with_consumed(consumed),
        stuck=stuck,
        withheld=work.withheld,
        orchestration=work.seen.orchestration,
        mistake=work.mistake,
    )


def _left_alone(orchestration: Orchestration, context: Context) -> Stuck | None:
    """Return the stuck entry of an orchestration that is backed off as a whole, else None."""
    attempts = orchestration.backed_off(context.now).get(WHOLE)
    if attempts is None or not context.apply:
        return None
    age = seconds_since(moment(attempts.last_failed_at), context.now)
    reason = attempts.says
    return Stuck(orchestration.orchestration_id, None, Code.QUARANTINED.value, reason, age)
