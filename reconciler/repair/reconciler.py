"""The reconciler: everything that it can do, behind one object, made once for each process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from ulid import ULID

from reconciler.clock import Clock
from reconciler.domain.codes import Code
from reconciler.domain.diagnosis import Policy, due_since
from reconciler.domain.model import (
    FAILURE,
    LONG_AGO,
    Child,
    ChildStatus,
    Orchestration,
    moment,
)
from reconciler.domain.outcomes import Outcome
from reconciler.errors import (
    DEFECTS,
    DefectError,
    ReconcilerError,
    UnknownChildError,
    UnknownOrchestrationError,
    describe_error,
    lasting,
)
from reconciler.observability.metrics import Metrics
from reconciler.repair.context import (
    MOST_PREDECESSORS_AT_ONCE,
    ActionOutcome,
    Context,
    Evaluation,
    ReleaseDispatch,
    ReleaseResult,
    Stuck,
    count_stuck,
)
from reconciler.repair.counts import Counts, counted_as
from reconciler.repair.evaluator import Evaluator
from reconciler.repair.releaser import stranded_seconds
from reconciler.repair.reporter import Reporter
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
    ) -> Evaluation:
        """Read an orchestration again, repair it, and say how it stands.

        Without ``release`` its children are released here; with it, each is handed on instead.
        ``report`` changes nothing.

        Raises:
            UnknownOrchestrationError: it has no rows.
            DefectError: our own code failed on it; that is held against it.
            TemporaryError, PermanentError: it could not be read.
        """
        context = self._context(sweep_id, by_hand=by_hand, report=report)
        try:
            evaluation = self.evaluator.evaluate(orchestration_id, context, release)
        except DEFECTS as error:
            if context.apply:
                self.evaluator.hold_against(orchestration_id, error, context)
            raise DefectError(describe_error(error)) from error
        if evaluation is None:
            raise self._unknown(orchestration_id)
        return evaluation

    def could_not_check(
        self, orchestration_id: str, error: ReconcilerError, sweep_id: str
    ) -> Counts:
        """Say that an orchestration could not be evaluated, and return what that counts as."""
        context = self._context(sweep_id, by_hand=False, report=False)
        self.reporter.failed(orchestration_id, error, context)
        stuck = Stuck(orchestration_id, None, Code.CHECK_FAILED.value, str(error), None)
        self.reporter.stuck(stuck, context)
        return Counts(orchestrations_evaluated=1, errors=1) + count_stuck([stuck])

    # -- one child

    def release(
        self,
        orchestration_id: str,
        sub_issue_id: str,
        *,
        sweep_id: str | None = None,
        by_hand: bool = False,
        depends_on: tuple[str, ...] | None = None,
        due_since: datetime | None = None,
        report: bool = False,
        dispatch: ReleaseDispatch | None = None,
    ) -> ReleaseResult:
        """Release a child, if it is due; safe at any time, any number of times.

        ``depends_on`` and ``due_since`` are what an evaluation knew: the first saves reading the
        rest of the orchestration, the second is what latency is reckoned from. Both are hints.
        Should this bring others on (a refusal, the adoption of a finished task), they are released
        here, or handed to ``dispatch``.

        Raises:
            UnknownOrchestrationError, UnknownChildError: there is no such row.
            DefectError: our own code failed on it; that is held against the orchestration.
            TemporaryError, PermanentError: nothing was changed.
        """
        context = self._context(sweep_id, by_hand=by_hand, report=report)
        with measured() as consumed:
            try:
                result = self._release(
                    orchestration_id, sub_issue_id, depends_on, due_since, context, dispatch
                )
            except (ReconcilerError, *DEFECTS) as error:
                if context.apply and lasting(error) and not isinstance(error, UnknownChildError):
                    self.evaluator.hold_against(orchestration_id, error, context)
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
    ) -> ReleaseResult:
        orchestration, child = self._read(orchestration_id, sub_issue_id, depends_on)
        since = due_since or due_moment(orchestration, child, context.now)
        withheld = self.withhold(orchestration) if context.apply else None
        if withheld is not None:
            result = ReleaseResult(
                self._withheld_as(), child.task_id, detail=withheld, applied=False
            )
        else:
            result = self.evaluator.releaser.release(
                orchestration, child, since, Code.LOST_RELEASE.value, context
            )
        action = _as_action(child, result, since, context)
        self.reporter.acted(orchestration_id, action, context)
        counts = _counts_of(orchestration_id, action, context)
        if context.apply and result.applied and context.by_hand and orchestration.attempts:
            self.evaluator.forgive(orchestration_id)
        if result.applied and self._leads_on(result):
            # Dependents of a refused child are skipped, and of a finished one released, at once.
            after = self.evaluator.evaluate(orchestration_id, context, dispatch)
            if after is not None:
                # What it consumed is metered by the release around it already.
                counts += replace(after.counts, read_units=0.0, write_units=0.0, requests=0)
        return replace(result, counts=counts)

    @staticmethod
    def _leads_on(result: ReleaseResult) -> bool:
        finished = result.task is not None and result.task.terminal
        return result.outcome is Outcome.REFUSED or (result.outcome is Outcome.ADOPTED and finished)

    def _read(
        self, orchestration_id: str, sub_issue_id: str, depends_on: tuple[str, ...] | None
    ) -> tuple[Orchestration, Child]:
        """Read a child with what its release depends on; all of it where the hint is no good."""
        if depends_on is not None and len(depends_on) <= MOST_PREDECESSORS_AT_ONCE:
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
        """Set a skipped child back to ``blocked``, and the dependents that were skipped for it.

        A child is left alone where a predecessor is failed, skipped or missing. What is due then is
        released when its grace is over.

        Raises:
            UnknownOrchestrationError, UnknownChildError: there is no such row.
            TemporaryError, PermanentError: it could not be read or written.
        """
        context = self._context(None, by_hand=True, report=report)
        orchestration, child = self._read(orchestration_id, sub_issue_id, None)
        withheld = self.withhold(orchestration) if context.apply else None
        if withheld is not None:
            return [_unskipped(child, self._withheld_as(), withheld, context)]
        wrong = _not_to_be_unskipped(orchestration, child)
        if wrong is not None:
            return [_unskipped(child, Outcome.NO_LONGER_DUE, wrong, context)]
        done: list[ActionOutcome] = []
        waiting = [child]
        while waiting:
            child = waiting.pop(0)
            result = self.evaluator.repairer.unskip(orchestration, child, context)
            done.append(_unskipped(child, result.outcome, result.detail, context))
            self.reporter.acted(orchestration_id, done[-1], context)
            if result.outcome is Outcome.DONE and result.child is not None:
                orchestration = orchestration.with_child(result.child)
                waiting += [
                    row
                    for row in orchestration.children.values()
                    if child.sub_issue_id in row.depends_on
                    and row not in waiting
                    and _not_to_be_unskipped(orchestration, row) is None
                ]
        return done

    # -- control

    def withhold(self, orchestration: Orchestration) -> str | None:
        """Say why nothing is to be changed on an orchestration now, or None."""
        return withheld_by(self.settings, self.control.paused, orchestration)

    def _withheld_as(self) -> Outcome:
        """Return the outcome of what is withheld: by a pause, or by the settings."""
        return Outcome.PAUSED if self.control.paused() is not None else Outcome.REPORT_ONLY

    def pause(self, reason: str, by: str) -> Pause:
        """Pause all repairs, on all workers; returns the pause that holds."""
        return self.control.pause(reason, by, self.clock())

    def resume(self) -> None:
        """Let repairs go on."""
        self.control.resume()

    def paused(self) -> Pause | None:
        """Return the pause that holds, if any."""
        return self.control.paused()

    # -- small tools

    def _context(self, sweep_id: str | None, *, by_hand: bool, report: bool) -> Context:
        return Context(
            now=self.clock(),
            sweep_id=sweep_id or f"by-hand:{ULID()}",
            by_hand=by_hand or sweep_id is None,
            apply=not report,
        )

    @staticmethod
    def _unknown(orchestration_id: str) -> UnknownOrchestrationError:
        return UnknownOrchestrationError(f"no orchestration {orchestration_id} exists")


def withheld_by(
    settings: Settings, paused: Callable[[], Pause | None], orchestration: Orchestration
) -> str | None:
    """Say why nothing is to be changed on ``orchestration``, or None; asks for a pause last."""
    if settings.repair_mode == "report":
        return "REPAIR_MODE is report"
    meta = orchestration.meta
    repo = meta.repo if meta is not None else None
    user = meta.user_id if meta is not None else None
    if settings.repair_only_repos and repo not in settings.repair_only_repos:
        return f"repo {repo} is not among REPAIR_ONLY_REPOS"
    if settings.repair_only_users and user not in settings.repair_only_users:
        return f"user {user} is not among REPAIR_ONLY_USERS"
    pause = paused()
    if pause is not None:
        return f"paused since {pause.since} by {pause.by}: {pause.reason}"
    return None


def _not_to_be_unskipped(orchestration: Orchestration, child: Child) -> str | None:
    """Say why a child is to stay as it is, or None if it is skipped for nothing."""
    if child.status is not ChildStatus.SKIPPED:
        return f"it is {child.raw_status}, not skipped"
    for key in child.depends_on:
        predecessor = orchestration.children.get(key)
        if predecessor is None or predecessor.status in FAILURE:
            state = "missing" if predecessor is None else predecessor.raw_status
            return f"predecessor {key} is {state}"
    return None


def _unskipped(child: Child, outcome: Outcome, detail: str, context: Context) -> ActionOutcome:
    return ActionOutcome(
        verb="unskip",
        sub_issue_id=child.sub_issue_id,
        code=Code.LOST_UNSKIP.value,
        outcome=outcome,
        applied=context.apply and outcome is Outcome.DONE,
        detail=detail,
    )


def due_moment(orchestration: Orchestration, child: Child, now: datetime) -> datetime:
    """Return since when a child has been due, as far as its predecessors' rows tell."""
    rows = (orchestration.children.get(key) for key in child.depends_on)
    return due_since(child, orchestration.meta, (moment(r.since) for r in rows if r), now)


