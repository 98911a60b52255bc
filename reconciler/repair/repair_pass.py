"""One pass over one orchestration: diagnosed, and repaired until nothing more is due.

Takes a key, reads everything again, and acts on state, never on the event that led here. What a
report says would be done goes through the same code as what is done: only the writes are left out.

    read ── diagnose ── plan ─┬─ look-ups ─────────┐
              ▲               ├─ advances, skips, …┤   until nothing is left to do
              └───────────────┴─ releases ─────────┘
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import groupby

from reconciler.clock import Clock
from reconciler.domain.codes import HEALTHY, SURFACED, Code, OrchestrationCode
from reconciler.domain.diagnosis import Diagnosis, Evidence, Policy, diagnose
from reconciler.domain.model import (
    FAILURE,
    LONG_AGO,
    Child,
    ChildStatus,
    Orchestration,
    Task,
    moment,
)
from reconciler.domain.outcomes import Outcome
from reconciler.domain.planning import (
    Action,
    Adopt,
    Advance,
    Nudge,
    Plan,
    Reinvoke,
    Release,
    ResetClaim,
    Skip,
    child_needs_action,
    has_task_to_touch,
    plan,
    plan_nudges,
)
from reconciler.errors import (
    DEFECTS,
    AccessError,
    GuardrailOutageError,
    ReconcilerError,
    SettingsError,
    StoreUnavailableError,
    TableMissingError,
    describe_error,
    error_kind,
)
from reconciler.repair.context import (
    MOST_PREDECESSORS_AT_ONCE,
    ActionOutcome,
    Context,
    ReleaseDispatch,
    ReleaseRequest,
    Stuck,
)
from reconciler.repair.releaser import Releaser, concerned_task, known, stranded_seconds
from reconciler.repair.repairer import Repaired, Repairer
from reconciler.stores.budget import BudgetStore, HeldSlots, Slots, unreadable
from reconciler.stores.orchestrations import OrchestrationStore
from reconciler.stores.tasks import TaskStore

OPERATORS_MISTAKES = (AccessError, SettingsError, TableMissingError)

_STOPPING = (AccessError, GuardrailOutageError, StoreUnavailableError, TableMissingError)
"""After these, nothing else of the orchestration would succeed either."""

RECOVERY_HORIZON = timedelta(days=2)
"""How far back a recovery that was lost is looked for: eight full rotations of the table."""

Withhold = Callable[[Orchestration], str | None]
"""Says why nothing is to be changed on an orchestration, or None."""


class RepairPass:
    """One evaluation at work on its own snapshot of an orchestration.

    ``found`` is the diagnosis before anything was done; ``outcomes`` is what was done;
    ``stale`` says that a race was lost, so that the snapshot is not what stands in the tables.
    """

    def __init__(
        self,
        orchestration: Orchestration,
        context: Context,
        *,
        orchestrations: OrchestrationStore,
        tasks: TaskStore,
        releaser: Releaser,
        repairer: Repairer,
        budget: BudgetStore | None,
        policy: Policy,
        withhold: Withhold,
        clock: Clock,
        budget_fresh_for: timedelta,
        settles: bool,
        dispatch: ReleaseDispatch | None,
    ) -> None:
        # Its own mapping: each repair changes it in place, since copying it for every one of
        # thousands of children would be quadratic.
        self._children = dict(orchestration.children)
        self.orchestration = replace(orchestration, children=self._children)
        self.context = context
        self._orchestrations = orchestrations
        self._tasks_store = tasks
        self._releaser = releaser
        self._repairer = repairer
        self._budget_store = budget
        self._policy = policy
        self._withhold = withhold
        self._clock = clock
        self._budget_fresh_for = budget_fresh_for
        self._settles = settles
        self._dispatch = dispatch
        self._tasks: dict[str, Task | None] = {}
        self._asked: set[str] = set()
        self._evidence = Evidence(tasks=self._tasks, found={})
        self._found: dict[str, Task | None] = {}
        self._slots: Slots | None = None
        self._held = HeldSlots(budget) if budget is not None else None
        self._allowed = False
        self._halted = False
        self._parent_note = ""
        self._attempted: set[tuple[str, str]] = set()
        self._roots: dict[str, str] = {}  # child that failed → the task that its skips concern
        self.found: Diagnosis | None = None
        self.now: Diagnosis | None = None
        self.outcomes: list[ActionOutcome] = []
        self.withheld: str | None = None  # why nothing is changed
        self.stale = False
        self.failures: list[BaseException] = []
        self.unread: list[ReconcilerError] = []  # what could not be read beside the rows
        self.queued: set[str] = set()

    # -- the loop

    def run(self) -> None:
        """Repair until nothing more is due; failures of single repairs are outcomes."""
        while not self._stopped:
            planned = self._plan()
            if self._look_up(planned.lookups):
                continue
            # Before anything is changed, and after everything has been asked.
            self.found = self.found or self.now
            actions = [a for a in planned.actions if self._begin(a)]
            if actions:
                self._act(actions)
                continue
            releases = [r for r in planned.releases if self._begin(r)]
            if not releases:
                break
            self._release_all(releases)
        if self._stopped:
            self.now = self._diagnose()
        elif all(child.terminal for child in self._children.values()):
            self._touch_finished()

    @property
    def _stopped(self) -> bool:
        return self._halted or any(isinstance(error, _STOPPING) for error in self.failures)

    def _diagnose(self) -> Diagnosis:
        self._read_tasks(
            child.task_id
            for child in self._children.values()
            if child.status is ChildStatus.RELEASED and child.task_id is not None
        )
        # A time ahead of now counts as long ago. By an older clock, a claim that was made while
        # this pass was held up would lie ahead, and be taken away.
        self.context = replace(self.context, now=self._clock())
        self._evidence = replace(self._evidence, tasks=self._tasks, found=self._found)
        return diagnose(self.orchestration, self._evidence, self._policy, self.context.now)

    def _read_tasks(self, task_ids: Iterable[str]) -> None:
        wanted = [task_id for task_id in dict.fromkeys(task_ids) if task_id not in self._asked]
        if wanted:
            self._asked.update(wanted)
            self._tasks.update(self._tasks_store.read(wanted, consistent=True))

    def _plan(self) -> Plan:
        diagnosis = self._diagnose()
        if self._budget_store is not None and self._evidence.budget is None:
            due = any(d.code is Code.LOST_RELEASE for d in diagnosis.children.values())
            if due:
                self._open_budget(self._budget_store)
                diagnosis = self._diagnose()
        self.now = diagnosis
        planned = plan(
            self.orchestration, diagnosis, self._evidence, self._policy, self.context.now
        )
        if planned.actions or planned.releases:
            self._ask_whether_to_apply()
        return planned

    def _ask_whether_to_apply(self) -> None:
        """Ask only once there is something to do: in the steady state it costs nothing."""
        if self.context.apply and not self._allowed:
            self._allowed = True
            self.withheld = self._withhold(self.orchestration)
            if self.withheld is not None:
                self.context = replace(self.context, apply=False)

    def _halt_if_withheld(self) -> None:
        """Stop where a pause has come since the pass began; asked before each write."""
        if self.context.apply:
            try:
                self.withheld = self._withhold(self.orchestration)
            except ReconcilerError as error:
                if not self.outcomes:
                    raise
                # What was done by now stands, and is told; nothing more is known to be allowed.
                self.unread.append(error)
                self._halted = True
            else:
                self._halted = self.withheld is not None

    def _begin(self, action: Action) -> bool:
        key = (action.verb, action.sub_issue_id)
        if key in self._attempted:
            return False
        self._attempted.add(key)
        return True

    def _look_up(self, keys: Iterable[str]) -> bool:
        new = [key for key in keys if key not in self._found]
        for key in new:
            self._found[key] = self._tasks_store.find(key)
        return bool(new)

    def _open_budget(self, store: BudgetStore) -> None:
        meta = self.orchestration.meta
        if meta is None or meta.user_id is None:
            return
        try:
            self._slots = store.open(meta.user_id, prune=False)
        except ReconcilerError as error:
            # None left; what needs no slot is repaired all the same.
            self._evidence = replace(self._evidence, budget=unreadable(error))
            self.unread.append(error)
        else:
            if self._held is not None:
                self._held.hold(self._slots)
            budget = self._slots.budget(
                self.orchestration.orchestration_id, self.context.now, self._budget_fresh_for
            )
            self._evidence = replace(self._evidence, budget=budget)

    # -- repairs other than releases

    def _act(self, actions: list[Action]) -> None:
        """Carry out ``actions`` in their order; skips of one cause go together."""
        for cause, together in groupby(
            actions, key=lambda a: a.because if isinstance(a, Skip) else None
        ):
            if self._stopped:
                return
            if cause is None:
                for action in together:
                    self._act_on(action)
            else:
                self._skip(cause, [a for a in together if isinstance(a, Skip)])

    def _skip(self, cause: str, actions: list[Skip]) -> None:
        self._halt_if_withheld()
        if self._stopped:
            return
        source = self._children.get(cause)
        if source is None or source.status not in {ChildStatus.FAILED, ChildStatus.SKIPPED}:
            # Its cause has moved while this pass was at work: the next one sees how.
            self.stale = True
            return
        children = [self._children[a.sub_issue_id] for a in actions]
        try:
            root = self._root(source)
            results = self._repairer.skip(source, children, actions, root, self.context)
        except (ReconcilerError, *DEFECTS) as error:
            for action in actions:
                self._failed(action, error)
            return
        for action, result in zip(actions, results, strict=True):
            self._done(action, result)

    def _root(self, cause: Child) -> str:
        """Return the task that failed first: a skipped child is skipped for another's failure."""
        passed: dict[str, Child] = {}
        current: Child | None = cause
        while (
            current is not None
            and current.sub_issue_id not in self._roots
            and current.task_id is None
            and current.status is ChildStatus.SKIPPED
        ):
            passed[current.sub_issue_id] = current
            before = [self._children.get(key) for key in current.depends_on]
            fell = [c for c in before if c is not None and c.status in FAILURE]
            current = next((c for c in fell if c.sub_issue_id not in passed), None)
        current = current or cause
        root = self._roots.get(current.sub_issue_id) or concerned_task(current)
        self._roots.update(dict.fromkeys((*passed, current.sub_issue_id), root))
        return root

    def _act_on(self, action: Action) -> None:
        self._halt_if_withheld()
        if self._stopped:
            return
        try:
            self._done(action, self._repair(self._children[action.sub_issue_id], action))
        except (ReconcilerError, *DEFECTS) as error:
            self._failed(action, error)

    def _repair(self, child: Child, action: Action) -> Repaired:
        repairer, context = self._repairer, self.context
        match action:
            case Advance():
                return repairer.advance(child, action, context)
            case Adopt():
                return repairer.adopt(self.orchestration, child, action, context)
            case ResetClaim():
                return repairer.reset_claim(child, action, context)
            case Reinvoke():
                return repairer.reinvoke(child, action, context)
            case Nudge():
                return repairer.nudge(self.orchestration, child, action, context)
        msg = f"no repair is known for {action.verb}"
        raise TypeError(msg)

    def _done(self, action: Action, result: Repaired) -> None:
        if result.task is not None:
            self._asked.add(result.task.task_id)
            self._tasks[result.task.task_id] = result.task
        self._stands(action.sub_issue_id, result.child)
        self.stale = self.stale or result.lost
        self._say(
            action,
            result.outcome,
            task_id=result.task.task_id if result.task else None,
            detail=result.detail,
        )

    def _stands(self, sub_issue_id: str, child: Child | None) -> None:
        if child is None:
            self._children.pop(sub_issue_id, None)
        else:
            self._children[sub_issue_id] = child

    def _failed(self, action: Action, error: BaseException) -> None:
        self.failures.append(error)
        self._say(action, Outcome.FAILED, detail=describe_error(error), error=error)

    def _say(
        self,
        action: Action,
        outcome: Outcome,
        *,
        task_id: str | None = None,
        detail: str = "",
        error: BaseException | None = None,
        warnings: tuple[str, ...] = (),
    ) -> None:
        since = None if action.since == LONG_AGO else action.since
        self.outcomes.append(
            ActionOutcome(
                verb=action.verb,
                sub_issue_id=action.sub_issue_id,
                code=str(action.code),
                outcome=outcome,
                applied=self.context.apply,
                task_id=task_id,
                detail=detail,
                stranded_seconds=(
                    None if since is None else stranded_seconds(since, self.context.now)
                ),
                error_kind=error_kind(error) if error is not None else None,
                warnings=warnings,
            )
        )

    # -- releases

    def _release_all(self, releases: list[Release]) -> None:
        if self._dispatch is not None and self.context.apply:
            for release in releases:
                self._queue(release, self._dispatch)
            return
        for release in releases:
            self._halt_if_withheld()
            if self._stopped:
                return
            self._release(release, self._children[release.sub_issue_id])

    def _queue(self, release: Release, dispatch: ReleaseDispatch) -> None:
        child = self._children[release.sub_issue_id]
        few = len(child.depends_on) <= MOST_PREDECESSORS_AT_ONCE
        queued = dispatch(
            ReleaseRequest(
                orchestration_id=child.orchestration_id,
                sub_issue_id=child.sub_issue_id,
                idempotency_key=child.idempotency_key,
                depends_on=child.depends_on if few else None,
                due_since=release.since,
                sweep_id=self.context.sweep_id,
            )
        )
        if queued:
            self.queued.add(child.sub_issue_id)
        self._say(release, Outcome.QUEUED if queued else Outcome.PACED)

    def _release(self, release: Release, child: Child) -> None:
        try:
            result = self._releaser.release(
                self.orchestration, child, release.since, release.code, self.context, self._held
            )
        except (ReconcilerError, *DEFECTS) as error:
            self._failed(release, error)
            return
        at = child.updated_at
        if result.outcome in {Outcome.RELEASED, Outcome.ADOPTED}:
            moved = child.moved(ChildStatus.RELEASED, at, result.task_id, result.branch_name)
            self._stands(child.sub_issue_id, moved)
            if result.task is not None:
                self._asked.add(result.task.task_id)
                self._tasks[result.task.task_id] = result.task
            if result.outcome is Outcome.RELEASED:
                self._use_slot()
        elif result.outcome is Outcome.REFUSED:
            # In the same pass its dependents are skipped: they have waited for as long as it.
            self._stands(child.sub_issue_id, child.moved(ChildStatus.FAILED, known(release.since)))
        elif result.outcome is Outcome.IDEMPOTENCY_CONFLICT:
            self._found[child.idempotency_key] = result.task
        elif result.outcome not in {Outcome.OVER_BUDGET, Outcome.PACED}:
            self._stands(child.sub_issue_id, result.row or child)
            self.stale = True
        self._say(
            release,
            result.outcome,
            task_id=result.task_id,
            detail=result.detail,
            error=result.error,
            warnings=result.warnings,
        )

    def _use_slot(self) -> None:
        budget = self._evidence.budget
        if budget is not None:
            self._evidence = replace(self._evidence, budget=replace(budget, room=budget.room - 1))

    @property
    def mistake(self) -> ReconcilerError | None:
        """What only an operator can mend: a table or a permission that is missing, if any is."""
        errors = [*self.failures, *self.unread]
        return next((error for error in errors if isinstance(error, OPERATORS_MISTAKES)), None)

    def note_waiting(self) -> None:
        """Leave word of who waits for a slot, so that the oldest of the user goes first."""
        if self._budget_store is None or self._slots is None or not self.context.apply:
            return
        if self.now is None:
            return
        waiting = {
            self._children[key].idempotency_key: found.since or LONG_AGO
            for key, found in self.now.children.items()
            if found.code is Code.OVER_BUDGET
        }
        if waiting:
            try:
                self._budget_store.note_waiting(
                    self._slots, waiting, self.context.now, self._budget_fresh_for
                )
            except ReconcilerError as error:
                self.unread.append(error)  # what was done stands all the same, and is told

    # -- what the live reconciler did not hear of

    def _touch_finished(self) -> None:
        """Touch a finished task for a recovery that was lost, or a parent that nobody settled."""
        meta = self.orchestration.meta
        if meta is None or meta.user_id is None:
            return
        try:
            self._look_for_recoveries(meta.user_id)
            for nudge in self._nudges(meta.user_id) if self._settles else ():
                if self._begin(nudge):
                    self._act_on(nudge)
        except ReconcilerError as error:
            self.unread.append(error)  # what was done by now stands, and is told

    def _look_for_recoveries(self, user_id: str) -> None:
        failed = [
            moment(child.updated_at) or LONG_AGO
            for child in self._children.values()
            if child.status is ChildStatus.FAILED
        ]
        if not failed:
            return
        since = max(min(failed), self.context.now - RECOVERY_HORIZON)
        name = self.orchestration.orchestration_id
        iterations = self._tasks_store.iterations_of(user_id, name, since)
        if iterations:
            self._evidence = replace(self._evidence, iterations=iterations)
            self.now = self._diagnose()
            if not self.outcomes:
                self.found = self.now

    def _nudges(self, user_id: str) -> tuple[Nudge, ...]:
        if self.now is None or self.now.healthy:
            return ()
        self._read_tasks(c.task_id for c in self._children.values() if c.task_id is not None)
        nudges, self._parent_note = plan_nudges(
            self.orchestration, self.now, self._evidence, self._policy, self.context.now
        )
        if not nudges:
            return ()
        # Asked last, since most of the time there is nothing to touch.
        running = self._tasks_store.unfinished_of(user_id, self.orchestration.orchestration_id)
        if running:
            self._parent_note = f"task {running[0]} still works for it, so nothing is touched yet"
            return ()
        self._ask_whether_to_apply()
        return nudges

    # -- how it stands

    def reread(self) -> None:
        """After a lost race: read once more, so that what is reported is what stands there."""
        try:
            again = self._orchestrations.read(self.orchestration.orchestration_id)
            if again is None:
                return
            self._children = dict(again.children)
            self.orchestration = replace(again, children=self._children)
            self.now = self._diagnose()
        except ReconcilerError as error:
            self.unread.append(error)  # as above

    def stuck(self) -> tuple[Stuck, ...]:
        """Return what is stuck now, without what has been handed on to be released.

        Where nothing may be changed, that is how it was found.
        """
        shown = self.now if self.context.apply else self.found
        if shown is None:
            return ()
        name = shown.orchestration_id
        planned = {action.sub_issue_id for action in self.outcomes if not action.applied}
        found = [
            Stuck(
                name,
                key,
                child.code.value,
                child.reason,
                self._age(child.since),
                child.task_id,
                needs_action=key not in planned and child_needs_action(child.code, self._policy),
            )
            for key, child in shown.children.items()
            if child.code not in HEALTHY and key not in self.queued
        ]
        if shown.code in SURFACED:
            reason = "; ".join(part for part in (shown.reason, self._parent_note) if part)
            age, acts = self._age(shown.since), self._parent_needs_action(shown)
            found.append(Stuck(name, None, shown.code.value, reason, age, needs_action=acts))
        return tuple(found)

    def _parent_needs_action(self, shown: Diagnosis) -> bool:
        if shown.code is OrchestrationCode.ROWS_MISSING or not self._settles:
            return True
        return not has_task_to_touch(self.orchestration, self._evidence.tasks)

    def _age(self, since: datetime | None) -> float | None:
        return None if since is None else stranded_seconds(since, self.context.now)
