"""Every part of every condition is needed: without it, a schedule breaks an invariant.

The stores build the parts (``tests/mutation/conditions.py`` collects them). A new condition fails
here until one of the lists names the schedule that needs it, or the reason why none does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import pytest

from reconciler.stores.control import ControlStore
from reconciler.stores.dynamodb import DynamoDB
from tests.mutation.conditions import Mutant, sites, watching
from tests.simulation.actors import ClockHand
from tests.simulation.answers import fail
from tests.simulation.executions import executions
from tests.simulation.explorer import Violation, explore
from tests.simulation.matrix import DONE
from tests.simulation.memory_dynamodb import MemoryDynamoDB
from tests.simulation.recovery import Convergence, watched
from tests.simulation.scenarios import BY_NAME, pair
from tests.simulation.world import (
    ORCH,
    START,
    DirectPort,
    Node,
    Scenario,
    fill,
    reconciler_on,
    sim_settings,
)

pytestmark = pytest.mark.simulation


# -- checks with one actor alone


def four_of_six_go_under_a_cap_of_four() -> None:
    settings = sim_settings(
        user_concurrency_table_name="UserConcurrencyTable", max_concurrent_tasks_per_user=4
    )
    database = MemoryDynamoDB()
    fill(database, Scenario("alone", {name: Node("ready") for name in "abcdef"}, []))
    reconciler = reconciler_on(DirectPort(database, ClockHand(START)), settings)
    assert reconciler.evaluate(ORCH, sweep_id="s").counts.released == 4


def too_long_a_text_is_refused(status: str) -> None:
    database = MemoryDynamoDB()
    nodes = pair(DONE) | {"b": Node(status, "a", description="long " * 3000)}
    fill(database, Scenario("alone", nodes, []))
    reconciler = reconciler_on(DirectPort(database, ClockHand(START)))
    assert reconciler.evaluate(ORCH, sweep_id="s").counts.refused == 1


def a_second_pause_leaves_the_first_as_it_is() -> None:
    control = ControlStore(DynamoDB(MemoryDynamoDB()), "OrchestrationTable")  # type: ignore[arg-type]
    first = control.pause("first", "anna", START)
    assert control.pause("second", "ben", START) == first


class _Starting(DirectPort):
    """The task starts just before anything is recorded on it."""

    def __getattr__(self, operation: str) -> Any:
        if operation == "transact_write_items":
            tasks = self._database.tables["TaskTable"]
            ((key, task),) = tasks.items.items()
            tasks.replace({key: {**task, "status": {"S": "HYDRATING"}}})
        return super().__getattr__(operation)


def a_task_that_starts_meanwhile_is_not_invoked() -> None:
    database = MemoryDynamoDB()
    fill(database, Scenario("alone", {"a": Node("released", task="SUBMITTED")}, []))
    port = _Starting(database, ClockHand(START))
    assert reconciler_on(port).evaluate(ORCH, sweep_id="s").counts.reinvoked == 0
    assert not executions(database).items


class _Refusing(DirectPort):
    """The task disappears while its pipeline refuses the invocation."""

    def call(self, operation: str, **request: Any) -> Any:
        if operation == "invoke":
            tasks = self._database.tables["TaskTable"]
            tasks.replace(dict.fromkeys(tasks.items))
            fail("invoke", "TooManyRequestsException", "not now")
        return super().call(operation, **request)


def a_task_that_is_gone_stays_gone() -> None:
    database = MemoryDynamoDB()
    fill(database, Scenario("alone", {"a": Node("released", task="SUBMITTED")}, []))
    port = _Refusing(database, ClockHand(START))
    reconciler_on(port).evaluate(ORCH, sweep_id="s")
    assert not database.tables["TaskTable"].items


Needs = str | Callable[[], None]
"""The name of a scenario, or a check with one actor alone."""

NEEDED_BY: Mapping[str, Needs] = {
    "create: without task_id": "a row is seeded again",
    "expect_failure: child_status not failed": "cancellation, sweep, live",
    "expect_failure: child_status not skipped": "5 a skip racing a release",
    "expect_failure: without child_status": "a skip races a retry's release",
    "expect_meta: without updated_at": "pair: sweep, cascade, roll-up lost",
    "expect_no_failure: without child_status": "an un-skip, and its predecessor fails",
    "expect_row: without child_status": "retry, sweep, live",
    "expect_succeeded: without child_status": "a predecessor is removed",
    "pause: without paused_at": a_second_pause_leaves_the_first_as_it_is,
    "reserve: reservations, not attribute_not_exists(reservations)": (
        four_of_six_go_under_a_cap_of_four
    ),
    "reserve: reservations, not size(reservations) < …": four_of_six_go_under_a_cap_of_four,
    "reserve: reservations, one more": "two deliveries and one slot",
    "reserve: without reservations": "two deliveries and one slot",
    "reserve: without version": "a slot is taken while another comes free",
    "set_adopted: without child_status": "a task was left behind, live",
    "set_adopted: without child_task_id": "a whole attempt goes by during an adoption",
    "set_adopted: without updated_at": "a claim with its task is made anew",
    "set_claim_reset: without updated_at": "a claim is made anew",
    "set_invoked: without task_id": "a task goes while it is invoked",
    "set_last_invocation: without reconciler_invoke_count": "a task that never starts, two sweeps",
    "set_last_invocation: without status": a_task_that_starts_meanwhile_is_not_invoked,
    "set_nudged: without reconcile_nudge_count": "an unsettled parent, two sweeps",
    "set_outcome: without child_status": "a verdict on a row that runs its retry",
    "set_outcome: without child_task_id": "a verdict on a row that runs its retry",
    "set_refused: child_status not blocked": lambda: too_long_a_text_is_refused("blocked"),
    "set_refused: child_status not ready": lambda: too_long_a_text_is_refused("ready"),
    "set_refused: without child_status": "a refusal races a claim",
    "set_refused: without depends_on": "a refusal, and dependencies are edited",
    "set_released: child_status not blocked": "dependencies are edited",
    "set_released: child_status not ready": "a retry is released",
    "set_released: without child_status": "a release races a claim",
    "set_released: without child_task_id": "a whole attempt goes by during a release",
    "set_released: without depends_on": "dependencies are edited",
    "set_reopened: without child_count": "an un-skip, and the time to live",
    "set_skipped: child_status not blocked": "a lost failure, two sweeps",
    "set_skipped: child_status not ready": "5 a skip racing a release",
    "set_skipped: without child_status": "a retry races a skip",
    "set_skipped: without depends_on": "a skip, and dependencies are edited",
    "set_unskipped: without depends_on": "an un-skip, and dependencies are edited",
    "unset_last_invocation: without reconciler_invoked_at": a_task_that_is_gone_stays_gone,
}
"""Part of a condition → the scenario or check that fails without it."""

SECOND_LINE: Mapping[str, str] = {
    "_prune: without version": (
        "two that prune at once remove the same entries; `reserve` checks the version after its "
        "own pruning, so without this part one would be refused instead of reading again"
    ),
    "expect_meta: without rollup_posted_at": (
        "touching a parent that has just been settled has no effect; whoever takes the roll-up "
        "back writes `updated_at`, which is checked too"
    ),
    "expect_row: without child_task_id": (
        "once the row names another task, touching the earlier task changes no row"
    ),
    "expect_task: without idempotency_key": (
        "the part on the user also checks that the task exists, and its key never changes"
    ),
    "expect_task: without user_id": (
        "the part on the key also checks that the task exists, and its user never changes"
    ),
    "set_claim_reset: without child_status": (
        "whoever takes a row out of `releasing` writes `updated_at`, which is checked too"
    ),
    "set_claim_reset: without child_task_id": (
        "whoever gives a row another task writes `updated_at`, which is checked too"
    ),
    "set_nudged: without status": (
        "a finished task stays finished, and touching an unfinished one would do no harm"
    ),
    "set_refused: without child_task_id": (
        "a text that is refused once is refused again, so the row only fails a moment earlier"
    ),
    "set_skipped: without child_task_id": (
        "a child gets another attempt only after all its predecessors have succeeded, and then "
        "`expect_failure` on the cause does not hold"
    ),
    "set_unskipped: without child_status": (
        "whoever moves a skipped row writes `updated_at`, which is checked too"
    ),
    "set_unskipped: without updated_at": (
        "a row that was reset and skipped again has a failed predecessor, which "
        "`expect_no_failure` checks"
    ),
}
"""Parts that no schedule needs as long as the others are there, each with the reason."""


def _run(needs: Needs) -> None:
    if callable(needs):
        needs()
        return
    scenario = BY_NAME[needs]
    explore(watched(scenario), Convergence(scenario))


@cache
def _built() -> frozenset[Mutant]:
    with watching() as seen:
        for needs in {str(needs): needs for needs in NEEDED_BY.values()}.values():
            _run(needs)
    return frozenset(seen)


def test_every_part_of_a_condition_is_listed() -> None:
    """Every part is in exactly one of the two lists, and the lists have nothing else."""
    assert {str(mutant) for mutant in _built()} == NEEDED_BY.keys() | SECOND_LINE.keys()
    assert {mutant.site for mutant in _built()} == sites(), "a condition that no schedule meets"
    assert not NEEDED_BY.keys() & SECOND_LINE.keys()


@pytest.mark.parametrize("name", sorted(NEEDED_BY))
def test_leaving_out_a_part_breaks_an_invariant(name: str) -> None:
    site, _, change = name.partition(": ")
    mutant = Mutant(site, change)
    with watching(mutant) as seen, pytest.raises((Violation, AssertionError)):
        _run(NEEDED_BY[name])
    assert mutant in seen, "the condition was never built"
