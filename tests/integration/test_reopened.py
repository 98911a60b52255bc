"""Others change rows that looked finished: touches do no harm, and no repair is lost."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.domain.model import ACTIVE_TASK, TERMINAL_TASK
from reconciler.sweeping.inline import run_inline_sweep
from reconciler.sweeping.records import MemoryRecords
from reconciler.sweeping.state import SweepState
from tests.support.world import World

pytestmark = pytest.mark.integration


def sweep(world: World, **changes: Any) -> Any:
    reconciler = world.reconciler(**changes)
    return run_inline_sweep(reconciler, segments=1)


def side_task(
    world: World, orchestration_id: str, key: str, status: str, *, age: float = 600, **metadata: str
) -> str:
    """Write a task that works for a child and that no row names."""
    fields = {"orchestration_id": orchestration_id, "orchestration_sub_issue_id": key, **metadata}
    return world.task(
        orchestration_id,
        f"{key}-beside",
        status,
        age=age,
        channel_metadata={"M": {name: {"S": value} for name, value in fields.items()}},
    )


def iteration(
    world: World, orchestration_id: str, key: str, status: str = "COMPLETED", age: float = 600
) -> str:
    return side_task(world, orchestration_id, key, status, age=age, orchestration_iteration="true")


def touches(world: World) -> dict[str, int]:
    """Return task id → how often we touched the task."""
    return {
        task["task_id"]["S"]: int(task["reconcile_nudge_count"]["N"])
        for task in world.scan(world.settings.task_table_name)
        if "reconcile_nudge_count" in task
    }


def task_of(world: World, orchestration_id: str, key: str) -> str:
    found: str = world.rows(orchestration_id)[key]["child_task_id"]["S"]
    return found


# -- a touch never reverts a row (I4)


def test_a_fixed_child_is_never_touched(world: World) -> None:
    """It has succeeded, but its row names the task that failed."""
    tasks = {"a": "FAILED", "b": "COMPLETED"}
    found = world.seed({"a": [], "b": []}, dict.fromkeys("ab", "succeeded"), tasks=tasks)
    sweep(world)
    assert touches(world) == {task_of(world, found, "b"): 1}
    alone = world.seed({"a": []}, {"a": "succeeded"}, tasks={"a": "FAILED"})
    assert sweep(world).counts.stuck == {"unsettled_parent": 2}
    assert task_of(world, alone, "a") not in touches(world)


@pytest.mark.parametrize("status", sorted(ACTIVE_TASK))
def test_nothing_is_touched_while_an_iteration_runs(world: World, status: str) -> None:
    found = world.seed({"a": []}, {"a": "succeeded"}, tasks={"a": "COMPLETED"})
    running = iteration(world, found, "a", status)
    stuck = sweep(world)
    assert (stuck.counts.nudged, stuck.counts.stuck) == (0, {"unsettled_parent": 1})
    evaluation = world.reconciler().evaluate(found, report=True)
    assert running in evaluation.stuck[0].reason
    world.finish(running, "FAILED")
    assert sweep(world).counts.nudged == 1


def test_a_restack_delays_only_its_own_orchestration(world: World) -> None:
    rows, tasks = {"a": "succeeded"}, {"a": "COMPLETED"}
    held = world.seed({"a": []}, rows, tasks=tasks)
    free = world.seed({"a": []}, rows, tasks=tasks)
    side_task(world, held, "a", "RUNNING", restack_predecessor_sub_issue_id="x")
    assert sweep(world).counts.nudged == 1
    assert touches(world) == {task_of(world, free, "a"): 1}


@pytest.mark.parametrize("status", sorted(TERMINAL_TASK))
def test_nothing_is_touched_between_two_restacks(world: World, status: str) -> None:
    """One restack of a cascade has just ended, and the next does not exist yet."""
    found = world.seed({"a": []}, {"a": "succeeded"}, tasks={"a": "COMPLETED"})
    side_task(world, found, "a", status, age=119, restack_predecessor_sub_issue_id="x")
    assert sweep(world).counts.nudged == 0
    world.clock.forward(2)
    assert sweep(world).counts.nudged == 1


@pytest.mark.parametrize(("age", "touched"), [(119, 0), (120, 1)])
def test_a_touch_waits_for_the_meta_rows_grace(world: World, age: float, touched: int) -> None:
    meta = {"updated_at": {"S": world.ago(age)}}
    world.seed({"a": []}, {"a": "succeeded"}, tasks={"a": "COMPLETED"}, meta=meta)
    assert sweep(world).counts.nudged == touched


# -- a fix whose recovery was lost


def failed_with_fix(world: World, *, settled: bool = True, **options: Any) -> tuple[str, str]:
    meta = {"rollup_posted_at": {"S": world.ago(3000)}} if settled else {}
    graph = {"a": [], "b": ["a"]}
    found = world.seed(graph, {"a": "failed", "b": "skipped"}, tasks={"a": "FAILED"}, meta=meta)
    return found, iteration(world, found, "a", **options)


@pytest.mark.parametrize("settled", [True, False])
def test_a_lost_recovery_is_touched(world: World, *, settled: bool) -> None:
    """The fix's own task is touched, ever more rarely, until the platform recovers the child."""
    found, fix = failed_with_fix(world, settled=settled)
    # Every sweep of this interval is the first of its rotation.
    often = {"full_scan_interval_seconds": 300}
    summary = sweep(world, **often)
    assert (summary.counts.nudged, touches(world)) == (1, {fix: 1})
    assert summary.counts.stuck["lost_recovery"] == 1
    world.clock.forward(599)
    assert sweep(world, **often).counts.nudged == 0
    world.clock.forward(1)
    assert sweep(world, **often).counts.nudged == 1
    assert touches(world) == {fix: 2}
    assert world.statuses(found) == {"a": "failed", "b": "skipped"}, "only the platform recovers it"
    world.change(found, "a", child_status="succeeded", updated_at=world.ago(0))
    world.clock.forward(86_400)
    sweep(world, **often)
    assert touches(world)[fix] == 2, "a late record of it would cause a useless restack"


