"""Evaluation: takes a key, reads everything again, repairs, and says how it stands.

Also keeps a record of what keeps failing, which is then backed off (``reconciler.domain.backoff``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from reconciler.domain.backoff import after_failure
from reconciler.domain.codes import Code
from reconciler.domain.model import WHOLE, Orchestration, moment, seconds_since
from reconciler.domain.outcomes import Outcome
from reconciler.errors import DEFECTS, concerns_one_child, describe_error, lasting
from reconciler.repair.context import (
    Context,
    Evaluation,
    ReleaseDispatch,
    Stuck,
    count_outcomes,
    count_stuck,
)
from reconciler.repair.counts import Counts
from reconciler.repair.repair_pass import Parts, RepairPass
from reconciler.repair.reporter import Reporter
from reconciler.stores.dynamodb import measured

_FORGIVES_NOTHING = frozenset({Outcome.FAILED, Outcome.QUEUED, Outcome.PACED, Outcome.OVER_BUDGET})
"""After these, nobody knows whether it would fail again."""


@dataclass(frozen=True, slots=True)
class Evaluator:
    """Evaluates orchestrations."""

    parts: Parts
    reporter: Reporter

    def evaluate(
        self,
        orchestration_id: str,
        context: Context,
        dispatch: ReleaseDispatch | None = None,
    ) -> Evaluation | None:
        """Read, diagnose and repair one orchestration; None when it has no rows.

        ``dispatch`` is given each child to release, oldest due first; without it they are
        released here. Nothing is changed where ``context.apply`` is False.

        Raises:
            TemporaryError, PermanentError: it could not be read; nothing was changed.
        """
        with measured() as consumed:
            orchestration = self.parts.orchestrations.read(orchestration_id)
            if orchestration is None:
                return None
            if context.by_hand:
                # A person's word ends the backing off.
                orchestration = replace(orchestration, attempts={})
            work = self._pass(orchestration, context, dispatch)
            try:
                work.run()
            except DEFECTS:
                left_alone = _left_alone(orchestration, context)
                if left_alone is None:
                    raise
                return self._still_failing(orchestration_id, left_alone, context)
            finally:
                if work.context.apply and (work.outcomes or work.unread):
                    self._remember(orchestration, work)
            work.finish()
        stuck = tuple(work.stuck())
        done = count_outcomes(work.outcomes) + count_stuck(stuck)
        looked = Counts(orchestrations_evaluated=1, errors=len(work.unread))
        evaluation = Evaluation(
            orchestration_id=orchestration_id,
            found=work.found,
            now=work.now,
            actions=tuple(work.outcomes),
            counts=(looked + done).with_consumed(consumed),
            stuck=stuck,
            withheld=work.withheld,
            orchestration=work.seen.orchestration,
            mistake=work.mistake,
        )
        for error in work.unread:
            self.reporter.incomplete(orchestration_id, error, work.context)
        self.reporter.evaluated(evaluation, work.context)
        return evaluation

    def _pass(
        self, orchestration: Orchestration, context: Context, dispatch: ReleaseDispatch | None
    ) -> RepairPass:
        return RepairPass(self.parts, self.parts.snapshot(orchestration), context, dispatch)

    # -- failures that do not go away

    def _still_failing(self, orchestration_id: str, stuck: Stuck, context: Context) -> Evaluation:
        """Not even a diagnosis can be had of it, and that is known: shown, and left alone."""
        counts = Counts(orchestrations_evaluated=1) + count_stuck([stuck])
        evaluation = Evaluation(orchestration_id, None, None, (), counts, (stuck,))
        self.reporter.evaluated(evaluation, context)
        return evaluation

    def _remember(self, orchestration: Orchestration, work: RepairPass) -> None:
        """Hold each failure against the child that it concerns, and forgive what went well."""
        concerned = {k: error for k, error in work.failures.items() if concerns_one_child(error)}
        self.hold_against(orchestration.orchestration_id, concerned, work.context)
        acted = {a.sub_issue_id for a in work.outcomes if a.outcome not in _FORGIVES_NOTHING}
        for key, attempts in orchestration.attempts.items():
            # What was handed on may fail there; rows that have changed say that it does not.
            moved = attempts.fingerprint != orchestration.fingerprint_of(key)
            if key == WHOLE:
                whole = not (work.failures or work.unread or work.stopped)
                well = whole and not (work.queued and not moved)
            else:
                well = key not in work.failures and (moved or key in acted)
            if well:
                self.parts.orchestrations.clear_attempts(orchestration.orchestration_id, key)

    def hold_against(
        self, orchestration_id: str, errors: Mapping[str, BaseException], context: Context
    ) -> None:
        """Record failures: sub-issue id, or ``WHOLE`` → what failed.

        The rows are read once more: what brings a child back is a change after this moment.

        Raises:
            TemporaryError, PermanentError: it could not be read or recorded.
        """
        for key, error in errors.items():
            try:
                orchestration = self.parts.orchestrations.read_failing(orchestration_id, key)
            except DEFECTS:
                continue  # its rows cannot even be read by our code: it fails anew in each sweep
            if orchestration is None:
                continue
            attempts = after_failure(
                orchestration.attempts.get(key),
                describe_error(error),
                orchestration.fingerprint_of(key),
                self.parts.policy.interval,
                context.now,
                counts=lasting(error),
            )
            self.parts.orchestrations.record_attempts(
                orchestration_id, key, attempts, int(context.now.timestamp())
            )

    def forgive(self, orchestration: Orchestration) -> None:
        """Forget the failures that are on record of an orchestration."""
        for key in orchestration.attempts:
            self.parts.orchestrations.clear_attempts(orchestration.orchestration_id, key)


def _left_alone(orchestration: Orchestration, context: Context) -> Stuck | None:
    """What is said of an orchestration that is quarantined as a whole; None when it is not."""
    attempts = orchestration.backed_off(context.now).get(WHOLE)
    if attempts is None or not context.apply:
        return None
    age = seconds_since(moment(attempts.last_failed_at), context.now)
    reason = attempts.says
    return Stuck(orchestration.orchestration_id, None, Code.QUARANTINED.value, reason, age)
