"""One pass over one orchestration: diagnose and repair until nothing more is due.

A pass acts on the state that it reads, never on the event that led to it. Report mode runs the same
code and only omits the writes.

    read ── diagnose ── plan ─┬─ look-ups ─────────┐
              ▲               ├─ advances, skips, …┤   until nothing is left to do
              └───────────────┴─ releases ─────────┘
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby

from reconciler.clock import Clock
from reconciler.domain.codes import HEALTHY, SURFACED
from reconciler.domain.diagnosis import ChildDiagnosis, Diagnosis, Policy
from reconciler.domain.model import FAILURE, Child, Orchestration, seconds_since
from reconciler.domain.outcomes import LOST_TO_OTHERS, Outcome
from reconciler.domain.planning import (
    Action,
    Nudge,
    Plan,
    Release,
    Skip,
    child_needs_action,
    plan,
)
from reconciler.domain.touches import parent_needs_action, plan_nudges, recoveries_since
from reconciler.errors import (
    DEFECTS,
    AccessError,
    ConflictError,
    ReconcilerError,
    SettingsError,
    StoreUnavailableError,
    TableMissingError,
    concerns_one_child,
    describe_error,
    lasting,
)
from reconciler.repair.audit import FirstFailures
from reconciler.repair.context import (
    ActionOutcome,
    Context,
    ReleaseDispatch,
    ReleaseRequest,
    RepairResult,
    Stuck,
)
from reconciler.repair.repairer import Repairer, fit_together
from reconciler.repair.snapshot import Snapshot
from reconciler.stores.budget import BudgetStore
from reconciler.stores.orchestrations import OrchestrationStore
from reconciler.stores.tasks import TaskStore

OPERATORS_MISTAKES = (AccessError, SettingsError, TableMissingError)

_STOPPING = (AccessError, StoreUnavailableError, TableMissingError)
"""After these errors no other repair of the orchestration would succeed either."""

Withhold = Callable[[Orchestration], str | None]
"""Returns why an orchestration must not be changed, or None."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What every pass works with; each process makes one."""

    orchestrations: OrchestrationStore
    tasks: TaskStore
    budget: BudgetStore | None
    repairer: Repairer
    policy: Policy
    withhold: Withhold
    clock: Clock

    def snapshot(self, orchestration: Orchestration) -> Snapshot:
        """Return a new snapshot of ``orchestration``."""
        return Snapshot(orchestration, self.orchestrations, self.tasks, self.budget, self.policy)


