"""A child that keeps failing holds up no other child of its user."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from reconciler.domain.task import draft_task
from reconciler.errors import (
    ConflictError,
    GuardrailOutageError,
    GuardrailUnavailableError,
    InvalidRequestError,
)
from reconciler.repair import drafter as drafting
from reconciler.repair.context import ReleaseRequest
from reconciler.stores.tasks import TaskStore
from tests.support.world import USER, World
from tests.unit.repair.test_releaser import context, whole
from tests.unit.repair.test_repair_pass import evaluate, outcomes

MakeWorld = Callable[..., World]


@pytest.fixture
def one_slot(make_world: MakeWorld) -> World:
    return make_world(
        USER_CONCURRENCY_TABLE_NAME="{prefix}-Users", MAX_CONCURRENT_TASKS_PER_USER="1"
    )


@pytest.mark.parametrize("handed_on", [False, True])
def test_a_failed_child_holds_up_no_other_orchestration(
    make_world: MakeWorld,
    monkeypatch: pytest.MonkeyPatch,
    handed_on: bool,  # noqa: FBT001
) -> None:
    """Each orchestration once gave way to the other, and nobody took the free slot."""
    world = make_world(
        USER_CONCURRENCY_TABLE_NAME="{prefix}-Users", MAX_CONCURRENT_TASKS_PER_USER="2"
    )
    ages = {key: {"updated_at": {"S": world.ago(age)}} for key, age in AGES.items()}
    first = world.seed({"young": [], "refused": []}, rows=ages, age=4 * HOUR)
    second = world.seed({"middle": []}, rows=ages, age=4 * HOUR)
    refuse(monkeypatch, TEXT, "refused")

    def sweep() -> None:
        for found in (first, second):
            requests: list[ReleaseRequest] = []

            def hand_on(request: ReleaseRequest, to: list[ReleaseRequest] = requests) -> bool:
                to.append(request)
                return True

            evaluate(world, found, hand_on if handed_on else None)
            for request in requests:
                with suppress(GuardrailUnavailableError):
                    world.reconciler().release(found, request.sub_issue_id, sweep_id="sweep-1")

    busy(world, 2)
    with pytest.raises(GuardrailUnavailableError):
        world.reconciler().release(first, "refused", sweep_id="sweep-1")
    sweep()
    busy(world, 1)
    world.clock.forward(300)
    sweep()
    assert world.statuses(second) == {"middle": "released"}


HOUR = 3600.0
AGES = {"young": HOUR, "middle": 2 * HOUR, "refused": 3 * HOUR}


def busy(world: World, active: int) -> None:
    """Set how many admitted tasks of the user are running."""
    counted = {"user_id": {"S": USER}, "active_count": {"N": str(active)}}
    world.put(str(world.settings.user_concurrency_table_name), counted)


def refuse(monkeypatch: pytest.MonkeyPatch, error: Exception, *keys: str) -> None:
    """Let the release of these children fail before their tasks are drafted."""

    def draft(orchestration: Any, child: Any, **more: Any) -> Any:
        if child.sub_issue_id in keys:
            raise error
        return draft_task(orchestration, child, **more)

    monkeypatch.setattr(drafting, "draft_task", draft)


TEXT = GuardrailUnavailableError("it does not take this text")
ITEM = InvalidRequestError("the item is too large")
OLDER = {"a": {"updated_at": {"S": "2026-06-01T00:00:00.000Z"}}}


@pytest.mark.parametrize("error", [TEXT, ITEM, ValueError("a defect"), ConflictError("x")])
def test_an_unused_slot_goes_to_the_next_child(
    one_slot: World, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """This happens within one pass."""
    found = one_slot.seed({"a": [], "b": [], "c": []}, rows=OLDER)
    refuse(monkeypatch, error, "a")
    evaluation = evaluate(one_slot, found)
    assert outcomes(evaluation) == [("release", "a", "failed"), ("release", "b", "released")]
    assert evaluation.counts.stuck == {"lost_release": 1, "over_budget": 1}


def test_a_recently_failed_child_lets_siblings_go_first(
    one_slot: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If releases are put on a queue, only the next pass knows which of them failed."""
    found = one_slot.seed({"a": [], "b": []}, rows=OLDER)
    handed_on: list[str] = []

    def dispatch(request: ReleaseRequest) -> bool:
        handed_on.append(request.sub_issue_id)
        return True

    evaluate(one_slot, found, dispatch)
    refuse(monkeypatch, TEXT, "a")
    with pytest.raises(GuardrailUnavailableError):
        one_slot.reconciler().release(found, "a", sweep_id="sweep-1")
    evaluate(one_slot, found, dispatch)
    assert handed_on == ["a", "b"]
    (held,) = whole(one_slot, found).attempts.values()
    assert (held.failures, held.retry_at) == (0, None), "a blocked text causes no pause"


