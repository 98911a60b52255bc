"""Evaluations: which failures are recorded, how long they count, and what is reported."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from reconciler.domain.backoff import Attempts
from reconciler.domain.model import WHOLE, timestamp
from reconciler.domain.task import draft_task
from reconciler.errors import (
    AccessError,
    InvalidRequestError,
    StoreUnavailableError,
    TableMissingError,
    ThrottledError,
)
from reconciler.repair import drafter as drafting
from reconciler.repair import snapshot as snapshot_module
from reconciler.repair.context import Context, ReleaseRequest
from reconciler.stores.budget import BudgetStore
from reconciler.stores.orchestrations import OrchestrationStore
from tests.support.world import World
from tests.unit.repair.test_releaser import context, whole
from tests.unit.repair.test_repair_pass import break_on

MakeWorld = Callable[..., World]


def attempts(world: World, orchestration_id: str, key: str = "a") -> Attempts | None:
    return whole(world, orchestration_id).attempts.get(key)


def hold(
    world: World, orchestration_id: str, error: BaseException, key: str = "a"
) -> Attempts | None:
    world.reconciler().evaluator.failures.hold_against(
        orchestration_id, {key: error}, context(world)
    )
    return attempts(world, orchestration_id, key)


def evaluate(world: World, orchestration_id: str, **given: Any) -> Any:
    made = Context(world.clock(), "sweep-1", **given)
    return world.reconciler().evaluator.evaluate(orchestration_id, made)


# -- failure records


def test_a_failure_record_has_error_time_and_fingerprint(world: World) -> None:
    found = world.seed({"a": []})
    held = hold(world, found, ValueError("x" * 600))
    assert held is not None
    assert held.last_error == f"ValueError: {'x' * 488}"
    assert held.last_failed_at == world.ago(0)
    assert held.fingerprint == whole(world, found).fingerprint_of("a")
    (row,) = [
        row
        for row in world.scan(world.settings.orchestration_table_name)
        if row["sub_issue_id"]["S"] == "reconciler#attempts#a"
    ]
    assert int(row["ttl"]["N"]) > world.clock().timestamp()


def test_an_unreadable_orchestration_gets_no_failure_record(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An orchestration that does not exist gets none either."""
    hold_against = world.reconciler().evaluator.failures.hold_against
    hold_against("orch_nowhere", {"a": ValueError("it broke")}, context(world))
    found = world.seed({"a": []})
    before = world.everything()

    def breaks(*_: Any) -> Any:
        raise LookupError("no such thing")

    monkeypatch.setattr("reconciler.stores.orchestrations.parse_orchestration", breaks)
    hold_against(found, {"a": ValueError("it broke")}, context(world))
    assert world.everything() == before


