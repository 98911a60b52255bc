"""The invariants, judged at every step from the tables before and after it.

A write of *ours* is judged from the rows alone, without the code that made it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from reconciler.domain.model import META, moment, timestamp
from tests.simulation.actors import Call
from tests.simulation.executions import executions, runs
from tests.simulation.scheduler import Asked, Contents, Execution
from tests.simulation.world import CLAIM_TIMEOUT, ORCH, START, USER, Scenario

_TERMINAL = ("succeeded", "failed", "skipped")
_UNRELEASED = ("blocked", "ready")

Rows = Mapping[tuple[str, str], Mapping[str, Any]]


def _s(row: Mapping[str, Any] | None, name: str) -> str | None:
    return None if row is None else row.get(name, {}).get("S")


def verdict(task: Mapping[str, Any] | None) -> str | None:
    """Return the end that a task gives its child: None while it is unfinished or absent."""
    status = _s(task, "status")
    if task is None or status not in {"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"}:
        return None
    passed = task.get("build_passed", {}).get("BOOL", True)
    return "succeeded" if status == "COMPLETED" and passed else "failed"


def beside_the_rows(task: Mapping[str, Any]) -> bool:
    """Whether a task is an iteration or a restack, which no row ever names."""
    marks = {"orchestration_iteration", "restack_predecessor_sub_issue_id"}
    return not marks.isdisjoint(task.get("channel_metadata", {}).get("M", {}))


def says_its_row(task: Mapping[str, Any], rows: Rows) -> bool:
    """Whether a row names a task and agrees with it, so that touching the task changes no row."""
    named = [row for row in rows.values() if _s(row, "child_task_id") == _s(task, "task_id")]
    return bool(named) and all(_s(row, "child_status") == verdict(task) for row in named)


def _mended(name: str, tasks: Rows) -> bool:
    """Whether a person has fixed a child: an iteration on it has succeeded."""
    return any(
        beside_the_rows(task)
        and verdict(task) == "succeeded"
        and task["channel_metadata"]["M"].get("orchestration_sub_issue_id") == {"S": name}
        for task in tasks.values()
    )


_COUNTS = ("reconcile_nudge_count", "reconciler_invoke_count")


def _counts_one_more(call: Call, before: Rows, after: Rows) -> None:
    """Check that each nudge and each repeated invocation adds one to the previous count."""
    for action in call.request.get("TransactItems", ()):
        part = action.get("Update", {})
        for name in _COUNTS:
            if f"#{name}" not in part.get("ExpressionAttributeNames", {}):
                continue
            key = (part["Key"]["task_id"]["S"], "")
            if after.get(key) is not before.get(key):
                old, new = (int(rows[key].get(name, {}).get("N", "0")) for rows in (before, after))
                assert new == old + 1, (
                    f"two repairs count as one: {name} was {old}, and is now {new}"
                )


class Invariants:
    """Watches an execution."""

    def __init__(self, execution: Execution, scenario: Scenario) -> None:
        self._execution = execution
        self._scenario = scenario
        self._rows: Rows = execution.database.tables["OrchestrationTable"].items
        self._tasks: Rows = execution.database.tables["TaskTable"].items
        self._old_keys = {_s(task, "idempotency_key") for task in self._tasks.values()}
        execution.observers.append(self)

    def __call__(self, asked: Asked, before: Contents) -> None:
        """Judge one step.

        Raises:
            AssertionError: it breaks an invariant, which the message names.
        """
        tables = self._execution.database.tables
        rows: Rows = tables["OrchestrationTable"].items
        tasks: Rows = tables["TaskTable"].items
        before_rows, before_tasks = before["OrchestrationTable"], before["TaskTable"]
        self._rows, self._tasks = rows, tasks
        if asked.call.operation == "invoke" and self._scenario.one_task:
            own_id = asked.call.request["task_id"]
            started = runs(executions(self._execution.database).items[own_id, ""])
            assert started == 1, f"I7: {own_id} is run {started} times"
        if asked.spec.ours and self._scenario.left_alone:
            self._leaves_alone(before)
        if tasks is not before_tasks:
            self._judge_tasks(asked, before_tasks, tasks, rows)
            if asked.spec.ours:
                _counts_one_more(asked.call, before_tasks, tasks)
        if rows is not before_rows and asked.spec.ours:
            for key in rows.keys() | before_rows.keys():
                old, new = before_rows.get(key), rows.get(key)
                if old is new:
                    continue
                if asked.spec.unskips:
                    self._unskip_fits(key, old, new)
                else:
                    self._judge_row(key, old, new, before_tasks)

    def _leaves_alone(self, before: Contents) -> None:
        """Check that within the grace nothing is repaired that was just touched."""
        grace = timedelta(seconds=self._scenario.settings.stranded_grace_seconds)
        if self._execution.clock.now < START + grace:
            same = before["OrchestrationTable"] is self._rows and before["TaskTable"] is self._tasks
            assert same, "the grace: something was repaired that somebody has just touched"

    # -- tasks: I1, I2, I4

    def _judge_tasks(self, asked: Asked, before: Rows, tasks: Rows, rows: Rows) -> None:
        for key in tasks.keys() - before.keys():
            task = tasks[key]
            wanted = _s(task, "idempotency_key") or ""
            same = [t for t in tasks.values() if _s(t, "idempotency_key") == wanted]
            if self._scenario.one_task:
                assert len(same) == 1, f"I2: {len(same)} tasks under {wanted}"
            if not asked.spec.ours:
                continue
            ours = [t for t in same if "reconciler_sweep_id" in t]
            assert len(ours) == 1, f"I2: {len(ours)} tasks of ours under {wanted}"
            shown = sorted(asked.lookups.get(wanted, ()))
            assert not shown, f"I2: created a task although {shown} was seen under {wanted}"
            known = wanted in self._old_keys
            assert not known, f"I2: created a task although one has long existed under {wanted}"
            self._carried(task, rows)
        if asked.spec.ours:
            for key in tasks.keys() & before.keys():
                self._only_told_of(before[key], tasks[key])
                if before[key].get("reconcile_nudged_at") != tasks[key].get("reconcile_nudged_at"):
                    self._touch_turns_nothing_back(tasks[key])
            self._within_the_cap(tasks)

    @staticmethod
    def _only_told_of(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        names = {n for n in before.keys() | after.keys() if before.get(n) != after.get(n)}
        foreign = {n for n in names if not n.startswith(("reconciler_", "reconcile_"))}
        assert not foreign, f"I4: we changed {sorted(foreign)} of a task"
        assert "reconciler_sweep_id" not in names, "I2: we created a task over one that exists"

    def _touch_turns_nothing_back(self, task: Mapping[str, Any]) -> None:
        """Check that the touched task does no harm when the live reconciler hears of it again.

        The live reconciler writes the task's verdict over the row that names it, and settles the
        parent. The record of an iteration recovers its child; after a recovery it would only make
        needless restack tasks.
        """
        if beside_the_rows(task):
            fixed = task["channel_metadata"]["M"]["orchestration_sub_issue_id"]["S"]
            stands, says = _s(self._rows.get((ORCH, fixed)), "child_status"), verdict(task)
            assert (stands, says) == ("failed", "succeeded"), f"I4: {fixed} needs no recovery"
        for key, row in self._rows.items():
            if _s(row, "child_task_id") == _s(task, "task_id"):
                stands, says = _s(row, "child_status"), verdict(task)
                assert stands == says, f"I4: a touch turns {key[1]} from {stands} to {says}"
        assert not self._works_for_it(), "I4: a touch settles the parent while a task still runs"

    def _works_for_it(self) -> bool:
        """Whether an iteration or a restack is running that a sweep could know of.

        One that began a moment ago may have begun between our look-up and our touch. Nobody can
        see that; the platform reopens the parent after it.
        """
        reopened_at = _s(self._rows.get((ORCH, META)), "updated_at")
        reopened = reopened_at != timestamp(self._scenario.reopened_at)
        known = {_s(task, "task_id") for task in self._scenario.tasks}
        return any(
            beside_the_rows(task) and verdict(task) is None and (reopened or key[0] in known)
            for key, task in self._tasks.items()
        )

    def _within_the_cap(self, tasks: Rows) -> None:
        cap = self._scenario.cap
        if cap is not None:
            unfinished = sum(verdict(task) is None for task in tasks.values())
            assert unfinished <= cap, f"budget: {unfinished} tasks, and the cap is {cap}"

    def _carried(self, task: Mapping[str, Any], rows: Rows) -> None:
        """Check that exactly one row carries the task that we created, released and due."""
        own = _s(task, "task_id")
        carriers = [row for row in rows.values() if _s(row, "child_task_id") == own]
        assert len(carriers) == 1, f"I2: {len(carriers)} rows carry the task {own} that we created"
        row = carriers[0]
        assert _s(row, "child_status") == "released", "I2: its row is not released"
        self._predecessors_succeeded(row)

    # -- rows: I1, I4, I5

    def _predecessors_succeeded(self, row: Mapping[str, Any]) -> None:
        orchestration = row["orchestration_id"]["S"]
        for entry in row["depends_on"]["L"]:
            predecessor = self._rows.get((orchestration, entry["S"]))
            status = _s(predecessor, "child_status")
            name = _s(row, "sub_issue_id")
            assert status == "succeeded", f"I1: {name} released while {entry['S']} is {status}"

    def _judge_row(
        self,
        key: tuple[str, str],
        before: Mapping[str, Any] | None,
        after: Mapping[str, Any] | None,
        tasks: Rows,
    ) -> None:
        if key[1].startswith("reconciler#"):
            return
        assert "#" not in key[1] or key[1] == META, f"we touched the marker {key[1]}"
        assert key[1] != META, "we touched a meta row"
        assert before is not None, f"we brought the removed row {key[1]} back"
        assert after is not None, f"we removed the row {key[1]}"
        old, new = _s(before, "child_status"), _s(after, "child_status")
        assert old not in _TERMINAL, f"I4: {key[1]} left {old} for {new}"
        changed = {
            name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
        }
        allowed = {
            "child_status",
            "updated_at",
            "child_task_id",
            "child_branch_name",
            "failure_reason",
        }
        foreign = {name for name in changed - allowed if not name.startswith("reconciler_")}
        assert not foreign, f"we changed {sorted(foreign)} of {key[1]}"
        if old == "releasing":
            self._claim_was_abandoned(key[1], before)
        if "failure_reason" in changed:
            self._refusal_fits(key[1], before, after)
        elif new in {"succeeded", "failed"}:
            self._verdict_fits(key[1], before, after, tasks)
        elif new == "skipped":
            self._skip_fits(key[1], before, after)
        elif new == "released":
            self._task_is_its_own(key[1], before, after)

    def _unskip_fits(
        self,
        key: tuple[str, str],
        before: Mapping[str, Any] | None,
        after: Mapping[str, Any] | None,
    ) -> None:
        """Check that a person takes back a skip only if no predecessor causes it any more."""
        assert before is not None, f"we brought the removed row {key[1]} back"
        assert after is not None, f"we removed the row {key[1]}"
        if key[1] == META:
            assert "rollup_posted_at" not in after, (
                "the parent of an open child still counts as settled"
            )
            return
        moved = _s(before, "child_status"), _s(after, "child_status")
        assert moved == ("skipped", "blocked"), f"I4: a person moved {key[1]} as in {moved}"
        states = [
            _s(self._rows.get((key[0], entry["S"])), "child_status")
            for entry in after["depends_on"]["L"]
        ]
        healthy = not {None, "failed", "skipped"}.intersection(states)
        assert healthy, f"I5: {key[1]} is no longer skipped, but its predecessors are {states}"

    def _claim_was_abandoned(self, name: str, before: Mapping[str, Any]) -> None:
        since: datetime | None = moment(_s(before, "updated_at"))
        age = None if since is None else self._execution.clock.now - since
        assert age is None or age >= CLAIM_TIMEOUT, f"I2: the live claim on {name} was taken away"

    @staticmethod
    def _verdict_fits(
        name: str, before: Mapping[str, Any], after: Mapping[str, Any], tasks: Rows
    ) -> None:
        own = _s(before, "child_task_id")
        assert _s(before, "child_status") == "released", f"I4: {name} was not running"
        assert own == _s(after, "child_task_id"), f"I4: the verdict changed the task of {name}"
        dictated = verdict(tasks.get((own or "", "")))
        new = _s(after, "child_status")
        assert dictated == new, f"I4: {name} is {new}, but its own task says {dictated}"

    def _skip_fits(self, name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        assert _s(before, "child_status") in _UNRELEASED, f"I4: {name} was skipped while it ran"
        orchestration = after["orchestration_id"]["S"]
        states = [
            _s(self._rows.get((orchestration, entry["S"])), "child_status")
            for entry in after["depends_on"]["L"]
        ]
        doomed = "failed" in states or "skipped" in states
        assert doomed, f"I5: {name} was skipped, but its predecessors are {states}"

    def _refusal_fits(self, name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        assert _s(before, "child_status") in _UNRELEASED, f"I4: {name} was refused while it ran"
        assert _s(after, "child_status") == "failed", f"{name} was refused, but has not failed"
        self._predecessors_succeeded(after)

    def _task_is_its_own(
        self, name: str, before: Mapping[str, Any], after: Mapping[str, Any]
    ) -> None:
        earlier = _s(before, "child_task_id")
        own = _s(after, "child_task_id")
        task = self._tasks.get((own or "", ""))
        wanted = f"{after['orchestration_id']['S']}_{name}" + (f"_{earlier}" if earlier else "")
        whose = _s(task, "user_id")
        assert whose in {None, USER}, f"{name} carries a task of {whose}"
        assert task is not None, f"I2: {name} is released with a task that does not exist"
        assert _s(task, "idempotency_key") == wanted, f"I2: {name} carries another release's task"


# -- how it must end: I3, I5


def dictated_end(rows: Rows, tasks: Rows) -> dict[tuple[str, str], str]:
    """Return how each child must end, from the graph and the outcomes of the tasks alone."""
    children = {key: row for key, row in rows.items() if "#" not in key[1]}
    ends: dict[tuple[str, str], str] = {}

    def end_of(key: tuple[str, str]) -> str:
        if key not in ends:
            row = children[key]
            before = [end_of((key[0], entry["S"])) for entry in row["depends_on"]["L"]]
            if any(end != "succeeded" for end in before):
                ends[key] = "skipped"
            elif _s(row, "child_status") == "succeeded" and _mended(key[1], tasks):
                ends[key] = "succeeded"
            else:
                ends[key] = verdict(tasks.get((_s(row, "child_task_id") or "", ""))) or "unfinished"
        return ends[key]

    for key in children:
        end_of(key)
    return ends
