"""Touches: which finished task the live reconciler is told of again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import pytest

from reconciler.domain.codes import Code, OrchestrationCode
from reconciler.domain.diagnosis import Diagnosis, Evidence, Policy
from reconciler.domain.model import Child, ChildStatus, Orchestration, Task, moment
from reconciler.domain.planning import Nudge
from reconciler.domain.touches import parent_needs_action, plan_nudges, recoveries_since
from tests.support.strategies import NOW, ORCHESTRATION_ID, POLICY, ago
from tests.unit.domain.test_planning import AT, diagnosed


def child(key: str, status: ChildStatus, task_id: str | None = None) -> Child:
    return Child(ORCHESTRATION_ID, key, status, status.value, task_id=task_id)


def ended(task_id: str, seconds: float, **fields: int | str) -> Task:
    return replace(Task(task_id, "COMPLETED", completed_at=ago(seconds)), **fields)  # type: ignore[arg-type]


def nudges(
    children: list[Child],
    *tasks: Task,
    iterations: Mapping[str, Task] | None = None,
    code: OrchestrationCode = OrchestrationCode.UNSETTLED_PARENT,
    policy: Policy = POLICY,
) -> tuple[tuple[Nudge, ...], str]:
    whole = Orchestration(ORCHESTRATION_ID, None, {c.sub_issue_id: c for c in children})
    recoveries = iterations or {}
    found = Diagnosis(
        ORCHESTRATION_ID,
        code,
        "",
        AT,
        {key: diagnosed(key, Code.LOST_RECOVERY) for key in recoveries},
    )
    evidence = Evidence(tasks={task.task_id: task for task in tasks}, iterations=recoveries)
    return plan_nudges(whole, found, evidence, policy, NOW)


def failed(task: Task) -> Task:
    return replace(task, status="FAILED")


BOTH = [child("a", ChildStatus.SUCCEEDED, "A"), child("b", ChildStatus.FAILED, "B")]


def test_a_success_is_touched_rather_than_a_failure() -> None:
    """A retry may reset the row of a failed task while the touched record is being streamed."""
    for order in (BOTH, BOTH[::-1]):
        (found,), why = nudges(order, ended("A", 60), failed(ended("B", 1)))
        assert (found.sub_issue_id, found.task.task_id, found.since) == ("a", "A", AT)
        assert "A" in why


def test_the_latest_success_is_touched() -> None:
    rows = [child("a", ChildStatus.SUCCEEDED, "A"), child("b", ChildStatus.SUCCEEDED, "B")]
    for first, second, expected in ((60, 59, "b"), (58, 59, "a"), (60, 60, "b")):
        (found,), _ = nudges(rows, ended("A", first), ended("B", second))
        assert found.sub_issue_id == expected
    odd = replace(ended("B", 1), completed_at="odd")
    (found,), _ = nudges(rows, ended("A", 60), odd)
    assert found.sub_issue_id == "a", "an unreadable finish time counts as long ago"


def test_a_failure_is_touched_if_nothing_succeeded() -> None:
    (found,), _ = nudges([BOTH[1]], failed(ended("B", 1)))
    assert found.sub_issue_id == "b"


@pytest.mark.parametrize(
    ("children", "tasks"),
    [
        ([], ()),
        ([child("a", ChildStatus.SUCCEEDED)], (ended("A", 1),)),
        ([child("a", ChildStatus.SUCCEEDED, "A")], ()),
        ([child("a", ChildStatus.SUCCEEDED, "A")], (Task("A", "RUNNING"),)),
        ([child("a", ChildStatus.SKIPPED, "A")], (failed(ended("A", 1)),)),
        ([child("a", ChildStatus.SUCCEEDED, "A")], (failed(ended("A", 1)),)),
        ([child("a", ChildStatus.SUCCEEDED, "A")], (ended("A", 1, build_passed=False),)),
        ([child("a", ChildStatus.FAILED, "A")], (ended("A", 1),)),
    ],
)
def test_a_task_that_contradicts_its_row_is_untouched(
    children: list[Child], tasks: tuple[Task, ...]
) -> None:
    """Otherwise the live reconciler would overwrite the row with the task's outcome (I4)."""
    found, why = nudges(children, *tasks)
    assert found == ()
    assert "none of its children" in why


