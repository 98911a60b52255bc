"""A scan nominates whatever an evaluation would find wrong, and hardly anything else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.domain.model import Child, ChildStatus, Meta, Orchestration, Task
from reconciler.domain.nomination import (
    active_part,
    fingerprint_of,
    running_tasks,
    suspicious,
    unseen_predecessors,
    with_predecessors,
)
from tests.support.strategies import NOW, ORCHESTRATION_ID, POLICY, ago

META = Meta(ORCHESTRATION_ID, 2, "user-1", "acme/shop", ago(9000), ago(9000), settled=False)
A = Child(ORCHESTRATION_ID, "a", ChildStatus.RELEASED, "released", task_id="T", updated_at=ago(60))
B = Child(ORCHESTRATION_ID, "b", ChildStatus.BLOCKED, "blocked", ("a",), updated_at=ago(60))
RUNS = {"T": Task("T", "RUNNING", status_since=ago(60))}


def whole(*children: Child, meta: Meta | None = META) -> Orchestration:
    return Orchestration(ORCHESTRATION_ID, meta, {c.sub_issue_id: c for c in children})


def test_only_released_children_have_tasks_to_be_read() -> None:
    retried = replace(B, task_id="U")
    unnamed = replace(A, sub_issue_id="c", task_id=None)
    assert running_tasks(whole(A, retried, unnamed)) == ["T"]


def test_a_healthy_orchestration_is_not_nominated() -> None:
    assert not suspicious(whole(A, B), RUNS, POLICY, NOW)


@pytest.mark.parametrize(
    "orchestration",
    [
        whole(A),  # fewer rows than counted: a page may have cut it in two
        whole(replace(B, depends_on=())),
        whole(A, replace(B, status=None, raw_status="odd")),
        whole(replace(A, updated_at=ago(9000)), meta=None),
        whole(A, B, meta=replace(META, child_count=3)),
    ],
)
def test_a_suspicious_orchestration_is_nominated(orchestration: Orchestration) -> None:
    assert suspicious(orchestration, RUNS, POLICY, NOW)


def test_an_unreadable_count_nominates_nothing() -> None:
    assert not suspicious(whole(A, B, meta=replace(META, child_count=None)), RUNS, POLICY, NOW)


@pytest.mark.parametrize("tasks", [{}, {"T": None}, {"T": Task("T", "COMPLETED")}])
def test_an_unread_missing_or_ended_task_is_suspicious(tasks: dict[str, Task | None]) -> None:
    assert suspicious(whole(A, B), tasks, POLICY, NOW)


def test_a_settled_empty_orchestration_is_not_nominated() -> None:
    bare = whole(meta=replace(META, child_count=None, settled=True))
    assert not suspicious(bare, {}, POLICY, NOW)


# -- an index of active children


def active(key: str, status: ChildStatus, *after: str) -> Child:
    return Child(ORCHESTRATION_ID, key, status, status.value, after, updated_at=ago(60))


@pytest.mark.parametrize(
    ("children", "unseen"),
    [
        ((), ()),
        ((A, B), ()),  # its predecessor is active
        (
            (active("b", ChildStatus.BLOCKED, "a"),),
            None,
        ),  # its predecessor is not active: it is due
        ((A, active("b", ChildStatus.READY, "a", "x", "y")), ("x", "y")),
        (
            (A, active("b", ChildStatus.BLOCKED, "a", "x"), active("c", ChildStatus.READY, "y")),
            None,
        ),
        ((active("b", ChildStatus.READY),), ()),  # it has no predecessor
        ((active("b", ChildStatus.RELEASED, "x"),), ()),  # it waits no longer
        ((active("b", ChildStatus.RELEASING, "x"), A), ()),
    ],
)
def test_only_unseen_predecessors_have_to_be_read(
    children: tuple[Child, ...], unseen: tuple[str, ...] | None
) -> None:
    """A pending child without an active predecessor is due, and nothing has to be read."""
    assert unseen_predecessors(whole(*children)) == unseen


def test_an_active_part_has_an_unknown_count() -> None:
    part = active_part(whole(A, B, meta=None))
    assert part.children == whole(A, B).children
    assert part.meta is not None
    assert part.meta.child_count is None
    assert not suspicious(part, RUNS, POLICY, NOW)


def test_predecessors_that_were_read_are_added() -> None:
    read = active("x", ChildStatus.FAILED)
    part = with_predecessors(whole(A, active("b", ChildStatus.BLOCKED, "a", "x")), [read])
    assert set(part.children) == {"a", "b", "x"}
    assert part.children["x"] is read


def test_a_fingerprint_counts_the_tasks_that_have_ended() -> None:
    two = whole(A, replace(A, sub_issue_id="c", task_id="U"))
    ended, runs = Task("T", "COMPLETED"), Task("U", "RUNNING")
    assert fingerprint_of(two, {}) == fingerprint_of(two, {"T": None, "U": runs})
    assert fingerprint_of(two, {}) == two.fingerprint
    assert fingerprint_of(two, {"T": ended, "U": runs}) == f"{two.fingerprint}+1"
    assert fingerprint_of(two, {"T": ended, "U": ended}) == f"{two.fingerprint}+2"


def test_all_predecessors_of_the_watched_are_read() -> None:
    """Of others they are unread if none is active: those are nominated anyway."""
    assert unseen_predecessors(whole(B)) is None
    assert unseen_predecessors(whole(B), watched=True) == ("a",)
