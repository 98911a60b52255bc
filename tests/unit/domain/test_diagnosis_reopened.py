"""Children that were just added, retried, un-skipped or cascaded get their grace."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reconciler.domain.budget import Budget
from reconciler.domain.codes import Code
from reconciler.domain.diagnosis import (
    Diagnosis,
    Evidence,
    diagnose,
)
from reconciler.domain.model import Child, Orchestration, Task, moment
from tests.support.strategies import NOW, ORCHESTRATION_ID, POLICY, ago
from tests.unit.domain.diagnosed import LONG, child, code_of, look, meta, running, task


def reopened(age: float, *children: Child, **evidence: Any) -> Diagnosis:
    """Diagnose an orchestration whose meta row was touched ``age`` seconds ago."""
    tasks = {found.task_id: found for found in evidence.pop("tasks", ())}
    row = replace(meta(len(children)), updated_at=ago(age))
    rows = {c.sub_issue_id: c for c in children}
    whole = Orchestration(ORCHESTRATION_ID, row, rows)
    return diagnose(whole, Evidence(tasks=tasks, **evidence), POLICY, NOW)


@pytest.mark.parametrize(("age", "young"), [(119, True), (120, False)])
def test_a_new_child_has_its_grace(age: float, young: bool) -> None:  # noqa: FBT001
    """It does not matter how long ago its predecessors ended."""
    due = look(child("a", "succeeded"), child("b", "blocked", "a", age=age))
    assert code_of(due) is (Code.WITHIN_GRACE if young else Code.LOST_RELEASE)
    doomed = look(child("a", "failed"), child("b", "blocked", "a", age=age))
    assert code_of(doomed) is (Code.WITHIN_GRACE if young else Code.LOST_SKIP)


@pytest.mark.parametrize(("age", "young"), [(119, True), (120, False)])
def test_a_reopened_orchestration_has_its_grace(age: float, young: bool) -> None:  # noqa: FBT001
    for before, expected in (("succeeded", Code.LOST_RELEASE), ("failed", Code.LOST_SKIP)):
        found = reopened(age, child("a", before), child("b", "blocked", "a"))
        assert code_of(found) is (Code.WITHIN_GRACE if young else expected)
    ended = reopened(age, running("b"), tasks=[task("b", "COMPLETED")])
    assert code_of(ended) is (Code.WITHIN_GRACE if young else Code.LOST_TERMINAL)


def test_no_child_is_skipped_before_its_cause() -> None:
    """The grace of a doomed child also holds for all children behind it."""
    rows = (child("a", "failed"), child("b", "blocked", "a", age=60), child("c", "blocked", "b"))
    found = look(*rows)
    assert {code_of(found, "b"), code_of(found, "c")} == {Code.WITHIN_GRACE}
    assert found.children["c"].since == moment(ago(60))


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ({"a": "succeeded", "b": "succeeded"}, Code.LOST_UNSKIP),
        ({"a": "succeeded", "b": "blocked"}, Code.LOST_UNSKIP),
        ({"a": "succeeded", "b": "failed"}, None),
        ({"a": "skipped", "b": "failed"}, None),
        ({"a": "succeeded"}, None),
    ],
)
def test_a_skip_without_a_cause_is_surfaced(before: dict[str, str], expected: Code | None) -> None:
    """An interrupted retry resets the failed children, but not those skipped because of them."""
    rows = [child(key, status) for key, status in before.items()]
    found = look(*rows, child("x", "skipped", "a", "b")).children.get("x")
    assert (found.code if found is not None else None) is expected


def test_unreadable_dependencies_may_justify_a_skip() -> None:
    torn = replace(child("a", "skipped"), problem="depends_on is missing or is not a list")
    assert look(torn).children == {}


def test_a_skip_is_surfaced_only_after_the_grace() -> None:
    """An expired row is never surfaced."""
    for young in ({"a": 60.0, "b": LONG}, {"a": LONG, "b": 60.0}):
        rows = (child("a", "ready", age=young["a"]), child("b", "skipped", "a", age=young["b"]))
        assert "b" not in look(*rows).children
    assert "b" not in reopened(60, child("a", "ready"), child("b", "skipped", "a")).children
    expired = child("b", "skipped", "a", ttl={"N": str(int(NOW.timestamp()))})
    assert "b" not in look(child("a", "ready"), expired).children


@pytest.mark.parametrize(
    ("finished", "failed", "expected"),
    [
        (600, LONG, Code.LOST_RECOVERY),
        (120, LONG, Code.LOST_RECOVERY),
        (119, LONG, None),
        (600, 600, None),
        (600, 300, None),
    ],
)
def test_a_later_fix_means_a_lost_recovery(
    finished: float, failed: float, expected: Code | None
) -> None:
    """The fix ended after the child had failed, and its grace is over."""
    fix = Task("I", "COMPLETED", status_since=ago(finished))
    found = look(child("b", "failed", age=failed), iterations={"b": fix}).children.get("b")
    assert (found.code if found is not None else None) is expected
    if found is not None:
        assert (found.task_id, found.since) == ("I", moment(ago(finished)))


def test_an_iteration_or_failure_without_time_is_ignored() -> None:
    """Without both times, nobody can tell which came last."""
    fix = Task("I", "COMPLETED", status_since=ago(600))
    timeless = child("b", "failed", updated_at={"S": "yesterday"})
    assert look(timeless, iterations={"b": fix}).children == {}
    soon = replace(fix, status_since="soon")
    assert look(child("b", "failed"), iterations={"b": soon}).children == {}


def test_a_fix_matters_only_to_a_failed_child() -> None:
    """A recent change of the meta row gives the live reconciler its grace first."""
    fix = Task("I", "COMPLETED", status_since=ago(600))
    assert look(child("b", "succeeded"), iterations={"b": fix}).children == {}
    assert reopened(60, child("b", "failed"), iterations={"b": fix}).children == {}


@pytest.mark.parametrize("of", ["child", "meta"])
def test_an_expired_row_gets_no_new_work(of: str) -> None:
    past = {"N": str(int(NOW.timestamp()))}
    own: dict[str, Any] = {"ttl": past} if of == "child" else {}
    row = child("b", "ready", **own)
    kept = child("c", "ready", ttl={"N": str(int(NOW.timestamp()) + 1)})
    of_meta = replace(meta(2), ttl=int(NOW.timestamp()) if of == "meta" else None)
    whole = Orchestration(ORCHESTRATION_ID, of_meta, {"b": row, "c": kept})
    found = diagnose(whole, Evidence(budget=Budget(room=1)), POLICY, NOW)
    assert code_of(found) is Code.WAITING
    assert "time to live" in found.children["b"].reason
    assert code_of(found, "c") is (Code.LOST_RELEASE if of == "child" else Code.WAITING)
