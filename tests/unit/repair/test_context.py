"""The context of an evaluation, and its results: code, children, repairs and counts."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from reconciler.domain.codes import Code, OrchestrationCode
from reconciler.domain.diagnosis import ChildDiagnosis, Diagnosis
from reconciler.domain.model import Child, ChildStatus, Task
from reconciler.domain.outcomes import Outcome
from reconciler.domain.planning import Release
from reconciler.errors import ThrottledError
from reconciler.repair.context import (
    ActionOutcome,
    Context,
    Evaluation,
    Pacer,
    ReleaseRequest,
    RepairResult,
    Stuck,
    count_outcomes,
    count_stuck,
    name_state,
)
from reconciler.repair.counts import Counts
from tests.support.strategies import NOW

SETTLED = Diagnosis("orch_1", OrchestrationCode.SETTLED, "", None, {})
CHILD = ChildDiagnosis("a", Code.RUNNING, "its task is RUNNING")
RUNNING = Diagnosis("orch_1", OrchestrationCode.IN_PROGRESS, "", None, {"a": CHILD})


def test_an_evaluation_shows_the_latest_diagnosis() -> None:
    evaluation = Evaluation("orch_1", SETTLED, RUNNING, (), Counts())
    assert (evaluation.code, evaluation.children) == (OrchestrationCode.IN_PROGRESS, (CHILD,))


def test_a_failed_diagnosis_leaves_no_code_or_children() -> None:
    evaluation = Evaluation("orch_1", SETTLED, None, (), Counts())
    assert (evaluation.code, evaluation.children) == (None, ())


@pytest.mark.parametrize(
    "outcome", [Outcome.DONE, Outcome.RELEASED, Outcome.ADOPTED, Outcome.REINVOKED]
)
def test_only_an_applied_action_is_a_repair(outcome: Outcome) -> None:
    repaired = [
        ActionOutcome("release", "a", "lost_release", outcome, applied).repaired
        for applied in (True, False)
    ]
    assert repaired == [True, False]


@pytest.mark.parametrize(
    "outcome",
    [Outcome.LOST_RACE, Outcome.QUEUED, Outcome.REFUSED, Outcome.FAILED, Outcome.OVER_BUDGET],
)
def test_an_action_that_helps_no_child_repairs_nothing(outcome: Outcome) -> None:
    assert not ActionOutcome("release", "a", "lost_release", outcome, applied=True).repaired


def test_stuck_counts_keep_the_oldest_age_per_code() -> None:
    ages = [("a", 5.0), ("a", 7.0), ("a", 6.0), ("b", None), ("c", 0.25)]
    stuck = [Stuck("o", "x", code, "", age) for code, age in ages]
    assert count_stuck(stuck) == Counts(
        stuck={"a": 3, "b": 1, "c": 1}, oldest_stuck_seconds={"a": 7.0, "b": 0.0, "c": 0.25}
    )


def action(
    verb: str, outcome: Outcome, *, applied: bool = True, kind: str | None = None
) -> ActionOutcome:
    return ActionOutcome(verb, "a", "code", outcome, applied, error_kind=kind)


def test_planned_actions_are_counted_apart() -> None:
    """An error in a plan is counted like any other."""
    outcomes = [
        action("release", Outcome.RELEASED),
        action("release", Outcome.RELEASED),
        action("release", Outcome.RELEASED, applied=False),
        action("skip", Outcome.DONE, applied=False),
        action("skip", Outcome.FAILED, applied=False, kind="throttled"),
        action("release", Outcome.RELEASED, kind="pipeline_unavailable"),
        action("release", Outcome.OVER_BUDGET),
    ]
    assert count_outcomes(outcomes) == Counts(
        released=3, errors=2, planned={"released": 1, "skipped": 1}
    )


# -- requests and results

BLOCKED = Child("o", "b", ChildStatus.BLOCKED, "blocked", task_id="T0")
DUE = Release("b", "lost_release", NOW - timedelta(seconds=90))


@pytest.mark.parametrize(("count", "named"), [(0, True), (98, True), (99, False)])
def test_a_request_names_up_to_98_predecessors(count: int, *, named: bool) -> None:
    """With more, it names none: one read takes 100 rows, including the child and the meta row."""
    before = tuple(f"p{number}" for number in range(count))
    request = ReleaseRequest.of(replace(BLOCKED, depends_on=before), NOW, "s")
    assert request.depends_on == (before if named else None)
    assert (request.idempotency_key, request.due_since, request.alone) == ("o_b_T0", NOW, False)


def test_a_result_prefers_its_own_task() -> None:
    """Without a task of its own, it names that of the child."""
    task = Task("T1", "RUNNING")
    results = (
        RepairResult(Outcome.RELEASED, BLOCKED, task),
        RepairResult(Outcome.OVER_BUDGET, BLOCKED),
        RepairResult(Outcome.NO_LONGER_DUE),
    )
    assert [result.task_id for result in results] == ["T1", "T0", None]


@pytest.mark.parametrize(
    ("outcome", "repaired", "settled"),
    [
        (Outcome.RELEASED, True, True),
        (Outcome.REFUSED, False, True),
        (Outcome.OVER_BUDGET, False, False),
    ],
)
def test_a_refusal_settles_a_child_without_repair(
    outcome: Outcome, *, repaired: bool, settled: bool
) -> None:
    """A planned result does neither."""
    result = RepairResult(outcome)
    assert (result.repaired, result.settled) == (repaired, settled)
    planned = replace(result, applied=False)
    assert (planned.repaired, planned.settled) == (False, False)


def told(result: RepairResult, *, apply: bool = True) -> ActionOutcome:
    return ActionOutcome.of(DUE, result, replace(CONTEXT, apply=apply))


CONTEXT = Context(NOW, "s")


def test_an_actions_outcome_has_code_and_error() -> None:
    """It also has the task, the age, and whether the action was applied."""
    failed = told(RepairResult(Outcome.FAILED, BLOCKED, detail="x", error=ThrottledError("x")))
    assert (failed.code, failed.error_kind, failed.task_id) == ("lost_release", "throttled", "T0")
    assert (failed.stranded_seconds, failed.applied) == (90.0, True)
    reinvoked = told(RepairResult(Outcome.REINVOKED))
    assert (reinvoked.code, reinvoked.error_kind) == ("unstarted_task", None)
    assert not told(RepairResult(Outcome.RELEASED, applied=False)).applied
    assert not told(RepairResult(Outcome.RELEASED), apply=False).applied


def test_a_context_repairs_by_default() -> None:
    """The default pacer delays nothing."""
    assert (CONTEXT.apply, CONTEXT.by_hand, CONTEXT.alone) == (True, False, False)
    pacer = Pacer()
    assert pacer.acquire()
    with pacer.lock("o"):
        assert pacer.acquire()


def test_an_undiagnosed_orchestration_counts_as_evaluated() -> None:
    stuck = Stuck("o", None, "check_failed", "why", 5.0)
    assert not stuck.needs_action
    found = Evaluation.without_diagnosis(stuck)
    expected = Counts(
        orchestrations_evaluated=1,
        stuck={"check_failed": 1},
        oldest_stuck_seconds={"check_failed": 5.0},
    )
    assert (found.counts, found.stuck) == (expected, (stuck,))
    assert Evaluation.without_diagnosis(stuck, errors=1).counts == expected + Counts(errors=1)


def test_a_missing_predecessor_is_called_missing() -> None:
    assert name_state("b", None) == "predecessor b is missing"
    assert name_state("b", BLOCKED) == "predecessor b is blocked"
