"""Commits of a release: whose they are, which locks they take, and what a refusal writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import ReadTimeoutError

from reconciler.domain.identity import task_id_for
from reconciler.domain.model import LONG_AGO, timestamp
from reconciler.errors import StoreUnavailableError
from reconciler.repair.context import Pacer, RepairResult
from reconciler.stores.budget import BudgetStore, HeldSlots
from reconciler.stores.conditions import Write
from reconciler.stores.dynamodb import Cancelled
from tests.support.pipeline import LambdaClient
from tests.support.world import USER, World
from tests.unit.repair.test_releaser import UNTIMED, context, release, releaser, whole

MakeWorld = Callable[..., World]


class Answering:
    """Answers every transaction in the same way, and counts them."""

    def __init__(self, answer: Cancelled) -> None:
        self._answer = answer
        self.transactions = 0

    def transact(self, writes: Mapping[str, Write]) -> Cancelled:
        assert "row" in writes
        self.transactions += 1
        return self._answer


# -- whose commit it is


def task_row(world: World, *, sweep_id: str = "sweep-1", age: float = 0) -> dict[str, Any]:
    """Return a task's row, by default one that this sweep creates now."""
    return {
        "task_id": {"S": "T1"},
        "status": {"S": "SUBMITTED"},
        "user_id": {"S": USER},
        "created_at": {"S": world.ago(age)},
        "reconciler_sweep_id": {"S": sweep_id},
    }


def answered(world: World, failed: dict[str, Any], *, repeated: bool) -> RepairResult:
    """Return the result of a release whose transaction was cancelled because of these writes."""
    dynamodb = Answering(Cancelled(failed, repeated=repeated))
    return release(world, world.seed({"b": []}), dynamodb=dynamodb)


def test_a_repeated_commit_recognises_its_own_task(world: World) -> None:
    """The first attempt was committed, but its answer was lost."""
    assert answered(world, {"task": task_row(world)}, repeated=True).outcome == "released"


@pytest.mark.parametrize("others", [{"sweep_id": "sweep-2"}, {"age": 1}], ids=["sweep", "time"])
def test_a_repeated_commit_loses_to_anothers_task(world: World, others: dict[str, Any]) -> None:
    result = answered(world, {"task": task_row(world, **others)}, repeated=True)
    assert (result.outcome, result.task_id) == ("already_released", "T1")


def test_a_commit_sent_only_once_has_lost(world: World) -> None:
    """Another worker of the same sweep was faster."""
    result = answered(world, {"task": task_row(world)}, repeated=False)
    assert result.outcome == "already_released"


def test_a_repeated_commit_may_lose_to_something_else(world: World) -> None:
    assert answered(world, {"slot": {}}, repeated=True).outcome == "over_budget"
    assert answered(world, {"task": {}}, repeated=True).outcome == "already_released"


def tear(world: World, monkeypatch: pytest.MonkeyPatch, before: Callable[..., Any]) -> None:
    """Lose the answer to each transaction, after calling ``before`` with its request."""

    def torn(**request: Any) -> None:
        before(**request)
        raise ReadTimeoutError(endpoint_url="memory")

    monkeypatch.setattr(world.client, "transact_write_items", torn)


