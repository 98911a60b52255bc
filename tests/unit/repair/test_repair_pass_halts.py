"""One repair pass after an error, or when its time is up: what is still done and what is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from reconciler.clock import OutOfTime
from reconciler.domain.model import WHOLE
from reconciler.errors import (
    AccessError,
    InvalidRequestError,
    StoreUnavailableError,
    ThrottledError,
)
from reconciler.repair import drafter as drafting
from reconciler.repair.audit import FirstFailures
from reconciler.repair.context import Evaluation
from reconciler.repair.repair_pass import RepairPass
from reconciler.repair.repairer import Repairer
from reconciler.stores.budget import BudgetStore
from reconciler.stores.dynamodb import DynamoDB
from reconciler.stores.orchestrations import OrchestrationStore
from tests.support.world import World
from tests.unit.repair.test_releaser import context, whole
from tests.unit.repair.test_repair_pass import answers, break_on, evaluate, outcomes

MakeWorld = Callable[..., World]


def evaluate_in_time(
    world: World, orchestration_id: str, out_of_time: OutOfTime, *, apply: bool = True, **parts: Any
) -> Evaluation:
    evaluator = world.reconciler().evaluator
    evaluator = replace(evaluator, parts=replace(evaluator.parts, **parts))
    given = replace(context(world, apply=apply), out_of_time=out_of_time)
    found = evaluator.evaluate(orchestration_id, given)
    assert found is not None
    return found


# -- what is told


def test_a_repair_before_an_error_is_not_stuck(world: World) -> None:
    both = dict.fromkeys("ab", "released")
    found = world.seed({"a": [], "b": []}, both, tasks=dict.fromkeys("ab", "COMPLETED"))
    evaluation = evaluate(world, found, withhold=answers(None, None, ThrottledError("x")))
    assert outcomes(evaluation) == [("advance", "a", "done")]
    assert evaluation.counts.stuck == {"lost_terminal": 1}


def test_a_stopped_report_shows_the_beginning(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has planned until then is shown as stuck, too."""
    found = world.seed({"a": [], "b": []}, {"a": "released"}, tasks={"a": "COMPLETED"})
    break_on(monkeypatch, drafting, "draft_task", AccessError("x"))
    evaluation = evaluate(world, found, apply=False)
    assert outcomes(evaluation) == [("advance", "a", "done"), ("release", "b", "failed")]
    assert evaluation.counts.stuck == {"lost_terminal": 1, "lost_release": 1}


@pytest.mark.parametrize("apply", [True, False])
def test_a_pass_without_time_only_diagnoses(world: World, *, apply: bool) -> None:
    """It does not even ask whether repairs are paused."""
    found = world.seed({"a": []})
    unasked = answers(ValueError("asked"))
    evaluation = evaluate_in_time(world, found, lambda: True, apply=apply, withhold=unasked)
    assert (outcomes(evaluation), evaluation.counts.stuck) == ([], {"lost_release": 1})


# -- what is still done


