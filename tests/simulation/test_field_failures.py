"""Failures that users of other sweepers reported, with a test for each number of that list.

Some are tested elsewhere in part:

14  an expiry that is lost near a time-out: we have two expiries. Our record of failures gets its
    ``ttl`` in the same update (below). The dedup key gets its expiry in one ``SET … NX EX``
    (``tests/integration/workers/test_dedup.py``).
17  a sweeper that is slower than the failures: below, counted in requests instead of seconds.
    ``tests/integration/workers`` tests that sweeps do not overlap; ``benchmarks`` measures cost.
25  never started, a stalled job, a dead scheduler: ``reconciler health`` and the worker tests. A
    failed enumeration that is reported as complete: below.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from reconciler.domain.model import timestamp
from reconciler.repair.context import Evaluation
from reconciler.repair.reconciler import Reconciler
from reconciler.settings import Settings
from reconciler.sweeping.inline import run_inline_sweep
from reconciler.sweeping.scan import scan_segment
from reconciler.sweeping.segments import NEVER, Place, Scope, Segment
from tests.simulation import memory_dynamodb
from tests.simulation.actors import ClockHand
from tests.simulation.answers import fail
from tests.simulation.conftest import Show
from tests.simulation.explorer import explore
from tests.simulation.matrix import DONE, ENDED
from tests.simulation.memory_dynamodb import MemoryDynamoDB
from tests.simulation.others import claims_again
from tests.simulation.recovery import Convergence, end_tasks, watched
from tests.simulation.scenarios import BY_NAME, FELL, pair
from tests.simulation.world import (
    ORCH,
    START,
    USER,
    DirectPort,
    Node,
    Scenario,
    fill,
    reconciler_on,
    sim_settings,
    sweep,
    task_id,
)

pytestmark = pytest.mark.simulation


def _explore(name: str, show: Show) -> None:
    scenario = BY_NAME[name]
    show(name, explore(watched(scenario), Convergence(scenario)))


class Alone:
    """A database, and a reconciler that has it for itself."""

    def __init__(self, nodes: Mapping[str, Node], settings: Settings | None = None) -> None:
        self.settings = settings or sim_settings()
        self.database = MemoryDynamoDB()
        self.nodes = nodes
        fill(self.database, Scenario("alone", nodes, []))
        self.clock = ClockHand(START)
        self.port = DirectPort(self.database, self.clock)

    @property
    def reconciler(self) -> Reconciler:
        """A new process."""
        return reconciler_on(self.port, self.settings)

    def evaluate(self) -> Evaluation:
        """Run one evaluation, releases included."""
        return self.reconciler.evaluate(ORCH, sweep_id="sweep:1")

    def rows(self) -> dict[str, Any]:
        """Return the rows by sub-issue."""
        rows = self.database.tables["OrchestrationTable"].items
        return {key[1]: row for key, row in rows.items() if key[0] == ORCH}

    def status(self, name: str) -> str:
        """Return a child's status."""
        return str(self.rows()[name]["child_status"]["S"])

    def tasks(self) -> list[Mapping[str, Any]]:
        """Return all tasks."""
        return list(self.database.tables["TaskTable"].items.values())

    def recoveries(self) -> int:
        """Return how many repairs have been recorded."""
        events = self.database.tables["TaskEventsTable"].items.values()
        return sum(event["event_type"]["S"] == "orchestration_recovered" for event in events)

    def codes(self, evaluation: Evaluation) -> dict[str, str]:
        """Return child → code."""
        return {child.sub_issue_id: child.code.value for child in evaluation.children}


# -- runs twice, or goes backwards


def test_01_a_stale_read_overwrites_nothing_newer(show: Show) -> None:
    _explore("a row is seeded again", show)
    _explore("a skip races a retry's release", show)


def test_02_a_live_claim_is_never_taken_away(show: Show) -> None:
    _explore("a claim that grows old", show)
    _explore("a claim is made anew", show)


def test_03_a_verdict_never_hits_a_retried_row(show: Show) -> None:
    _explore("a verdict on a row that runs its retry", show)


def test_04_a_crash_during_release_runs_nothing_twice(show: Show) -> None:
    """The crash comes between creating the task and acknowledging the message."""
    _explore("3 redelivery during a release", show)


def test_05_a_second_sweep_resets_no_adopted_claim(show: Show) -> None:
    _explore("an abandoned claim with its task, two sweeps", show)