def test_a_mended_child_goes_first_again(one_slot: World) -> None:
    """And as long as no slot is free, it waits as the oldest."""
    found = one_slot.seed({"a": [], "b": []}, rows=OLDER)
    one_slot.reconciler().evaluator.failures.hold_against(found, {"a": TEXT}, context(one_slot))
    one_slot.change(found, "a", updated_at="2026-06-02T00:00:00.000Z")
    busy(one_slot, 1)
    evaluate(one_slot, found)
    budget = one_slot.reconciler().evaluator.parts.budget
    assert budget is not None
    assert budget.open(USER).waiting(found) == [f"{found}_a"]
    busy(one_slot, 0)
    assert outcomes(evaluate(one_slot, found)) == [("release", "a", "released")]


def test_a_quarantined_child_takes_no_slot(one_slot: World) -> None:
    """It is not listed as waiting either, so that nobody gives way to it."""
    found = one_slot.seed({"a": [], "b": []}, rows=OLDER)
    younger = one_slot.seed({"x": []}, age=1200)
    full = {"user_id": {"S": "user-1"}, "active_count": {"N": "1"}}
    table = str(one_slot.settings.user_concurrency_table_name)
    one_slot.put(table, full)
    assert evaluate(one_slot, found).counts.stuck == {"over_budget": 2}
    for _ in range(3):
        one_slot.reconciler().evaluator.failures.hold_against(found, {"a": ITEM}, context(one_slot))
    one_slot.put(table, {**full, "active_count": {"N": "0"}})
    evaluation = evaluate(one_slot, found)
    assert outcomes(evaluation) == [("release", "b", "released")]
    assert evaluation.counts.stuck == {"quarantined": 1}
    budget = one_slot.reconciler().evaluator.parts.budget
    assert budget is not None
    assert budget.open("user-1").waiting(f"{found}_") == []
    (task,) = one_slot.tasks(found, "b")
    one_slot.finish(task["task_id"]["S"], "COMPLETED")
    assert evaluate(one_slot, younger).counts.released == 1


def test_siblings_of_a_quarantined_child_are_repaired(world: World) -> None:
    graph = {"a": [], "b": ["a"], "c": [], "d": ["c"]}
    found = world.seed(
        graph, {"a": "released", "c": "released"}, tasks={"a": "COMPLETED", "c": "COMPLETED"}
    )
    for _ in range(3):
        world.reconciler().evaluator.failures.hold_against(found, {"a": ITEM}, context(world))
    evaluation = evaluate(world, found)
    assert outcomes(evaluation) == [("advance", "c", "done"), ("release", "d", "released")]
    assert {child.sub_issue_id: child.code for child in evaluation.children} == {
        "a": "quarantined",
        "b": "waiting",
        "d": "running",
    }
    world.change(found, "a", updated_at=world.ago(7200))
    assert outcomes(evaluate(world, found)) == [
        ("advance", "a", "done"),
        ("release", "b", "released"),
    ]


def test_a_guardrail_outage_does_not_prevent_adoption(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = world.seed({"a": [], "b": [], "c": []}, rows=OLDER)
    world.task(found, "c", "RUNNING")
    refuse(monkeypatch, GuardrailOutageError("it does not answer"), "a", "b")
    evaluation = evaluate(world, found)
    assert outcomes(evaluation) == [
        ("release", "a", "failed"),
        ("release", "b", "failed"),
        ("release", "c", "adopted"),
    ]
    assert whole(world, found).attempts == {}


def test_a_guardrail_outage_is_met_once_per_slot(
    one_slot: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise thousands of children would be looked up, only to fail like the first."""
    found = one_slot.seed({"a": [], "b": [], "c": []}, rows=OLDER)
    refuse(monkeypatch, GuardrailOutageError("it does not answer"), "a", "b", "c")
    asked: list[str] = []
    sound = TaskStore.find

    def find(self: TaskStore, key: str) -> Any:
        asked.append(key)
        return sound(self, key)

    monkeypatch.setattr(TaskStore, "find", find)
    evaluate(one_slot, found)
    assert len(asked) == 1