@pytest.mark.parametrize(
    ("count", "seconds", "due"),
    [
        (0, 1, True),
        (1, 599, False),
        (1, 600, True),
        (2, 1199, False),
        (2, 1200, True),
        (8, 76_799, False),
        (8, 76_800, True),
        (9, 86_399, False),
        (9, 86_400, True),
        (10**6, 86_400, True),
        (1, -300, False),
        (1, -301, True),
    ],
)
def test_pauses_between_touches_double_up_to_a_day(
    count: int,
    seconds: int,
    due: bool,  # noqa: FBT001
) -> None:
    task = ended("A", 9000, nudge_count=count, nudged_at=ago(seconds))
    found, why = nudges([BOTH[0]], task)
    assert bool(found) is due
    assert due or ("once" if count == 1 else f"{count} times") in why


@pytest.mark.parametrize(("seconds", "due"), [(86_399, False), (86_400, True)])
def test_a_short_interval_also_reaches_a_day(seconds: int, due: bool) -> None:  # noqa: FBT001
    task = ended("A", 9000, nudge_count=17, nudged_at=ago(seconds))
    found, _ = nudges([BOTH[0]], task, policy=replace(POLICY, interval=timedelta(seconds=1)))
    assert bool(found) is due


def test_a_nudge_without_a_time_does_not_wait() -> None:
    assert nudges([BOTH[0]], ended("A", 9000, nudge_count=1))[0]


def test_a_lost_recovery_comes_before_the_parent() -> None:
    """The recovery reopens the orchestration, which settles the parent in the end."""
    fix = ended("I", 600)
    for code in OrchestrationCode.UNSETTLED_PARENT, OrchestrationCode.SETTLED:
        found, why = nudges(BOTH, ended("A", 60), iterations={"b": fix}, code=code)
        assert [(n.sub_issue_id, n.task, n.code) for n in found] == [("b", fix, "lost_recovery")]
        assert "I" in why
    tried = replace(fix, nudge_count=1, nudged_at=ago(1))
    found, why = nudges(BOTH, ended("A", 60), iterations={"b": tried})
    assert (found, "touched task I once" in why) == ((), True)


def test_a_settled_parent_needs_no_touch() -> None:
    assert nudges(BOTH, ended("A", 60), code=OrchestrationCode.SETTLED) == ((), "")


def test_a_parent_with_nothing_to_touch_needs_action() -> None:
    """A task that was not read may be one to touch."""
    whole = Orchestration(ORCHESTRATION_ID, None, {c.sub_issue_id: c for c in BOTH})
    tasks: dict[str, Task | None] = {"A": ended("A", 90), "B": None}
    found = Diagnosis(ORCHESTRATION_ID, OrchestrationCode.UNSETTLED_PARENT, "", AT, {})
    assert not parent_needs_action(found, whole, tasks, POLICY)
    assert parent_needs_action(found, whole, {"A": None, "B": None}, POLICY)
    assert not parent_needs_action(found, whole, {"A": None}, POLICY)
    assert parent_needs_action(found, whole, tasks, replace(POLICY, settles=False))
    mended = {"A": failed(ended("A", 90))}
    skipped = Orchestration(
        ORCHESTRATION_ID, None, {"a": BOTH[0], "b": child("b", ChildStatus.SKIPPED)}
    )
    assert parent_needs_action(found, skipped, mended, POLICY), "the other child never had a task"
    missing = replace(found, code=OrchestrationCode.ROWS_MISSING)
    assert parent_needs_action(missing, whole, tasks, POLICY)


DAY = 86_400.0


@pytest.mark.parametrize(
    ("failed", "since"),
    [
        ((), None),
        ((3600.0,), 3600.0),
        ((3600.0, 7200.0), 7200.0),
        ((3 * DAY, 3600.0), 2 * DAY),
        ((None,), 2 * DAY),
    ],
    ids=["none failed", "one", "the first of two", "two days at most", "nobody knows when"],
)
def test_recoveries_are_sought_since_the_first_failure(
    failed: tuple[float | None, ...], since: float | None
) -> None:
    rows = [
        replace(
            child(f"f{number}", ChildStatus.FAILED),
            updated_at=None if seconds is None else ago(seconds),
        )
        for number, seconds in enumerate(failed)
    ]
    rows.append(replace(child("s", ChildStatus.SUCCEEDED), updated_at=ago(40 * 3600)))
    found = recoveries_since(rows, NOW)
    assert found == (None if since is None else moment(ago(since)))


def test_a_task_that_still_runs_is_not_touched() -> None:
    """Its outcome is not known yet; its row shows that of an earlier task."""
    running = Task("T-a", "RUNNING", updated_at=ago(60))
    found, _ = nudges([child("a", ChildStatus.FAILED, "T-a")], running)
    assert found == ()