def test_06_a_late_rival_never_doubles_our_task(show: Show) -> None:
    """A live reconciler wakes up after its claim was given up."""
    _explore("a live reconciler that wakes up too late", show)


def test_07_a_batch_leaves_out_a_changed_row(show: Show) -> None:
    nodes = {"a": FELL, "b": Node("blocked", "a"), "c": Node("blocked", "a")}
    scenario = Scenario("a batch of skips", nodes, [sweep(1), claims_again("b")], faults=1)
    show(scenario.name, explore(watched(scenario), Convergence(scenario)))


def test_08_terminal_rows_are_left_alone() -> None:
    """This holds even if the row and its task contradict each other."""
    nodes = {
        "a": Node("succeeded", task="FAILED"),
        "b": Node("failed", task="COMPLETED"),
        "c": Node("skipped", "b", task="COMPLETED"),
    }
    world = Alone(nodes, sim_settings(settle_mode="off"))
    before = world.rows()
    world.evaluate()
    assert world.rows() == before


# -- stays stranded


class _Failing(MemoryDynamoDB):
    """Fails calls on purpose: ``failing`` says which ones, and with what code."""

    def __init__(self) -> None:
        super().__init__()
        self.failing: dict[str, str] = {}

    def query(self, **request: Any) -> dict[str, Any]:
        values = request["ExpressionAttributeValues"].values()
        asked = {next(iter(value.values())) for value in values}
        for text, code in self.failing.items():
            if text in asked:
                fail("query", code, "on purpose")
        return super().query(**request)

    def scan(self, **request: Any) -> dict[str, Any]:
        code = self.failing.get(f"segment {request['Segment']}")
        if code is not None:
            fail("scan", code, "on purpose")
        return super().scan(**request)

    def batch_get_item(self, **request: Any) -> dict[str, Any]:
        for name, part in request["RequestItems"].items():
            if name in self.failing:
                return {"Responses": {name: []}, "UnprocessedKeys": {name: part}}
        return super().batch_get_item(**request)


def _with(database: MemoryDynamoDB, nodes: Mapping[str, Node]) -> Alone:
    world = Alone(nodes)
    world.database = database
    fill(database, Scenario("alone", nodes, []))
    world.port = DirectPort(database, world.clock)
    return world


def _copies(database: MemoryDynamoDB, count: int) -> list[str]:
    """Copy the rows of the orchestration under other ids; returns these ids."""
    names = [f"orch_{number:032x}" for number in range(2, count + 2)]
    table = database.tables["OrchestrationTable"]
    own = [dict(row) for key, row in table.items.items() if key[0] == ORCH]
    for name in names:
        for row in own:
            table.replace(
                {(name, row["sub_issue_id"]["S"]): {**row, "orchestration_id": {"S": name}}}
            )
    return names


def test_09_a_lost_race_is_retried_at_once() -> None:
    """The next evaluation repairs the child."""
    world = Alone(pair(DONE))
    row = world.rows()["b"]
    table = world.database.tables["OrchestrationTable"]
    original = world.database.transact_write_items
    lost: list[str] = []

    def rival_first(**request: Any) -> Any:
        if not lost:
            lost.append("once")
            table.replace({(ORCH, "b"): {**row, "depends_on": {"L": []}}})
        return original(**request)

    world.database.transact_write_items = rival_first  # type: ignore[method-assign]
    world.evaluate()
    assert world.status("b") == "blocked", "the race was lost"
    world.evaluate()
    assert world.status("b") == "released", "the very next evaluation repairs it"


def test_09_a_lost_race_counts_as_no_repair() -> None:
    """Somebody else has advanced the row, so we did nothing and count nothing."""
    world = Alone(pair(ENDED))
    row = world.rows()["a"]
    table = world.database.tables["OrchestrationTable"]
    original = world.database.transact_write_items

    def rival_first(**request: Any) -> Any:
        table.replace({(ORCH, "a"): {**row, "child_status": {"S": "succeeded"}}})
        return original(**request)

    world.database.transact_write_items = rival_first  # type: ignore[method-assign]
    counts = world.evaluate().counts
    assert counts.advanced == 0
    assert world.status("a") == "succeeded"


