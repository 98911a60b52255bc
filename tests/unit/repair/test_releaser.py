"""Single releases: each outcome, and each reason why a child is not released."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import ReadTimeoutError

from reconciler.domain.model import Orchestration
from reconciler.domain.planning import Release
from reconciler.errors import CredentialsError, PipelineUnavailableError, StoreUnavailableError
from reconciler.repair import releaser as release_module
from reconciler.repair.context import Context, Pacer, RepairResult
from reconciler.repair.releaser import Releaser
from reconciler.stores.budget import HeldSlots
from reconciler.stores.dynamodb import Cancelled, DynamoDB
from tests.support.pipeline import LambdaClient, invoker_on
from tests.support.world import USER, World

MakeWorld = Callable[..., World]
UNTIMED = Release("b", "lost_release", None)


NO_TURN = Pacer(lambda: False)


def releaser(world: World, *, pipeline: LambdaClient | None = None, **parts: Any) -> Releaser:
    if pipeline is not None:
        parts["invoker"] = invoker_on(world, pipeline)
    return replace(world.reconciler().evaluator.parts.repairer.releaser, **parts)


def whole(world: World, orchestration_id: str) -> Orchestration:
    found = world.reconciler().orchestrations.read(orchestration_id)
    assert found is not None
    return found


def context(world: World, *, apply: bool = True) -> Context:
    return Context(world.clock(), "sweep-1", apply=apply)


def release(
    world: World,
    orchestration_id: str,
    key: str = "b",
    *,
    apply: bool = True,
    held: HeldSlots | None = None,
    sweep_id: str = "sweep-1",
    **parts: Any,
) -> RepairResult:
    """Read the orchestration and release one of its children."""
    read = whole(world, orchestration_id)
    since = world.clock() - timedelta(hours=1)
    given = replace(context(world, apply=apply), sweep_id=sweep_id)
    action = Release(key, "lost_release", since)
    return releaser(world, **parts).release(read, read.children[key], action, given, held)


# -- children that are not due


@pytest.mark.parametrize(
    ("row", "outcome", "detail"),
    [
        ({"child_status": {"S": "succeeded"}}, "no_longer_due", "it is succeeded"),
        ({"child_status": {"S": "paused"}}, "no_longer_due", "it is paused"),
        ({"depends_on": {"S": "a"}}, "no_longer_due", "depends_on is missing or is not a list"),
        ({"child_status": {"S": "releasing"}}, "claim_in_progress", "a releaser has claimed it"),
    ],
)
def test_a_row_in_another_state_is_not_released(
    world: World, row: dict[str, Any], outcome: str, detail: str
) -> None:
    found = world.seed({"b": []}, rows={"b": row})
    before = world.everything()
    result = release(world, found)
    assert (result.outcome, result.detail) == (outcome, detail)
    assert world.everything() == before


def test_a_bad_meta_row_prevents_the_release(world: World) -> None:
    found = world.seed({"b": []}, meta={"platform_user_id": {"NULL": True}})
    result = release(world, found)
    assert (result.outcome, result.detail) == (
        "no_longer_due",
        "meta row: platform_user_id is missing",
    )
    read = replace(whole(world, found), meta=None)
    bare = releaser(world).release(read, read.children["b"], UNTIMED, context(world))
    assert (bare.outcome, bare.detail) == ("no_longer_due", "it has no meta row")


def test_a_predecessor_that_has_not_succeeded_is_named(world: World) -> None:
    found = world.seed({"a": [], "c": [], "b": ["c", "a"]}, {"c": "succeeded", "a": "failed"})
    result = release(world, found)
    assert (result.outcome, result.detail) == ("no_longer_due", "predecessor a is failed")
    dangling = world.seed({"b": ["gone"]})
    result = release(world, dangling)
    assert (result.outcome, result.detail) == ("no_longer_due", "predecessor gone is missing")


def test_the_pacer_postpones_a_release(world: World) -> None:
    """A report needs no turn."""
    found = world.seed({"b": []})
    assert release(world, found, pacer=NO_TURN).outcome == "paced"
    assert world.statuses(found) == {"b": "blocked"}
    planned = release(world, found, pacer=NO_TURN, apply=False)
    assert (planned.outcome, planned.applied) == ("released", False)


# -- interrupted releases


def test_an_interrupted_release_is_finished_after_the_grace(world: World) -> None:
    found = world.seed({"b": []})
    down, pipeline = LambdaClient(down=True), LambdaClient()
    result = release(world, found, pipeline=down)
    assert result.outcome == "released"
    assert isinstance(result.error, PipelineUnavailableError)
    assert result.detail == str(result.error)
    assert result.task is not None
    assert result.task.invoked_at is None
    world.clock.forward(119)
    early = release(world, found, pipeline=pipeline, sweep_id="sweep-2")
    assert (early.outcome, early.task_id) == ("already_released", result.task_id)
    assert pipeline.asked == 0, "its creator may still be invoking it"
    world.clock.forward(1)
    later: dict[str, Any] = {"pipeline": pipeline, "sweep_id": "sweep-2"}
    planned = release(world, found, apply=False, **later)
    assert (planned.outcome, planned.applied, pipeline.asked) == ("reinvoked", False, 0)
    assert release(world, found).outcome == "already_released", (
        "without a pipeline, nothing can be invoked"
    )
    again = release(world, found, **later)
    assert (again.outcome, again.applied) == ("reinvoked", True)
    world.clock.forward(10_000)
    after = release(world, found, pipeline=pipeline)
    assert (after.outcome, after.task_id) == ("already_released", result.task_id)
    assert after.child is not None
    assert result.child is not None
    assert after.child.branch_name == result.child.branch_name
    assert (pipeline.runs, pipeline.asked) == ([result.task_id], 1)


def test_expired_credentials_undo_no_release(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def expired(*_: Any) -> bool:
        raise CredentialsError("they have expired")

    monkeypatch.setattr(DynamoDB, "write", expired)
    found, pipeline = world.seed({"b": []}), LambdaClient()
    result = release(world, found, pipeline=pipeline)
    assert (result.outcome, result.detail) == ("released", "they have expired")
    assert world.statuses(found) == {"b": "released"}


def test_a_redelivered_message_continues_its_release(world: World) -> None:
    """The first attempt was committed, but its answer was lost with the worker."""
    found, pipeline = world.seed({"b": []}), LambdaClient()
    first = release(world, found, pipeline=LambdaClient(down=True))
    again = release(world, found, pipeline=pipeline)
    assert (again.outcome, again.task_id) == ("reinvoked", first.task_id)
    assert pipeline.runs == [first.task_id]


@pytest.mark.parametrize("answered", [True, False])
def test_a_committed_release_survives_a_lost_answer(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    answered: bool,  # noqa: FBT001
) -> None:
    """Without a commit, the release fails with a store error, and nothing is invoked."""
    found, pipeline = world.seed({"b": []}), LambdaClient()
    sound = world.client.transact_write_items

    def torn(**request: Any) -> None:
        if answered:
            sound(**request)
        raise ReadTimeoutError(endpoint_url="memory")

    monkeypatch.setattr(world.client, "transact_write_items", torn)
    if not answered:
        with pytest.raises(StoreUnavailableError):
            release(world, found, pipeline=pipeline)
        assert pipeline.runs == []
        return
    result = release(world, found, pipeline=pipeline)
    assert (result.outcome, result.error) == ("released", None)
    assert pipeline.runs == [result.task_id]


def test_an_unanswered_unnamed_invocation_is_not_repeated(world: World) -> None:
    found, pipeline = world.seed({"b": []}), LambdaClient(durable=False, silent=True)
    result = release(world, found, pipeline=pipeline)
    assert isinstance(result.error, PipelineUnavailableError)
    pipeline.silent = False
    world.clock.forward(10_000)
    assert release(world, found, pipeline=pipeline).outcome == "already_released"
    assert pipeline.runs == [result.task_id]


def test_a_release_never_invokes_a_foreign_task(world: World) -> None:
    pipeline = LambdaClient()
    found = world.seed({"b": []}, {"b": "released"}, tasks={"b": "SUBMITTED"})
    assert release(world, found, pipeline=pipeline).outcome == "already_released"
    assert pipeline.asked == 0


def test_an_ended_task_is_not_invoked(world: World) -> None:
    found, pipeline = world.seed({"b": []}), LambdaClient()
    release(world, found, pipeline=LambdaClient(down=True))
    (task,) = world.tasks(found)
    world.finish(task["task_id"]["S"], "CANCELLED")
    world.clock.forward(130)
    assert release(world, found, pipeline=pipeline).outcome == "already_released"
    assert pipeline.asked == 0


def test_a_row_without_task_is_already_released(world: World) -> None:
    bare = world.seed({"b": []}, {"b": "released"})
    gone = world.seed({"b": []}, {"b": "released"}, rows={"b": {"child_task_id": {"S": "T0"}}})
    results = [release(world, found, pipeline=LambdaClient()) for found in (bare, gone)]
    assert [(r.outcome, r.task_id, r.task) for r in results] == [
        ("already_released", None, None),
        ("already_released", "T0", None),
    ]


def test_a_release_invokes_the_pipeline_once(world: World) -> None:
    """The task records the invocation."""
    found, pipeline = world.seed({"b": []}), LambdaClient()
    result = release(world, found, pipeline=pipeline)
    (task,) = world.tasks(found)
    assert pipeline.runs == [result.task_id]
    assert (result.error, result.detail, result.applied) == (None, "", True)
    assert task["reconciler_invoked_at"] == {"S": world.ago(0)}
    assert result.task is not None
    assert (result.task.ours, result.task.invoked_at) == (True, world.ago(0))


def test_a_failed_record_undoes_no_release(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    found, pipeline = world.seed({"b": []}), LambdaClient()

    def fails(**_: Any) -> None:
        raise ReadTimeoutError(endpoint_url="memory")

    monkeypatch.setattr(world.client, "update_item", fails)
    result = release(world, found, pipeline=pipeline)
    assert (result.outcome, pipeline.runs) == ("released", [result.task_id])
    assert isinstance(result.error, StoreUnavailableError)


# -- refusals


def test_a_report_only_predicts_a_refusal(world: World) -> None:
    found = world.seed({"b": []}, rows={"b": {"description": {"S": "x" * 10_001}}})
    before = world.everything()
    planned = release(world, found, apply=False)
    assert (planned.outcome, planned.applied) == ("refused", False)
    assert world.everything() == before
    done = release(world, found)
    assert (done.outcome, done.applied, done.detail) == ("refused", True, planned.detail)
    assert world.rows(found)["b"]["failure_reason"] == {"S": planned.detail}


class Screen:
    def __init__(self, word: str) -> None:
        self.word = word

    def blocks(self, text: str) -> bool:
        return self.word in text


def test_only_a_blocked_text_is_refused(world: World) -> None:
    found = world.seed({"b": [], "c": []})
    screen: Any = Screen("Do c")
    drafter = replace(releaser(world).drafter, guardrail=screen)
    assert release(world, found, "b", drafter=drafter).outcome == "released"
    refused = release(world, found, "c", drafter=drafter)
    assert (refused.outcome, "content policy" in refused.detail) == ("refused", True)


def test_a_task_of_another_user_is_never_adopted(world: World) -> None:
    found = world.seed({"b": []})
    task_id = world.task(found, "b", "RUNNING", user="user-2")
    before = world.everything()
    result = release(world, found)
    assert (result.outcome, result.task_id) == ("idempotency_conflict", task_id)
    assert "another user" in result.detail
    assert world.everything() == before


def test_a_report_adopts_nothing(world: World) -> None:
    found = world.seed({"b": []})
    task_id = world.task(found, "b", "RUNNING")
    before = world.everything()
    planned = release(world, found, apply=False)
    assert (planned.outcome, planned.task_id, planned.applied) == ("adopted", task_id, False)
    assert world.everything() == before
    done = release(world, found)
    assert (done.outcome, done.applied) == ("adopted", True)


# -- the budget


@pytest.fixture
def budgeted(make_world: MakeWorld) -> World:
    return make_world(
        USER_CONCURRENCY_TABLE_NAME="{prefix}-Users", MAX_CONCURRENT_TASKS_PER_USER="2"
    )


def taken(world: World, count: int) -> None:
    item = {"user_id": {"S": USER}, "active_count": {"N": str(count)}}
    world.put(str(world.settings.user_concurrency_table_name), item)


def test_a_report_shows_a_full_budget(budgeted: World) -> None:
    found = budgeted.seed({"b": []})
    taken(budgeted, 1)
    assert release(budgeted, found, apply=False).outcome == "released"
    taken(budgeted, 2)
    planned = release(budgeted, found, apply=False)
    assert (planned.outcome, planned.detail) == ("over_budget", "its user has no free slot")


def test_each_release_uses_one_held_slot(budgeted: World) -> None:
    found = budgeted.seed({"a": [], "b": [], "c": []})
    budget = budgeted.reconciler().evaluator.parts.budget
    assert budget is not None
    held = HeldSlots(budget)
    assert release(budgeted, found, "a", held=held).outcome == "released"
    assert held.open(USER, prune=True).room == 1
    assert release(budgeted, found, "a", held=held).outcome == "already_released"
    assert held.open(USER, prune=True).room == 1
    assert release(budgeted, found, "b", held=held).outcome == "released"
    assert release(budgeted, found, "c", held=held).outcome == "over_budget"


# -- lost races


def lost(world: World, **failed: Any) -> RepairResult:
    """Return the result of a release whose transaction failed at these writes."""
    child = whole(world, world.seed({"b": []})).children["b"]
    return release_module._lost(child, Cancelled(failed))


def moved(status: str, **attributes: Any) -> dict[str, Any]:
    return {
        "orchestration_id": {"S": "o"},
        "sub_issue_id": {"S": "b"},
        "child_status": {"S": status},
        **attributes,
    }


@pytest.mark.parametrize(
    ("row", "outcome", "detail"),
    [
        ({}, "no_longer_due", "its row is gone"),
        (moved("releasing"), "claim_in_progress", "a releaser has claimed it"),
        (moved("released"), "already_released", "it is released now"),
        (moved("succeeded", child_task_id={"S": "T2"}), "already_released", "it is succeeded now"),
        (moved("failed"), "no_longer_due", "it is failed now"),
        (moved("ready", child_task_id={"S": "T2"}), "no_longer_due", "it is ready now"),
    ],
)
def test_the_row_tells_who_won_the_race(
    world: World, row: dict[str, Any], outcome: str, detail: str
) -> None:
    result = lost(world, row=row, task={}, slot={})
    assert (result.outcome, result.detail) == (outcome, detail)
    assert (result.child is None) is (row == {})


def test_an_unchanged_task_id_means_no_new_release(world: World) -> None:
    found = world.seed({"b": []}, {"b": "ready"}, rows={"b": {"child_task_id": {"S": "T0"}}})
    child = whole(world, found).children["b"]
    ended = Cancelled({"row": moved("skipped", child_task_id={"S": "T0"})})
    assert release_module._lost(child, ended).outcome == "no_longer_due"


def test_each_failed_condition_gives_its_own_outcome(world: World) -> None:
    there = lost(world, task={"task_id": {"S": "T1"}, "status": {"S": "SUBMITTED"}}, slot={})
    assert (there.outcome, there.task_id) == ("already_released", "T1")
    full = lost(world, slot={}, **{"predecessor a": {}})
    assert (full.outcome, full.detail) == ("over_budget", "its user has no free slot")
    for label in ("predecessor a", "adopted task"):
        before = lost(world, **{label: {}})
        assert (before.outcome, before.detail) == (
            "no_longer_due",
            "what it depends on has moved",
        )


def test_a_lagging_replica_hides_no_interrupted_release(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = world.seed({"b": []})
    release(world, found, pipeline=LambdaClient(down=True))
    monkeypatch.setattr(world.client, "lag", lambda *_: 100)
    world.clock.forward(130)
    assert release(world, found, pipeline=LambdaClient()).outcome == "reinvoked"


def test_a_vanished_task_is_not_adopted(world: World) -> None:
    found = world.seed({"b": []})
    task_id = world.task(found, "b", "RUNNING")
    read = whole(world, found)
    task = world.reconciler().tasks.read_all([task_id])[task_id]
    assert task is not None
    key = {"task_id": {"S": task_id}}
    world.client.delete_item(TableName=world.settings.task_table_name, Key=key)
    result = releaser(world).adopt(read, read.children["b"], task, UNTIMED, context(world))
    assert (result.outcome, result.detail) == ("no_longer_due", "what it depends on has moved")
    assert world.statuses(found) == {"b": "blocked"}


def test_the_latest_successes_become_conditions(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If one transaction cannot hold all predecessors, the others count as they were read."""
    monkeypatch.setattr(release_module, "MAX_WRITES", 5)
    rows: dict[str, Any] = {
        "p": {"updated_at": {"S": world.ago(9000)}},
        "q": {"updated_at": {"S": world.ago(60)}},
        "r": {"updated_at": {"NULL": True}},
    }
    graph = {"p": [], "q": [], "r": [], "b": ["p", "q", "r"]}
    found = world.seed(graph, dict.fromkeys("pqr", "succeeded"), rows=rows)
    read = whole(world, found)
    world.change(found, "p", child_status="ready")
    world.change(found, "q", child_status="ready")
    given = context(world)
    result = releaser(world).release(read, read.children["b"], UNTIMED, given)
    assert (result.outcome, result.detail) == ("no_longer_due", "what it depends on has moved")
    world.change(found, "q", child_status="succeeded")
    result = releaser(world).release(read, read.children["b"], UNTIMED, given)
    assert result.outcome == "released", "one predecessor had no room, and was read as succeeded"
