"""After the last actor has ended, time passes, tasks end, sweeps run, and all must end well.

I3 and I5 are about the end, whatever was interrupted before. ``dictated_end`` decides, which does
not use the code under test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from reconciler.domain.model import timestamp
from tests.simulation.actors import ClockHand
from tests.simulation.executions import have_run
from tests.simulation.invariants import (
    Invariants,
    Rows,
    dictated_end,
    says_its_row,
    verdict,
)
from tests.simulation.memory_dynamodb import MemoryDynamoDB
from tests.simulation.scheduler import Execution
from tests.simulation.world import LONG_BEFORE, PRIVATE, Scenario, start, sweep

LONG_AFTER = timedelta(days=1)

Outcome = Callable[[Mapping[str, Any]], str]
"""Says how an unfinished task ends."""


def _completes(_task: Mapping[str, Any]) -> str:
    return "COMPLETED"


def one_sweep(database: MemoryDynamoDB, clock: ClockHand, scenario: Scenario) -> None:
    """Run one undisturbed evaluation with the invariants watching."""
    actor = sweep(9, scenario.settings)
    execution = Execution(database, clock, [actor], private=PRIVATE)
    Invariants(execution, scenario)
    while choices := execution.choices():
        execution.step(choices[0])


def end_tasks(database: MemoryDynamoDB, outcome: Outcome = _completes) -> int:
    """End every task that has been started; returns how many ended.

    The platform gives up a task that was not started. If a released row names the task, a sweep
    must come first: the platform waits until its last invocation is on record.
    """
    have_run(database, LONG_BEFORE)
    rows, tasks = database.tables["OrchestrationTable"].items, database.tables["TaskTable"]
    named = {
        row["child_task_id"]["S"]
        for row in rows.values()
        if row.get("child_status") == {"S": "released"} and "child_task_id" in row
    }
    ended = 0
    for key, task in tasks.items.items():
        started = task["status"]["S"] != "SUBMITTED"
        awaited = key[0] in named and "reconciler_invoke_count" not in task
        if verdict(task) is not None or (awaited and not started):
            continue
        status, at = outcome(task) if started else "FAILED", timestamp(LONG_BEFORE)
        entered = {"status_created_at": {"S": f"{status}#{at}"}, "completed_at": {"S": at}}
        tasks.replace({key: {**task, "status": {"S": status}, **entered}})
        ended += 1
    return ended


def recover(
    database: MemoryDynamoDB,
    clock: ClockHand,
    scenario: Scenario,
    outcome: Outcome = _completes,
) -> int:
    """Alternate sweeps and ends of tasks until every child is terminal.

    Returns the number of rounds.

    Raises:
        AssertionError: some child is not terminal after as many rounds as could be needed, or an
            invariant was broken.
    """
    have_run(database, clock.now)
    clock.now += LONG_AFTER
    for table in database.tables.values():
        table.forget_history()
    rows = database.tables["OrchestrationTable"].items
    children = sum("#" not in key[1] for key in rows)
    for round_ in range(1, 2 * children + 3):
        one_sweep(database, clock, scenario)
        if not end_tasks(database, outcome) and _all_terminal(database):
            return round_
    states = {
        key[1]: row.get("child_status", {}).get("S")
        for key, row in database.tables["OrchestrationTable"].items.items()
        if "#" not in key[1]
    }
    msg = f"I3: still not finished after {2 * children + 2} undisturbed sweeps: {states}"
    raise AssertionError(msg)


def _all_terminal(database: MemoryDynamoDB) -> bool:
    return all(
        row.get("child_status", {}).get("S") in {"succeeded", "failed", "skipped"}
        for key, row in database.tables["OrchestrationTable"].items.items()
        if "#" not in key[1]
    )


class Convergence:
    """Judges the end of an execution; an end that has been seen before is not judged again."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._judged: set[tuple[int, ...]] = set()

    def __call__(self, execution: Execution) -> None:
        """Recover, and compare the end with the end that the outcomes dictate.

        Raises:
            AssertionError: the ends differ, or an invariant was broken on the way.
        """
        if not self._scenario.converges:
            return
        database = execution.database
        key = tuple(t.digest for n, t in database.tables.items() if n not in PRIVATE)
        if key in self._judged:
            return
        execution.end()
        recover(database, execution.clock, self._scenario)
        self._compare(database)
        self._judged.add(key)

    def _compare(self, database: MemoryDynamoDB) -> None:
        rows, tasks = (database.tables[n].items for n in ("OrchestrationTable", "TaskTable"))
        for at, end in dictated_end(rows, tasks).items():
            found = rows[at]["child_status"]["S"]
            # A skip that was right when it was written stays even if a retry came right after it:
            # the platform's retry reads and writes in separate steps.
            raced = self._scenario.retries and found == "skipped"
            assert found == end or raced, f"I3/I5: {at[1]} ends {found} instead of {end}"
        if self._scenario.settings.settle_mode == "nudge":
            self._parent_is_told(rows, tasks)

    @staticmethod
    def _parent_is_told(rows: Rows, tasks: Rows) -> None:
        """Check that a parent without its roll-up was touched, if any task may be touched."""
        if any("rollup_posted_at" in row for row in rows.values()):
            return
        touched = any("reconcile_nudged_at" in task for task in tasks.values())
        may_be = any(says_its_row(task, rows) for task in tasks.values())
        assert touched or not may_be, "I3: no task was touched although all children have ended"


def watched(scenario: Scenario) -> Callable[[], Execution]:
    """Return a function that begins an execution of ``scenario`` with the invariants watching."""

    def begin() -> Execution:
        execution = start(scenario)
        Invariants(execution, scenario)
        return execution

    return begin