def test_10_one_failed_read_stops_no_other_repair() -> None:
    """The next sweep repairs the orchestration that could not be read."""
    database = _Failing()
    world = _with(database, pair(DONE))
    (other,) = _copies(database, 1)
    database.failing[ORCH] = "InternalServerError"
    first = run_inline_sweep(world.reconciler, segments=1)
    assert world.status("b") == "blocked"
    assert (
        database.tables["OrchestrationTable"].items[other, "b"]["child_status"]["S"] == "released"
    )
    assert first.counts.errors == 1
    assert first.counts.stuck["check_failed"] == 1
    database.failing.clear()
    run_inline_sweep(world.reconciler, segments=1)
    assert world.status("b") == "released"


def test_11_a_claim_with_a_task_is_adopted() -> None:
    """We look for the task of an abandoned claim before we reset the claim."""
    nodes = pair(DONE) | {"b": Node("releasing", "a", left_task="RUNNING")}
    world = Alone(nodes)
    counts = world.evaluate().counts
    assert (counts.adopted, counts.claims_reset, counts.released) == (1, 0, 0)
    assert world.rows()["b"]["child_task_id"] == {"S": task_id("b", 2)}


def test_12_a_child_can_be_repaired_again() -> None:
    world = Alone({"a": ENDED, "b": Node("blocked", "a"), "c": Node("blocked", "b")})
    world.evaluate()
    assert world.status("b") == "released"
    for name in ("b", "c"):
        assert end_tasks(world.database) == 1, f"{name} ends, and its event is lost"
        world.evaluate()
        assert world.status(name) == "succeeded"
    assert len(world.tasks()) == 3


def test_13_simultaneous_predecessors_strand_nobody(show: Show) -> None:
    _explore("1 two predecessors finish at once and neither sees the other", show)
    _explore("2 both see it and both release", show)


def test_14_our_record_of_failures_always_expires() -> None:
    world = Alone(pair(DONE))
    world.reconciler.evaluator.failures.hold_against(
        ORCH,
        {"B": ValueError("on purpose")},
        world.reconciler._context("s", by_hand=False, report=False),
    )
    assert int(world.rows()["reconciler#attempts#B"]["ttl"]["N"]) > START.timestamp()


# -- too slow, or starved


def test_15_unrepairable_children_hide_no_due_child() -> None:
    world = Alone({"a": DONE, "b": Node("blocked", "z")})
    names = _copies(world.database, 60)
    table = world.database.tables["OrchestrationTable"]
    due = [names[0], names[-1]]
    for name in due:
        row = {**table.items[name, "b"], "depends_on": {"L": [{"S": "a"}]}}
        table.replace({(name, "b"): row})
    summary = run_inline_sweep(world.reconciler, segments=3)
    assert summary.counts.released == 2
    assert summary.counts.stuck["dangling_dependency"] == 59