def test_lost_recoveries_are_looked_for_once_a_rotation(world: World) -> None:
    failed_with_fix(world)
    every = world.settings.full_scan_interval_seconds
    into = world.clock().timestamp() % every
    world.clock.forward(every - into - 1)
    assert sweep(world).counts.orchestrations_evaluated == 0
    world.clock.forward(1)
    assert sweep(world).counts.orchestrations_evaluated == 1
    world.clock.forward(300)
    assert sweep(world).counts.orchestrations_evaluated == 0


@pytest.mark.parametrize(("into_rotation", "evaluated"), [(0, 1), (299, 1), (300, 0)])
def test_a_rotation_follows_the_states_clock(
    world: World, into_rotation: int, evaluated: int
) -> None:
    """All workers share that clock; a process's own clock may be wrong."""
    failed_with_fix(world)
    every = world.settings.full_scan_interval_seconds
    state = SweepState(MemoryRecords(lambda: 1000.0 * every + into_rotation))
    summary = run_inline_sweep(world.reconciler(), state=state, segments=1)
    assert summary.counts.orchestrations_evaluated == evaluated


@pytest.mark.parametrize(
    "options", [{"status": "FAILED"}, {"status": "RUNNING"}, {"age": 100}, {"age": 7200}]
)
def test_other_fixes_are_no_lost_recovery(world: World, options: dict[str, Any]) -> None:
    """The fix failed, still runs, is within the grace, or ended before the child failed."""
    failed_with_fix(world, **options)
    assert sweep(world, full_scan_interval_seconds=300).counts.stuck == {}
    assert touches(world) == {}


def test_report_mode_only_reports_a_lost_recovery(world: World) -> None:
    found, _ = failed_with_fix(world)
    before = world.everything()
    evaluation = world.reconciler().evaluate(found, report=True)
    assert [entry.code for entry in evaluation.stuck] == ["lost_recovery"]
    assert [(a.verb, a.applied) for a in evaluation.actions] == [("nudge", False)]
    assert world.everything() == before


