"""A user's slots during a sweep: read once, and again if somebody else has changed them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from reconciler.stores.budget import MAX_WAITING, PARTITION_PREFIX, ROW, BudgetStore
from reconciler.sweeping.inline import run_inline_sweep
from tests.support.world import USER, World

pytestmark = pytest.mark.integration

MakeWorld = Callable[..., World]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The users whose slots were read, in order."""
    calls: list[str] = []
    whole = BudgetStore.open

    def noted(self: BudgetStore, user_id: str, **more: Any) -> Any:
        calls.append(user_id)
        return whole(self, user_id, **more)

    monkeypatch.setattr(BudgetStore, "open", noted)
    return calls


def prune_elsewhere(world: World, monkeypatch: pytest.MonkeyPatch, *, at: int) -> None:
    """Let somebody else prune the reservations just before the ``at``-th one is made."""
    made = 0
    whole = BudgetStore.reserve

    def reserve(self: BudgetStore, *arguments: Any) -> Any:
        nonlocal made
        made += 1
        if made == at:
            world.client.update_item(
                TableName=world.settings.orchestration_table_name,
                Key={
                    "orchestration_id": {"S": f"{PARTITION_PREFIX}{USER}"},
                    "sub_issue_id": {"S": ROW},
                },
                UpdateExpression="ADD version :one",
                ExpressionAttributeValues={":one": {"N": "1"}},
            )
        return whole(self, *arguments)

    monkeypatch.setattr(BudgetStore, "reserve", reserve)


def test_one_read_of_slots_serves_all_children(make_world: MakeWorld, opened: list[str]) -> None:
    world = make_world(USER_CONCURRENCY_TABLE_NAME="{prefix}-Users")
    found = world.seed({key: [] for key in "abcde"})
    reconciler = world.reconciler()
    run_inline_sweep(reconciler, segments=1)
    assert set(world.statuses(found).values()) == {"released"}
    assert opened == [USER]


def test_queued_tasks_take_their_slots_first(make_world: MakeWorld) -> None:
    """So does a task that still waits for its uploads."""
    world = make_world(
        USER_CONCURRENCY_TABLE_NAME="{prefix}-Users", MAX_CONCURRENT_TASKS_PER_USER="5"
    )
    active = {"user_id": {"S": USER}, "active_count": {"N": "1"}}
    world.put(str(world.settings.user_concurrency_table_name), active)
    for status in ("RUNNING", "QUEUED", "QUEUED", "PENDING_UPLOADS", "COMPLETED"):
        world.task("orch_elsewhere", status, status)
    world.task("orch_elsewhere", "x", "QUEUED", user="user-2")
    found = world.seed({key: [] for key in "abc"})
    reconciler = world.reconciler()
    summary = run_inline_sweep(reconciler, segments=1)
    assert (summary.counts.released, summary.counts.stuck) == (1, {"over_budget": 2})
    assert len(world.tasks(found)) == 1


def test_a_refused_reservation_is_retried_with_fresh_slots(
    make_world: MakeWorld, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else has pruned the reservations in between."""
    world = make_world(USER_CONCURRENCY_TABLE_NAME="{prefix}-Users")
    found = world.seed({key: [] for key in "abcde"})
    prune_elsewhere(world, monkeypatch, at=3)
    reconciler = world.reconciler()
    summary = run_inline_sweep(reconciler, segments=1)
    assert set(world.statuses(found).values()) == {"released"}
    assert (summary.counts.released, summary.counts.errors) == (5, 0)
    assert opened == [USER, USER]


def test_slots_taken_elsewhere_are_not_given_twice(
    make_world: MakeWorld, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(
        USER_CONCURRENCY_TABLE_NAME="{prefix}-Users", MAX_CONCURRENT_TASKS_PER_USER="3"
    )
    found = world.seed({key: [] for key in "abcde"})
    other = world.seed({key: [] for key in "xy"})
    second = world.reconciler()
    whole = BudgetStore.reserve
    made = 0

    def reserve(self: BudgetStore, *arguments: Any) -> Any:
        nonlocal made
        made += 1
        if made == 2:
            # Another worker takes what it can get, between our first release and our second.
            second.evaluate(other, sweep_id="another")
        return whole(self, *arguments)

    monkeypatch.setattr(BudgetStore, "reserve", reserve)
    world.reconciler().evaluate(found, sweep_id="ours")
    released = [*world.statuses(found).values(), *world.statuses(other).values()]
    assert released.count("released") == 3
    assert opened.count(USER) >= 3


def test_the_row_remembers_only_the_longest_waiting(
    make_world: MakeWorld,
) -> None:
    """After a long outage a user can have thousands of waiting children."""
    world = make_world(
        USER_CONCURRENCY_TABLE_NAME="{prefix}-Users", MAX_CONCURRENT_TASKS_PER_USER="1000"
    )
    store = world.reconciler().evaluator.parts.budget
    assert store is not None
    now = world.clock()
    for number in range(4):
        due = {
            f"orch_{number}_{child}": now - timedelta(seconds=1000 * number + child)
            for child in range(400)
        }
        store.note_waiting(store.open(USER), due, (), now, timedelta(minutes=15))
    row = store.open(USER).row
    noted = {name for name in row if name.startswith("waiting:")}
    assert len(noted) == MAX_WAITING
    assert all(name.startswith("waiting:orch_3_") for name in noted), "only the oldest are kept"
    assert store.open(USER).budget("orch_9", now, timedelta(minutes=15)).ahead
    later = now + timedelta(hours=1)
    store.note_waiting(store.open(USER), {"orch_9_a": later}, (), later, timedelta(minutes=15))
    row = store.open(USER).row
    assert [name for name in row if name.startswith("waiting:")] == ["waiting:orch_9_a"]
