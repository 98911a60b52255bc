"""What a run of chaos is judged by: a parent that nobody settled is excused by one thing alone."""

from __future__ import annotations

from datetime import timedelta

import pytest

from reconciler.demo.observer import Observer, Patience, Snapshot
from reconciler.domain.model import ChildStatus, Meta, Orchestration, Task
from reconciler.stores.rows import parse_child
from tests.chaos.summary import Run
from tests.support.strategies import NOW, ORCHESTRATION_ID, ago

SHOWN = frozenset({ORCHESTRATION_ID})
SECOND = timedelta(seconds=1)


def unheard(*counts: int, task_id: str = "T-a") -> tuple[Task, ...]:
    return tuple(Task(task_id, "COMPLETED", nudge_count=count) for count in counts)


def unsettled(lost: tuple[Task, ...], shown: frozenset[str] = SHOWN) -> list[str]:
    """Return what is wrong with the parent of a run in the end of which it was not settled."""
    run = run_of(lost, shown)
    found = [problem for problem in run.problems() if "not settled" in problem]
    assert run.settled() is not bool(found)
    assert f"nudges unheard: {0 if found else 1}" in "\n".join(run.lines())
    return found


def run_of(
    lost: tuple[Task, ...] = (), shown: frozenset[str] = SHOWN, exits: tuple[str, ...] = ()
) -> Run:
    """Return a run in the end of which one parent was not settled."""
    row = {
        "orchestration_id": {"S": ORCHESTRATION_ID},
        "sub_issue_id": {"S": "a"},
        "child_status": {"S": "succeeded"},
        "child_task_id": {"S": "T-a"},
    }
    meta = Meta(ORCHESTRATION_ID, 1, "user-1", "acme/shop", ago(9), ago(9), settled=False)
    whole = Orchestration(ORCHESTRATION_ID, meta, {"a": parse_child(row)})
    observer = Observer(Patience(SECOND, SECOND, SECOND))
    tasks = {"T-a": Task("T-a", "COMPLETED", nudge_count=3)}
    observer.observe(Snapshot(NOW, {ORCHESTRATION_ID: whole}, tasks))
    return Run(
        seed=1,
        seconds=1.0,
        observer=observer,
        expected={ORCHESTRATION_ID: {"a": ChildStatus.SUCCEEDED}},
        faults={},
        sweeps=2,
        incomplete_sweeps=0,
        lost=lost,
        shown_unsettled=shown,
        never_started=frozenset(),
        exits=exits,
        unrecovered=frozenset(),
        bound_seconds=1.0,
        recovered_in_seconds=1.0,
    )


def test_one_that_was_touched_as_often_as_may_be_unheard_and_is_shown_waits_for_a_person() -> None:
    assert unsettled(unheard(0, 1, 2, 3)) == []


@pytest.mark.parametrize("counts", [(), (1, 2), (1, 3), (2, 3), (0, 1, 2), (1, 1, 2)], ids=str)
def test_one_that_was_heard_of_once_should_have_been_settled(counts: tuple[int, ...]) -> None:
    assert unsettled(unheard(*counts)) == [f"its parent was not settled: {ORCHESTRATION_ID}"]


def test_what_was_lost_of_another_task_excuses_nothing() -> None:
    assert unsettled(unheard(1, 2, 3, task_id="T-b"))


def test_one_that_operators_are_not_shown_is_not_left_to_them() -> None:
    assert unsettled(unheard(1, 2, 3), frozenset())


def test_an_exit_is_a_problem_unless_a_process_was_killed_at_its_start() -> None:
    killed = "worker-a, code 1: WorkerLostError('Could not start worker processes')"
    run = run_of(exits=("worker-b, code 1: why not", killed))
    assert [said for said in run.problems() if "ended by itself" in said] == [
        "ended by itself: worker-b, code 1: why not"
    ]
    assert "ended by themselves: 1" in run.lines()
