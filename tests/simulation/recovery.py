"""After the last actor has ended: time passes, tasks end, sweeps look again, and all must be well.

I3 and I5 are about what comes of it in the end, whatever was interrupted before. The verdict is
that of ``dictated_end``, which knows nothing of the code under test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from reconciler.domain.model import timestamp
from tests.simulation.actors import ClockHand
from tests.simulation.invariants import Invariants, dictated_end, verdict
from tests.simulation.memory_dynamodb import MemoryDynamoDB
from tests.simulation.scheduler import Execution
from tests.simulation.world import LONG_BEFORE, PRIVATE, Scenario, start, sweep

LONG_AFTER = timedelta(days=1)

Outcome = Callable[[Mapping[str, Any]], str]
"""Says how an unfinished task ends."""


def _completes(_task: Mapping[str, Any]) -> str:
    return "COMPLETED"


def one_sweep(database: MemoryDynamoDB, clock: ClockHand, scenario: Scenario) -> None:
    """Run one undisturbed evaluation, watched."""
    actor = sweep(9, scenario.settings)
    execution = Execution(database, clock, [actor], private=PRIVATE)
    Invariants(execution, scenario)
    while choices := execution.choices():
        execution.step(choices[0])


def end_tasks(
    database: MemoryDynamoDB, outcome: Outcome = _completes, *, invoked_only: bool = True
) -> int:
    """End every task that a released row carries and that was started; returns how many."""
    ended = 0
    rows = database.tables["OrchestrationTable"].items
    tasks = database.tables["TaskTable"]
    for row in rows.values():
        if row.get("child_status", {}).get("S") != "released":
            continue
        task = tasks.items.get((row.get("child_task_id", {}).get("S", ""), ""))
        if task is None or verdict(task) is not None:
            continue
        ours = "reconciler_sweep_id" in task
        if invoked_only and ours and "reconciler_invoked_at" not in task:
            continue  # its pipeline has not been started, as far as anybody knows
        status, at = outcome(task), timestamp(LONG_BEFORE)
        changed = {"status": {"S": status}, "completed_at": {"S": at}}
        tasks.replace({(task["task_id"]["S"], ""): {**task, **changed}})
        ended += 1
    return ended


def recover(
    database: MemoryDynamoDB,
    clock: ClockHand,
    scenario: Scenario,
    outcome: Outcome = _completes,
) -> int:
    """Let sweeps and the ends of tasks alternate until every child is terminal.

    Returns the number of rounds.

    Raises:
        AssertionError: it is not so after as many rounds as could be needed, or an invariant broke.
    """
    clock.now += LONG_AFTER
    for table in database.tables.values():
        table.forget_history()
    children = len(scenario.nodes)
    invoked_only = scenario.settings.orchestrator_function_arn is not None
    for round_ in range(1, 2 * children + 3):
        one_sweep(database, clock, scenario)
        if not end_tasks(database, outcome, invoked_only=invoked_only) and _all_terminal(database):
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
    """Judges an execution's end; one that ends as another did is not judged again."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._judged: set[tuple[int, ...]] = set()

    def __call__(self, execution: Execution) -> None:
        """Recover, and compare with what the outcomes dictate.

        Raises:
            AssertionError: it does not come to that, or an invariant broke on the way.
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
        rows = database.tables["OrchestrationTable"].items
        ends = dictated_end(rows, database.tables["TaskTable"].items)
        for at, end in ends.items():
            found = rows[at]["child_status"]["S"]
            # A skip that was right when it was made stays, though a retry came just behind it:
            # the platform's retry reads and writes in separate steps.
            raced = self._scenario.retries and found == "skipped"
            assert found == end or raced, f"I3/I5: {at[1]} ends {found}, and {end} was dictated"


def watched(scenario: Scenario) -> Callable[[], Execution]:
    """Return what begins an execution of ``scenario`` with the invariants watching."""

    def begin() -> Execution:
        execution = start(scenario)
        Invariants(execution, scenario)
        return execution

    return begin
