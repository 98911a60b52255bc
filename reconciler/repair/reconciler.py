"""The facade of the reconciler; each process makes one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from ulid import ULID

from reconciler.clock import Clock, OutOfTime, never
from reconciler.domain.codes import Code
from reconciler.domain.diagnosis import Policy
from reconciler.domain.due import due_since
from reconciler.domain.model import WHOLE, Child, Orchestration, moment
from reconciler.domain.outcomes import Outcome
from reconciler.domain.planning import Release
from reconciler.errors import (
    DEFECTS,
    OUTAGES,
    DefectError,
    ReconcilerError,
    UnknownChildError,
    UnknownOrchestrationError,
    as_own_error,
    concerns_one_child,
    describe_error,
)
from reconciler.observability.metrics import Metrics
from reconciler.repair.context import (
    BY_HAND,
    MAX_PREDECESSORS_AT_ONCE,
    ActionOutcome,
    Context,
    Evaluation,
    ReleaseDispatch,
    RepairResult,
    Stuck,
    count_outcomes,
    count_stuck,
)
from reconciler.repair.counts import Counts
from reconciler.repair.evaluator import Evaluator
from reconciler.repair.reporter import Reporter
from reconciler.repair.unskip import not_unskipped, unskip_with_dependents
from reconciler.repair.withholding import Withholding
from reconciler.settings import Settings
from reconciler.stores.control import ControlStore, Pause
from reconciler.stores.dynamodb import measured
from reconciler.stores.orchestrations import OrchestrationStore
from reconciler.stores.read_pacing import PagePacer
from reconciler.stores.sweeps import SweepStore
from reconciler.stores.tasks import TaskStore


@dataclass(frozen=True, slots=True)
class Reconciler:
    """The facade over evaluation, release and control."""

    settings: Settings
    orchestrations: OrchestrationStore
    tasks: TaskStore
    control: ControlStore
    sweeps: SweepStore
    evaluator: Evaluator
    withhold: Withholding
    reporter: Reporter
    metrics: Metrics
    policy: Policy
    clock: Clock
    read_pacer: PagePacer

    # -- one orchestration

    def evaluate(
        self,
        orchestration_id: str,
        *,
        sweep_id: str | None = None,
        by_hand: bool = False,
        report: bool = False,
        release: ReleaseDispatch | None = None,
        out_of_time: OutOfTime = never,
    ) -> Evaluation:
        """Read an orchestration again, repair it, and report its state.

        Due children are handed to ``release``, or released here without it. ``report`` changes
        nothing. Once ``out_of_time`` returns True, the rest is left undone.

        Raises:
            UnknownOrchestrationError: it has no rows.
            DefectError: a bug in the reconciler; the failure is recorded on the orchestration.
            TemporaryError, PermanentError: it could not be read.
        """
        context = self._context(sweep_id, by_hand=by_hand, report=report, out_of_time=out_of_time)
        try:
            evaluation = self.evaluator.evaluate(orchestration_id, context, release)
        except DEFECTS as error:
            self._hold_against(orchestration_id, WHOLE, error, context)
            raise DefectError(describe_error(error)) from error
        if evaluation is None:
            raise self._unknown(orchestration_id)
        return evaluation

    def could_not_check(
        self, orchestration_id: str, error: ReconcilerError, sweep_id: str
    ) -> Evaluation:
        """Report that an orchestration could not be evaluated, and return an evaluation of that."""
        context = self._context(sweep_id, report=False)
        self.reporter.failed(orchestration_id, error, context)
        stuck = Stuck(orchestration_id, None, Code.CHECK_FAILED.value, str(error), None)
        # An outage is logged once, when it begins, not for each orchestration.
        if error.kind not in OUTAGES:
            self.reporter.stuck(stuck, context)
        return Evaluation.without_diagnosis(stuck, errors=1)

    # -- one child

    def release(
        self,
        orchestration_id: str,
        sub_issue_id: str,
        *,
        sweep_id: str | None = None,
        depends_on: tuple[str, ...] | None = None,
        due_since: datetime | None = None,
        alone: bool = False,
        report: bool = False,
        dispatch: ReleaseDispatch | None = None,
        out_of_time: OutOfTime = never,
    ) -> RepairResult:
        """Release a child if it is due. Safe to call at any time, any number of times.

        Three hints from an evaluation: ``depends_on`` saves reading the whole orchestration,
        latency is measured from ``due_since``, and ``alone`` saves taking a lock.
        If the release makes dependents due (by a refusal, or by adopting a finished task), they are
        released here, or handed to ``dispatch``.

        Raises:
            UnknownOrchestrationError, UnknownChildError: there is no such row.
            DefectError: a bug in the reconciler; the failure is recorded on the child.
            TemporaryError, PermanentError: nothing was changed.
        """
        context = self._context(sweep_id, report=report, out_of_time=out_of_time)
        context = replace(context, alone=alone)
        with measured() as consumed:
            try:
                result = self._release(
                    orchestration_id, sub_issue_id, depends_on, due_since, context, dispatch
                )
            except (ReconcilerError, *DEFECTS) as error:
                if concerns_one_child(error):
                    self._hold_against(orchestration_id, sub_issue_id, error, context)
                if isinstance(error, ReconcilerError):
                    raise
                raise DefectError(describe_error(error)) from error
        return replace(result, counts=result.counts.with_consumed(consumed))

    def _release(
        self,
        orchestration_id: str,
        sub_issue_id: str,
        depends_on: tuple[str, ...] | None,
        due_since: datetime | None,
        context: Context,
        dispatch: ReleaseDispatch | None,
    ) -> RepairResult:
        orchestration, child = self._read(orchestration_id, sub_issue_id, depends_on)
        since = due_since or due_moment(orchestration, child, context.now)
        action = Release(sub_issue_id, Code.LOST_RELEASE, since)
        result = self._release_unless_withheld(orchestration, child, action, context)
        done = ActionOutcome.of(action, result, context)
        self.reporter.acted(orchestration_id, done, context)
        if context.by_hand and context.apply and result.applied:
            self._forgive(orchestration, context)
        stuck = _left_stuck(orchestration_id, done)
        result = replace(result, counts=count_outcomes([done]) + count_stuck(stuck), stuck=stuck)
        if not _leads_on(result):
            return result
        return self._lead_on(orchestration_id, sub_issue_id, result, context, dispatch)

    def _forgive(self, orchestration: Orchestration, context: Context) -> None:
        try:
            self.evaluator.failures.forgive(orchestration)
        except ReconcilerError as error:
            # The release itself has succeeded.
            self.reporter.incomplete(orchestration.orchestration_id, error, context)

    def _lead_on(
        self,
        orchestration_id: str,
        sub_issue_id: str,
        result: RepairResult,
        context: Context,
        dispatch: ReleaseDispatch | None,
    ) -> RepairResult:
        """Evaluate the dependents that a release has made due, and add that to its result."""
        try:
            after = self.evaluator.evaluate(orchestration_id, context, dispatch, sub_issue_id)
        except (ReconcilerError, *DEFECTS) as error:
            # The release is done and still has to be reported; a sweep finds the dependents.
            self.reporter.incomplete(orchestration_id, as_own_error(error), context)
            return replace(result, counts=result.counts + Counts(errors=1))
        if after is None:
            return result
        # The caller already measures the consumed capacity.
        counts = result.counts + replace(after.counts, read_units=0.0, write_units=0.0, requests=0)
        return replace(result, counts=counts, stuck=after.stuck)

    def _release_unless_withheld(
        self, orchestration: Orchestration, child: Child, action: Release, context: Context
    ) -> RepairResult:
        withheld = self.withhold(orchestration) if context.apply else None
        if withheld is not None:
            return RepairResult(self.withhold.outcome(), child, detail=withheld, applied=False)
        return self.evaluator.parts.repairer.repair(orchestration, action, context)

    def _read(
        self, orchestration_id: str, sub_issue_id: str, depends_on: tuple[str, ...] | None
    ) -> tuple[Orchestration, Child]:
        """Read a child and its predecessors, or the whole orchestration if the hint is useless."""
        # The hint may be outdated: the child can have other predecessors by now.
        if depends_on is not None and len(depends_on) <= MAX_PREDECESSORS_AT_ONCE:
            part = self.orchestrations.read_around(orchestration_id, sub_issue_id, depends_on)
            if part is not None and sub_issue_id in part.children:
                child = part.children[sub_issue_id]
                if all(key in part.children for key in child.depends_on):
                    return part, child
        whole = self.orchestrations.read(orchestration_id)
        if whole is None:
            raise self._unknown(orchestration_id)
        if sub_issue_id not in whole.children:
            msg = f"orchestration {orchestration_id} has no child {sub_issue_id}"
            raise UnknownChildError(msg)
        return whole, whole.children[sub_issue_id]

    def unskip(
        self, orchestration_id: str, sub_issue_id: str, *, report: bool = False
    ) -> list[ActionOutcome]:
        """Set a skipped child, and the dependents skipped because of it, back to ``blocked``.

        A child stays skipped while a predecessor is failed, skipped or missing. Children that
        become due are released after their grace.

        Raises:
            UnknownOrchestrationError, UnknownChildError: there is no such row.
            TemporaryError, PermanentError: it could not be read or written.
        """
        context = self._context(None, report=report)
        orchestration, child = self._read(orchestration_id, sub_issue_id, None)
        withheld = self.withhold(orchestration) if context.apply else None
        if withheld is not None:
            return [not_unskipped(child, self.withhold.outcome(), withheld, context)]
        repairer = self.evaluator.parts.repairer
        done = unskip_with_dependents(orchestration, child, repairer, context)
        for action in done:
            self.reporter.acted(orchestration_id, action, context)
        return done

    # -- control

    def pause(self, reason: str, by: str) -> Pause:
        """Pause all repairs on all workers; returns the pause in effect."""
        return self.control.pause(reason, by, self.clock())

    def resume(self) -> None:
        """End the pause."""
        self.control.resume()

    def paused(self) -> Pause | None:
        """Return the pause in effect, if any."""
        return self.control.paused()

    # -- helpers

    def _hold_against(
        self, orchestration_id: str, key: str, error: BaseException, context: Context
    ) -> None:
        # Whatever else withholds repairs, a report changes nothing.
        if context.apply and self.settings.repair_mode != "report":
            self.evaluator.failures.hold_against(orchestration_id, {key: error}, context)

    def _context(
        self,
        sweep_id: str | None,
        *,
        report: bool,
        by_hand: bool = False,
        out_of_time: OutOfTime = never,
    ) -> Context:
        """Return the context for work of a sweep, or by hand if there is no sweep id."""
        return Context(
            now=self.clock(),
            sweep_id=sweep_id or f"{BY_HAND}{ULID()}",
            by_hand=by_hand or sweep_id is None,
            apply=not report,
            out_of_time=out_of_time,
        )

    @staticmethod
    def _unknown(orchestration_id: str) -> UnknownOrchestrationError:
        return UnknownOrchestrationError(f"no orchestration {orchestration_id} exists")


def due_moment(orchestration: Orchestration, child: Child, now: datetime) -> datetime:
    """Return since when a child has been due, judging by its predecessors' rows."""
    rows = [row for _, row in orchestration.predecessors_of(child) if row is not None]
    return due_since(child, orchestration.meta, (moment(row.since) for row in rows), now)


def _leads_on(result: RepairResult) -> bool:
    """Whether it may make dependents due: the child was refused, or its task has finished."""
    if not result.applied or result.outcome not in {Outcome.REFUSED, Outcome.ADOPTED}:
        return False
    return result.outcome is Outcome.REFUSED or (result.task is not None and result.task.terminal)


_LEFT_STUCK = {
    Outcome.OVER_BUDGET: Code.OVER_BUDGET,
    Outcome.IDEMPOTENCY_CONFLICT: Code.IDEMPOTENCY_CONFLICT,
    Outcome.PACED: Code.LOST_RELEASE,
    Outcome.PAUSED: Code.LOST_RELEASE,
    Outcome.REPORT_ONLY: Code.LOST_RELEASE,
}


def _left_stuck(orchestration_id: str, action: ActionOutcome) -> tuple[Stuck, ...]:
    code = _LEFT_STUCK.get(action.outcome)
    if code is None:
        return ()
    age = action.stranded_seconds
    return (Stuck(orchestration_id, action.sub_issue_id, code, action.detail, age),)
