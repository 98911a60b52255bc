"""A scan nominates whatever the authority would find wrong, and hardly anything else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.domain.model import Child, ChildStatus, Meta, Orchestration, Task
from reconciler.domain.nomination import (
    active_part,
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


def test_what_is_healthy_is_left_alone() -> None:
    assert not suspicious(whole(A, B), RUNS, POLICY, NOW)


@pytest.mark.parametrize(
    "orchestration",
    [
        whole(A),  # fewer rows than are counted: a page may have cut through it
        whole(replace(B, depends_on=())),
        whole(A, replace(B, status=None, raw_status="odd")),
        whole(replace(A, updated_at=ago(9000)), meta=None),
        whole(A, B, meta=replace(META, child_count=3)),
    ],
)
def test_whatever_may_be_wrong_is_nominated(orchestration: Orchestration) -> None:
    assert suspicious(orchestration, RUNS, POLICY, NOW)


def test_a_count_that_cannot_be_read_is_no_gap() -> None:
    assert not suspicious(whole(A, B, meta=replace(META, child_count=None)), RUNS, POLICY, NOW)


@pytest.mark.parametrize("tasks", [{}, {"T": None}, {"T": Task("T", "COMPLETED")}])
def test_a_task_that_is_unread_gone_or_ended_is_suspicious(tasks: dict[str, Task | None]) -> None:
    assert suspicious(whole(A, B), tasks, POLICY, NOW)


def test_a_settled_one_without_any_row_or_count_is_left_alone() -> None:
    bare = whole(meta=replace(META, child_count=None, settled=True))
    assert not suspicious(bare, {}, POLICY, NOW)


# -- what an index of active children shows


def active(key: str, status: ChildStatus, *after: str) -> Child:
    return Child(ORCHESTRATION_ID, key, status, status.value, after, updated_at=ago(60))


@pytest.mark.parametrize(
    ("children", "unseen"),
    [
        ((), ()),
        ((A, B), ()),  # what it waits for is active
        ((active("b", ChildStatus.BLOCKED, "a"),), None),  # nothing of it is: it is due
        ((A, active("b", ChildStatus.READY, "a", "x", "y")), ("x", "y")),
        (
            (A, active("b", ChildStatus.BLOCKED, "a", "x"), active("c", ChildStatus.READY, "y")),
            None,
        ),
        ((active("b", ChildStatus.READY),), ()),  # it waits for nobody
        ((active("b", ChildStatus.RELEASED, "x"),), ()),  # it waits no longer
        ((active("b", ChildStatus.RELEASING, "x"), A), ()),
    ],
)
def test_the_predecessors_that_have_to_be_read_before_it_is_judged(
    children: tuple[Child, ...], unseen: tuple[str, ...] | None
) -> None:
    assert unseen_predecessors(whole(*children)) == unseen


def test_an_active_part_says_nothing_of_its_meta_row() -> None:
    part = active_part(whole(A, B, meta=None))
    assert part.children == whole(A, B).children
    assert part.meta is not None
    assert part.meta.child_count is None
    assert not suspicious(part, RUNS, POLICY, NOW)


def test_predecessors_that_were_read_stand_beside_it() -> None:
    read = active("x", ChildStatus.FAILED)
    part = with_predecessors(whole(A, active("b", ChildStatus.BLOCKED, "a", "x")), [read])
    assert set(part.children) == {"a", "b", "x"}
    assert part.children["x"] is read
