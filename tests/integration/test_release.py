"""Concurrent releases: a child gets one task, whoever comes second."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError

from reconciler.errors import UnknownChildError, UnknownOrchestrationError
from reconciler.sweeping.inline import run_inline_sweep
from tests.support.world import REPO, USER, World

pytestmark = pytest.mark.integration

MakeWorld = Callable[..., World]


def test_eight_concurrent_releases_create_one_task(world: World) -> None:
    found = world.seed({"a": [], "b": ["a"]}, {"a": "succeeded"})
    releasers = [world.reconciler() for _ in range(8)]
    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda r: r.release(found, "b").outcome, releasers))
    assert len(world.tasks(found, "b")) == 1
    assert results.count("released") == 1
    assert set(results) <= {"released", "already_released", "adopted"}
    assert len(world.events("task_created")) == 1


def test_concurrent_sweeps_repair_everything_once(world: World) -> None:
    found = world.seed(
        {"a": [], "b": ["a"], "c": ["a"], "f": [], "g": ["f"]},
        {"a": "released", "f": "released"},
        tasks={"a": "COMPLETED", "f": "FAILED"},
    )
    sweepers = [world.reconciler() for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        summaries = list(threads.map(lambda r: run_inline_sweep(r, segments=1), sweepers))
    total = sum((summary.counts for summary in summaries[1:]), summaries[0].counts)
    assert (total.released, total.advanced, total.skipped, total.errors) == (2, 2, 1, 0)
    assert Counter(world.statuses(found).values()) == {
        "released": 2, "succeeded": 1, "failed": 1, "skipped": 1
    }  # fmt: skip
    assert len(world.events("orchestration_recovered")) == 5


class InProgress:
    """A client that reports a transaction as in progress three times, and then sends it.

    It calls ``first`` with the first attempt.
    """

    def __init__(self, client: Any, first: Callable[[dict[str, Any]], object]) -> None:
        self._client = client
        self._first = first
        self.asked = 0

    def transact_write_items(self, **request: Any) -> Any:
        self.asked += 1
        if self.asked == 1:
            self._first(request)
        if self.asked > 3:
            return self._client.transact_write_items(**request)
        error: Any = {"Error": {"Code": "TransactionInProgressException", "Message": "wait"}}
        raise ClientError(error, "TransactWriteItems")

    def __getattr__(self, operation: str) -> Any:
        return getattr(self._client, operation)


def in_progress(world: World, first: Callable[[dict[str, Any]], object]) -> tuple[Any, InProgress]:
    reconciler = world.reconciler()
    dynamodb = reconciler.evaluator.parts.repairer.releaser.dynamodb
    client: Any = InProgress(dynamodb._client, first)
    dynamodb._client = client
    return reconciler, client


def test_a_commit_with_a_lost_answer_is_ours(world: World) -> None:
    """Its attempts share a token; if an endpoint ignores the token, the task says whose it is."""
    found = world.seed({"a": []})
    reconciler, client = in_progress(world, lambda r: world.client.transact_write_items(**r))
    result = reconciler.release(found, "a", sweep_id="sweep:7")
    assert (result.outcome, result.counts.released, client.asked) == ("released", 1, 4)
    assert [task["task_id"]["S"] for task in world.tasks(found)] == [result.task_id]


@pytest.mark.parametrize("sweep_id", ["sweep:7", "sweep:8"])
def test_a_rivals_commit_is_not_ours(world: World, sweep_id: str) -> None:
    """That holds even for one of the same sweep, whose task has the same id."""
    found = world.seed({"a": []})

    def rival(_request: dict[str, Any]) -> None:
        world.clock.forward(0.001)
        world.reconciler().release(found, "a", sweep_id=sweep_id)

    reconciler, client = in_progress(world, rival)
    result = reconciler.release(found, "a", sweep_id="sweep:7")
    assert (result.outcome, result.counts.released, client.asked) == ("already_released", 0, 4)
    assert [task["task_id"]["S"] for task in world.tasks(found)] == [result.task_id]


def test_an_earlier_live_claim_beats_a_release(world: World) -> None:
    found = world.seed({"a": []})
    reconciler = world.reconciler()
    world.change(found, "a", child_status="releasing", updated_at=world.ago(0))
    assert reconciler.release(found, "a").outcome == "claim_in_progress"
    assert not world.tasks(found)


def test_a_release_beats_a_later_live_claim(world: World) -> None:
    found = world.seed({"a": []})
    assert world.reconciler().release(found, "a").outcome == "released"
    with pytest.raises(world.client.exceptions.ConditionalCheckFailedException):
        world.client.update_item(
            TableName=world.settings.orchestration_table_name,
            Key={"orchestration_id": {"S": found}, "sub_issue_id": {"S": "a"}},
            UpdateExpression="SET child_status = :releasing",
            ConditionExpression="child_status IN (:blocked, :ready)",
            ExpressionAttributeValues={
                ":releasing": {"S": "releasing"},
                ":blocked": {"S": "blocked"},
                ":ready": {"S": "ready"},
            },
        )
    assert len(world.tasks(found, "a")) == 1


@pytest.mark.parametrize(
    ("status", "outcome"),
    [("succeeded", "released"), ("failed", "no_longer_due"), ("released", "no_longer_due")],
)
def test_a_release_is_never_early(world: World, status: str, outcome: str) -> None:
    found = world.seed({"a": [], "b": ["a"]}, {"a": status})
    assert world.reconciler().release(found, "b").outcome == outcome


def test_releasing_again_changes_nothing(world: World) -> None:
    found = world.seed({"a": []})
    reconciler = world.reconciler()
    assert reconciler.release(found, "a").outcome == "released"
    before = world.everything()
    assert reconciler.release(found, "a").outcome == "already_released"
    assert world.everything() == before


def test_unknown_ids_are_named_in_the_error(world: World) -> None:
    found = world.seed({"a": []})
    with pytest.raises(UnknownChildError, match="has no child z"):
        world.reconciler().release(found, "z")
    with pytest.raises(UnknownOrchestrationError, match="orch_nowhere"):
        world.reconciler().evaluate("orch_nowhere")


def test_a_join_may_exceed_a_transactions_size(world: World) -> None:
    """It has more predecessors than a transaction has room for."""
    graph: dict[str, list[str]] = {f"p{number}": [] for number in range(130)}
    found = world.seed({**graph, "j": sorted(graph)}, dict.fromkeys(graph, "succeeded"))
    assert world.reconciler().release(found, "j").outcome == "released"


# -- the budget of a user


@pytest.fixture
def budgeted(make_world: MakeWorld) -> World:
    """A world with ten slots for each user."""
    return make_world(USER_CONCURRENCY_TABLE_NAME="{prefix}-Users")


def set_active(world: World, count: int, user: str = USER) -> None:
    name = str(world.settings.user_concurrency_table_name)
    world.put(name, {"user_id": {"S": user}, "active_count": {"N": str(count)}})


def sweep(world: World) -> Counter[str]:
    reconciler = world.reconciler()
    summary = run_inline_sweep(reconciler, segments=1)
    return +Counter({"released": summary.counts.released, **summary.counts.stuck})


def test_a_fan_out_waits_for_free_slots(budgeted: World) -> None:
    found = budgeted.seed({f"c{number:02}": [] for number in range(50)})
    assert sweep(budgeted) == {"released": 10, "over_budget": 40}
    assert sweep(budgeted) == {"over_budget": 40}
    # Admission moves three of them from on-the-way to active; one of these finishes.
    for task in budgeted.tasks(found)[:3]:
        budgeted.finish(task["task_id"]["S"], "RUNNING", age=0)
    set_active(budgeted, 3)
    assert sweep(budgeted) == {"over_budget": 40}
    set_active(budgeted, 2)
    assert sweep(budgeted) == {"released": 1, "over_budget": 39}


def test_concurrent_releases_never_exceed_the_budget(budgeted: World) -> None:
    set_active(budgeted, 4)
    found = budgeted.seed({f"c{number:02}": [] for number in range(24)})
    releasers = [budgeted.reconciler() for _ in range(8)]
    with ThreadPoolExecutor(8) as threads:
        outcomes = Counter(
            threads.map(lambda n: releasers[n % 8].release(found, f"c{n:02}").outcome, range(24))
        )
    assert len(budgeted.tasks(found)) == outcomes["released"] <= 6
    assert outcomes["released"] >= 1


def test_the_oldest_due_child_gets_the_next_slot(budgeted: World) -> None:
    """The children of the user are in four orchestrations."""
    set_active(budgeted, 9)
    young = [budgeted.seed({"a": []}, age=300) for _ in range(3)]
    old = budgeted.seed({"a": []}, age=7200)
    while budgeted.statuses(old)["a"] != "released":
        counts = sweep(budgeted)
        if counts["released"]:
            break
    first = [found for found in (*young, old) if budgeted.statuses(found)["a"] == "released"]
    set_active(budgeted, 8)
    sweep(budgeted)
    later = [found for found in (*young, old) if budgeted.statuses(found)["a"] == "released"]
    assert len(first) == 1
    assert old in later


def test_a_malformed_budget_leaves_no_slot(budgeted: World) -> None:
    name = str(budgeted.settings.user_concurrency_table_name)
    budgeted.put(name, {"user_id": {"S": USER}, "active_count": {"S": "many"}})
    budgeted.seed({"a": []})
    assert sweep(budgeted) == {"over_budget": 1}


# -- onboarding


def test_a_repo_without_onboarding_is_refused(make_world: MakeWorld) -> None:
    """The reason says that it must be onboarded."""
    world = make_world(REPO_TABLE_NAME="{prefix}-Repo")
    found = world.seed({"a": [], "b": ["a"]})
    assert world.reconciler().release(found, "a").outcome == "refused"
    assert world.statuses(found) == {"a": "failed", "b": "skipped"}
    assert "Onboard it" in world.rows(found)["a"]["failure_reason"]["S"]


def onboard(world: World, cap: str | None, repo: str = REPO) -> None:
    row = {"repo": {"S": repo}, "status": {"S": "active"}}
    given = {} if cap is None else {"approval_gate_cap": {"N": cap}}
    world.put(str(world.settings.repo_table_name), {**row, **given})


@pytest.mark.parametrize(("cap", "expected"), [("7", "7"), (None, "50")])
def test_the_approval_cap_comes_from_the_repo(
    make_world: MakeWorld, cap: str | None, expected: str
) -> None:
    world = make_world(REPO_TABLE_NAME="{prefix}-Repo")
    onboard(world, cap)
    found = world.seed({"a": []})
    world.reconciler().release(found, "a")
    (task,) = world.tasks(found)
    assert task["approval_gate_cap"] == {"N": expected}


@pytest.mark.parametrize("cap", ["0", "501", "1.5"])
def test_an_unusable_approval_cap_makes_its_repo_wait(make_world: MakeWorld, cap: str) -> None:
    """It delays no other repo, backs off nothing, and ends when the cap is corrected."""
    world = make_world(REPO_TABLE_NAME="{prefix}-Repo")
    onboard(world, cap)
    onboard(world, "3", "acme/other")
    found = world.seed({"a": [], "b": []}, rows={"b": {"repo": {"S": "acme/other"}}})
    before = world.rows(found)["a"]
    reconciler = world.reconciler()
    for _ in range(5):
        (action,) = (a for a in reconciler.evaluate(found, sweep_id="s").actions
                     if a.sub_issue_id == "a")  # fmt: skip
        assert (action.outcome, action.error_kind) == ("failed", "repo_unusable")
        assert f"approval_gate_cap of repository {REPO} is '{cap}'" in action.detail
    assert world.rows(found)["a"] == before
    assert world.statuses(found)["b"] == "released"
    onboard(world, "7")
    assert sweep(world) == {"released": 1}