def test_our_commit_is_found_despite_lagging_replicas(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = world.seed({"b": []})
    tear(world, monkeypatch, world.client.transact_write_items)
    monkeypatch.setattr(world.client, "lag", lambda *_: 100)
    assert release(world, found).outcome == "released"


@pytest.mark.parametrize("others", [{"sweep_id": "sweep-2"}, {"age": 1}], ids=["sweep", "time"])
def test_a_foreign_task_does_not_confirm_our_commit(
    world: World, monkeypatch: pytest.MonkeyPatch, others: dict[str, Any]
) -> None:
    """The lost answer then counts as an outage."""
    found = world.seed({"b": []})
    child = whole(world, found).children["b"]
    task_id = {"S": task_id_for(child.idempotency_key, child.created_at)}

    def rival_first(**_: Any) -> None:
        row = task_row(world, **others) | {"task_id": task_id}
        world.client.put_item(TableName=world.settings.task_table_name, Item=row)

    tear(world, monkeypatch, rival_first)
    with pytest.raises(StoreUnavailableError):
        release(world, found)


# -- locks and slots


def locks_taken(world: World, *, alone: bool = False) -> list[str]:
    """Return which locks one release takes."""
    taken: list[str] = []

    @contextmanager
    def lock(name: str) -> Iterator[None]:
        taken.append(name)
        yield

    read = whole(world, world.seed({"b": []}))
    given = replace(context(world), alone=alone)
    pacer = Pacer(lock=lock)
    result = releaser(world, pacer=pacer).release(read, read.children["b"], UNTIMED, given)
    assert result.outcome == "released"
    return [name.replace(read.orchestration_id, "its orchestration") for name in taken]


def test_a_release_locks_its_orchestration(world: World) -> None:
    """It takes no lock if no sibling is being released at the same time."""
    assert locks_taken(world) == ["its orchestration"]
    assert locks_taken(world, alone=True) == []


@pytest.fixture
def budgeted(make_world: MakeWorld) -> World:
    return make_world(
        USER_CONCURRENCY_TABLE_NAME="{prefix}-Users", MAX_CONCURRENT_TASKS_PER_USER="2"
    )


@pytest.mark.parametrize("alone", [False, True])
def test_a_budgeted_release_locks_its_user(budgeted: World, *, alone: bool) -> None:
    """Even without siblings, it shares the row of slots with other releases of the user."""
    assert locks_taken(budgeted, alone=alone) == [USER]


def test_held_slots_are_read_once(budgeted: World, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = budgeted.reconciler().evaluator.parts.budget
    assert budget is not None
    opened: list[str] = []
    sound = BudgetStore.open

    def counted(self: BudgetStore, user_id: str, **how: Any) -> Any:
        opened.append(user_id)
        return sound(self, user_id, **how)

    monkeypatch.setattr(BudgetStore, "open", counted)
    found, held = budgeted.seed({"a": [], "b": []}), HeldSlots(budget)
    assert [release(budgeted, found, key, held=held).outcome for key in "ab"] == ["released"] * 2
    assert opened == [USER]


@pytest.mark.parametrize(("read_before", "tries"), [(False, 1), (True, 2)])
def test_a_reservation_with_old_slots_is_retried(
    budgeted: World, *, read_before: bool, tries: int
) -> None:
    """With freshly read slots, a refused reservation is final."""
    budget = budgeted.reconciler().evaluator.parts.budget
    assert budget is not None
    held = HeldSlots(budget)
    if read_before:
        held.open(USER, prune=True)
    full: Any = Answering(Cancelled({"slot": {}}))
    result = release(budgeted, budgeted.seed({"b": []}), held=held, dynamodb=full)
    assert (result.outcome, full.transactions) == ("over_budget", tries)


# -- what a refusal writes


def test_a_refusal_takes_effect_from_the_due_time(world: World) -> None:
    """If the worker dies here, the dependents are skipped without another grace."""
    rows = {"b": {"description": {"S": "x" * 10_001}}}
    found = world.seed({"b": []}, rows=rows)
    assert release(world, found, pipeline=LambdaClient()).outcome == "refused"
    since = timestamp(world.clock() - timedelta(hours=1))
    assert world.rows(found)["b"]["reconciler_effective_at"] == {"S": since}
    untimed = world.seed({"b": []}, rows=rows)
    read = whole(world, untimed)
    result = releaser(world).release(read, read.children["b"], UNTIMED, context(world))
    assert result.outcome == "refused"
    assert world.rows(untimed)["b"]["reconciler_effective_at"] == {"S": timestamp(LONG_AGO)}