# -- an interrupted retry


def test_unskip_resets_a_wrongly_skipped_child(world: World) -> None:
    """It also resets the children skipped because of it; sweeps then release them as usual."""
    graph = {"a": [], "b": ["a"], "c": ["b"], "x": [], "d": ["c", "x"]}
    statuses = {"a": "succeeded", "x": "failed", **dict.fromkeys("bcd", "skipped")}
    settled = {"rollup_posted_at": {"S": world.ago(3000)}}
    found = world.seed(graph, statuses, meta=settled)
    assert sweep(world).counts.stuck == {"lost_unskip": 1}
    refused = world.reconciler().unskip(found, "c")
    assert [(a.outcome, a.detail) for a in refused] == [
        ("no_longer_due", "predecessor b is skipped")
    ]
    planned = world.reconciler().unskip(found, "b", report=True)
    assert [(a.sub_issue_id, a.applied) for a in planned] == [("b", False), ("c", False)]
    done = world.reconciler().unskip(found, "b")
    assert [(a.sub_issue_id, a.outcome) for a in done] == [("b", "done"), ("c", "done")]
    assert world.statuses(found) == {**statuses, "b": "blocked", "c": "blocked"}
    assert "rollup_posted_at" not in world.rows(found)["#meta"]
    assert sweep(world).counts.released == 0, "the grace starts now"
    world.clock.forward(120)
    assert sweep(world).counts.released == 1


def test_a_pause_stops_unskip(world: World) -> None:
    found = world.seed({"a": []}, {"a": "skipped"})
    world.reconciler().pause("migration", "ann")
    (action,) = world.reconciler().unskip(found, "a")
    assert (action.outcome, action.applied) == ("paused", False)
    world.reconciler().resume()
    (action,) = world.reconciler(repair_mode="report").unskip(found, "a")
    assert (action.outcome, action.applied) == ("report_only", False)
    assert world.statuses(found) == {"a": "skipped"}


# -- children that are not stuck, or get no new work


def test_a_parent_of_the_api_is_never_touched(world: World) -> None:
    api = {"channel_source": {"S": "api"}}
    world.seed({"a": []}, {"a": "succeeded"}, tasks={"a": "COMPLETED"}, meta=api)
    world.seed({})
    summary = sweep(world)
    assert (summary.counts.stuck, summary.counts.nudged) == ({}, 0)
    assert touches(world) == {}


@pytest.mark.parametrize("of", ["child", "meta"])
def test_an_expired_row_is_not_released(world: World, of: str) -> None:
    # DynamoDB Local removes rows that are expired by its own clock: this is ahead of it.
    expires = {"ttl": {"N": str(int(world.clock().timestamp()) + 300)}}
    rows = {"a": expires} if of == "child" else {}
    found = world.seed({"a": []}, rows=rows, meta=expires if of == "meta" else {})
    world.clock.forward(301)
    assert sweep(world).counts.stuck == {}
    result = world.reconciler().release(found, "a")
    assert (result.outcome, "time to live" in result.detail) == ("no_longer_due", True)
    assert world.statuses(found) == {"a": "blocked"}


def test_our_own_repair_restarts_no_grace(world: World) -> None:
    """The rows keep the time since when a child is due, even if a worker dies in between."""
    graph = {"a": [], "b": ["a"], "c": [], "d": ["c"]}
    statuses = {"a": "released", "c": "released"}
    found = world.seed(graph, statuses, tasks={"a": "COMPLETED", "c": "FAILED"}, age=3600)
    queued: list[str] = []

    def dies(request: Any) -> bool:
        queued.append(request.sub_issue_id)
        return True

    world.reconciler().evaluate(found, sweep_id="s", release=dies)
    assert queued == ["b"]
    assert world.statuses(found)["b"] == "blocked"
    assert sweep(world).counts.released == 1
    (event,) = [
        e
        for e in world.events("orchestration_recovered")
        if e["metadata"]["M"]["code"]["S"] == "lost_release"
    ]
    assert float(event["metadata"]["M"]["stranded_seconds"]["N"]) == 3600
