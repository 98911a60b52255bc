"""What a pass knows about an orchestration: its reads, and the children it records as waiting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from reconciler.clock import never
from reconciler.domain.backoff import Attempts
from reconciler.domain.codes import Code, OrchestrationCode
from reconciler.domain.diagnosis import ChildDiagnosis, Diagnosis
from reconciler.domain.model import LONG_AGO, Child, ChildStatus, Meta, Orchestration, Task
from reconciler.errors import ThrottledError
from reconciler.repair.snapshot import Snapshot
from reconciler.stores.budget import Slots
from tests.support.strategies import NOW, POLICY

SINCE = NOW - timedelta(hours=1)
FRESH = timedelta(seconds=900)


def child(key: str, task_id: str | None = None) -> Child:
    status = ChildStatus.READY if task_id is None else ChildStatus.RELEASED
    return Child("o", key, status, status.value, task_id=task_id)


WHOLE_ROWS = {"a": child("a", "T-a"), "b": child("b"), "c": child("c"), "d": child("d")}
META = Meta("o", 4, "ada", "acme/web")


@dataclass
class Stores:
    """Stores of tasks, slots and rows in one. It records each request."""

    asked: list[Any] = field(default_factory=list)
    iterations: Mapping[str, Task] = field(default_factory=dict)
    slots: Slots | Exception = field(default_factory=lambda: Slots("ada", 3, 3, None, {}))
    again: Orchestration | None = None

    def read(self, name: Any, *, consistent: bool = False) -> Any:
        if isinstance(name, str):
            return self.again
        self.asked.append(("tasks", name, consistent))
        return {task_id: Task(task_id, "RUNNING") for task_id in name}

    def find(self, key: str) -> Task | None:
        self.asked.append(("find", key))
        return None

    def iterations_of(self, *of: Any) -> Mapping[str, Task]:
        self.asked.append(("iterations", *of))
        return self.iterations

    def open(self, user_id: str, *, prune: bool) -> Slots:
        self.asked.append(("slots", user_id, prune))
        if isinstance(self.slots, Exception):
            raise self.slots
        return self.slots

    def note_waiting(
        self,
        slots: Slots,
        due: Mapping[str, datetime],
        gone: Iterable[str],
        now: datetime,
        fresh_for: timedelta,
    ) -> None:
        assert (slots, now) == (self.slots, NOW)
        self.asked.append(("waiting", dict(due), sorted(gone), fresh_for))


def snapshot(
    stores: Stores, *, meta: Meta | None = META, budget: bool = True, **changes: Any
) -> Snapshot:
    whole = replace(Orchestration("o", meta, WHOLE_ROWS), **changes)
    given: Any = stores
    return Snapshot(whole, given, given, given if budget else None, POLICY)


# -- reading


def test_each_task_is_read_consistently_and_once() -> None:
    """A task that the pass has learned of is not read at all."""
    stores = Stores()
    seen = snapshot(stores)
    for _ in range(2):
        assert seen.diagnose(NOW).children["a"].code is Code.LONG_RUNNING
    assert stores.asked == [("tasks", ["T-a"], True)]
    seen.learn(Task("T-b", "COMPLETED"))
    seen.read_tasks([child("b", "T-b"), child("c", "T-c"), child("d")])
    assert stores.asked[1:] == [("tasks", ["T-c"], True)]
    assert {name: task and task.status for name, task in seen.evidence.tasks.items()} == {
        "T-a": "RUNNING",
        "T-b": "COMPLETED",
        "T-c": "RUNNING",
    }


def test_each_key_is_looked_up_once() -> None:
    """The lookups stop when the time is up."""
    stores = Stores()
    seen = snapshot(stores)
    seen.learn_conflict("o_b", Task("T-x", "RUNNING"))
    assert not seen.look_up(["o_b"], never)
    times = iter([False, True, False])
    assert seen.look_up(["o_b", "o_c", "o_d", "o_e"], lambda: next(times))
    assert stores.asked == [("find", "o_c")]
    assert seen.look_up(["o_c", "o_d"], never)
    assert stores.asked == [("find", "o_c"), ("find", "o_d")]


def test_iterations_are_looked_for_by_user_and_orchestration() -> None:
    stores = Stores()
    seen = snapshot(stores)
    assert not seen.look_for_iterations("ada", SINCE)
    stores.iterations = {"a": Task("I", "COMPLETED")}
    assert seen.look_for_iterations("ada", SINCE)
    assert seen.evidence.iterations == stores.iterations
    assert stores.asked == [("iterations", "ada", "o", SINCE)] * 2


def test_a_reread_without_rows_keeps_the_known_ones() -> None:
    stores = Stores()
    seen = snapshot(stores)
    seen.put("b", None)
    seen.put("b", None)
    moved = child("c", "T-c")
    seen.put("c", moved)
    seen.reread()
    assert seen.orchestration.children == {"a": WHOLE_ROWS["a"], "c": moved, "d": WHOLE_ROWS["d"]}
    stores.again = Orchestration("o", META, {"x": child("x")})
    seen.reread()
    assert seen.children == {"x": child("x")}


# -- the slots of the user


def test_slots_are_read_once_and_nothing_is_pruned() -> None:
    stores = Stores()
    seen = snapshot(stores)
    for _ in range(2):
        seen.open_budget(NOW)
    assert stores.asked == [("slots", "ada", False)]
    assert seen.held is not None
    assert seen.held.open("ada", prune=True).room == 3, "a release starts from these slots"
    assert len(stores.asked) == 1
    seen.use_slot()
    assert seen.evidence.budget is not None
    assert seen.evidence.budget.room == 2


@pytest.mark.parametrize("how", [{"meta": None}, {"budget": False}], ids=["no user", "no limit"])
def test_slots_are_not_read_without_user_or_limit(how: dict[str, Any]) -> None:
    stores = Stores()
    seen = snapshot(stores, **how)
    seen.open_budget(NOW)
    seen.use_slot()
    assert (stores.asked, seen.evidence.budget) == ([], None)
    assert (seen.held is None) is ("budget" in how)


def test_unreadable_slots_leave_no_room() -> None:
    """The pass does not read them again."""
    stores = Stores(slots=ThrottledError("not now"))
    seen = snapshot(stores)
    with pytest.raises(ThrottledError):
        seen.open_budget(NOW)
    seen.open_budget(NOW)
    budget = seen.evidence.budget
    assert budget is not None
    assert (budget.room, budget.problem) == (0, "not now")
    seen.note_waiting(diagnosis({}), NOW)
    assert stores.asked == [("slots", "ada", False)], "it is not known who waits"


@pytest.mark.parametrize(("age", "ahead"), [(900, 1), (901, 0)])
def test_a_waiting_child_counts_for_three_intervals(age: float, ahead: int) -> None:
    seen_at = NOW - timedelta(seconds=age)
    row = {"waiting:p_a": {"S": f"{SINCE.isoformat()}|{seen_at.isoformat()}"}}
    seen = snapshot(Stores(slots=Slots("ada", 3, 3, None, row)))
    seen.open_budget(NOW)
    assert seen.evidence.budget is not None
    assert len(seen.evidence.budget.ahead) == ahead


def diagnosis(codes: Mapping[str, Code], since: datetime | None = SINCE) -> Diagnosis:
    children = {key: ChildDiagnosis(key, code, "why", since) for key, code in codes.items()}
    return Diagnosis("o", OrchestrationCode.IN_PROGRESS, "why", None, children)


def test_only_children_over_budget_are_recorded_as_waiting() -> None:
    """The entries of children that no longer wait are removed."""
    names = ("o_a", "o_b", "o_c", "o_d", "o_x", "p_a")
    row = {f"waiting:{name}": {"S": "then|now"} for name in names}
    stores = Stores(slots=Slots("ada", 0, 0, None, row))
    seen = snapshot(stores)
    seen.open_budget(NOW)
    seen.pass_over("d")
    codes = {"b": Code.OVER_BUDGET, "c": Code.LOST_RELEASE, "d": Code.LOST_RELEASE}
    seen.note_waiting(diagnosis({"a": Code.RUNNING, **codes}), NOW)
    gone = ["o_a", "o_d", "o_x"]
    assert stores.asked[-1] == ("waiting", {"o_b": SINCE}, gone, FRESH)
    seen.note_waiting(diagnosis(codes, since=None), NOW)
    assert stores.asked[-1] == ("waiting", {"o_b": LONG_AGO}, gone, FRESH)
    seen.note_waiting(diagnosis({"c": Code.WAITING}), NOW)
    assert stores.asked[-1] == ("waiting", {}, ["o_a", "o_b", "o_c", "o_d", "o_x"], FRESH)


def test_a_failing_child_is_not_recorded_as_waiting() -> None:
    """So no other child has to wait for it, until its row has changed."""
    stores = Stores()
    failed = Attempts(1, "it broke", "then", None, "another")
    same = replace(failed, fingerprint=snapshot(stores).orchestration.fingerprint_of("b"))
    seen = snapshot(stores, attempts={"b": same, "c": failed})
    seen.open_budget(NOW)
    seen.note_waiting(diagnosis({"b": Code.OVER_BUDGET, "c": Code.OVER_BUDGET}), NOW)
    assert stores.asked[-1] == ("waiting", {"o_c": SINCE}, [], FRESH)
