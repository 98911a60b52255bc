"""The results of an evaluation: code, children, repairs and counts."""

from __future__ import annotations

import pytest

from reconciler.domain.codes import Code, OrchestrationCode
from reconciler.domain.diagnosis import ChildDiagnosis, Diagnosis
from reconciler.domain.outcomes import Outcome
from reconciler.repair.context import (
    ActionOutcome,
    Evaluation,
    Stuck,
    count_outcomes,
    count_stuck,
)
from reconciler.repair.counts import Counts

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
