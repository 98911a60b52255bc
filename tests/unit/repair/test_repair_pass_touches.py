"""One repair pass over a finished orchestration: touches, recoveries, and what needs action."""

from __future__ import annotations

import pytest

from reconciler.inspection.advice import fixes_of
from reconciler.inspection.find import Found
from reconciler.inspection.look import look
from reconciler.inspection.views import Outlook
from tests.support.world import World
from tests.unit.repair.test_repair_pass import evaluate, outcomes


def side_task(world: World, orchestration_id: str, key: str, status: str, age: float) -> str:
    """Write an iteration task of a child, which no row names."""
    fields = {
        "orchestration_id": orchestration_id,
        "orchestration_sub_issue_id": key,
        "orchestration_iteration": "true",
    }
    metadata = {"M": {name: {"S": value} for name, value in fields.items()}}
    return world.task(orchestration_id, f"{key}-fix", status, age=age, channel_metadata=metadata)


def test_a_lost_recovery_is_touched(world: World) -> None:
    """A report shows it as stuck, although only a second diagnosis finds it."""
    settled = {"rollup_posted_at": {"S": world.ago(3000)}}
    found = world.seed({"a": []}, {"a": "failed"}, tasks={"a": "FAILED"}, meta=settled)
    side_task(world, found, "a", "COMPLETED", 600)
    report = evaluate(world, found, apply=False)
    assert report.counts.stuck == {"lost_recovery": 1}
    assert outcomes(evaluate(world, found)) == [("nudge", "a", "done")]


def test_a_lost_recovery_needs_action_without_settling(world: World) -> None:
    """If SETTLE_MODE is off, a command touches the fix's task once."""
    settled = {"rollup_posted_at": {"S": world.ago(3000)}}
    found = world.seed({"a": []}, {"a": "failed"}, tasks={"a": "FAILED"}, meta=settled)
    side_task(world, found, "a", "COMPLETED", 600)
    view = look(world.reconciler(settle_mode="off"), Found(found))
    (child,) = view.stuck
    assert (child.code, child.needs_action) == ("lost_recovery", True)
    assert child.outlook == Outlook("nothing: SETTLE_MODE is off")
    (fix,) = fixes_of(view, child)
    assert fix.line == f"SETTLE_MODE=nudge reconciler evaluate {found}"


def test_a_report_shows_what_came_before_recoveries(world: World) -> None:
    """The recovery is found only after an advance, which a report does not make."""
    found = world.seed(
        {"a": [], "b": []},
        {"a": "failed", "b": "released"},
        tasks={"a": "FAILED", "b": "COMPLETED"},
    )
    side_task(world, found, "a", "COMPLETED", 600)
    report = evaluate(world, found, apply=False)
    assert outcomes(report) == [("advance", "b", "done"), ("nudge", "a", "done")]
    assert report.counts.stuck == {"lost_terminal": 1}


def test_a_settled_orchestration_has_no_task_read(
    world: World, tasks_read: list[tuple[list[str], bool]]
) -> None:
    settled = {"rollup_posted_at": {"S": world.ago(3000)}}
    found = world.seed({"a": []}, {"a": "succeeded"}, tasks={"a": "COMPLETED"}, meta=settled)
    assert evaluate(world, found).stuck == ()
    assert tasks_read == []


def test_a_task_that_just_ended_prevents_touches(world: World) -> None:
    """In a cascade, the task of the next level may be about to start."""
    found = world.seed({"a": []}, {"a": "succeeded"}, tasks={"a": "COMPLETED"})
    ended = side_task(world, found, "a", "FAILED", 5)
    evaluation = evaluate(world, found)
    assert (outcomes(evaluation), evaluation.counts.errors) == ([], 0)
    assert evaluation.stuck[0].reason.endswith(
        f"task {ended} runs or just ran, so nothing is touched yet"
    )
    world.clock.forward(600)
    assert outcomes(evaluate(world, found)) == [("nudge", "a", "done")]


@pytest.mark.parametrize("adoptable", [True, False])
def test_only_unplanned_children_need_action(world: World, *, adoptable: bool) -> None:
    """In a report, a planned repair leaves the child among the stuck ones."""
    found = world.seed({"a": [], "b": []}, {"a": "released"})
    if adoptable:
        world.task(found, "a", "RUNNING")
    report = evaluate(world, found, apply=False)
    needs = {entry.code: entry.needs_action for entry in report.stuck}
    assert needs == {"missing_task_id": not adoptable, "lost_release": False}


def test_a_later_repaired_child_needs_no_action(world: World) -> None:
    found = world.seed({"a": []})
    (stuck,) = evaluate(world, found, lambda _: False).stuck
    assert (stuck.code, stuck.needs_action) == ("lost_release", False)
