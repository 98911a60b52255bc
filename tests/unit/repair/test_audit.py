"""The event of a repair: its contents, and the task that it belongs to."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, cast

from reconciler.domain.identity import task_id_for
from reconciler.domain.model import Child, ChildStatus
from reconciler.domain.planning import Release
from reconciler.repair.audit import FirstFailures, concerned_task, recovered
from reconciler.repair.context import Context
from tests.support.strategies import NOW

AT = "2026-06-09T10:00:00.000Z"
CHILD = Child("o", "b", ChildStatus.BLOCKED, "blocked", task_id="T0", created_at=AT)
ACTION = Release("b", "lost_release", NOW - timedelta(seconds=12, microseconds=345_678))


class Tasks:
    """Returns each event as it was requested."""

    def event(
        self, task_id: str, kind: str, metadata: dict[str, Any], now: datetime
    ) -> dict[str, Any]:
        assert (kind, now) == ("orchestration_recovered", NOW)
        return {"task_id": task_id, **metadata}


def event(action: Release = ACTION, **how: Any) -> dict[str, Any]:
    tasks = cast("Any", Tasks())
    return recovered(tasks, CHILD, action, "released", Context(NOW, "sweep-1"), **how)


def test_an_event_says_what_was_done_and_why() -> None:
    assert event() == {
        "task_id": "T0",
        "orchestration_id": "o",
        "sub_issue_id": "b",
        "code": "lost_release",
        "before": "blocked",
        "after": "released",
        "sweep_id": "sweep-1",
        "stranded_seconds": 12.346,
    }
    other = event(before="SUBMITTED", task_id="T1", more={"reason": "why"})
    assert (other["before"], other["task_id"], other["reason"]) == ("SUBMITTED", "T1", "why")
    assert "stranded_seconds" not in event(replace(ACTION, since=None))


def test_an_unreleased_childs_event_names_its_future_task() -> None:
    new = replace(CHILD, task_id=None)
    assert concerned_task(new) == task_id_for("o_b", AT)
    assert concerned_task(CHILD) == "T0"


# -- first failures


def child(key: str, status: ChildStatus, *after: str, task_id: str | None = None) -> Child:
    return Child("o", key, status, status.value, after, task_id=task_id, created_at=AT)


FAILED, SKIPPED, SUCCEEDED = ChildStatus.FAILED, ChildStatus.SKIPPED, ChildStatus.SUCCEEDED


def children(*rows: Child) -> dict[str, Child]:
    return {row.sub_issue_id: row for row in rows}


CHAIN = children(
    child("s", SUCCEEDED, task_id="T-s"),
    child("a", FAILED, task_id="T-a"),
    child("b", SKIPPED, "gone", "s", "a"),
    child("c", SKIPPED, "b"),
)


def test_a_skip_is_traced_to_the_first_failure() -> None:
    found = FirstFailures()
    assert [found.root_of(CHAIN[key], CHAIN) for key in ("a", "c", "b", "c")] == ["T-a"] * 4


def test_a_skipped_child_with_a_task_failed_itself() -> None:
    retried = CHAIN | children(child("b", SKIPPED, "a", task_id="T-b"))
    assert FirstFailures().root_of(retried["c"], retried) == "T-b"


def test_a_first_failure_is_looked_up_once() -> None:
    """Otherwise a chain of thousands of skips would be walked again for each of them."""
    found = FirstFailures()
    assert found.root_of(CHAIN["c"], CHAIN) == "T-a"
    assert found.root_of(CHAIN["c"], children(CHAIN["c"])) == "T-a"
    assert found.root_of(child("d", SKIPPED, "c"), children(CHAIN["c"])) == "T-a"


def test_a_refused_child_counts_as_first_failure() -> None:
    """It has failed without a task."""
    refused = CHAIN | children(child("b", FAILED, "a"))
    assert FirstFailures().root_of(refused["c"], refused) == task_id_for("o_b", AT)


def test_without_a_first_failure_the_cause_is_named() -> None:
    """There is no first failure if the skips form a cycle, or if the cause has no predecessors."""
    circle = children(child("x", SKIPPED, "y"), child("y", SKIPPED, "x"), child("z", SKIPPED))
    for key in ("x", "z"):
        assert FirstFailures().root_of(circle[key], circle) == task_id_for(f"o_{key}", AT)