def break_releases(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def breaks(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(drafting, "draft_task", breaks)


@pytest.mark.parametrize(
    "error",
    [ThrottledError("x"), StoreUnavailableError("x"), AccessError("x"), TableMissingError("x")],
)
def test_an_outage_changes_no_failure_record(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    found = world.seed({"a": []})
    break_releases(monkeypatch, error)
    evaluation = evaluate(world, found)
    assert (evaluation.counts.errors, attempts(world, found)) == (1, None)
    held = hold(world, found, ValueError("it broke"))
    evaluate(world, found)
    assert attempts(world, found) == held


def test_a_success_clears_the_failure_record(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report neither writes nor clears one."""
    found = world.seed({"a": []})
    break_releases(monkeypatch, ValueError("it broke"))
    assert evaluate(world, found, apply=False).counts.errors == 1
    assert attempts(world, found) is None
    assert evaluate(world, found).counts.errors == 1
    held = attempts(world, found)
    assert held is not None
    assert held.last_error == "ValueError: it broke"
    monkeypatch.undo()
    assert evaluate(world, found, apply=False).counts.planned == {"released": 1}
    assert attempts(world, found) == held
    counts = evaluate(world, found).counts
    assert (counts.released, counts.orchestrations_evaluated) == (1, 1)
    assert attempts(world, found) is None


def test_an_evaluation_without_actions_writes_nothing(world: World) -> None:
    """It does not even clear an outdated failure record."""
    found = world.seed({"a": []}, {"a": "released"}, tasks={"a": "RUNNING"})
    hold(world, found, ValueError("it broke"))
    world.change(found, "a", updated_at=world.ago(7200))
    before = world.everything()
    assert evaluate(world, found).actions == ()
    assert world.everything() == before


def test_changed_rows_clear_the_failure_record(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This holds even if the user's slots cannot be read."""
    world = make_world(USER_CONCURRENCY_TABLE_NAME="{prefix}-Users")
    found = world.seed({"a": []})
    hold(world, found, ValueError("it broke"))
    world.change(found, "a", updated_at=world.ago(7200))
    break_on(monkeypatch, BudgetStore, "open", ThrottledError("x"))
    evaluation = evaluate(world, found)
    assert (evaluation.actions, evaluation.counts.errors) == ((), 1)
    assert attempts(world, found) is None


def test_a_queued_release_keeps_the_failure_record(world: World) -> None:
    """The record goes once the rows of the child have changed."""
    found = world.seed({"a": [], "b": []})
    held = hold(world, found, ValueError("it broke"))
    handed_on: list[ReleaseRequest] = []

    def dispatch(request: ReleaseRequest) -> bool:
        handed_on.append(request)
        return True

    evaluator = world.reconciler().evaluator
    evaluator.evaluate(found, context(world), dispatch)
    assert len(handed_on) == 2
    assert attempts(world, found) == held
    world.change(found, "b", child_status="releasing", updated_at=world.ago(0))
    world.change(found, "a", updated_at=world.ago(7200))
    evaluator.evaluate(found, context(world), dispatch)
    assert attempts(world, found) is None


def break_diagnoses(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: Any) -> Any:
        raise LookupError("no such thing")

    monkeypatch.setattr(snapshot_module, "diagnose", breaks)


def test_an_undiagnosable_orchestration_is_quarantined(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report, a command by hand, and a sweep after the pause still try to diagnose it."""
    found = world.seed({"a": []})
    for _ in range(3):
        hold(world, found, ValueError("it broke"), WHOLE)
    break_diagnoses(monkeypatch)
    world.clock.forward(60)
    evaluation = evaluate(world, found)
    (stuck,) = evaluation.stuck
    assert (stuck.code, stuck.sub_issue_id, stuck.age_seconds) == ("quarantined", None, 60.0)
    assert "it broke" in stuck.reason
    assert (evaluation.counts.orchestrations_evaluated, dict(evaluation.counts.stuck)) == (
        1,
        {"quarantined": 1},
    )
    assert (evaluation.found, evaluation.now, evaluation.actions) == (None, None, ())
    for given in ({"apply": False}, {"by_hand": True}):
        with pytest.raises(LookupError):
            evaluate(world, found, **given)
    world.clock.forward(240)
    with pytest.raises(LookupError):
        evaluate(world, found)


def test_the_first_failed_diagnosis_is_an_error(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = world.seed({"a": []})
    break_diagnoses(monkeypatch)
    with pytest.raises(LookupError):
        evaluate(world, found)


def test_an_unreadable_failure_time_gives_no_age(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = world.seed({"a": []})
    read = whole(world, found)
    later = timestamp(world.clock() + timedelta(hours=1))
    world.reconciler().orchestrations.record_attempts(
        found, WHOLE, Attempts(3, "it broke", "then", later, read.fingerprint), 0
    )
    break_diagnoses(monkeypatch)
    (stuck,) = evaluate(world, found).stuck
    assert stuck.age_seconds is None


def test_an_evaluation_by_hand_ends_a_quarantine(world: World) -> None:
    found = world.seed({"a": []})
    for _ in range(3):
        hold(world, found, ValueError("it broke"))
    assert evaluate(world, found).counts.stuck == {"quarantined": 1}
    assert evaluate(world, found, by_hand=True).counts.released == 1
    world.reconciler().evaluator.failures.forgive(whole(world, found))
    assert attempts(world, found) is None


def test_a_missing_orchestration_has_no_evaluation(world: World) -> None:
    assert evaluate(world, "orch_nowhere") is None


# -- a child that the reconciler has set to failed


def test_the_reconcilers_write_restarts_no_grace(world: World) -> None:
    """The worker may die between a write and the repairs that it makes due."""
    found = world.seed({"a": [], "b": ["a"]}, {"a": "failed"})
    world.change(
        found,
        "a",
        updated_at=world.ago(5),
        reconciler_written_at=world.ago(5),
        reconciler_effective_at=world.ago(3600),
    )
    (skipped,) = evaluate(world, found).actions
    assert (skipped.verb, skipped.sub_issue_id, skipped.stranded_seconds) == ("skip", "b", 3600.0)


def test_anybody_elses_write_restarts_the_grace(world: World) -> None:
    found = world.seed({"a": [], "b": ["a"]}, {"a": "failed"})
    world.change(
        found,
        "a",
        updated_at=world.ago(5),
        reconciler_written_at=world.ago(60),
        reconciler_effective_at=world.ago(3600),
    )
    assert evaluate(world, found).actions == ()


def test_a_waiting_child_is_remembered_for_three_intervals(make_world: MakeWorld) -> None:
    world = make_world(
        USER_CONCURRENCY_TABLE_NAME="{prefix}-Users", MAX_CONCURRENT_TASKS_PER_USER="1"
    )
    old = world.seed({"a": []}, age=7200)
    young = world.seed({"a": []}, age=3600)
    taken = {"user_id": {"S": "user-1"}, "active_count": {"N": "1"}}
    table = str(world.settings.user_concurrency_table_name)
    world.put(table, taken)
    assert evaluate(world, old).counts.stuck == {"over_budget": 1}
    world.put(table, {**taken, "active_count": {"N": "0"}})
    world.clock.forward(900)
    assert evaluate(world, young).counts.stuck == {"over_budget": 1}, "the older child goes first"
    world.clock.forward(1)
    assert evaluate(world, young).counts.released == 1


def test_each_failure_is_recorded_for_its_child(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = world.seed({"a": [], "b": [], "c": []})

    def breaks(orchestration: Any, child: Any, **more: Any) -> Any:
        if child.sub_issue_id == "c":
            return draft_task(orchestration, child, **more)
        raise ValueError(f"{child.sub_issue_id} broke")

    monkeypatch.setattr(drafting, "draft_task", breaks)
    evaluate(world, found)
    held = whole(world, found).attempts
    assert {key: one.last_error for key, one in held.items()} == {
        "a": "ValueError: a broke",
        "b": "ValueError: b broke",
    }


def test_an_unrecordable_failure_hides_no_repair(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = world.seed({"a": [], "b": []}, {"a": "released"}, tasks={"a": "COMPLETED"})
    break_on(monkeypatch, drafting, "draft_task", InvalidRequestError("too large"))
    break_on(monkeypatch, OrchestrationStore, "record_attempts", ThrottledError("x"))
    evaluation = evaluate(world, found)
    assert (evaluation.counts.advanced, evaluation.counts.errors) == (1, 2)


def test_an_unreadable_budget_is_nobodys_failure(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is counted as an error."""
    world = make_world(USER_CONCURRENCY_TABLE_NAME="{prefix}-Users")
    found = world.seed({"a": []})

    def breaks(*_: Any, **__: Any) -> Any:
        raise InvalidRequestError("too large")

    monkeypatch.setattr(BudgetStore, "open", breaks)
    assert evaluate(world, found).actions == ()
    assert whole(world, found).attempts == {}
    assert world.metrics.count("reconciler_errors_total", kind="invalid_request") == 1
