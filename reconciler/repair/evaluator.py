"""Evaluation: takes a key, reads everything again, repairs, and says how it stands.

Also keeps count of orchestrations whose repair keeps failing, and leaves those alone for a growing
time. An outage is not held against anybody: only what fails by itself is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

from reconciler.domain.codes import Code
from reconciler.domain.model import Attempts, Orchestration, moment, seconds_since, timestamp
from reconciler.errors import DEFECTS, describe_error, lasting
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

QUARANTINE_FROM = 3
"""From this many failures on an orchestration is left alone for a while."""

LONGEST_QUARANTINE = timedelta(hours=6)
_MOST_DOUBLINGS = 15
"""Takes a second past the longest pause; one that fails for weeks must not overflow a time."""

_LONGEST_ERROR_CHARACTERS = 500


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
            if context.by_hand and orchestration.attempts is not None:
                # A person's word ends a quarantine.
                orchestration = replace(orchestration, attempts=None)
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
        failures = [*work.failures, *work.unread]
        lasting_failures = [error for error in failures if lasting(error)]
        if lasting_failures:
            self.hold_against(orchestration.orchestration_id, lasting_failures[-1], work.context)
        elif orchestration.attempts is not None and not failures:
            # What has only been handed on may fail there; that its rows have changed since the
            # last failure says that it does not.
            unchanged = orchestration.attempts.fingerprint == orchestration.fingerprint
            if not (work.queued and unchanged):
                self.parts.orchestrations.clear_attempts(orchestration.orchestration_id)

    def hold_against(
        self, orchestration_id: str, error: BaseException, context: Context
    ) -> Attempts | None:
        """Count a failure that was the orchestration's own; the pause doubles with each.

        Returns what is on record now; None when it has no rows. The rows are read once more: what
        brings the orchestration back is a change of its rows after this moment.
        """
        try:
            orchestration = self.parts.orchestrations.read(orchestration_id)
        except DEFECTS:
            return None  # its rows cannot even be read by our code: it fails anew in each sweep
        if orchestration is None:
            return None
        earlier = orchestration.attempts
        failures = (earlier.failures if earlier is not None else 0) + 1
        retry_at = None
        if failures >= QUARANTINE_FROM:
            doublings = min(failures - QUARANTINE_FROM, _MOST_DOUBLINGS)
            pause = min(self.parts.policy.interval * 2**doublings, LONGEST_QUARANTINE)
            retry_at = timestamp(context.now + pause)
        attempts = Attempts(
            failures=failures,
            last_error=describe_error(error)[:_LONGEST_ERROR_CHARACTERS],
            last_failed_at=timestamp(context.now),
            retry_at=retry_at,
            fingerprint=orchestration.fingerprint,
        )
        self.parts.orchestrations.record_attempts(
            orchestration_id, attempts, int(context.now.timestamp())
        )
        return attempts

    def forgive(self, orchestration_id: str) -> None:
        """Forget an orchestration's failures."""
        self.parts.orchestrations.clear_attempts(orchestration_id)


def _left_alone(orchestration: Orchestration, context: Context) -> Stuck | None:
    """What is said of an orchestration that is quarantined as a whole; None when it is not."""
    attempts = orchestration.attempts
    if attempts is None or not context.apply:
        return None
    if not attempts.quarantined(context.now, orchestration.fingerprint):
        return None
    age = seconds_since(moment(attempts.last_failed_at), context.now)
    reason = attempts.says
    return Stuck(orchestration.orchestration_id, None, Code.QUARANTINED.value, reason, age)
