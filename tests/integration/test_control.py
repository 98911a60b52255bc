"""Pause, report, careful roll-outs, nudges, and failures that do not go away."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from reconciler.domain import nomination as nomination_module
from reconciler.domain.task import draft_task
from reconciler.errors import AccessError, DefectError, StoreUnavailableError, TableMissingError
from reconciler.repair import drafter as drafting
from reconciler.repair import snapshot as snapshot_module
from reconciler.repair.context import Pacer, ReleaseDispatch, ReleaseRequest
from reconciler.stores import orchestrations as orchestrations_module
from reconciler.stores.control import ControlStore
from reconciler.sweeping import scan_step as scan_module
from reconciler.sweeping.inline import run_inline_sweep
from tests.support.world import World

pytestmark = pytest.mark.integration


def sweep(world: World, **changes: Any) -> Any:
    reconciler = world.reconciler(**changes)
    return run_inline_sweep(reconciler, segments=1)


def test_a_pause_stops_repairs_but_not_reports(world: World) -> None:
    found = world.seed({"a": []})
    operator, worker = world.reconciler(), world.reconciler()
    operator.pause("migration", "ann")
    assert operator.pause("another", "bob").reason == "migration"
    before = world.everything()
    summary = sweep(world)
    assert world.everything() == before
    assert (summary.mode, summary.counts.stuck) == ("paused", {"lost_release": 1})
    result = worker.release(found, "a")
    assert result.outcome == "paused"
    assert "migration" in result.detail
    assert "ann" in result.detail
    operator.resume()
    assert sweep(world).counts.released == 1


def test_a_healthy_sweep_reports_a_pause(world: World) -> None:
    world.seed({"a": []}, {"a": "succeeded"}, meta={"rollup_posted_at": {"S": world.ago(0)}})
    without = sweep(world)
    world.reconciler().pause("migration", "ann")
    summary = sweep(world)
    assert (without.mode, summary.mode) == ("repair", "paused")
    since = world.metrics.gauges["reconciler_paused_since_timestamp_seconds", ()]
    assert since == world.clock().timestamp()
    assert world.metrics.gauges["reconciler_mode", (("mode", "paused"),)] == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"repair_mode": "report"},
        {"repair_only_repos": frozenset({"other/repo"})},
        {"repair_only_users": frozenset({"someone"})},
    ],
)
def test_withheld_repairs_are_planned_and_not_made(
    world: World, changes: Mapping[str, Any]
) -> None:
    found = world.seed({"a": []})
    before = world.everything()
    summary = sweep(world, **changes)
    assert world.everything() == before
    assert summary.counts.stuck == {"lost_release": 1}
    assert summary.counts.planned == {"released": 1}
    assert world.reconciler(**changes).release(found, "a").outcome == "report_only"


def test_a_paced_release_changes_nothing(world: World) -> None:
    found = world.seed({"a": []})
    assert world.reconciler(pacer=Pacer(lambda: False)).release(found, "a").outcome == "paced"
    assert world.statuses(found) == {"a": "blocked"}


def test_an_unsettled_parent_is_touched_at_doubling_intervals(world: World) -> None:
    """The touches never end: the live reconciler may have been down each time."""
    found = world.seed({"a": []}, {"a": "succeeded"}, tasks={"a": "COMPLETED"})
    nudged = [0.0]
    assert sweep(world).counts.nudged == 1
    for wait in (600, 1200, 2400, 4800):
        world.clock.forward(wait - 1)
        assert sweep(world).counts.nudged == 0
        world.clock.forward(1)
        assert sweep(world, settle_mode="off").counts.nudged == 0
        assert sweep(world).counts.stuck == {"unsettled_parent": 1}
        nudged.append(nudged[-1] + wait)
    (task,) = world.tasks(found)
    assert task["reconcile_nudge_count"] == {"N": str(len(nudged))}


def test_an_unsettled_parent_without_a_task_is_reported(world: World) -> None:
    world.seed({"a": []}, {"a": "failed"})
    summary = sweep(world)
    assert (summary.counts.nudged, summary.counts.stuck) == (0, {"unsettled_parent": 1})


def test_a_failing_release_is_backed_off(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other orchestrations are repaired meanwhile, and an evaluation by hand repairs this one."""
    broken = world.seed({"a": []})
    sound = world.seed({"a": []})
    whole = draft_task

    def breaks(orchestration: Any, child: Any, **rest: Any) -> Any:
        if orchestration.orchestration_id == broken:
            raise KeyError("no such thing")
        return whole(orchestration, child, **rest)

    monkeypatch.setattr(drafting, "draft_task", breaks)
    start = world.clock()
    tried = []
    for _ in range(14):
        if sweep(world).counts.errors:
            tried.append((world.clock() - start).total_seconds() / 300)
        world.clock.forward(300)
    assert tried == [0, 1, 2, 3, 5, 9]
    assert world.statuses(sound) == {"a": "released"}
    stuck = world.reconciler().evaluate(broken, sweep_id="s").children[0]
    assert stuck.code == "quarantined"
    assert "no such thing" in stuck.reason

    with pytest.raises(DefectError):
        world.reconciler().release(broken, "a")
    monkeypatch.undo()
    assert sweep(world).counts.released == 0  # still backed off
    assert world.reconciler().evaluate(broken).counts.released == 1  # by hand, at once
    assert not any("attempts" in row for row in world.rows(broken))


def hand_on(to: list[ReleaseRequest]) -> ReleaseDispatch:
    """Return a dispatch that accepts every release and appends it to a list."""

    def dispatch(request: ReleaseRequest) -> bool:
        to.append(request)
        return True

    return dispatch


