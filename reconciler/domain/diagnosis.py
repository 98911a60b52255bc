"""Diagnosis: gives each unfinished child, and the orchestration as a whole, exactly one code.

It is a pure, total function of the orchestration's rows, the tasks of its released children, the
time and the policy.

A child's *effective* state is that of its row, with two exceptions: a terminal task counts even if
its event was lost (``lost_terminal``), and so do the skips that follow from it. So one pass sees,
and repairs, all consequences of one lost event.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property

from reconciler.domain.backoff import Attempts
from reconciler.domain.budget import Budget, grant
from reconciler.domain.codes import ACTIONABLE, HEALTHY, Code, OrchestrationCode
from reconciler.domain.due import EXPIRED, due_since, is_believable, is_expired, latest, past
from reconciler.domain.graph import DeadEnds, dependents_of, find_dead_ends
from reconciler.domain.model import (
    FAILURE,
    LONG_AGO,
    UNRELEASED,
    WHOLE,
    Child,
    ChildStatus,
    Orchestration,
    Task,
    moment,
    seconds_since,
)
from reconciler.domain.parent import orchestration_code

_NOT_AGAIN = "it is not invoked again, because a second run would fail the task"


@dataclass(frozen=True, slots=True)
class Policy:
    """The settings that diagnosis and planning depend on.

    ``interval``: between two sweeps. ``settles``: whether finished tasks may be touched.
    """

    grace: timedelta
    claim_timeout: timedelta
    start_timeout: timedelta
    long_running: timedelta
    interval: timedelta
    can_invoke: bool = False
    settles: bool = True


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was read besides the rows.

    ``tasks``: by task id; None if a task does not exist, absent if it could not be read. ``found``:
    by idempotency key, the task with that key or None; absent if it was not looked up. ``budget``:
    the free slots of the orchestration's user; None: unlimited. ``iterations``: by sub-issue id,
    the latest successful iteration task; empty if they were not looked up. ``passed_over``:
    children whose repair has just failed or lost a race; their siblings may use their slots.
    """

    tasks: Mapping[str, Task | None] = field(default_factory=dict)
    found: Mapping[str, Task | None] = field(default_factory=dict)
    budget: Budget | None = None
    iterations: Mapping[str, Task] = field(default_factory=dict)
    passed_over: Collection[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ChildDiagnosis:
    """A child's code, one sentence of why, and since when (None: unknown).

    ``invoked_again``: the last invocation of its task's pipeline has been made.
    """

    sub_issue_id: str
    code: Code
    reason: str
    since: datetime | None = None
    task_id: str | None = None
    blockers: tuple[str, ...] = ()
    invoked_again: bool = False

    def age_seconds(self, now: datetime) -> float | None:
        """For how many seconds it has had this code; None if unknown."""
        return seconds_since(self.since, now)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The codes of an orchestration.

    ``children``: sorted by id; those that are unfinished or stuck.
    """

    orchestration_id: str
    code: OrchestrationCode
    reason: str
    since: datetime | None
    children: Mapping[str, ChildDiagnosis]

    @property
    def has_due(self) -> bool:
        """Whether a child is due to be released, or may be but is backed off."""
        due = {Code.LOST_RELEASE, Code.QUARANTINED}
        return any(child.code in due for child in self.children.values())

    @property
    def healthy(self) -> bool:
        """Whether there is nothing to repair and nothing to surface."""
        return self.code in {OrchestrationCode.IN_PROGRESS, OrchestrationCode.SETTLED} and all(
            child.code in HEALTHY for child in self.children.values()
        )


def diagnose(
    orchestration: Orchestration, evidence: Evidence, policy: Policy, now: datetime
) -> Diagnosis:
    """Give every unfinished child, and the orchestration, its code at ``now`` (aware, UTC)."""
    return _Diagnoser(orchestration, evidence, policy, now).run()


def status_since(task: Task) -> datetime | None:
    """Return since when a task has had its status; None if its row does not tell."""
    return moment(task.status_since) or moment(task.updated_at) or moment(task.created_at)


def invocation_due(task: Task, policy: Policy, now: datetime, *, made_it: bool = False) -> bool:
    """Whether the pipeline of a task, as read, may be invoked (again) at ``now``.

    Nobody can have invoked a task that the reconciler created and has no record for: it takes only
    the grace, or no wait at all for its creator (``made_it``). Any other task may still be on its
    way to the pipeline until the start timeout.
    """
    if task.status != "SUBMITTED" or task.invoke_count or not policy.can_invoke:
        return False
    since, invoked = status_since(task), moment(task.invoked_at)
    if task.unrecorded:
        return made_it or past(since, policy.grace, now)
    # Both count, because a task may be invoked long after its creation.
    return all(past(t, policy.start_timeout, now) for t in (since, invoked))


class _Diagnoser:
    """One diagnosis in progress; each step gives some of the children their codes."""

    def __init__(
        self, orchestration: Orchestration, evidence: Evidence, policy: Policy, now: datetime
    ) -> None:
        self.orchestration = orchestration
        self.children = orchestration.children
        self.evidence = evidence
        self.policy = policy
        self.now = now
        self.backed_off = orchestration.backed_off(now)
        self.codes: dict[str, ChildDiagnosis] = {}
        # Effective outcomes, each with its time.
        self.succeeded: dict[str, datetime] = {}
        self.failed: dict[str, datetime] = {}

    def run(self) -> Diagnosis:
        old = self._past(self._newest, self.policy.grace)
        if self.orchestration.meta is None:
            # The meta row is written last. Without it the user is unknown.
            self._settle_orphans(old=old)
        else:
            # Each step uses the outcomes found by the steps before it.
            self._settle_released()
            self._settle_reopened()
            unreleased = {
                key: child
                for key, child in self.children.items()
                if child.status in UNRELEASED and key not in self.codes
            }
            self._settle_doomed(unreleased)
            self._settle_due(unreleased)
            self._settle_blocked(unreleased)
        # A terminal child has a code only if the platform lost an event about it.
        unfinished = sum(1 for key in self.codes if not self.children[key].terminal)
        code, reason = orchestration_code(self.orchestration, unfinished, self.now, old=old)
        children = {key: self.codes[key] for key in sorted(self.codes)}
        name = self.orchestration.orchestration_id
        return Diagnosis(name, code, reason, self._newest, children)

    # -- helpers

    def _set(
        self,
        child: Child,
        code: Code,
        reason: str,
        since: datetime | None = None,
        blockers: tuple[str, ...] = (),
        task_id: str | None = None,
        *,
        invoked_again: bool = False,
    ) -> None:
        attempts = self._back_off(child.sub_issue_id)
        # Other codes would not be repaired anyway, so they stay as they are.
        if attempts is not None and code in ACTIONABLE:
            reason, since = f"{code.value}; {attempts.says}", moment(attempts.last_failed_at)
            code = Code.QUARANTINED
        known = None if since in {None, LONG_AGO} else since
        key, task_id = child.sub_issue_id, task_id or child.task_id
        self.codes[key] = ChildDiagnosis(key, code, reason, known, task_id, blockers, invoked_again)

    def _back_off(self, key: str) -> Attempts | None:
        return self.backed_off.get(key) or self.backed_off.get(WHOLE)

    def _is_left_alone(self, key: str) -> bool:
        """Whether no repair of a child is tried now, so that nothing may depend on one."""
        return key in self.evidence.passed_over or self._back_off(key) is not None

    def _past(self, since: datetime | None, wait: timedelta) -> bool:
        return past(since, wait, self.now)

    def _due_since(self, child: Child, *predecessors: datetime) -> datetime:
        return due_since(child, self.orchestration.meta, predecessors, self.now)

    def _expired(self, child: Child) -> bool:
        return is_expired(child, self.orchestration.meta, self.now)

    @cached_property
    def _newest(self) -> datetime | None:
        # Cached, because each of thousands of children may ask.
        times = [moment(child.since or child.created_at) for child in self.children.values()]
        meta = self.orchestration.meta
        if meta is not None:
            times += [moment(meta.created_at), moment(meta.updated_at)]
        return max((time for time in times if is_believable(time, self.now)), default=None)

    def _name(self, key: str) -> str:
        child = self.children.get(key)
        return (child.display_id if child is not None else None) or key

    # -- an orchestration without a meta row

    def _settle_orphans(self, *, old: bool) -> None:
        code, reason = Code.WITHIN_GRACE, "its meta row is not there yet: it is still being seeded"
        if old:
            code, reason = Code.ORPHAN_ROW, "nothing is released for it: its meta row is missing"
        for child in self.children.values():
            if not child.terminal:
                self._set(child, code, reason, self._newest)

    # -- children whose own row or task decides

    def _settle_released(self) -> None:
        for key, child in self.children.items():
            # A terminal row is final whatever else is wrong with it.
            if child.status is ChildStatus.SUCCEEDED:
                self.succeeded[key] = moment(child.since) or LONG_AGO
            elif child.status in FAILURE:
                self.failed[key] = moment(child.since) or LONG_AGO
            elif child.problem is not None:
                self._set(child, Code.MALFORMED_ROW, child.problem, moment(child.updated_at))
            elif child.status is None:
                # Do not guess: a later version of the platform may mean anything by it.
                reason = f"child_status {child.raw_status!r} is not known to this version"
                self._set(child, Code.UNKNOWN_STATUS, reason, moment(child.updated_at))
            elif child.status is ChildStatus.RELEASING:
                self._claim(child)
            elif child.status is ChildStatus.RELEASED:
                self._released(child)

    def _settle_reopened(self) -> None:
        """Find terminal children that the platform should have reopened."""
        for key, child in self.children.items():
            if child.status is ChildStatus.SKIPPED:
                self._skipped(child)
            elif child.status is ChildStatus.FAILED and key in self.evidence.iterations:
                self._failed(child, self.evidence.iterations[key])

    def _skipped(self, child: Child) -> None:
        before = [row for _, row in self.orchestration.predecessors_of(child) if row is not None]
        # Missing rows may still be written, a malformed row may hide predecessors, and an expired
        # child gets no new work.
        unknown = child.problem is not None or len(before) < len(child.depends_on)
        if unknown or self._expired(child) or any(p.sub_issue_id in self.failed for p in before):
            return
        since = self._due_since(child, *(moment(p.since) or LONG_AGO for p in before))
        if self._past(since, self.policy.grace):
            reason = "it is skipped, and none of its predecessors is failed or skipped any more"
            self._set(child, Code.LOST_UNSKIP, reason, since)

    def _failed(self, child: Child, iteration: Task) -> None:
        finished = moment(iteration.finished_at)
        failed = moment(child.updated_at)
        # A fix that ended before the failure cannot have fixed it.
        if finished is None or failed is None or finished <= failed:
            return
        if self._past(self._due_since(child, finished), self.policy.grace):
            reason = f"its fix, task {iteration.task_id}, succeeded, and nobody has recovered it"
            self._set(child, Code.LOST_RECOVERY, reason, finished, task_id=iteration.task_id)

    def _claim(self, child: Child) -> None:
        since = moment(child.updated_at)
        # Never take away a live claim: its holder may be about to write.
        if not self._past(since, self.policy.claim_timeout):
            self._set(child, Code.CLAIM_IN_PROGRESS, "a releaser is at work on it", since)
        elif not self._foreign(child):
            reason = "a releaser claimed it and never came back"
            self._set(child, Code.ABANDONED_CLAIM, reason, since)

    def _foreign(self, child: Child) -> bool:
        """Whether another user's task has the child's key; if so, diagnose that."""
        found = self.evidence.found.get(child.idempotency_key)
        if found is None or found.user_id == self.orchestration.user_id:
            return False
        # Adopting it would show one user's work to another.
        reason = f"task {found.task_id} of another user holds its idempotency key"
        self._set(child, Code.IDEMPOTENCY_CONFLICT, reason, moment(child.updated_at))
        return True

    def _released(self, child: Child) -> None:
        since = moment(child.updated_at)
        if child.task_id is None:
            if not self._past(since, self.policy.grace):
                self._set(child, Code.WITHIN_GRACE, "released a moment ago, no task id yet", since)
            elif not self._foreign(child):
                reason = "it is released, and its row names no task"
                self._set(child, Code.MISSING_TASK_ID, reason, since)
        elif child.task_id not in self.evidence.tasks:
            # Not read does not mean missing: repair nothing without having seen the task.
            self._set(child, Code.CHECK_FAILED, f"task {child.task_id} could not be read", since)
        elif (task := self.evidence.tasks[child.task_id]) is None:
            reason = f"its task {child.task_id} does not exist"
            self._set(child, Code.MISSING_TASK, reason, since)
        else:
            self._by_task(child, task)

    def _by_task(self, child: Child, task: Task) -> None:
        if task.problem is not None:
            known = "build_passed" in task.problem or not task.status
            code = Code.MALFORMED_ROW if known else Code.UNKNOWN_STATUS
            self._set(child, code, task.problem, moment(task.updated_at))
        elif task.terminal:
            self._ended(child, task)
        else:
            self._unfinished(child, task)

    def _ended(self, child: Child, task: Task) -> None:
        since = moment(task.finished_at)
        meta = self.orchestration.meta
        # A retry resets the rows one by one, the meta row first: a row that still names its old
        # task has lost no event.
        reopened = moment(meta.updated_at) if meta is not None else None
        if not self._past(latest((since, reopened), self.now), self.policy.grace):
            reason = f"its task has just become {task.status}"
            self._set(child, Code.WITHIN_GRACE, reason, since)
            return
        reason = f"its task is {task.status}, and the event was lost"
        self._set(child, Code.LOST_TERMINAL, reason, since)
        # If the advance itself is not tried now, its dependents have to wait.
        if not self._is_left_alone(child.sub_issue_id):
            into = self.succeeded if task.outcome is ChildStatus.SUCCEEDED else self.failed
            into[child.sub_issue_id] = since or LONG_AGO

    def _unfinished(self, child: Child, task: Task) -> None:
        since = status_since(task)
        unstarted = self._why_unstarted(task)
        if unstarted is not None:
            again = bool(task.invoke_count)
            self._set(child, Code.UNSTARTED_TASK, unstarted, since, invoked_again=again)
        elif self._past(since, self.policy.long_running):
            limit = f"{self.policy.long_running.total_seconds():,.0f} s (LONG_RUNNING_SECONDS)"
            reason = f"its task has been {task.status} for longer than {limit}"
            self._set(child, Code.LONG_RUNNING, reason, since)
        else:
            self._set(child, Code.RUNNING, f"its task is {task.status}", since)

    def _why_unstarted(self, task: Task) -> str | None:
        """Return why a task counts as never started; None if it has started, or still may."""
        if task.status != "SUBMITTED":
            return None
        since = status_since(task)
        # Only its creator could have invoked it, so the grace is long enough.
        if task.unrecorded and self.policy.can_invoke and self._past(since, self.policy.grace):
            return "its task was created, and its pipeline was never invoked"
        if not self._past(since, self.policy.start_timeout):
            return None
        again = f"; {_NOT_AGAIN}" if task.invoke_count else ""
        return f"its task is still SUBMITTED: the pipeline never started it{again}"

    # -- children that are not released yet

    def _settle_doomed(self, unreleased: dict[str, Child]) -> None:
        """Find the children that must be skipped, each with its earliest cause."""
        dependents = dependents_of({key: child.depends_on for key, child in unreleased.items()})
        for source in sorted(self.failed, key=lambda key: (self.failed[key], key)):
            queue = deque([(source, self.failed[source])])
            while queue:
                cause, since = queue.popleft()
                # Sorted, so that the cause does not depend on the order of rows.
                for key in sorted(dependents.get(cause, ())):
                    child = unreleased.get(key)
                    if child is None:
                        continue
                    del unreleased[key]
                    doomed_since = self._due_since(child, since)
                    if not self._is_left_alone(key):
                        queue.append((key, doomed_since))
                    self._doom(child, cause, doomed_since)

    def _doom(self, child: Child, cause: str, since: datetime) -> None:
        if self._past(since, self.policy.grace):
            reason = f"its predecessor {self._name(cause)} did not succeed, so it never runs"
            self._set(child, Code.LOST_SKIP, reason, since, (cause,))
        else:
            reason = f"its predecessor {self._name(cause)} has just failed"
            self._set(child, Code.WITHIN_GRACE, reason, since, (cause,))

    def _settle_due(self, unreleased: dict[str, Child]) -> None:
        meta = self.orchestration.meta
        problem = meta.problem if meta is not None else None
        due: dict[str, datetime] = {}
        for key, child in list(unreleased.items()):
            if not all(predecessor in self.succeeded for predecessor in child.depends_on):
                continue
            del unreleased[key]
            since = self._due_since(child, *(self.succeeded[p] for p in child.depends_on))
            if not self._past(since, self.policy.grace):
                self._set(child, Code.WITHIN_GRACE, "it has just become due", since)
            elif self._expired(child):
                # DynamoDB may delete the row at any moment, and then the end of its task is lost.
                self._set(child, Code.WAITING, EXPIRED, since)
            elif problem is not None:
                self._set(child, Code.MALFORMED_ROW, problem, since)
            elif not self._foreign(child):
                due[key] = since
        self._allot(due)

    def _allot(self, due: dict[str, datetime]) -> None:
        """Give the user's free slots to the children that have been due for longest."""
        budget = self.evidence.budget
        # Children that are left alone take no slot; those that failed lately come last.
        able = {key: since for key, since in due.items() if not self._is_left_alone(key)}
        granted = frozenset(grant(budget, able, last=self.orchestration.failing))
        for key, since in due.items():
            child = self.children[key]
            if key in granted or key not in able:
                reason = "every predecessor has succeeded, and nobody has released it"
                self._set(child, Code.LOST_RELEASE, reason, since)
            else:
                reason = budget.refusal(since, len(granted)) if budget is not None else ""
                self._set(child, Code.OVER_BUDGET, reason, since)

    def _settle_blocked(self, unreleased: dict[str, Child]) -> None:
        """Separate children that wait for something possible from those that wait for ever."""
        pending = {
            key: tuple(p for p in child.depends_on if p not in self.succeeded)
            for key, child in unreleased.items()
        }
        dependents = dependents_of({key: child.depends_on for key, child in unreleased.items()})
        # Children that have a code by now can still go on, and so can their dependents.
        dead_ends = find_dead_ends(pending, dependents, rows=self.children, going=self.codes)
        for key, child in unreleased.items():
            self._block(child, pending[key], dead_ends)

    def _block(self, child: Child, waits: tuple[str, ...], dead_ends: DeadEnds) -> None:
        key, since = child.sub_issue_id, moment(child.updated_at)
        if key in dead_ends.alive:
            self._set(child, Code.WAITING, self._waiting_reason(waits), since, waits)
        elif dead_ends.waits_for_cycle(key):
            reason = self._cycle_reason(key, waits, dead_ends)
            self._set(child, Code.DEPENDENCY_CYCLE, reason, since, waits)
        else:
            self._dangling(child, dead_ends.missing.get(key), since)

    def _cycle_reason(self, key: str, waits: tuple[str, ...], dead_ends: DeadEnds) -> str:
        if key not in dead_ends.on_cycles:
            return "everything that it waits for is on, or behind, a dependency cycle"
        through = [self._name(p) for p in waits if p in dead_ends.on_cycles]
        return f"it is on a dependency cycle, through {', '.join(through)}"

    def _waiting_reason(self, waits: tuple[str, ...]) -> str:
        names = [self._name(key) for key in waits[:3]]
        more = f" and {len(waits) - 3} more" if len(waits) > len(names) else ""
        return f"waits for {', '.join(names)}{more}"

    def _dangling(self, child: Child, missing: str | None, since: datetime | None) -> None:
        # An extension writes its rows one by one, and raises child_count after that.
        newest = self._due_since(child) if self.orchestration.complete else self._newest
        if not self._past(newest, self.policy.grace):
            self._set(child, Code.WITHIN_GRACE, "not all rows of it are there yet", newest)
        elif missing is None:
            reason = "everything that it waits for depends on an id that has no row"
            self._set(child, Code.DANGLING_DEPENDENCY, reason, since, child.depends_on)
        else:
            reason = f"it depends on {missing}, which has no row"
            self._set(child, Code.DANGLING_DEPENDENCY, reason, since, (missing,))