def test_16_a_scan_out_of_time_continues_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step reads a page and hands on the place where the next one starts."""
    monkeypatch.setattr(memory_dynamodb, "PAGE_BYTES", 1500)
    world = Alone(pair(DONE))
    names = {ORCH, *_copies(world.database, 20)}
    nominated: list[str] = []
    place: Place | None = Place(NEVER)
    steps = rows = 0
    while place is not None:
        result = scan_segment(
            world.reconciler,
            Segment(Scope.TABLE, 0, 1),
            place,
            out_of_time=lambda: True,
            nominate=lambda name, _rows: nominated.append(name),
        )
        rows += result.counts.rows_scanned
        steps, place = steps + 1, result.next
    assert steps > 10, "no step reads more than a page"
    assert set(nominated) == names
    assert rows >= 3 * len(names)


def test_17_one_sweep_repairs_a_whole_outage() -> None:
    """The cost per orchestration does not grow with their number."""
    requests: list[float] = []
    for count in (10, 80):
        world = Alone(pair(ENDED))
        _copies(world.database, count - 1)
        summary = run_inline_sweep(world.reconciler, segments=2)
        assert (summary.counts.advanced, summary.counts.released) == (count, count)
        requests.append(summary.counts.requests / count)
    assert requests[1] <= requests[0]
    assert requests[1] < 12


def test_18_one_evaluation_releases_every_due_child() -> None:
    world = Alone({"a": DONE, **{name: Node("blocked", "a") for name in "bcdefg"}})
    assert world.evaluate().counts.released == 6


# -- false alarms


def test_19_healthy_slow_work_is_left_alone() -> None:
    nodes = {
        "a": Node("released", task="RUNNING"),
        "b": Node("releasing", updated_at=START - timedelta(seconds=890)),
        "c": Node("blocked", "ab"),
    }
    world = Alone(nodes, sim_settings(stranded_grace_seconds=120))
    before, tasks = world.rows(), world.tasks()
    evaluation = world.evaluate()
    assert (world.rows(), world.tasks()) == (before, tasks)
    assert world.codes(evaluation) == {"a": "running", "b": "claim_in_progress", "c": "waiting"}
    just_due = Alone(
        {"a": Node("ready", updated_at=START - timedelta(seconds=100))}, world.settings
    )
    assert just_due.codes(just_due.evaluate()) == {"a": "within_grace"}
    assert just_due.status("a") == "ready"


def test_20_an_unknown_status_is_kept_and_reported() -> None:
    world = Alone(
        {"a": Node("paused"), "b": Node("released", task="DREAMING"), "c": Node("blocked", "ab")}
    )
    before, tasks = world.rows(), world.tasks()
    codes = world.codes(world.evaluate())
    assert (world.rows(), world.tasks()) == (before, tasks)
    assert (codes["a"], codes["b"]) == ("unknown_status", "unknown_status")
    assert world.evaluate().counts.stuck["unknown_status"] == 2, "an operator can see both"


def test_21_a_repair_uses_no_user_retry() -> None:
    """The task has the key that the platform's own first attempt would have had."""
    world = Alone(pair(DONE))
    world.evaluate()
    (task,) = [t for t in world.tasks() if "reconciler_sweep_id" in t]
    assert task["idempotency_key"] == {"S": f"{ORCH}_b"}
    row = world.rows()["b"]
    assert not [name for name in row if "retry" in name or "attempt" in name]


# -- herds and load


def _capped(cap: int) -> Settings:
    return sim_settings(
        user_concurrency_table_name="UserConcurrencyTable", max_concurrent_tasks_per_user=cap
    )


def test_22_a_full_budget_stops_the_release(show: Show) -> None:
    world = Alone({name: Node("ready") for name in "abcdefghijk"}, _capped(4))
    evaluation = world.evaluate()
    assert evaluation.counts.released == 4
    assert evaluation.counts.stuck["over_budget"] == 7
    _explore("the cap of a user", show)


def test_23_repeating_a_sweep_writes_nothing_more() -> None:
    world = Alone({"a": ENDED, "b": Node("blocked", "a"), "c": Node("blocked", "b")})
    world.evaluate()
    recoveries, tasks, written = world.recoveries(), world.tasks(), world.database.write_units
    for _ in range(3):
        world.evaluate()
    assert recoveries == 2, "one for the advance, one for the release"
    assert (world.recoveries(), world.tasks()) == (recoveries, tasks)
    assert world.database.write_units == written


def test_24_a_finished_task_frees_its_slot() -> None:
    world = Alone({name: Node("ready") for name in "abc"}, _capped(1))
    for number in range(1, 4):
        world.evaluate()
        assert len(world.tasks()) == number
        assert end_tasks(world.database) == 1
    world.evaluate()
    assert {world.status(name) for name in "abc"} == {"succeeded"}
    partition = f"reconciler#budget#{USER}"
    row = world.database.tables["OrchestrationTable"].items[partition, "reconciler#budget"]
    assert len(row.get("reservations", {}).get("SS", [])) <= 1, (
        "the next release prunes the last reservation"
    )


# -- dead in silence


def test_25_an_unread_segment_leaves_the_sweep_incomplete() -> None:
    database = _Failing()
    world = _with(database, pair(DONE))
    database.failing["segment 0"] = "InternalServerError"
    summary = run_inline_sweep(world.reconciler, segments=2)
    assert not summary.complete
    database.failing.clear()
    assert run_inline_sweep(world.reconciler, segments=2).complete


def test_i6_an_unreadable_task_is_reported_not_repaired() -> None:
    database = _Failing()
    world = _with(database, {"a": ENDED, "b": Node("blocked", "a")})
    before = world.rows()
    database.failing["TaskTable"] = "unprocessed"
    evaluation = world.evaluate()
    assert world.codes(evaluation)["a"] == "check_failed"
    assert world.rows() == before
    assert timestamp(START) not in str(world.rows())