class RepairPass:
    """Works on one snapshot of an orchestration.

    ``found`` is the diagnosis before any repair, ``outcomes`` is what was done. ``stale`` means
    that a race was lost, so the snapshot differs from the tables.
    """

    def __init__(
        self,
        parts: Parts,
        seen: Snapshot,
        context: Context,
        dispatch: ReleaseDispatch | None,
    ) -> None:
        self._parts = parts
        self.seen = seen
        self.context = context
        self._dispatch = dispatch
        self._allowed = False
        self._halted = False
        self._parent_note = ""
        self._attempted: set[tuple[str, str]] = set()
        self._first_failures = FirstFailures()
        self.found: Diagnosis | None = None
        self.now: Diagnosis | None = None
        self.outcomes: list[ActionOutcome] = []
        self.withheld: str | None = None  # why nothing is changed
        self.stale = False
        self.failures: dict[str, BaseException] = {}  # by child, the last of each
        self.unread: list[ReconcilerError] = []  # what could not be read beside the rows
        self.queued: set[str] = set()

    # -- the loop

    def run(self) -> None:
        """Repair until nothing more is due; a failed repair is an outcome, not an error."""
        try:
            while not self.stopped and self._go_on():
                pass
        except ReconcilerError as error:
            if not self.outcomes:
                raise
            # Report what was done so far, but do nothing on data that could not be read.
            self.unread.append(error)
            self._halted = True
        if self.stopped:
            self.now = self._diagnose()
            self.found = self.found or self.now
        elif all(child.terminal for child in self.seen.children.values()):
            self._touch_finished()

    def _go_on(self) -> bool:
        """Do what is due next; False if nothing is."""
        planned = self._plan()
        if self.seen.look_up(planned.lookups, self.context.out_of_time):
            return True
        # All look-ups are done and nothing has been changed yet.
        self.found = self.found or self.now
        actions = [action for action in planned.actions if self._begin(action)]
        if actions:
            # Children that become due are released after the next diagnosis.
            self._act(actions)
            return True
        releases = [release for release in planned.releases if self._begin(release)]
        self._release_all(releases)
        return bool(releases)

    @property
    def stopped(self) -> bool:
        """Whether the rest is left for the next evaluation."""
        return self._halted or self.context.out_of_time()

    @property
    def went_well(self) -> bool:
        """Whether everything was read, nothing failed and nothing was left undone."""
        return not (self.failures or self.unread or self.stopped)

    def _take_time(self) -> Context:
        """Set the context to the current time.

        A pass may take many minutes. With an older ``now`` a claim made meanwhile would look
        abandoned, since future timestamps count as long ago, and the platform would fail a task
        for having waited since before it was created.
        """
        self.context = replace(self.context, now=self._parts.clock())
        return self.context

    def _diagnose(self) -> Diagnosis:
        return self.seen.diagnose(self._take_time().now)

    def _plan(self) -> Plan:
        self.now = self._diagnose()
        if self.now.has_due:
            known = self.seen.evidence.budget
            with self._going_on():
                self.seen.open_budget(self.context.now)
            if self.seen.evidence.budget is not known:
                self.now = self._diagnose()
        planned = plan(
            self.seen.orchestration,
            self.now,
            self.seen.evidence,
            self._parts.policy,
            self.context.now,
        )
        if planned.actions or planned.releases:
            self.ask_whether_to_apply()
        return planned

    def ask_whether_to_apply(self) -> None:
        """Check for a pause, but only once there is something to do, to save the request."""
        if self.context.apply and not self._allowed:
            self.withheld = self._parts.withhold(self.seen.orchestration)
            self._allowed = True
            if self.withheld is not None:
                self.context = replace(self.context, apply=False)

    def _halt_if_withheld(self) -> bool:
        """Stop if repairs have been paused since the pass began; checked before each write."""
        if self.context.apply and not self.stopped:
            self.withheld = self._parts.withhold(self.seen.orchestration)
            self._halted = self.withheld is not None
        return self.stopped

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        """Carry on if something cannot be read, so that what was done is still reported."""
        try:
            yield
        except ReconcilerError as error:
            self.unread.append(error)

    def _begin(self, action: Action) -> bool:
        key = (action.verb, action.sub_issue_id)
        if key in self._attempted:
            return False
        self._attempted.add(key)
        return True

    # -- repairs

    def _act(self, actions: list[Action]) -> None:
        """Carry out ``actions`` in order; skips with the same cause go together."""
        for cause, together in groupby(
            actions, key=lambda a: a.because if isinstance(a, Skip) else None
        ):
            if cause is not None:
                self._skip(cause, [a for a in together if isinstance(a, Skip)])
                continue
            for action in together:
                self._act_on(action)

    def _act_on(self, action: Action) -> None:
        if self._halt_if_withheld():
            return
        try:
            result = self._parts.repairer.repair(
                self.seen.orchestration, action, self._take_time(), self.seen.held
            )
        except (ReconcilerError, *DEFECTS) as error:
            self._failed(action, error)
        else:
            self._done(action, result)

    def _skip(self, cause: str, actions: list[Skip]) -> None:
        for group in fit_together((self.seen.children[a.sub_issue_id], a) for a in actions):
            if self._halt_if_withheld():
                return
            source = self.seen.children.get(cause)
            if source is None or source.status not in FAILURE:
                # The cause has changed during this pass; leave it to the next one.
                self.stale = True
                return
            error = self._skip_together(source, group)
            if error is not None and not lasting(error):
                return  # the other groups would probably fail as well

    def _skip_together(self, source: Child, group: dict[Child, Skip]) -> BaseException | None:
        """Skip dependents of ``source``; returns the last error, if any."""
        try:
            root = self._first_failures.root_of(source, self.seen.children)
            results = self._parts.repairer.skip(source, group, root, self._take_time())
        except (ReconcilerError, *DEFECTS) as error:
            results = dict.fromkeys(group, RepairResult(Outcome.FAILED, error=error))
        for child, action in group.items():
            result = results[child]
            if result.error is not None:
                self._failed(action, result.error)
            else:
                self._done(action, result)
        return result.error

    def _done(self, action: Action, result: RepairResult) -> None:
        """Record the outcome of an action and update the snapshot."""
        if result.outcome is Outcome.IDEMPOTENCY_CONFLICT:
            key = self.seen.children[action.sub_issue_id].idempotency_key
            self.seen.learn_conflict(key, result.task)
        if result.task is not None:
            self.seen.learn(result.task)
        self.seen.put(action.sub_issue_id, result.child)
        if result.outcome is Outcome.RELEASED:
            self.seen.use_slot()
        if result.outcome in LOST_TO_OTHERS:
            self.stale = True
            self.seen.pass_over(action.sub_issue_id)
        self.outcomes.append(ActionOutcome.of(action, result, self.context))

    def _failed(self, action: Action, error: BaseException) -> None:
        self.failures[action.sub_issue_id] = error
        self._halted = self._halted or isinstance(error, _STOPPING)
        own = concerns_one_child(error) or isinstance(error, ConflictError)
        if own or not isinstance(action, Release):
            # Its slot goes to the next child. Not in an outage: the next would fail as well.
            self.seen.pass_over(action.sub_issue_id)
        result = RepairResult(Outcome.FAILED, detail=describe_error(error), error=error)
        self.outcomes.append(ActionOutcome.of(action, result, self.context))

    # -- releases

    def _release_all(self, releases: list[Release]) -> None:
        for release in releases:
            if self.stopped:
                return
            if self._dispatch is not None and self.context.apply:
                self._queue(release, self._dispatch)
            else:
                self._act_on(release)

    def _queue(self, release: Release, dispatch: ReleaseDispatch) -> None:
        child = self.seen.children[release.sub_issue_id]
        request = ReleaseRequest.of(child, release.since, self.context.sweep_id)
        queued = dispatch(request)
        if queued:
            # Whoever releases it reports it if it stays stuck.
            self.queued.add(child.sub_issue_id)
        result = RepairResult(Outcome.QUEUED if queued else Outcome.PACED)
        self.outcomes.append(ActionOutcome.of(release, result, self.context))

    # -- events that the live reconciler missed

    def _touch_finished(self) -> None:
        """Touch a finished task if a recovery was lost or the parent was not settled."""
        user_id = self.seen.orchestration.user_id
        if user_id is None:
            return
        with self._going_on():
            since = recoveries_since(self.seen.children.values(), self.context.now)
            if since is not None and self.seen.look_for_iterations(user_id, since):
                self.now = self._diagnose()
                if not self.outcomes:
                    self.found = self.now
            for nudge in self._nudges(user_id) if self._parts.policy.settles else ():
                if self._begin(nudge):
                    self._act_on(nudge)

    def _nudges(self, user_id: str) -> tuple[Nudge, ...]:
        if self.now is None or self.now.healthy:
            return ()
        self.seen.read_tasks(self.seen.children.values())
        nudges, self._parent_note = plan_nudges(
            self.seen.orchestration,
            self.now,
            self.seen.evidence,
            self._parts.policy,
            self.context.now,
        )
        if not nudges:
            return ()
        # Last, because usually there is nothing to touch.
        name = self.seen.orchestration.orchestration_id
        since = self.context.now - self._parts.policy.grace
        running = self._parts.tasks.unfinished_of(user_id, name, since)
        if running:
            self._parent_note = f"task {running[0]} runs or just ran, so nothing is touched yet"
            return ()
        self.ask_whether_to_apply()
        return nudges

    # -- results

    @property
    def mistake(self) -> ReconcilerError | None:
        """The first error that only an operator can fix: a missing table or permission."""
        errors = [*self.failures.values(), *self.unread]
        return next((error for error in errors if isinstance(error, OPERATORS_MISTAKES)), None)

    def finish(self) -> None:
        """Record who waits for a slot, and read again after a lost race.

        Errors are only noted, so that what was done is still reported.
        """
        if self.now is None:
            return
        with self._going_on():
            if self.seen.evidence.budget is not None:
                self.ask_whether_to_apply()
            if self.context.apply:
                self.seen.note_waiting(self.now, self.context.now)
        if self.stale:
            with self._going_on():
                self.seen.reread()
                self.now = self._diagnose()

    def stuck(self) -> Iterator[Stuck]:
        """Yield what is stuck now, except children whose release has been handed on.

        If nothing may be changed, yield what was stuck at the beginning.
        """
        shown = self.now if self.context.apply else self.found
        if shown is None:
            return
        planned = {action.sub_issue_id for action in self.outcomes if not action.applied}
        for key, child in shown.children.items():
            if child.code not in HEALTHY and key not in self.queued:
                yield self._stuck_child(shown, child, planned=key in planned)
        if shown.code in SURFACED:
            yield self._stuck_parent(shown)

    def _stuck_child(self, shown: Diagnosis, child: ChildDiagnosis, *, planned: bool) -> Stuck:
        return Stuck(
            shown.orchestration_id,
            child.sub_issue_id,
            child.code.value,
            child.reason,
            seconds_since(child.since, self.context.now),
            child.task_id,
            needs_action=not planned and child_needs_action(child.code, self._parts.policy),
        )

    def _stuck_parent(self, shown: Diagnosis) -> Stuck:
        orchestration, tasks = self.seen.orchestration, self.seen.evidence.tasks
        return Stuck(
            shown.orchestration_id,
            None,
            shown.code.value,
            "; ".join(part for part in (shown.reason, self._parent_note) if part),
            seconds_since(shown.since, self.context.now),
            needs_action=parent_needs_action(shown, orchestration, tasks, self._parts.policy),
        )
