"""Failures that do not go away: kept on record, so that what keeps failing is backed off.

``reconciler.domain.backoff`` says for how long.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta

from reconciler.domain.backoff import after_failure
from reconciler.domain.model import WHOLE, Orchestration
from reconciler.domain.outcomes import Outcome
from reconciler.errors import DEFECTS, concerns_one_child, describe_error, lasting
from reconciler.repair.context import Context
from reconciler.repair.repair_pass import RepairPass
from reconciler.stores.orchestrations import OrchestrationStore

_FORGIVES_NOTHING = frozenset({Outcome.FAILED, Outcome.QUEUED, Outcome.PACED, Outcome.OVER_BUDGET})
"""After these, nobody knows whether it would fail again."""


@dataclass(frozen=True, slots=True)
class FailureRecords:
    """Our records of failures. ``interval``: between two sweeps."""

    orchestrations: OrchestrationStore
    interval: timedelta

    def remember(self, orchestration: Orchestration, work: RepairPass) -> None:
        """Hold each failure of a pass against the child that it concerns, and forgive the rest.

        ``orchestration``: as it was read before the pass.
        """
        concerned = {k: error for k, error in work.failures.items() if concerns_one_child(error)}
        self.hold_against(orchestration.orchestration_id, concerned, work.context)
        acted = {a.sub_issue_id for a in work.outcomes if a.outcome not in _FORGIVES_NOTHING}
        for key, attempts in orchestration.attempts.items():
            moved = attempts.fingerprint != orchestration.fingerprint_of(key)
            if _is_over(key, work, acted, moved=moved):
                self.orchestrations.clear_attempts(orchestration.orchestration_id, key)

    def hold_against(
        self, orchestration_id: str, errors: Mapping[str, BaseException], context: Context
    ) -> None:
        """Record failures: sub-issue id, or ``WHOLE`` → what failed.

        The rows are read once more: what brings a child back is a change after this moment.
        """
        for key, error in errors.items():
            try:
                orchestration = self.orchestrations.read_failing(orchestration_id, key)
            except DEFECTS:
                continue  # its rows cannot even be read by our code: it fails anew in each sweep
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
        """Forget the failures that are on record of an orchestration."""
        for key in orchestration.attempts:
            self.orchestrations.clear_attempts(orchestration.orchestration_id, key)


def _is_over(key: str, work: RepairPass, acted: Collection[str], *, moved: bool) -> bool:
    """Whether a failure on record is over; ``moved``: the rows that it concerns have changed."""
    # What was handed on may fail there; rows that have changed say that it does not.
    if key == WHOLE:
        return work.went_well and (moved or not work.queued)
    return key not in work.failures and (moved or key in acted)
