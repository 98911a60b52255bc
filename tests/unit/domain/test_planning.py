"""The repairs that a diagnosis asks for, and their order."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from reconciler.domain.codes import Code, OrchestrationCode
from reconciler.domain.diagnosis import ChildDiagnosis, Diagnosis, Evidence
from reconciler.domain.model import Child, ChildStatus, Meta, Orchestration, Task
from reconciler.domain.planning import (
    Action,
    Adopt,
    Advance,
    Plan,
    Reinvoke,
    Release,
    ResetClaim,
    Skip,
    child_needs_action,
    plan,
)
from tests.support.strategies import NOW, ORCHESTRATION_ID, POLICY, ago

TASK = Task("T", "SUBMITTED", status_since=ago(9000))
AT = NOW - timedelta(hours=1)


def planned(
    *found: ChildDiagnosis, evidence: Evidence | None = None, can_invoke: bool = True
) -> Plan:
    children = {
        d.sub_issue_id: Child(
            ORCHESTRATION_ID, d.sub_issue_id, ChildStatus.BLOCKED, "blocked", task_id=d.task_id
        )
        for d in found
    }
    meta = Meta(ORCHESTRATION_ID, len(found), "u", "r", None, None, settled=False)
    return plan(
        Orchestration(ORCHESTRATION_ID, meta, children),
        Diagnosis(
            ORCHESTRATION_ID,
            OrchestrationCode.IN_PROGRESS,
            "",
            None,
            {d.sub_issue_id: d for d in found},
        ),
        evidence or Evidence({"T": TASK}),
        replace(POLICY, can_invoke=can_invoke),
        NOW,
    )


def diagnosed(
    key: str, code: Code, *blockers: str, hours: float = 1, task_id: str | None = None
) -> ChildDiagnosis:
    return ChildDiagnosis(key, code, "", NOW - timedelta(hours=hours), task_id, blockers)


def names(actions: tuple[Action, ...]) -> list[str]:
    return [f"{action.verb} {action.sub_issue_id}" for action in actions]


@pytest.mark.parametrize(
    "code",
    [
        code
        for code in Code
        if code
        not in {
            Code.LOST_RELEASE,
            Code.LOST_TERMINAL,
            Code.LOST_SKIP,
            Code.ABANDONED_CLAIM,
            Code.UNSTARTED_TASK,
            Code.MISSING_TASK_ID,
        }
    ],
)
def test_a_code_without_a_repair_plans_nothing(code: Code) -> None:
    assert planned(diagnosed("b", code, "a", task_id="T")) == Plan((), (), ())


def test_advances_and_skips_come_before_other_repairs() -> None:
    """Releases come last."""
    plan_ = planned(
        diagnosed("a", Code.LOST_RELEASE),
        diagnosed("b", Code.UNSTARTED_TASK, task_id="T"),
        diagnosed("c", Code.LOST_SKIP, "d"),
        diagnosed("d", Code.LOST_TERMINAL, task_id="T"),
    )
    assert names(plan_.actions) == ["advance d", "skip c", "reinvoke b"]
    assert names(plan_.releases) == ["release a"]
    assert isinstance(plan_.actions[0], Advance)
    assert plan_.actions[0].task is TASK
    assert plan_.actions[0].since == AT


def test_an_unread_ended_task_advances_nothing() -> None:
    for tasks in ({}, {"T": None}):
        found = diagnosed("d", Code.LOST_TERMINAL, task_id="T")
        assert planned(found, evidence=Evidence(tasks)) == Plan((), (), ())


def test_the_oldest_child_is_released_first() -> None:
    """A child that is due since an unknown time goes before all others."""
    found = [
        diagnosed(key, Code.LOST_RELEASE, hours=age)
        for key, age in zip("abc", (1, 3, 3), strict=True)
    ]
    ever = ChildDiagnosis("z", Code.LOST_RELEASE, "")
    assert names(planned(*found, ever).releases) == [
        "release z", "release b", "release c", "release a"
    ]  # fmt: skip


def test_a_skip_comes_after_its_cause() -> None:
    plan_ = planned(
        diagnosed("b", Code.LOST_SKIP, "c"),
        diagnosed("c", Code.LOST_SKIP, "d"),
        diagnosed("d", Code.LOST_SKIP, "z"),
        diagnosed("e", Code.LOST_SKIP, "z"),
    )
    assert names(plan_.actions) == ["skip d", "skip e", "skip c", "skip b"]
    assert [action.because for action in plan_.actions if isinstance(action, Skip)] == [
        "z", "z", "d", "c"
    ]  # fmt: skip


def test_skips_with_the_same_cause_come_together() -> None:
    """They share a transaction, however their ids are sorted."""
    plan_ = planned(*(diagnosed(key, Code.LOST_SKIP, "yz"[n % 2]) for n, key in enumerate("abcd")))
    assert names(plan_.actions) == ["skip a", "skip c", "skip b", "skip d"]


@pytest.mark.parametrize("code", [Code.ABANDONED_CLAIM, Code.MISSING_TASK_ID])
def test_a_task_is_looked_up_and_then_adopted(code: Code) -> None:
    found, key = diagnosed("b", code), f"{ORCHESTRATION_ID}_b"
    assert planned(found, evidence=Evidence()) == Plan((key,), (), ())
    (action,) = planned(found, evidence=Evidence(found={key: TASK})).actions
    assert isinstance(action, Adopt)
    assert (action.task, action.since, action.code) == (TASK, AT, code)


def test_a_claim_without_a_task_is_reset() -> None:
    """A released row without a task is only surfaced."""
    nothing = Evidence(found={f"{ORCHESTRATION_ID}_b": None})
    (action,) = planned(diagnosed("b", Code.ABANDONED_CLAIM), evidence=nothing).actions
    assert isinstance(action, ResetClaim)
    assert action.verb == "reset claim"
    assert planned(diagnosed("b", Code.MISSING_TASK_ID), evidence=nothing) == Plan((), (), ())


def reinvoked(task: Task | None, *, can_invoke: bool = True) -> Reinvoke | None:
    found = diagnosed("b", Code.UNSTARTED_TASK, task_id="T")
    actions = planned(found, evidence=Evidence({"T": task}), can_invoke=can_invoke).actions
    if not actions:
        return None
    (action,) = actions
    assert isinstance(action, Reinvoke)
    assert action.task is task
    return action


OURS = replace(TASK, sweep_id="sweep-1")


@pytest.mark.parametrize(
    ("task", "age", "due"),
    [
        (OURS, 120, True),
        (OURS, 119, False),  # its creator may still be invoking it
        (replace(OURS, invoked_at="odd"), 899, False),
        (replace(OURS, invoked_at="odd"), 900, True),
        (replace(OURS, invoked_at=ago(900)), 9000, True),
        (replace(OURS, invoked_at=ago(899)), 9000, False),  # it was invoked late
        (replace(OURS, invoked_at=ago(9000), invoke_count=1), 9000, False),
        (replace(OURS, invoke_count=3), 9000, False),
        (TASK, 899, False),
        (TASK, 900, True),
        (replace(TASK, invoke_count=1), 9000, False),
        (replace(OURS, status="HYDRATING"), 9000, False),
        (replace(TASK, status="RUNNING"), 9000, False),
    ],
)
def test_an_unstarted_task_is_reinvoked_only_once(task: Task, age: float, *, due: bool) -> None:
    """The wait is the grace for an uninvoked task of the reconciler, else the start timeout."""
    assert (reinvoked(replace(task, status_since=ago(age))) is not None) is due


def test_a_task_without_a_time_counts_as_old() -> None:
    """Its creation time is used if there is one."""
    assert reinvoked(replace(OURS, status_since=None)) is not None
    assert reinvoked(replace(TASK, status_since=None, created_at=ago(60))) is None


def test_without_pipeline_or_task_nothing_is_invoked() -> None:
    assert reinvoked(TASK, can_invoke=False) is None
    assert reinvoked(OURS, can_invoke=False) is None
    assert reinvoked(None) is None


@pytest.mark.parametrize(
    ("code", "needs"),
    [
        (Code.LOST_RELEASE, False),
        (Code.OVER_BUDGET, False),
        (Code.CHECK_FAILED, False),
        (Code.DEPENDENCY_CYCLE, True),
        (Code.QUARANTINED, True),
        (Code.MISSING_TASK_ID, True),
    ],
)
def test_a_code_tells_whether_action_is_needed(code: Code, *, needs: bool) -> None:
    assert child_needs_action(code, POLICY) is needs


def test_an_unstarted_task_needs_action_without_a_pipeline() -> None:
    """If no function is configured, nobody ever invokes the pipeline."""
    assert child_needs_action(Code.UNSTARTED_TASK, replace(POLICY, can_invoke=False))
    assert not child_needs_action(Code.UNSTARTED_TASK, replace(POLICY, can_invoke=True))


def test_a_lost_recovery_needs_action_without_settling() -> None:
    """If SETTLE_MODE is off, nobody ever touches the fix's task."""
    assert child_needs_action(Code.LOST_RECOVERY, replace(POLICY, settles=False))
    assert not child_needs_action(Code.LOST_RECOVERY, POLICY)


def test_the_verb_of_a_release_is_release() -> None:
    assert Release("b", "x", None).verb == "release"


def test_a_skip_names_its_first_cause() -> None:
    (action,) = planned(diagnosed("c", Code.LOST_SKIP, "a", "b")).actions
    assert isinstance(action, Skip)
    assert action.because == "a"
