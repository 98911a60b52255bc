"""Repairs other than releases: what each one writes, and how it reports a lost race."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from reconciler.domain.model import LONG_AGO, Child, ChildStatus, Orchestration, Task, timestamp
from reconciler.domain.planning import Adopt, Advance, Nudge, Reinvoke, ResetClaim, Skip, Unskip
from reconciler.errors import InvalidRequestError
from reconciler.repair import repairer as module
from reconciler.repair.context import Context, RepairResult
from reconciler.repair.repairer import Repairer
from tests.support.pipeline import LambdaClient
from tests.support.world import World
from tests.unit.repair.test_releaser import context, releaser, whole


def repairer(world: World, pipeline: LambdaClient | None = None) -> Repairer:
    return replace(
        world.reconciler().evaluator.parts.repairer, releaser=releaser(world, pipeline=pipeline)
    )


def task_of(world: World, orchestration_id: str, key: str) -> Task:
    (row,) = world.tasks(orchestration_id, key)
    found = world.reconciler().tasks.read_all([row["task_id"]["S"]])[row["task_id"]["S"]]
    assert found is not None
    return found


def since(world: World) -> Any:
    return world.clock() - timedelta(hours=1)


def both(world: World) -> tuple[Context, Context]:
    """Return a context that only plans and one that repairs."""
    return context(world, apply=False), context(world)


# -- advance


def advancing(world: World, orchestration_id: str) -> tuple[Child, Advance]:
    task = task_of(world, orchestration_id, "a")
    child = whole(world, orchestration_id).children["a"]
    return child, Advance("a", "lost_terminal", since(world), task)


def test_an_advance_uses_the_tasks_finish_time(world: World) -> None:
    found = world.seed({"a": []}, {"a": "released"}, tasks={"a": "COMPLETED"})
    child, action = advancing(world, found)
    for given, status in zip(both(world), ("released", "succeeded"), strict=True):
        done = repairer(world).advance(child, action, given)
        assert (done.outcome, done.task) == ("done", action.task)
        assert done.child == child.moved(ChildStatus.SUCCEEDED, action.task.finished_at)
        assert world.statuses(found) == {"a": status}
    assert len(world.events("orchestration_recovered")) == 1


def test_a_late_advance_reports_the_rows_state(world: World) -> None:
    found = world.seed({"a": []}, {"a": "released"}, tasks={"a": "COMPLETED"})
    child, action = advancing(world, found)
    world.change(found, "a", child_status="failed")
    late = repairer(world).advance(child, action, context(world))
    assert (late.outcome, late.detail) == ("lost_race", "it is failed now")
    assert late.child is not None
    assert late.child.status is ChildStatus.FAILED
    world.client.delete_item(
        TableName=world.settings.orchestration_table_name,
        Key={"orchestration_id": {"S": found}, "sub_issue_id": {"S": "a"}},
    )
    gone = repairer(world).advance(child, action, context(world))
    assert (gone.outcome, gone.child, gone.detail) == ("lost_race", None, "its row is gone")
    assert world.events("orchestration_recovered") == []


# -- skip


def skip(world: World, read: Orchestration, keys: list[str], given: Context) -> list[RepairResult]:
    group = {read.children[key]: Skip(key, "lost_skip", since(world), "a") for key in keys}
    results = repairer(world).skip(read.children["a"], group, "T0", given)
    return [results[child] for child in group]


def test_children_skipped_together_share_one_event(world: World) -> None:
    """The event names all of them."""
    found = world.seed({"a": [], "b": ["a"], "c": ["a"]}, {"a": "failed", "c": "ready"})
    read = whole(world, found)
    for given in both(world):
        results = skip(world, read, ["b", "c"], given)
        assert [r.outcome for r in results] == ["done", "done"]
        assert [r.child for r in results] == [
            read.children[key].moved(ChildStatus.SKIPPED, timestamp(since(world)))
            for key in ("b", "c")
        ]
        assert (world.statuses(found)["b"] == "skipped") is given.apply
    (event,) = world.events("orchestration_recovered")
    assert event["task_id"] == {"S": "T0"}
    metadata = event["metadata"]["M"]
    assert metadata["skipped"] == {"M": {"b": {"S": "blocked"}, "c": {"S": "ready"}}}
    assert (metadata["before"], metadata["after"]) == ({"S": "blocked"}, {"S": "skipped"})
    assert metadata["stranded_seconds"] == {"N": "3600.0"}


def test_a_moved_child_holds_up_no_other_skip(world: World) -> None:
    found = world.seed({"a": [], "b": ["a"], "c": ["a"], "d": ["a"]}, {"a": "failed"})
    read = whole(world, found)
    world.change(found, "c", child_status="releasing")
    results = skip(world, read, ["b", "c", "d"], context(world))
    assert [r.outcome for r in results] == ["done", "lost_race", "done"]
    assert results[1].detail == "it is releasing now"
    assert world.statuses(found) == {
        "a": "failed",
        "b": "skipped",
        "c": "releasing",
        "d": "skipped",
    }


def test_no_child_is_skipped_for_a_retried_cause(world: World) -> None:
    found = world.seed({"a": [], "b": ["a"], "c": ["a"]}, {"a": "failed"})
    read = whole(world, found)
    world.change(found, "a", child_status="ready")
    results = skip(world, read, ["b", "c"], context(world))
    assert {(r.outcome, r.detail) for r in results} == {
        ("lost_race", "its predecessor a has been retried")
    }
    assert [r.child for r in results] == [read.children["b"], read.children["c"]]
    assert world.statuses(found) == {"a": "ready", "b": "blocked", "c": "blocked"}


def test_an_unwritable_row_blocks_no_other_skip(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = Repairer._skip_together

    def rejected(self: Repairer, cause: Child, pending: dict[Child, Skip], *more: Any) -> Any:
        if any(child.sub_issue_id == "c" for child in pending):
            raise InvalidRequestError("the item is too large")
        return sound(self, cause, pending, *more)

    monkeypatch.setattr(module, "_SKIPS_PER_TRANSACTION", 2)
    monkeypatch.setattr(Repairer, "_skip_together", rejected)
    found = world.seed({"a": [], "b": ["a"], "c": ["a"], "d": ["a"]}, {"a": "failed"})
    results = skip(world, whole(world, found), ["b", "c", "d"], context(world))
    assert [result.outcome for result in results] == ["done", "failed", "done"]


def test_a_skip_takes_effect_when_its_cause_failed(world: World) -> None:
    """If the worker dies here, the dependents are skipped without another grace."""
    found = world.seed({"a": [], "b": ["a"], "c": ["a"]}, {"a": "failed"})
    read = whole(world, found)
    group = {
        read.children[key]: Skip(key, "lost_skip", at, "a")
        for key, at in (("b", since(world)), ("c", None))
    }
    repairer(world).skip(read.children["a"], group, "T0", context(world))
    effective = {key: world.rows(found)[key]["reconciler_effective_at"]["S"] for key in "bc"}
    assert effective == {"b": timestamp(since(world)), "c": timestamp(LONG_AGO)}


# -- adopt, reset, reinvoke, nudge


def test_an_adopted_child_is_released_with_its_task(world: World) -> None:
    found = world.seed({"a": []}, {"a": "ready"})
    task_id = world.task(found, "a", "RUNNING")
    read, task = whole(world, found), task_of(world, found, "a")
    action = Adopt("a", "abandoned_claim", since(world), task)
    done = repairer(world).repair(read, action, context(world))
    assert (done.outcome, done.task) == ("adopted", task)
    assert done.child == read.children["a"].moved(
        ChildStatus.RELEASED, world.ago(0), task_id, task.branch_name
    )
    late = repairer(world).repair(read, action, context(world))
    assert (late.outcome, late.detail) == ("already_released", "it is released now")
    assert late.child is not None
    assert late.child.task_id == task_id
    foreign = replace(action, task=replace(task, user_id="user-2"))
    refused = repairer(world).repair(read, foreign, context(world))
    assert (refused.outcome, refused.child) == ("idempotency_conflict", read.children["a"])


def test_a_reset_claim_returns_the_written_row(world: World) -> None:
    """With that row, the same pass can release the child."""
    found = world.seed({"a": []}, {"a": "releasing"})
    claimed = whole(world, found).children["a"]
    action = ResetClaim("a", "abandoned_claim", since(world))
    for given in both(world):
        done = repairer(world).reset_claim(claimed, action, given)
        assert done.outcome == "done"
        assert done.child == claimed.moved(ChildStatus.READY, claimed.updated_at)
    assert done.child is not None
    row = world.rows(found)["a"]
    assert (row["child_status"], row["updated_at"]) == ({"S": "ready"}, {"S": world.ago(0)})
    assert (done.child.item["child_status"], done.child.item["updated_at"]) == (
        {"S": "ready"},
        {"S": world.ago(0)},
    )
    late = repairer(world).reset_claim(claimed, action, context(world))
    assert (late.outcome, late.detail) == ("lost_race", "it is ready now")
    assert len(world.events("orchestration_recovered")) == 1


def test_a_reinvocation_is_counted_and_recorded(world: World) -> None:
    found = world.seed({"a": []}, {"a": "released"}, tasks={"a": "SUBMITTED"})
    task, pipeline = task_of(world, found, "a"), LambdaClient()
    child = whole(world, found).children["a"]
    action = Reinvoke("a", "unstarted_task", since(world), task)
    planned, done = (repairer(world, pipeline).reinvoke(child, action, c) for c in both(world))
    assert (planned.outcome, planned.child, planned.task) == ("done", child, task)
    assert (done.outcome, done.child, done.task) == ("done", child, task_of(world, found, "a"))
    assert pipeline.runs == [task.task_id]
    assert task_of(world, found, "a").invoke_count == 1
    assert len(world.events("orchestration_recovered")) == 1
    late = repairer(world, pipeline).reinvoke(child, action, context(world))
    assert (late.outcome, late.child, late.task) == ("lost_race", child, done.task)
    assert pipeline.asked == 1


@pytest.mark.parametrize("pipeline", [LambdaClient(), None], ids=["started", "no pipeline"])
def test_only_an_unstarted_task_is_invoked(world: World, pipeline: LambdaClient | None) -> None:
    """The evaluation may have read the task minutes ago."""
    found = world.seed({"a": []}, {"a": "released"}, tasks={"a": "SUBMITTED"})
    task = task_of(world, found, "a")
    if pipeline is not None:
        world.finish(task.task_id, "HYDRATING", age=0)
    before = world.everything()
    action = Reinvoke("a", "unstarted_task", since(world), task)
    child = whole(world, found).children["a"]
    late = repairer(world, pipeline).reinvoke(child, action, context(world))
    assert (late.outcome, late.task) == ("lost_race", task_of(world, found, "a"))
    assert world.everything() == before
    assert pipeline is None or pipeline.asked == 0


def test_a_recreated_task_is_left_to_its_creator(world: World) -> None:
    """Its creator may be about to invoke it."""
    found = world.seed({"a": []}, {"a": "released"}, tasks={"a": "SUBMITTED"})
    task, pipeline = task_of(world, found, "a"), LambdaClient()
    (row,) = world.tasks(found, "a")
    young = {"status_created_at": {"S": f"SUBMITTED#{world.ago(0)}"}}
    ours = {"reconciler_sweep_id": {"S": "sweep-2"}}
    world.put(world.settings.task_table_name, {**row, **young, **ours})
    child = whole(world, found).children["a"]
    action = Reinvoke("a", "unstarted_task", since(world), task)
    late = repairer(world, pipeline).reinvoke(child, action, context(world))
    assert (late.outcome, pipeline.asked) == ("lost_race", 0)


def test_a_task_that_is_gone_is_not_invoked(world: World) -> None:
    found = world.seed({"a": []}, {"a": "released"}, tasks={"a": "SUBMITTED"})
    task, pipeline = task_of(world, found, "a"), LambdaClient()
    key = {"task_id": {"S": task.task_id}}
    world.client.delete_item(TableName=world.settings.task_table_name, Key=key)
    child = whole(world, found).children["a"]
    action = Reinvoke("a", "unstarted_task", since(world), task)
    late = repairer(world, pipeline).reinvoke(child, action, context(world))
    assert (late.outcome, late.task, pipeline.asked) == ("lost_race", None, 0)


def test_a_late_nudge_loses_the_race(world: World) -> None:
    found = world.seed({"a": []}, {"a": "succeeded"}, tasks={"a": "COMPLETED"})
    read, task = whole(world, found), task_of(world, found, "a")
    child = read.children["a"]
    action = Nudge("a", "unsettled_parent", since(world), task)
    results = [repairer(world).nudge(read, child, action, given) for given in both(world)]
    assert [(r.outcome, r.child, r.task) for r in results] == [("done", child, task)] * 2
    late = repairer(world).nudge(read, child, action, context(world))
    assert (late.outcome, late.child) == ("lost_race", child)
    assert late.detail == "somebody else has just changed it"
    assert task_of(world, found, "a").nudge_count == 1
    assert len(world.events("orchestration_recovered")) == 1


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("a", {"child_status": "succeeded"}),
        ("a", {"child_task_id": "another"}),
        ("#meta", {"updated_at": "2026-01-01T00:00:00.000Z"}),
        ("#meta", {"rollup_posted_at": "2026-01-01T00:00:00.000Z"}),
    ],
)
def test_a_persons_fix_stops_the_nudge(world: World, key: str, change: dict[str, str]) -> None:
    """Otherwise the task's outcome would overwrite the person's change (I4)."""
    found = world.seed({"a": []}, {"a": "failed"}, tasks={"a": "FAILED"})
    read, task = whole(world, found), task_of(world, found, "a")
    world.change(found, key, **change)
    action = Nudge("a", "unsettled_parent", since(world), task)
    late = repairer(world).nudge(read, read.children["a"], action, context(world))
    assert late.outcome == "lost_race"
    assert task_of(world, found, "a").nudge_count == 0


def test_a_failed_predecessor_prevents_the_unskip(world: World) -> None:
    """Otherwise the unskip also reopens the settled parent."""
    graph = {"a": [], "b": [], "c": ["a", "b"]}
    settled = {"rollup_posted_at": {"S": world.ago(60)}}
    found = world.seed(graph, {"a": "succeeded", "c": "skipped"}, meta=settled)
    read = whole(world, found)
    world.change(found, "b", child_status="failed")
    action = Unskip("c", "lost_unskip", since(world))
    late = repairer(world).unskip(read, action, context(world))
    assert (late.outcome, world.statuses(found)["c"]) == ("lost_race", "skipped")
    assert not late.applied
    world.change(found, "b", child_status="ready")
    for given in both(world):
        done = repairer(world).unskip(read, action, given)
        assert (done.outcome, done.child and done.child.status) == ("done", ChildStatus.BLOCKED)
        stands = world.rows(found)
        assert (stands["c"]["child_status"]["S"] == "blocked") is given.apply
        assert ("rollup_posted_at" not in stands["#meta"]) is given.apply
    again = repairer(world).unskip(read, action, context(world))
    assert again.outcome == "lost_race"
    assert len(world.events("orchestration_recovered")) == 1


def test_an_unskip_fits_into_one_transaction(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It checks only as many predecessors as the transaction has room for."""
    monkeypatch.setattr(module, "MAX_WRITES", 5)
    graph = {"a": [], "b": [], "c": [], "d": ["a", "b", "c"]}
    found = world.seed(graph, {**dict.fromkeys("abc", "succeeded"), "d": "skipped"})
    sound, sent = world.client.transact_write_items, list[int]()

    def counted(**request: Any) -> Any:
        sent.append(len(request["TransactItems"]))
        return sound(**request)

    monkeypatch.setattr(world.client, "transact_write_items", counted)
    action = Unskip("d", "lost_unskip", since(world))
    assert repairer(world).unskip(whole(world, found), action, context(world)).outcome == "done"
    assert sent == [5]
