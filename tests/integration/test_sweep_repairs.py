"""A sweep over real tables: what it repairs, and what it leaves alone."""

from __future__ import annotations

import pytest

from reconciler.sweeping.inline import run_inline_sweep
from reconciler.sweeping.summary import SweepSummary
from tests.support.world import World

pytestmark = pytest.mark.integration


def sweep(world: World, *, report: bool = False, segments: int = 2) -> SweepSummary:
    reconciler = world.reconciler()
    return run_inline_sweep(reconciler, report=report, segments=segments)


def test_a_lost_completion_releases_its_dependent_once(world: World) -> None:
    found = world.seed({"a": [], "b": ["a"]}, {"a": "released"}, tasks={"a": "COMPLETED"})
    summary = sweep(world)
    assert world.statuses(found) == {"a": "succeeded", "b": "released"}
    assert len(world.tasks(found, "b")) == 1
    assert (summary.counts.advanced, summary.counts.released) == (1, 1)
    assert summary.complete
    assert not summary.alarming
    before = world.everything()
    again = sweep(world)
    assert world.everything() == before
    assert again.counts.repairs == 0


def test_one_sweep_repairs_a_chain_of_lost_terminals(world: World) -> None:
    keys = [f"s{number}" for number in range(11)]
    graph = {key: keys[max(0, number - 1) : number] for number, key in enumerate(keys)}
    done = keys[:-1]
    found = world.seed(
        graph, dict.fromkeys(done, "released"), tasks=dict.fromkeys(done, "COMPLETED")
    )
    summary = sweep(world)
    assert world.statuses(found) == {**dict.fromkeys(done, "succeeded"), keys[-1]: "released"}
    assert (summary.counts.advanced, summary.counts.released) == (10, 1)


def test_a_join_waits_for_both_predecessors(world: World) -> None:
    graph = {"a": [], "l": ["a"], "r": ["a"], "j": ["l", "r"]}
    half = world.seed(
        graph,
        {"a": "succeeded", "l": "released", "r": "released"},
        tasks={"l": "COMPLETED", "r": "RUNNING"},
    )
    sweep(world)
    assert world.statuses(half) == {
        "a": "succeeded",
        "l": "succeeded",
        "r": "released",
        "j": "blocked",
    }
    (task,) = world.tasks(half, "r")
    world.clock.forward(300)
    world.finish(task["task_id"]["S"], age=200)
    sweep(world)
    assert world.statuses(half)["j"] == "released"
    assert len(world.tasks(half, "j")) == 1


@pytest.mark.parametrize(
    "ending", ["FAILED", "CANCELLED", "TIMED_OUT", "COMPLETED with a broken build"]
)
def test_a_failure_skips_all_its_dependents(world: World, ending: str) -> None:
    graph = {"a": [], "b": ["a"], "c": ["b"], "d": [], "e": ["d", "c"]}
    found = world.seed(
        graph, {"a": "released", "d": "succeeded"}, tasks={"a": ending.partition(" ")[0]}
    )
    if "broken" in ending:
        (task,) = world.tasks(found, "a")
        world.put(world.settings.task_table_name, {**task, "build_passed": {"BOOL": False}})
    summary = sweep(world)
    assert world.statuses(found) == {
        "a": "failed", "b": "skipped", "c": "skipped", "d": "succeeded", "e": "skipped"
    }  # fmt: skip
    assert summary.counts.skipped == 3
    assert not world.tasks(found, "b")


def test_a_retry_gets_its_own_key(world: World) -> None:
    found = world.seed({"a": []}, {"a": "ready"}, tasks={"a": "FAILED"})
    (earlier,) = world.tasks(found, "a")
    sweep(world)
    made = world.rows(found)["a"]
    assert made["child_status"] == {"S": "released"}
    assert made["child_task_id"] != earlier["task_id"]
    keys = {task["idempotency_key"]["S"] for task in world.tasks(found, "a")}
    assert keys == {f"{found}_a", f"{found}_a_{earlier['task_id']['S']}"}


