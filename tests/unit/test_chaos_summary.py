"""How a chaos run is judged: only one thing excuses a parent that nobody settled."""

from __future__ import annotations

import pytest

from reconciler.demo.observer import Observer, Snapshot
from reconciler.domain.model import ChildStatus, Meta, Orchestration, Task
from reconciler.settings import load_settings
from reconciler.stores.rows import parse_child
from tests.chaos.summary import Run
from tests.support.strategies import NOW, ORCHESTRATION_ID, ago

SHOWN = frozenset({ORCHESTRATION_ID})
TABLES = ("ORCHESTRATION_TABLE_NAME", "TASK_TABLE_NAME", "TASK_EVENTS_TABLE_NAME")
SETTINGS = load_settings(dict.fromkeys(TABLES, "table"))


def unheard(*counts: int, task_id: str = "T-a") -> tuple[Task, ...]:
    return tuple(Task(task_id, "COMPLETED", nudge_count=count) for count in counts)


def unsettled(lost: tuple[Task, ...], shown: frozenset[str] = SHOWN) -> list[str]:
    """Return the problems with the parent of a run that ended with it unsettled."""
    run = run_of(lost, shown)
    found = [problem for problem in run.problems() if "not settled" in problem]
    assert run.settled() is not bool(found)
    assert f"nudges unheard: {0 if found else 1}" in "\n".join(run.lines())
    return found


def run_of(
    lost: tuple[Task, ...] = (), shown: frozenset[str] = SHOWN, exits: tuple[str, ...] = ()
) -> Run:
    """Return a run that ended with one unsettled parent."""
    row = {
        "orchestration_id": {"S": ORCHESTRATION_ID},
        "sub_issue_id": {"S": "a"},
        "child_status": {"S": "succeeded"},
        "child_task_id": {"S": "T-a"},
    }
    meta = Meta(ORCHESTRATION_ID, 1, "user-1", "acme/shop", ago(9), ago(9), settled=False)
    whole = Orchestration(ORCHESTRATION_ID, meta, {"a": parse_child(row)})
    observer = Observer(SETTINGS)
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


def test_lost_touches_excuse_an_unsettled_parent() -> None:
    """Every touch must be lost, and operators must be shown the parent."""
    assert unsettled(unheard(0, 1, 2, 3)) == []


@pytest.mark.parametrize("counts", [(), (1, 2), (1, 3), (2, 3), (0, 1, 2), (1, 1, 2)], ids=str)
def test_a_single_heard_touch_must_settle_the_parent(counts: tuple[int, ...]) -> None:
    assert unsettled(unheard(*counts)) == [f"its parent was not settled: {ORCHESTRATION_ID}"]


def test_lost_touches_of_another_task_excuse_nothing() -> None:
    assert unsettled(unheard(1, 2, 3, task_id="T-b"))


def test_a_parent_hidden_from_operators_is_not_excused() -> None:
    assert unsettled(unheard(1, 2, 3), frozenset())


def test_an_unexpected_exit_is_a_problem() -> None:
    """An exit is expected if a process was killed while its worker started."""
    killed = "worker-a, code 1: WorkerLostError('Could not start worker processes')"
    run = run_of(exits=("worker-b, code 1: why not", killed))
    assert [said for said in run.problems() if "ended by itself" in said] == [
        "ended by itself: worker-b, code 1: why not"
    ]
    assert "ended by themselves: 1" in run.lines()