def test_failures_of_dispatched_releases_count_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With Celery an evaluation only dispatches releases; its success says nothing of theirs."""
    found = world.seed({"a": [], "b": []})
    whole = draft_task

    def breaks(orchestration: Any, child: Any, **rest: Any) -> Any:
        if child.sub_issue_id == "a":
            raise KeyError("no such thing")
        return whole(orchestration, child, **rest)

    monkeypatch.setattr(drafting, "draft_task", breaks)
    start, tried = world.clock(), []
    for _ in range(14):
        handed_on: list[ReleaseRequest] = []
        reconciler = world.reconciler()
        reconciler.evaluate(found, sweep_id="s", release=hand_on(handed_on))
        for request in handed_on:
            with contextlib.suppress(DefectError):
                reconciler.release(found, request.sub_issue_id, sweep_id="s")
            if request.sub_issue_id == "a":
                tried.append((world.clock() - start).total_seconds() / 300)
        world.clock.forward(300)
    # The release of the other child does not reset the failures of this one.
    assert tried == [0, 1, 2, 3, 5, 9]
    assert world.statuses(found)["b"] == "released"


def test_the_backoff_grows_to_six_hours_at_most(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixty failures do not overflow it, and other orchestrations are still repaired."""
    broken = world.seed({"a": []})
    break_on(monkeypatch, broken, "diagnosing it")
    sweep(world)
    world.client.update_item(
        TableName=world.settings.orchestration_table_name,
        Key={"orchestration_id": {"S": broken}, "sub_issue_id": {"S": "reconciler#attempts"}},
        UpdateExpression="SET failures = :many",
        ExpressionAttributeValues={":many": {"N": "60"}},
    )
    sound = world.seed({"a": []})
    summary = sweep(world)
    assert (summary.counts.released, summary.counts.errors) == (1, 1)
    assert world.statuses(sound) == {"a": "released"}
    world.clock.forward(6 * 3600 - 1)
    assert sweep(world).counts.stuck["quarantined"] == 1
    world.clock.forward(1)
    assert sweep(world).counts.errors == 1


def test_a_changed_row_ends_the_backoff(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    found = world.seed({"a": []})

    def breaks(*_: Any, **__: Any) -> Any:
        raise KeyError("no such thing")

    monkeypatch.setattr(drafting, "draft_task", breaks)
    for _ in range(3):
        sweep(world)
        world.clock.forward(1)
    monkeypatch.undo()
    assert sweep(world).counts.stuck == {"quarantined": 1}
    world.change(found, "a", title="mended", updated_at=world.ago(600))
    assert sweep(world).counts.released == 1


def test_a_missing_table_fails_without_a_write(world: World) -> None:
    world.seed({"a": []})
    before = world.everything()
    with pytest.raises(TableMissingError, match="nowhere"):
        sweep(world, orchestration_table_name="nowhere")
    assert world.everything() == before


def test_an_unreachable_endpoint_makes_the_sweep_incomplete(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconciler.composition._ATTEMPTS", 1)
    world.endpoint = "http://127.0.0.1:9"
    summary = sweep(world)
    assert not summary.complete
    assert summary.counts.errors == 1
    with pytest.raises(StoreUnavailableError):
        world.reconciler().evaluate("orch_x")


def test_missing_credentials_are_an_access_error(
    monkeypatch: pytest.MonkeyPatch, world: World
) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise AccessError("no usable AWS credentials")

    monkeypatch.setattr(ControlStore, "paused", refused)
    found = world.seed({"a": []})
    with pytest.raises(AccessError):
        world.reconciler().release(found, "a")


# -- an orchestration on which our own code fails


def breaks_on(broken: str, whole: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``whole``, but let it fail if its first argument is or names one orchestration."""

    def breaks(first: Any, *args: Any, **kwargs: Any) -> Any:
        if broken in (first, getattr(first, "orchestration_id", None)):
            raise KeyError("no such thing")
        return whole(first, *args, **kwargs)

    return breaks


def break_on(monkeypatch: pytest.MonkeyPatch, broken: str, step: str) -> None:
    """Make the reading or the diagnosis of one orchestration fail, wherever it is called."""
    modules, name = {
        "reading its rows": ((scan_module, orchestrations_module), "parse_orchestration"),
        "diagnosing it": ((nomination_module, snapshot_module), "diagnose"),
    }[step]
    for module in modules:
        monkeypatch.setattr(module, name, breaks_on(broken, getattr(module, name)))


@pytest.mark.parametrize("step", ["reading its rows", "diagnosing it"])
def test_a_failed_evaluation_stops_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    broken, sound = world.seed({"a": []}), [world.seed({"a": []}) for _ in range(3)]
    break_on(monkeypatch, broken, step)
    summary = sweep(world)
    assert summary.complete
    assert (summary.counts.released, summary.counts.errors) == (3, 1)
    assert summary.counts.stuck == {"check_failed": 1}
    assert {world.statuses(found)["a"] for found in sound} == {"released"}
    assert world.statuses(broken) == {"a": "blocked"}


def test_a_failing_evaluation_is_backed_off(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = world.seed({"a": []})
    break_on(monkeypatch, broken, "diagnosing it")
    start, tried = world.clock(), []
    for _ in range(10):
        summary = sweep(world)
        if summary.counts.errors:
            tried.append((world.clock() - start).total_seconds() / 300)
        else:
            assert summary.counts.stuck == {"quarantined": 1}
        world.clock.forward(300)
    assert tried == [0, 1, 2, 3, 5, 9]
    monkeypatch.undo()
    assert world.reconciler().evaluate(broken).counts.released == 1
