"""A user's slots: what takes them up, which children wait, and what is held during a pass."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from reconciler.domain.model import TERMINAL_TASK, timestamp
from reconciler.errors import ConflictError
from reconciler.stores.budget import (
    MAX_WAITING,
    PARTITION_PREFIX,
    ROW,
    BudgetStore,
    HeldSlots,
    Slots,
    unreadable,
)
from reconciler.stores.dynamodb import DynamoDB
from reconciler.stores.tasks import TaskStore
from tests.simulation.memory_dynamodb import MemoryDynamoDB
from tests.support.strategies import NOW

FRESH = timedelta(minutes=15)


def budget(database: MemoryDynamoDB, cap: int = 10) -> BudgetStore:
    dynamodb = DynamoDB(database)  # type: ignore[arg-type]
    tasks = TaskStore(dynamodb, "TaskTable", "TaskEventsTable")
    return BudgetStore(dynamodb, "OrchestrationTable", "UserConcurrencyTable", tasks, cap)


def active(database: MemoryDynamoDB, count: dict[str, str]) -> None:
    item = {"user_id": {"S": "u"}, "active_count": count}
    database.put_item(TableName="UserConcurrencyTable", Item=item)


def task(database: MemoryDynamoDB, task_id: str, status: str) -> None:
    item = {
        "task_id": {"S": task_id},
        "user_id": {"S": "u"},
        "status": {"S": status},
        "status_created_at": {"S": f"{status}#2026-06-09T12:00:00Z"},
    }
    database.put_item(TableName="TaskTable", Item=item)


def marker(database: MemoryDynamoDB, *reserved: str, **attributes: Any) -> None:
    key = {"orchestration_id": {"S": f"{PARTITION_PREFIX}u"}, "sub_issue_id": {"S": ROW}}
    sets = {"reservations": {"SS": sorted(reserved)}} if reserved else {}
    database.put_item(TableName="OrchestrationTable", Item={**key, **sets, **attributes})


def reserve(database: MemoryDynamoDB, slots: Slots, task_id: str) -> bool:
    action = budget(database).reserve(slots, task_id, "orch_1_a")
    return DynamoDB(database).transact({"slot": action}) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("status", ["PENDING_UPLOADS", "QUEUED", "SUBMITTED"])
def test_a_reservation_holds_its_slot_until_admission(status: str) -> None:
    database = MemoryDynamoDB(lag=lambda *_: 100)
    marker(database, "T1")
    task(database, "T1", status)
    active(database, {"N": "3"})
    slots = budget(database).open("u")
    assert (slots.room, slots.limit, slots.version, slots.pruned) == (6, 7, None, True)
    task(database, "T1", "RUNNING")
    active(database, {"N": "4"})
    slots = budget(database).open("u")
    assert (slots.room, slots.limit, slots.version, slots.pruned) == (6, 6, "1", True)
    assert budget(database).open("u").version == "1"


def test_reading_without_pruning_removes_nothing() -> None:
    database = MemoryDynamoDB()
    marker(database, "T1", version={"N": "4"})
    task(database, "T1", "RUNNING")
    slots = budget(database).open("u", prune=False)
    assert (slots.room, slots.limit, slots.version, slots.pruned) == (10, 10, "4", False)
    marker(database, "T1", version={"N": "4"})
    task(database, "T1", "SUBMITTED")
    assert budget(database).open("u", prune=False).pruned is True, "there is nothing to prune"
    pruned = MemoryDynamoDB()
    marker(pruned, "gone", version={"N": "4"})
    assert budget(pruned).open("u").version == "5"


def test_platform_tasks_awaiting_admission_hold_slots() -> None:
    """Of all statuses, only those before admission count in addition to ``active_count``."""
    database = MemoryDynamoDB()
    waiting = ("PENDING_UPLOADS", "QUEUED", "SUBMITTED")
    others = ("HYDRATING", "RUNNING", "AWAITING_APPROVAL", "FINALIZING", *sorted(TERMINAL_TASK))
    for status in (*waiting, *others):
        task(database, f"T-{status}", status)
    slots = budget(database).open("u")
    assert (slots.room, slots.limit) == (7, 7)


@pytest.mark.parametrize(
    ("count", "room"),
    [({"N": "4"}, 6), ({"N": "-2"}, 10), ({"S": "many"}, 0), ({"N": "1.5"}, 0), ({"N": "12"}, -2)],
)
def test_room_is_the_cap_minus_active_tasks(count: dict[str, str], room: int) -> None:
    """An unreadable count leaves no slot, and a negative one counts as zero."""
    database = MemoryDynamoDB()
    active(database, count)
    slots = budget(database).open("u")
    assert (slots.room, slots.limit) == (room, max(0, room))


def test_a_user_without_a_count_has_all_slots() -> None:
    assert budget(MemoryDynamoDB()).open("u").room == 10
    database = MemoryDynamoDB()
    database.put_item(TableName="UserConcurrencyTable", Item={"user_id": {"S": "u"}})
    assert budget(database).open("u").room == 10, "a row without a count"


def test_reservations_stop_when_no_slot_is_free() -> None:
    database = MemoryDynamoDB()
    active(database, {"N": "8"})
    slots = budget(database).open("u")
    assert [reserve(database, slots, f"T{number}") for number in range(3)] == [True, True, False]


def test_the_last_slot_is_reserved_once() -> None:
    database = MemoryDynamoDB()
    active(database, {"N": "9"})
    slots = budget(database).open("u")
    assert [reserve(database, slots, f"T{number}") for number in range(2)] == [True, False]


def test_a_later_pruning_makes_a_reservation_fail() -> None:
    database = MemoryDynamoDB()
    slots = budget(database).open("u")
    marker(database, version={"N": "1"})
    assert not reserve(database, slots, "T1")
    assert reserve(database, budget(database).open("u"), "T1")


def test_eight_lost_prunings_are_a_conflict() -> None:
    database = MemoryDynamoDB()
    marker(database, "gone")
    store = budget(database)
    rounds: list[str] = []
    store._prune = lambda user, *_: bool(rounds.append(user))  # type: ignore[method-assign, func-returns-value]
    with pytest.raises(ConflictError):
        store.open("u")
    assert len(rounds) == 8


# -- waiting children


def waiting(database: MemoryDynamoDB) -> list[str]:
    row = budget(database).open("u").row
    return sorted(name.removeprefix("waiting:") for name in row if name.startswith("waiting:"))


def due(*names: str, age: float = 0) -> dict[str, datetime]:
    return {
        name: NOW - timedelta(seconds=age + number) for number, name in enumerate(reversed(names))
    }


def note(
    database: MemoryDynamoDB,
    who: dict[str, datetime],
    cap: int = 10,
    at: Any = NOW,
    gone: tuple[str, ...] = (),
) -> None:
    store = budget(database, cap)
    store.note_waiting(store.open("u"), who, gone, at, FRESH)


def test_only_the_oldest_waiting_children_are_kept() -> None:
    """As many as the user has slots, over all orchestrations."""
    database = MemoryDynamoDB()
    note(database, due("o1_a", "o1_b", "o1_c"), cap=2)
    assert waiting(database) == ["o1_a", "o1_b"]
    note(database, due("o2_a", age=600), cap=2)
    assert waiting(database) == ["o1_a", "o2_a"]


def test_equally_old_children_are_kept_by_name() -> None:
    database = MemoryDynamoDB()
    note(database, dict.fromkeys(("o_b", "o_a", "o_c"), NOW), cap=2)
    assert waiting(database) == ["o_a", "o_b"]


def test_an_outdated_waiting_child_is_forgotten() -> None:
    database = MemoryDynamoDB()
    note(database, due("o1_a"))
    note(database, due("o2_a"), at=NOW + FRESH)
    assert waiting(database) == ["o1_a", "o2_a"]
    note(database, due("o2_a"), at=NOW + FRESH + timedelta(seconds=1))
    assert waiting(database) == ["o2_a"]


def test_a_child_reported_gone_is_forgotten_at_once() -> None:
    database = MemoryDynamoDB()
    note(database, due("o1_a", "o1_b", "o2_a"))
    assert budget(database).open("u").waiting("o1_") == ["o1_a", "o1_b"]
    note(database, due("o1_b"), gone=("o1_a",))
    assert waiting(database) == ["o1_b", "o2_a"]


def test_nothing_is_written_if_no_child_waits() -> None:
    database = MemoryDynamoDB()
    store = budget(database)
    slots = store.open("u")
    database.update_item = None  # type: ignore[assignment, method-assign]
    store.note_waiting(slots, {}, (), NOW, FRESH)


def test_the_last_outdated_waiting_child_is_removed() -> None:
    database = MemoryDynamoDB()
    note(database, due("o1_a"))
    note(database, {}, at=NOW + FRESH + timedelta(seconds=1))
    assert waiting(database) == []


def test_one_write_removes_at_most_a_hundred_children() -> None:
    database = MemoryDynamoDB()
    old = {f"waiting:o_{number:03}": {"S": "old|old"} for number in range(MAX_WAITING + 1)}
    marker(database, **old)
    note(database, {})
    assert len(waiting(database)) == 1
    assert MAX_WAITING == 100


def test_a_reservation_ends_the_wait_of_its_child() -> None:
    database = MemoryDynamoDB()
    note(database, due("orch_1_a", "orch_1_b"))
    assert reserve(database, budget(database).open("u"), "T1")
    assert waiting(database) == ["orch_1_b"]


def test_a_diagnosis_sees_other_waiting_children_oldest_first() -> None:
    """Those are the children of the user's other orchestrations."""
    database = MemoryDynamoDB()
    note(database, {"orch_1_a": NOW, "orch_2_a": NOW - FRESH, "orch_2_b": NOW - 2 * FRESH})
    slots = budget(database).open("u")
    assert slots.budget("orch_1", NOW, FRESH).ahead == (NOW - 2 * FRESH, NOW - FRESH)
    assert slots.budget("orch_1", NOW, FRESH).room == 10


