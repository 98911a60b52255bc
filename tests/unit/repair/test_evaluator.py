"""An evaluation: what is held against an orchestration, for how long, and what is counted."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from reconciler.domain.model import Attempts, moment, timestamp
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
from tests.support.world import World
from tests.unit.repair.test_releaser import context, whole

MakeWorld = Callable[..., World]


def attempts(world: World, orchestration_id: str) -> Attempts | None:
    return whole(world, orchestration_id).attempts


def hold(world: World, orchestration_id: str, error: BaseException, **given: Any) -> Any:
    evaluator = world.reconciler(**given).evaluator
    return evaluator.hold_against(orchestration_id, error, context(world))


def evaluate(world: World, orchestration_id: str, **given: Any) -> Any:
    made = Context(world.clock(), "sweep-1", **given)
    return world.reconciler().evaluator.evaluate(orchestration_id, made)


# -- what is held against one


def pauses(world: World, failures: int, **given: Any) -> list[float | None]:
    """How long it is left alone after each failure, in seconds."""
    found = world.seed({"a": []})
    pauses: list[float | None] = []
    for number in range(failures):
        held = hold(world, found, ValueError("it broke"), **given)
        assert held == attempts(world, found)
        assert held.failures == number + 1
        until = moment(held.retry_at)
        pauses.append(None if until is None else (until - world.clock()).total_seconds())
    return pauses


def test_from_the_third_failure_on_the_pause_doubles_up_to_six_hours(world: World) -> None:
    hours = 3600
    assert pauses(world, 11) == [
        None, None, 300, 600, 1200, 2400, 4800, 9600, 19_200, 6 * hours, 6 * hours,
    ]  # fmt: skip


def test_however_short_the_interval_the_longest_pause_is_reached(world: World) -> None:
    assert pauses(world, 19, sweep_interval_seconds=1)[-3:] == [16_384, 21_600, 21_600]


def test_what_is_on_record_says_what_failed_when_and_of_which_rows(world: World) -> None:
    found = world.seed({"a": []})
    held = hold(world, found, ValueError("x" * 600))
    assert held.last_error == f"ValueError: {'x' * 488}"
    assert held.last_failed_at == world.ago(0)
    assert held.fingerprint == whole(world, found).fingerprint
    (row,) = [
        row
        for row in world.scan(world.settings.orchestration_table_name)
        if row["sub_issue_id"]["S"] == "reconciler#attempts"
    ]
    assert int(row["ttl"]["N"]) > world.clock().timestamp()


def test_nothing_is_held_against_what_is_gone_or_cannot_be_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hold(world, "orch_nowhere", ValueError("it broke")) is None
    found = world.seed({"a": []})

    def breaks(*_: Any) -> Any:
        raise LookupError("no such thing")

    monkeypatch.setattr("reconciler.stores.orchestrations.parse_orchestration", breaks)
    assert hold(world, found, ValueError("it broke")) is None


def break_releases(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def breaks(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(drafting, "draft_task", breaks)


@pytest.mark.parametrize(
    "error",
    [ThrottledError("x"), StoreUnavailableError("x"), AccessError("x"), TableMissingError("x")],
)
def test_an_outage_is_held_against_nobody_and_forgives_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    found = world.seed({"a": []})
    break_releases(monkeypatch, error)
    evaluation = evaluate(world, found)
    assert (evaluation.counts.errors, attempts(world, found)) == (1, None)
    held = hold(world, found, ValueError("it broke"))
    evaluate(world, found)
    assert attempts(world, found) == held


def test_a_success_forgives_and_a_report_remembers_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    assert evaluate(world, found).counts.released == 1
    assert attempts(world, found) is None


def test_what_was_only_handed_on_forgives_once_its_rows_have_changed(world: World) -> None:
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
    evaluator.evaluate(found, context(world), dispatch)
    assert attempts(world, found) is None


def break_diagnoses(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: Any) -> Any:
        raise LookupError("no such thing")

    monkeypatch.setattr(snapshot_module, "diagnose", breaks)


def test_one_that_has_not_even_a_diagnosis_is_left_alone_as_a_whole(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = world.seed({"a": []})
    for _ in range(3):
        hold(world, found, ValueError("it broke"))
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


def test_one_that_breaks_for_the_first_time_is_an_error(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = world.seed({"a": []})
    break_diagnoses(monkeypatch)
    with pytest.raises(LookupError):
        evaluate(world, found)


def test_an_age_that_is_not_known_is_not_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = world.seed({"a": []})
    read = whole(world, found)
    later = timestamp(world.clock() + timedelta(hours=1))
    world.reconciler().orchestrations.record_attempts(
        found, Attempts(3, "it broke", "then", later, read.fingerprint), 0
    )
    break_diagnoses(monkeypatch)
    (stuck,) = evaluate(world, found).stuck
    assert stuck.age_seconds is None


def test_a_persons_word_ends_a_quarantine(world: World) -> None:
    found = world.seed({"a": []})
    for _ in range(3):
        hold(world, found, ValueError("it broke"))
    assert evaluate(world, found).counts.stuck == {"quarantined": 1}
    assert evaluate(world, found, by_hand=True).counts.released == 1
    world.reconciler().evaluator.forgive(found)
    assert attempts(world, found) is None


def test_what_does_not_exist_has_no_evaluation(world: World) -> None:
    assert evaluate(world, "orch_nowhere") is None


# -- a child that we have failed ourselves


def test_our_own_write_does_not_restart_a_grace(world: World) -> None:
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


def test_somebody_elses_write_does_restart_it(world: World) -> None:
    found = world.seed({"a": [], "b": ["a"]}, {"a": "failed"})
    world.change(
        found,
        "a",
        updated_at=world.ago(5),
        reconciler_written_at=world.ago(60),
        reconciler_effective_at=world.ago(3600),
    )
    assert evaluate(world, found).actions == ()


def test_who_waits_for_a_slot_is_remembered_for_three_intervals(make_world: MakeWorld) -> None:
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
    assert evaluate(world, young).counts.stuck == {"over_budget": 1}, "the older one goes first"
    world.clock.forward(1)
    assert evaluate(world, young).counts.released == 1


def test_of_several_failures_the_last_is_on_record(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = world.seed({"a": [], "b": []})

    def breaks(_: Any, child: Any, **__: Any) -> Any:
        raise ValueError(f"{child.sub_issue_id} broke")

    monkeypatch.setattr(drafting, "draft_task", breaks)
    last = evaluate(world, found).actions[-1].sub_issue_id
    held = attempts(world, found)
    assert held is not None
    assert held.last_error == f"ValueError: {last} broke"


def test_what_could_not_be_read_is_told_and_held_against_it_though_nothing_was_done(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(USER_CONCURRENCY_TABLE_NAME="{prefix}-Users")
    found = world.seed({"a": []})

    def breaks(*_: Any, **__: Any) -> Any:
        raise InvalidRequestError("too large")

    monkeypatch.setattr(BudgetStore, "open", breaks)
    assert evaluate(world, found).actions == ()
    held = attempts(world, found)
    assert held is not None
    assert held.last_error == "too large"
    assert world.metrics.count("reconciler_errors_total", kind="invalid_request") == 1