def test_an_outage_stops_the_next_advance(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    both = dict.fromkeys("ab", "released")
    found = world.seed({"a": [], "b": []}, both, tasks=dict.fromkeys("ab", "COMPLETED"))
    break_on(monkeypatch, OrchestrationStore, "set_outcome", StoreUnavailableError("x"))
    assert outcomes(evaluate(world, found)) == [("advance", "a", "failed")]


def test_another_failure_does_not_end_the_stop(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two rows skipped one by one, the first meets an outage and the second is refused."""
    found = world.seed({"a": [], "b": ["a"], "c": ["a"], "d": []}, {"a": "failed"})
    transact = DynamoDB.transact

    def refuse(dynamodb: DynamoDB, writes: dict[str, Any]) -> Any:
        if "dependent c" in writes:
            raise InvalidRequestError("the item is too large")
        if "dependent b" in writes:
            raise StoreUnavailableError("x")
        return transact(dynamodb, writes)

    monkeypatch.setattr(DynamoDB, "transact", refuse)
    evaluation = evaluate(world, found)
    assert outcomes(evaluation) == [("skip", "b", "failed"), ("skip", "c", "failed")]
    assert world.statuses(found)["d"] == "blocked"


def test_dependents_wait_after_a_failed_advance(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their release would fail, since the row has not moved."""
    found = world.seed({"a": [], "b": ["a"]}, {"a": "released"}, tasks={"a": "COMPLETED"})
    break_on(monkeypatch, OrchestrationStore, "set_outcome", ThrottledError("x"))
    evaluation = evaluate(world, found)
    assert outcomes(evaluation) == [("advance", "a", "failed")]
    assert {child.sub_issue_id: child.code for child in evaluation.children} == {
        "a": "lost_terminal",
        "b": "waiting",
    }


def test_a_defect_in_skips_leaves_releases(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    found = world.seed({"a": [], "b": ["a"], "c": ["a"], "d": []}, {"a": "failed"})
    break_on(monkeypatch, FirstFailures, "root_of", ValueError("x"))
    assert outcomes(evaluate(world, found)) == [
        ("skip", "b", "failed"),
        ("skip", "c", "failed"),
        ("release", "d", "released"),
    ]


def test_a_claim_is_looked_up_and_reset(world: World) -> None:
    found = world.seed({"a": []}, {"a": "releasing"})
    assert outcomes(evaluate(world, found)) == [
        ("reset claim", "a", "done"),
        ("release", "a", "released"),
    ]


def test_a_withheld_release_is_planned(world: World) -> None:
    """The pause is noticed before the pass gets to its first write."""
    found = world.seed({"a": []})
    evaluation = evaluate(world, found, withhold=answers("paused"))
    assert outcomes(evaluation) == [("release", "a", "released")]
    assert (evaluation.actions[0].applied, world.tasks(found)) == (False, [])


# -- whether it forgives earlier failures of the whole orchestration


def forgiven(world: World, orchestration_id: str, out_of_time: OutOfTime) -> bool:
    """Evaluate an orchestration with a failure record; return whether that is cleared."""
    failures = world.reconciler().evaluator.failures
    failures.hold_against(orchestration_id, {WHOLE: ValueError("x")}, context(world))
    evaluate_in_time(world, orchestration_id, out_of_time)
    return WHOLE not in whole(world, orchestration_id).attempts


def test_a_clean_pass_forgives_the_orchestration(world: World) -> None:
    assert forgiven(world, world.seed({"a": [], "b": []}), lambda: False)


def test_a_failed_repair_forgives_no_orchestration(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_on(monkeypatch, drafting, "draft_task", ThrottledError("x"), at=2)
    assert not forgiven(world, world.seed({"a": [], "b": []}), lambda: False)


def test_an_unread_budget_forgives_no_orchestration(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(USER_CONCURRENCY_TABLE_NAME="{prefix}-Users")
    break_on(monkeypatch, BudgetStore, "open", ThrottledError("x"))
    found = world.seed({"a": [], "b": ["a"], "c": []}, {"a": "failed"})
    assert not forgiven(world, found, lambda: False)
    assert world.statuses(found)["b"] == "skipped"


def test_a_pass_cut_short_forgives_no_orchestration(world: World) -> None:
    found = world.seed({"a": [], "b": []})
    assert not forgiven(world, found, lambda: "released" in world.statuses(found).values())


def test_a_lasting_error_skips_the_other_groups(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It concerns one transaction; only an outage would fail the others too."""
    graph: dict[str, list[str]] = {"a": [], **{f"b{number:03}": ["a"] for number in range(100)}}
    found = world.seed(graph, {"a": "failed"})
    sound, calls = Repairer.skip, iter([InvalidRequestError("too large")])

    def first_fails(*args: Any) -> Any:
        error = next(calls, None)
        if error is not None:
            raise error
        return sound(*args)

    monkeypatch.setattr(Repairer, "skip", first_fails)
    evaluation = evaluate(world, found)
    assert evaluation.counts.skipped == 2
    assert list(world.statuses(found).values()).count("skipped") == 2


def test_a_halted_pass_forgives_no_failure(world: World) -> None:
    """A pause during the pass leaves work undone, so it shows nothing of the orchestration."""
    both = dict.fromkeys("ab", "released")
    found = world.seed({"a": [], "b": []}, both, tasks=dict.fromkeys("ab", "COMPLETED"))
    parts = replace(world.reconciler().evaluator.parts, withhold=answers(None, None, "paused"))
    work = RepairPass(parts, parts.snapshot(whole(world, found)), context(world), None)
    work.run()
    assert (work.failures, work.unread, work.went_well) == ({}, [], False)
