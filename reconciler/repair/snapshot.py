"""What a pass knows of an orchestration: its rows, their tasks, its user's slots.

Everything is read once, when it is needed, and updated with the pass's own repairs. Changes by
others show only when a write's condition fails, or when the rows are read again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from reconciler.clock import OutOfTime
from reconciler.domain.budget import Budget
from reconciler.domain.codes import Code
from reconciler.domain.diagnosis import Diagnosis, Evidence, Policy, diagnose
from reconciler.domain.model import LONG_AGO, Child, ChildStatus, Orchestration, Task
from reconciler.errors import ReconcilerError
from reconciler.stores.budget import BudgetStore, HeldSlots, Slots, unreadable
from reconciler.stores.orchestrations import OrchestrationStore
from reconciler.stores.tasks import TaskStore


class Snapshot:
    """An orchestration as one pass sees it."""

    def __init__(
        self,
        orchestration: Orchestration,
        orchestrations: OrchestrationStore,
        tasks: TaskStore,
        budget: BudgetStore | None,
        policy: Policy,
    ) -> None:
        self._orchestrations = orchestrations
        self._task_store = tasks
        self._budget_store = budget
        self._policy = policy
        self._tasks: dict[str, Task | None] = {}
        self._asked: set[str] = set()
        self._found: dict[str, Task | None] = {}
        self._iterations: dict[str, Task] = {}
        self._passed_over: set[str] = set()
        self._budget: Budget | None = None
        self._slots: Slots | None = None
        self.held = HeldSlots(budget) if budget is not None else None
        self._take(orchestration)

    def _take(self, orchestration: Orchestration) -> None:
        # A copy, because repairs change it in place: a new mapping for each of thousands of
        # children would take quadratic time.
        self.children = dict(orchestration.children)
        self.orchestration = replace(orchestration, children=self.children)

    @property
    def evidence(self) -> Evidence:
        """What was read besides the rows."""
        return Evidence(self._tasks, self._found, self._budget, self._iterations, self._passed_over)

    def diagnose(self, now: datetime) -> Diagnosis:
        """Read the tasks that are needed, and give each child its code."""
        self.read_tasks(
            child for child in self.children.values() if child.status is ChildStatus.RELEASED
        )
        return diagnose(self.orchestration, self.evidence, self._policy, now)

    # -- reading

    def read_tasks(self, children: Iterable[Child]) -> None:
        """Read those tasks of ``children`` that have not been read yet."""
        named = dict.fromkeys(child.task_id for child in children if child.task_id is not None)
        wanted = [task_id for task_id in named if task_id not in self._asked]
        if wanted:
            self._asked.update(wanted)
            self._tasks.update(self._task_store.read(wanted, consistent=True))

    def look_up(self, keys: Iterable[str], out_of_time: OutOfTime) -> bool:
        """Look up tasks by idempotency key; False if all keys were looked up before."""
        new = [key for key in keys if key not in self._found]
        for key in new:
            if out_of_time():
                break
            self._found[key] = self._task_store.find(key)
        return bool(new)

    def look_for_iterations(self, user_id: str, since: datetime) -> bool:
        """Read the iteration tasks that succeeded after ``since``; False if there are none."""
        name = self.orchestration.orchestration_id
        self._iterations = self._task_store.iterations_of(user_id, name, since)
        return bool(self._iterations)

    def reread(self) -> None:
        """Read the rows again, if there still are any."""
        again = self._orchestrations.read(self.orchestration.orchestration_id)
        if again is not None:
            self._take(again)

    # -- changes by our own repairs

    def put(self, sub_issue_id: str, child: Child | None) -> None:
        """Replace a row; None: it is gone."""
        if child is None:
            self.children.pop(sub_issue_id, None)
        else:
            self.children[sub_issue_id] = child

    def learn(self, task: Task) -> None:
        """Replace a task."""
        self._asked.add(task.task_id)
        self._tasks[task.task_id] = task

    def pass_over(self, sub_issue_id: str) -> None:
        """Leave a child alone for the rest of this pass."""
        self._passed_over.add(sub_issue_id)

    def learn_conflict(self, idempotency_key: str, task: Task | None) -> None:
        """Record that another user's task holds a key."""
        self._found[idempotency_key] = task

    # -- the slots of the user

    def open_budget(self, now: datetime) -> None:
        """Read the user's slots, unless they have been read.

        Raises:
            TemporaryError, PermanentError: they cannot be read. Then no slot counts as free, and
                only what needs no slot is repaired.
        """
        store, held, user_id = self._budget_store, self.held, self.orchestration.user_id
        if store is None or held is None or user_id is None or self._budget is not None:
            return
        try:
            self._slots = store.open(user_id, prune=False)
        except ReconcilerError as error:
            self._budget = unreadable(error)
            raise
        held.hold(self._slots)
        name = self.orchestration.orchestration_id
        self._budget = self._slots.budget(name, now, 3 * self._policy.interval)

    def use_slot(self) -> None:
        """Count a slot that a release has taken."""
        if self._budget is not None:
            self._budget = replace(self._budget, room=self._budget.room - 1)

    def note_waiting(self, diagnosis: Diagnosis, now: datetime) -> None:
        """Record which children wait for a slot, so that the user's oldest goes first."""
        if self._slots is None or self._budget_store is None:
            return
        waiting: dict[str, datetime] = {}
        granted: set[str] = set()
        failing = self.orchestration.failing
        for key, found in diagnosis.children.items():
            if key in failing:
                continue  # it failed lately, so it takes precedence over nobody
            name = self.children[key].idempotency_key
            if found.code is Code.OVER_BUDGET:
                waiting[name] = found.since or LONG_AGO
            elif found.code is Code.LOST_RELEASE and key not in self._passed_over:
                granted.add(name)  # keep its record until its release has taken the slot
        prefix = f"{self.orchestration.orchestration_id}_"
        gone = [name for name in self._slots.waiting(prefix) if name not in {*waiting, *granted}]
        # A record that was not renewed for three sweeps no longer counts.
        fresh_for = 3 * self._policy.interval
        self._budget_store.note_waiting(self._slots, waiting, gone, now, fresh_for)
