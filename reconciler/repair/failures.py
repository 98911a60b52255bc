"""Records of repeated failures, from which ``reconciler.domain.backoff`` derives the backoff."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta

from reconciler.domain.backoff import after_failure
from reconciler.domain.model import WHOLE, Orchestration
from reconciler.domain.outcomes import Outcome
from reconciler.errors import (
    DEFECTS,
    InvalidRequestError,
    concerns_one_child,
    describe_error,
    lasting,
)
from reconciler.repair.context import Context
from reconciler.repair.repair_pass import RepairPass
from reconciler.stores.orchestrations import OrchestrationStore

_FORGIVES_NOTHING = frozenset({Outcome.FAILED, Outcome.QUEUED, Outcome.PACED, Outcome.OVER_BUDGET})
"""Outcomes that do not show whether the repair would fail again."""


@dataclass(frozen=True, slots=True)
class FailureRecords:
    """Records failures and clears them. ``interval``: the time between two sweeps."""

    orchestrations: OrchestrationStore
    interval: timedelta

    def remember(self, orchestration: Orchestration, work: RepairPass) -> None:
        """Record the failures of a pass, each for its child, and clear those that are over.

        ``orchestration``: as read before the pass.
        """
        concerned = {k: error for k, error in work.failures.items() if concerns_one_child(error)}
        self.hold_against(orchestration.orchestration_id, concerned, work.context)
        acted = {a.sub_issue_id for a in work.outcomes if a.outcome not in _FORGIVES_NOTHING}
        for key, attempts in orchestration.attempts.items():
            if work.context.out_of_time():
                return  # what is over stays over, and is cleared later
            moved = attempts.fingerprint != orchestration.fingerprint_of(key)
            if _is_over(key, work, acted, moved=moved):
                self.orchestrations.clear_attempts(orchestration.orchestration_id, key)

    def hold_against(
        self, orchestration_id: str, errors: Mapping[str, BaseException], context: Context
    ) -> None:
        """Record failures, by sub-issue id or ``WHOLE``.

        The rows are read again, because only a change after this moment ends the backoff. Once the
        time is up, only the first is recorded, and the others when they fail again.
        """
        for number, (key, error) in enumerate(errors.items()):
            if number and context.out_of_time():
                return
            try:
                orchestration = self.orchestrations.read_failing(orchestration_id, key)
            except (InvalidRequestError, *DEFECTS):
                # Its rows cannot be parsed, or its id is too long for the key of a record. So every
                # sweep fails anew, but not because of its neighbours.
                continue
            if orchestration is None:
                continue
            attempts = after_failure(
                orchestration.attempts.get(key),
                describe_error(error),
                orchestration.fingerprint_of(key),
                self.interval,
                context.now,
                counts=lasting(error),
            )
            self.orchestrations.record_attempts(
                orchestration_id, key, attempts, int(context.now.timestamp())
            )

    def forgive(self, orchestration: Orchestration) -> None:
        """Clear all recorded failures of an orchestration."""
        for key in orchestration.attempts:
            self.orchestrations.clear_attempts(orchestration.orchestration_id, key)


def _is_over(key: str, work: RepairPass, acted: Collection[str], *, moved: bool) -> bool:
    """Whether a recorded failure is over; ``moved``: the rows that it concerns have changed."""
    # Releases that were handed on may still fail, unless the rows have changed since.
    if key == WHOLE:
        return work.went_well and (moved or not work.queued)
    return key not in work.failures and (moved or key in acted)
