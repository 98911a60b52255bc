"""A repair carries out exactly the actions that a report planned, in random worlds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from reconciler.repair.context import ActionOutcome, Evaluation
from reconciler.sweeping.inline import Hooks, run_inline_sweep
from reconciler.sweeping.summary import SweepSummary
from tests.support.aws_stub import aws_stub
from tests.support.world import REPO, World

pytestmark = pytest.mark.integration

CAP = 2
TASKS = ("RUNNING", "SUBMITTED", "COMPLETED", "COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT")
Said = tuple[str, str, str, str, str, str | None]


def graph_of(dice: Random) -> dict[str, list[str]]:
    """Return a random graph of up to six children, sometimes with a dangling edge or a cycle."""
    keys = [f"s{number}" for number in range(dice.randint(1, 6))]
    graph = {
        key: dice.sample(keys[:number], dice.randint(0, min(2, number)))
        for number, key in enumerate(keys)
    }
    if dice.random() < 0.15:
        graph[keys[0]] = [dice.choice([*keys, "nowhere"])]
    return graph


def seed_any(world: World, dice: Random) -> None:
    """Seed an orchestration in a random state, even one that no platform would leave behind."""
    graph = graph_of(dice)
    user = f"user-{dice.random()}"
    statuses: dict[str, str] = {}
    tasks: dict[str, str] = {}
    rows: dict[str, dict[str, Any]] = {}
    for key, after in graph.items():
        ready = all(statuses.get(name) == "succeeded" for name in after)
        choices = ["blocked", "blocked", "skipped"]
        if ready:
            choices = ["blocked", "ready", "releasing", "released", "released", "succeeded"]
            choices += ["succeeded", "failed", "odd"]
        statuses[key] = dice.choice(choices)
        if statuses[key] == "released" and dice.random() < 0.85:
            tasks[key] = dice.choice(TASKS)
        elif statuses[key] in {"succeeded", "failed"} or dice.random() < 0.1:
            tasks[key] = "COMPLETED" if statuses[key] == "succeeded" else "FAILED"
        if dice.random() < 0.15:
            rows[key] = {"description": {"S": "x" * dice.choice([10, 10_001])}}
    if dice.random() < 0.1:
        rows[next(iter(graph))] = {"depends_on": {"S": "odd"}}
    meta = {"rollup_posted_at": {"S": world.ago(9)}} if dice.random() < 0.3 else {}
    if dice.random() < 0.1:
        meta["repo"] = {"S": "acme/not-onboarded"}
        rows = {key: {**rows.get(key, {}), "repo": meta["repo"]} for key in graph}
    age = dice.choice([30, 600, 600, 7200, 200_000])
    found = world.seed(graph, statuses, tasks=tasks, rows=rows, meta=meta, age=age, user=user)
    for key, status in statuses.items():
        left_behind = status in {"blocked", "ready", "releasing", "released"} and key not in tasks
        if left_behind and dice.random() < 0.3:
            owner = user if dice.random() < 0.8 else "somebody else"
            world.task(found, key, dice.choice(TASKS), age=age, user=owner)


def sweep(world: World, *, report: bool) -> tuple[SweepSummary, Counter[Said]]:
    """Sweep, and return the actions that were carried out or planned."""
    said: Counter[Said] = Counter()

    def note(evaluation: Evaluation) -> None:
        said.update(of(evaluation.orchestration_id, action) for action in evaluation.actions)
        assert all(action.applied is not report for action in evaluation.actions)

    reconciler = world.reconciler()
    summary = run_inline_sweep(
        reconciler, report=report, segments=1, hooks=Hooks(on_evaluation=note)
    )
    return summary, said


def of(orchestration_id: str, action: ActionOutcome) -> Said:
    return (
        orchestration_id,
        action.sub_issue_id,
        action.verb,
        action.code,
        action.outcome,
        action.task_id,
    )


def compare(world: World, number: int, orchestrations: int) -> None:
    dice = Random(number)  # noqa: S311 - worlds
    for _ in range(orchestrations):
        seed_any(world, dice)
    before = world.everything()
    report, planned = sweep(world, report=True)
    assert world.everything() == before
    repair, done = sweep(world, report=False)
    assert planned == done
    assert len({one[2] for one in planned}) >= 4, "these worlds need too few kinds of actions"
    counted = {name: getattr(repair.counts, name) for name in report.counts.planned}
    assert dict(report.counts.planned) == counted
    assert (report.counts.repairs, repair.counts.repairs) == (0, sum(counted.values()))


@pytest.fixture
def orchestrations(request: pytest.FixtureRequest) -> int:
    """The number of orchestrations; moto is slow with each of them."""
    return 12 if request.node.callspec.params["endpoint"] == "moto" else 30


@pytest.mark.parametrize("number", range(2))
def test_a_repair_does_what_was_planned(world: World, number: int, orchestrations: int) -> None:
    compare(world, number, orchestrations)


@pytest.mark.parametrize("number", range(2, 4))
def test_a_repair_with_every_service_follows_its_plan(
    make_world: Callable[..., World], number: int, orchestrations: int
) -> None:
    """Each orchestration has its own user: others could take slots of a shared budget."""
    world = make_world(
        USER_CONCURRENCY_TABLE_NAME="{prefix}-Users",
        MAX_CONCURRENT_TASKS_PER_USER=str(CAP),
        REPO_TABLE_NAME="{prefix}-Repo",
        ORCHESTRATOR_FUNCTION_ARN="arn:aws:lambda:us-east-1:123456789012:function:f:live",
        GUARDRAIL_ID="g",
        GUARDRAIL_VERSION="1",
    )
    world.put(str(world.settings.repo_table_name), {"repo": {"S": REPO}, "status": {"S": "active"}})
    with aws_stub() as aws:
        world.others = {"lambda": aws.url, "bedrock-runtime": aws.url}
        compare(world, number, orchestrations)
