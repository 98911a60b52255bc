"""Writes on child rows: what each one stores, its effective time, and its conditions."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.domain.model import LONG_AGO, Child, Orchestration, Task, timestamp
from reconciler.stores.conditions import Write
from reconciler.stores.dynamodb import DynamoDB
from reconciler.stores.orchestrations import OrchestrationStore
from tests.simulation.memory_dynamodb import MemoryDynamoDB
from tests.support.strategies import ago

TABLE, LATER = "OrchestrationTable", ago(0)
EVER = timestamp(LONG_AGO)


class Rows:
    """An orchestration with one child, ``a``, in a database of its own."""

    def __init__(self, status: str, **attributes: dict[str, Any]) -> None:
        self._dynamodb = DynamoDB(MemoryDynamoDB())  # type: ignore[arg-type]
        self.store = OrchestrationStore(self._dynamodb, TABLE)
        self.put("a", child_status={"S": status}, **attributes)
        self.put("#meta", child_count={"N": "1"})

    def put(self, key: str, **attributes: dict[str, Any]) -> None:
        names = {"orchestration_id": {"S": "o"}, "sub_issue_id": {"S": key}}
        self._dynamodb.call("put_item", TableName=TABLE, Item={**names, **attributes})

    def whole(self) -> Orchestration:
        found = self.store.read("o")
        assert found is not None
        return found

    def child(self) -> Child:
        return self.whole().children["a"]

    def write(self, action: Write) -> bool:
        return self._dynamodb.transact({"write": action}) is None

    def texts(self, *names: str) -> list[str | None]:
        item = self.child().item
        return [item.get(name, {}).get("S") for name in names]


EFFECTIVE = ("updated_at", "reconciler_written_at", "reconciler_effective_at")


@pytest.mark.parametrize(
    ("completed_at", "effective"), [(ago(600), ago(600)), (None, EVER), ("soon", EVER)]
)
def test_an_outcome_takes_effect_when_its_task_ended(
    completed_at: str | None, effective: str
) -> None:
    """If that time is unknown, it counts as long ago."""
    rows = Rows("released", child_task_id={"S": "T1"})
    task = Task("T1", "COMPLETED", completed_at=completed_at)
    assert rows.write(rows.store.set_outcome(rows.child(), task, LATER))
    assert rows.texts("child_status", *EFFECTIVE) == ["succeeded", LATER, LATER, effective]


@pytest.mark.parametrize(
    ("claimed_at", "effective"), [({"S": ago(900)}, ago(900)), ({"S": "then"}, EVER)]
)
def test_a_reset_child_is_due_since_its_claim(claimed_at: dict[str, str], effective: str) -> None:
    """If the time of the claim is unreadable, it counts as long ago."""
    rows = Rows("releasing", updated_at=claimed_at)
    assert rows.write(rows.store.set_claim_reset(rows.child(), LATER))
    assert rows.texts("child_status", *EFFECTIVE) == ["ready", LATER, LATER, effective]


def test_a_release_takes_effect_at_once() -> None:
    """So its row has no separate effective time."""
    rows = Rows("ready", depends_on={"L": []})
    assert rows.write(rows.store.set_released(rows.child(), "T1", "branch", LATER))
    names = ("child_status", "child_task_id", "child_branch_name", *EFFECTIVE)
    assert rows.texts(*names) == ["released", "T1", "branch", LATER, None, None]


@pytest.mark.parametrize("branch", ["branch", None])
def test_an_adopted_tasks_branch_is_stored(branch: str | None) -> None:
    """The task may also have none."""
    rows = Rows("ready")
    assert rows.write(rows.store.set_adopted(rows.child(), "T1", branch, LATER))
    assert rows.texts("child_task_id", "child_branch_name") == ["T1", branch]


@pytest.mark.parametrize("task", [{"S": "T1"}, None], ids=["with a task", "without one"])
def test_a_row_condition_requires_status_and_task(task: dict[str, str] | None) -> None:
    named = {} if task is None else {"child_task_id": task}
    rows = Rows("failed", **named)
    expected = rows.store.expect_row(rows.child())
    assert rows.write(expected)
    rows.put("a", child_status={"S": "failed"}, child_task_id={"S": "T2"})
    assert not rows.write(expected)
    rows.put("a", child_status={"S": "ready"}, **named)
    assert not rows.write(expected)


def test_a_meta_row_condition_compares_both_times() -> None:
    """These are the times of the last change and of the roll-up."""
    rows = Rows("failed")
    missing = Orchestration("o", None, {})
    assert rows.write(rows.store.expect_meta(missing)), "the row has neither time"
    rows.put("#meta", child_count={"N": "1"}, updated_at={"S": ago(60)})
    assert not rows.write(rows.store.expect_meta(missing))
    read = rows.whole()
    assert rows.write(rows.store.expect_meta(read))
    for changed in ({"updated_at": {"S": LATER}}, {"rollup_posted_at": {"S": LATER}}):
        rows.put("#meta", **{"child_count": {"N": "1"}, "updated_at": {"S": ago(60)}, **changed})
        assert not rows.write(rows.store.expect_meta(read))