def test_marker_rows_are_never_changed(world: World) -> None:
    found = world.seed({"a": []})
    marker = {"orchestration_id": {"S": found}, "sub_issue_id": {"S": "ack#1"}, "x": {"S": "y"}}
    world.put(world.settings.orchestration_table_name, marker)
    sweep(world)
    assert world.rows(found)["ack#1"] == marker
    assert world.statuses(found) == {"a": "released"}


def test_a_report_plans_what_a_repair_does(world: World) -> None:
    """The report itself changes nothing."""
    world.seed(
        {"a": [], "b": ["a"], "c": []},
        {"a": "released", "c": "releasing"},
        tasks={"a": "COMPLETED"},
    )
    before = world.everything()
    report = sweep(world, report=True)
    assert world.everything() == before
    assert report.counts.repairs == 0
    assert report.counts.stuck == {"lost_terminal": 1, "lost_release": 1, "abandoned_claim": 1}
    repair = sweep(world)
    done = {name: getattr(repair.counts, name) for name in report.counts.planned}
    assert dict(report.counts.planned) == done == {"advanced": 1, "released": 2, "claims_reset": 1}


def test_a_live_claim_is_left_alone(world: World) -> None:
    world.seed({"a": []}, {"a": "releasing"}, age=899)
    before = world.everything()
    sweep(world)
    assert world.everything() == before


def test_an_interrupted_release_is_adopted_in_any_state(world: World) -> None:
    for status in ("blocked", "ready", "releasing", "released"):
        found = world.seed({"a": []}, {"a": status})
        task_id = world.task(found, "a", "RUNNING")
        sweep(world)
        row = world.rows(found)["a"]
        assert (row["child_status"], row["child_task_id"]) == ({"S": "released"}, {"S": task_id})
        assert len(world.tasks(found, "a")) == 1


def test_every_repair_records_an_event(world: World) -> None:
    found = world.seed(
        {"a": [], "b": ["a"], "f": [], "g": ["f"]},
        {"a": "released", "f": "released"},
        tasks={"a": "COMPLETED", "f": "FAILED"},
    )
    sweep(world)
    said = {
        (e["metadata"]["M"]["sub_issue_id"]["S"], e["metadata"]["M"]["code"]["S"])
        for e in world.events("orchestration_recovered")
    }
    assert said == {
        ("a", "lost_terminal"),
        ("b", "lost_release"),
        ("f", "lost_terminal"),
        ("g", "lost_skip"),
    }
    for event in world.events("orchestration_recovered"):
        metadata = event["metadata"]["M"]
        assert metadata["orchestration_id"] == {"S": found}
        assert {"before", "after", "stranded_seconds", "sweep_id"} <= set(metadata)
    assert len(world.events("task_created")) == 1


def test_a_refused_child_fails_with_a_reason(world: World) -> None:
    """Its dependents are skipped."""
    found = world.seed({"a": [], "b": ["a"]}, rows={"a": {"description": {"S": "x" * 10_001}}})
    summary = sweep(world)
    assert world.statuses(found) == {"a": "failed", "b": "skipped"}
    assert "Shorten" in world.rows(found)["a"]["failure_reason"]["S"]
    assert (summary.counts.refused, summary.counts.skipped) == (1, 1)
    assert not world.tasks(found)


def test_a_task_of_another_user_is_never_adopted(world: World) -> None:
    found = world.seed({"a": []})
    world.task(found, "a", "RUNNING", user="user-2")
    summary = sweep(world)
    assert world.statuses(found) == {"a": "blocked"}
    assert summary.counts.stuck == {"idempotency_conflict": 1}


def test_malformed_rows_are_reported_and_never_written(world: World) -> None:
    broken = {"a": {"child_status": {"S": "paused"}}, "b": {"depends_on": {"S": "a"}}}
    world.seed({"a": [], "b": [], "c": ["nowhere"]}, rows=broken)
    before = world.everything()
    summary = sweep(world)
    assert world.everything() == before
    assert summary.counts.stuck == {
        "unknown_status": 1,
        "malformed_row": 1,
        "dangling_dependency": 1,
    }
    assert summary.alarming