# -- held slots


class Store:
    """Returns slots with the next of ``rooms``."""

    def __init__(self, *rooms: int) -> None:
        self.rooms = list(rooms)

    def open(self, user_id: str, *, prune: bool) -> Slots:
        assert prune
        return Slots(user_id, self.rooms.pop(0), 9, None, {})


def test_slots_are_read_again_when_used_up() -> None:
    held = HeldSlots(Store(2, 5))  # type: ignore[arg-type]
    assert (held.open("u", prune=True).room, held.fresh) == (2, True)
    held.use()
    assert (held.open("u", prune=True).room, held.fresh) == (1, False)
    held.use()
    assert (held.open("u", prune=True).room, held.fresh) == (5, True)
    held.forget()
    held.use()
    assert held.fresh is True


def test_unpruned_slots_are_not_reused() -> None:
    """A report reads slots without pruning."""
    held = HeldSlots(Store(5))  # type: ignore[arg-type]
    held.hold(Slots("u", 3, 3, None, {}, pruned=False))
    assert (held.open("u", prune=True).room, held.fresh) == (5, True)
    held.hold(Slots("u", 3, 3, None, {}))
    assert (held.open("u", prune=True).room, held.fresh) == (3, False)


def test_an_unreadable_budget_has_no_room() -> None:
    """It gives the reason."""
    found = unreadable(ConflictError("it broke"))
    assert (found.room, found.problem) == (0, "it broke")