def _as_action(
    child: Child, result: ReleaseResult, since: datetime | None, context: Context
) -> ActionOutcome:
    stranded = None if since is None or since == LONG_AGO else stranded_seconds(since, context.now)
    code = Code.UNSTARTED_TASK if result.outcome is Outcome.REINVOKED else Code.LOST_RELEASE
    return ActionOutcome(
        verb="release",
        sub_issue_id=child.sub_issue_id,
        code=code.value,
        outcome=result.outcome,
        applied=result.applied,
        task_id=result.task_id,
        detail=result.detail,
        stranded_seconds=stranded,
        warnings=result.warnings,
        error_kind=result.error.kind if result.error is not None else None,
    )


_LEFT_STUCK = {
    Outcome.OVER_BUDGET: Code.OVER_BUDGET,
    Outcome.IDEMPOTENCY_CONFLICT: Code.IDEMPOTENCY_CONFLICT,
    Outcome.PACED: Code.LOST_RELEASE,
    Outcome.PAUSED: Code.LOST_RELEASE,
    Outcome.REPORT_ONLY: Code.LOST_RELEASE,
}


def _counts_of(orchestration_id: str, action: ActionOutcome, context: Context) -> Counts:
    name = counted_as(action.verb, action.outcome)
    counts = Counts()
    if name is not None:
        one = {name: 1}
        counts = Counts.from_flat(one) if action.applied else Counts(planned=one)
    if action.error_kind is not None:
        counts += Counts(errors=1)
    code = _LEFT_STUCK.get(action.outcome)
    if code is None or context.by_hand:
        return counts
    stuck = Stuck(
        orchestration_id, action.sub_issue_id, code, action.detail, action.stranded_seconds
    )
    return counts + count_stuck([stuck])
