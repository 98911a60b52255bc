"""One pass over one orchestration: diagnosed, and repaired until nothing more is due.

Takes a key, reads everything again, and acts on state, never on the event that led here. What a
report says would be done goes through the same code as what is done: only the writes are left out.

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
from reconciler.domain.model import FAILURE, Orchestration, seconds_since
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
from reconciler.repair.repairer import Repairer
from reconciler.repair.snapshot import Snapshot
from reconciler.stores.budget import BudgetStore
from reconciler.stores.orchestrations import OrchestrationStore
from reconciler.stores.tasks import TaskStore

OPERATORS_MISTAKES = (AccessError, SettingsError, TableMissingError)

_STOPPING = (AccessError, StoreUnavailableError, TableMissingError)
"""After these, nothing else of the orchestration would succeed either."""

Withhold = Callable[[Orchestration], str | None]
"""Says why nothing is to be changed on an orchestration, or None."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What every pass works with; made once for each process."""

    orchestrations: OrchestrationStore
    tasks: TaskStore
    budget: BudgetStore | None
    repairer: Repairer
    policy: Policy
    withhold: Withhold
    clock: Clock

    def snapshot(self, orchestration: Orchestration) -> Snapshot:
        """Return an orchestration as a pass sees it at its beginning."""
        return Snapshot(orchestration, self.orchestrations, self.tasks, self.budget, self.policy)


class RepairPass:
    """One evaluation at work on its own snapshot of an orchestration.

    ``found`` is the diagnosis before anything was done; ``outcomes`` is what was done;
    ``stale`` says that a race was lost, so that the snapshot is not what stands in the tables.
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
        """Repair until nothing more is due; failures of single repairs are outcomes."""
        try:
            while not self.stopped and self._go_on():
                pass
        except ReconcilerError as error:
            if not self.outcomes:
                raise
            # What was done by now stands, and is told; nothing is done on what was not read.
            self.unread.append(error)
            self._halted = True
        if self.stopped:
            self.now = self._diagnose()
            self.found = self.found or self.now
        elif all(child.terminal for child in self.seen.children.values()):
            self._touch_finished()

    def _go_on(self) -> bool:
        """Do what is due next; False when nothing is."""
        planned = self._plan()
        if self.seen.look_up(planned.lookups, self.context.out_of_time):
            return True
        # Before anything is changed, and after everything has been asked.
        self.found = self.found or self.now
        actions = [action for action in planned.actions if self._begin(action)]
        if actions:
            # What they make due is released only after the next look.
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
        """Whether everything could be read, nothing failed, and nothing was left undone."""
        return not (self.failures or self.unread or self.stopped)

    def _diagnose(self) -> Diagnosis:
        # A time ahead of now counts as long ago. By an older clock, a claim that was made while
        # this pass was held up would lie ahead, and be taken away.
        self.context = replace(self.context, now=self._parts.clock())
        return self.seen.diagnose(self.context.now)

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
            self._ask_whether_to_apply()
        return planned

    def _ask_whether_to_apply(self) -> None:
        """Ask only once there is something to do: in the steady state it costs nothing."""
        if self.context.apply and not self._allowed:
            self._allowed = True
            self.withheld = self._parts.withhold(self.seen.orchestration)
            if self.withheld is not None:
                self.context = replace(self.context, apply=False)

    def _halt_if_withheld(self) -> bool:
        """Stop where a pause has come since the pass began; asked before each write."""
        if self.context.apply and not self.stopped:
            self.withheld = self._parts.withhold(self.seen.orchestration)
            self._halted = self.withheld is not None
        return self.stopped

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        """Go on without what cannot be read; what was done by now stands, and is told."""
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
        """Carry out ``actions`` in their order; skips of one cause go together."""
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
                self.seen.orchestration, action, self.context, self.seen.held
            )
        except (ReconcilerError, *DEFECTS) as error:
            self._failed(action, error)
        else:
            self._done(action, result)

    def _skip(self, cause: str, actions: list[Skip]) -> None:
        if self._halt_if_withheld():
            return
        source = self.seen.children.get(cause)
        if source is None or source.status not in FAILURE:
            # Its cause has moved while this pass was at work: the next one sees how.
            self.stale = True
            return
        children = [self.seen.children[a.sub_issue_id] for a in actions]
        try:
            root = self._first_failures.root_of(source, self.seen.children)
            results = self._parts.repairer.skip(source, children, actions, root, self.context)
        except (ReconcilerError, *DEFECTS) as error:
            for action in actions:
                self._failed(action, error)
            return
        for action, result in zip(actions, results, strict=True):
            if result.error is not None:
                self._failed(action, result.error)
            else:
                self._done(action, result)

    def _done(self, action: Action, result: RepairResult) -> None:
        """Take note of what came of an action, and of how things stand now."""
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
            # Its slot goes to the next; in an outage that would only be the next to fail.
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
            # It is stuck no longer here: whoever it was handed to says so, if it comes to that.
            self.queued.add(child.sub_issue_id)
        result = RepairResult(Outcome.QUEUED if queued else Outcome.PACED)
        self.outcomes.append(ActionOutcome.of(release, result, self.context))

    # -- what the live reconciler did not hear of

    def _touch_finished(self) -> None:
        """Touch a finished task for a recovery that was lost, or a parent that nobody settled."""
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
        # Asked last, since most of the time there is nothing to touch.
        name = self.seen.orchestration.orchestration_id
        since = self.context.now - self._parts.policy.grace
        running = self._parts.tasks.unfinished_of(user_id, name, since)
        if running:
            at_work = f"task {running[0]} works for it, or did a moment ago"
            self._parent_note = f"{at_work}, so nothing is touched yet"
            return ()
        self._ask_whether_to_apply()
        return nudges

    # -- how it stands

    @property
    def mistake(self) -> ReconcilerError | None:
        """What only an operator can mend: a table or a permission that is missing, if any is."""
        errors = [*self.failures.values(), *self.unread]
        return next((error for error in errors if isinstance(error, OPERATORS_MISTAKES)), None)

    def finish(self) -> None:
        """Leave word of who waits for a slot; after a lost race, read once more what stands there.

        What was done stands whatever comes of this, and is told.
        """
        if not self.context.apply or self.now is None:
            return
        with self._going_on():
            self.seen.note_waiting(self.now, self.context.now)
        if self.stale:
            with self._going_on():
                self.seen.reread()
                self.now = self._diagnose()

    def stuck(self) -> Iterator[Stuck]:
        """Yield what is stuck now, without what has been handed on to be released.

        Where nothing may be changed, that is how it was found.
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