@pytest.mark.parametrize("rivals", [0, 1, 2])
def test_only_a_lost_pruning_repeats_the_read(rivals: int) -> None:
    database = MemoryDynamoDB()
    marker(database, "gone")
    read, write = database.get_item, database.update_item
    reads: list[str] = []
    left = [f"gone-{number}" for number in range(rivals)]

    def counted(**request: Any) -> Any:
        if request["TableName"] == "OrchestrationTable":
            reads.append("row")
        return read(**request)

    def overtaken(**request: Any) -> Any:
        if left:
            marker(database, left.pop(), version={"N": str(rivals - len(left))})
        return write(**request)

    database.get_item = counted  # type: ignore[method-assign]
    database.update_item = overtaken  # type: ignore[method-assign]
    slots = budget(database).open("u")
    assert len(reads) == 1 + rivals
    assert slots.version == str(rivals + 1)


def test_a_waiting_record_from_the_future_is_ignored() -> None:
    """The clock of its writer was ahead, so the child may no longer wait."""
    soon, late = (timestamp(NOW + ahead) for ahead in (timedelta(minutes=5), timedelta(minutes=6)))
    row = {"waiting:a": {"S": f"{soon}|{soon}"}, "waiting:b": {"S": f"{soon}|{late}"}}
    slots = Slots("user", 1, 1, None, row)
    assert len(slots.budget("o", NOW, timedelta(minutes=15)).ahead) == 1
