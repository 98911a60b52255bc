"""One repair pass: what stops it, what it leaves to the next, and what it queues."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from reconciler.domain.model import Child
from reconciler.errors import (
    AccessError,
    GuardrailOutageError,
    InvalidRequestError,
    ReconcilerError,
    StoreUnavailableError,
    TableMissingError,
    ThrottledError,
)
from reconciler.repair import drafter as drafting
from reconciler.repair.audit import concerned_task
from reconciler.repair.context import Evaluation, ReleaseRequest
from reconciler.repair.repairer import Repairer
from reconciler.stores.dynamodb import DynamoDB
from reconciler.stores.orchestrations import OrchestrationStore
from reconciler.stores.tasks import TaskStore
from tests.support.world import World
from tests.unit.repair.test_releaser import context, whole


def evaluate(
    world: World,
    orchestration_id: str,
    dispatch: Any = None,
    *,
    apply: bool = True,
    **parts: Any,
) -> Evaluation:
    evaluator = world.reconciler().evaluator
    evaluator = replace(evaluator, parts=replace(evaluator.parts, **parts))
    found = evaluator.evaluate(orchestration_id, context(world, apply=apply), dispatch)
    assert found is not None
    return found


def outcomes(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    return [(a.verb, a.sub_issue_id, a.outcome) for a in evaluation.actions]


def break_on(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, error: Exception, *, at: int = 1
) -> None:
    """Let the ``at``-th call of a method fail, and every later one."""
    calls = 0
    sound = getattr(owner, name)

    def breaks(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls >= at:
            raise error
        return sound(*args, **kwargs)

    monkeypatch.setattr(owner, name, breaks)


# -- errors and pauses


@pytest.mark.parametrize(
    ("error", "goes_on"),
    [
        (ThrottledError("x"), True),
        (ValueError("x"), True),
        (StoreUnavailableError("x"), False),
        (GuardrailOutageError("x"), True),
        (AccessError("x"), False),
        (TableMissingError("x"), False),
    ],
)
def test_a_store_outage_stops_the_pass(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    goes_on: bool,  # noqa: FBT001
) -> None:
    """A mistake in the configuration stops it, too; after any other error the pass goes on."""
    found = world.seed({"a": [], "b": []})
    break_on(monkeypatch, drafting, "draft_task", error)
    evaluation = evaluate(world, found)
    assert [outcome for _, _, outcome in outcomes(evaluation)] == ["failed"] * (1 + goes_on)
    assert evaluation.counts.stuck == {"lost_release": 2}
    mistaken = isinstance(error, AccessError | TableMissingError)
    assert evaluation.mistake is (error if mistaken else None)
    kind = error.kind if isinstance(error, ReconcilerError) else "unexpected"
    assert evaluation.actions[0].error_kind == kind
    assert evaluation.actions[0].detail.endswith("x")


def answers(*said: str | Exception | None) -> Callable[..., str | None]:
    """Return a ``withhold`` that gives these answers in turn and then repeats the last."""
    left = list(said)

    def withhold(_: Any) -> str | None:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return withhold


CHAIN = {"a": [], "b": ["a"], "c": []}


def test_withheld_repairs_are_only_planned(world: World) -> None:
    found = world.seed(CHAIN, {"a": "released"}, tasks={"a": "COMPLETED"})
    before = world.everything()
    evaluation = evaluate(world, found, withhold=answers("paused"))
    assert world.everything() == before
    assert evaluation.withheld == "paused"
    assert {a.applied for a in evaluation.actions} == {False}
    assert evaluation.counts.stuck == {"lost_terminal": 1, "lost_release": 2}


def test_a_pause_stops_the_next_write(world: World) -> None:
    found = world.seed(CHAIN, {"a": "released"}, tasks={"a": "COMPLETED"})
    evaluation = evaluate(world, found, withhold=answers(None, None, "paused"))
    assert outcomes(evaluation) == [("advance", "a", "done")]
    assert evaluation.withheld == "paused"
    assert world.statuses(found) == {"a": "succeeded", "b": "blocked", "c": "blocked"}
    assert evaluation.counts.stuck == {"lost_release": 2}


def test_an_unreadable_pause_stops_further_repairs(
    world: World,
) -> None:
    """Earlier repairs are reported; if there are none, the error is raised."""
    found = world.seed(CHAIN, {"a": "released"}, tasks={"a": "COMPLETED"})
    error = ThrottledError("x")
    with pytest.raises(ThrottledError):
        evaluate(world, found, withhold=answers(None, error))
    evaluation = evaluate(world, found, withhold=answers(None, None, error))
    assert outcomes(evaluation) == [("advance", "a", "done")]
    assert (evaluation.counts.errors, evaluation.withheld) == (1, None)
    assert world.statuses(found)["b"] == "blocked"


def test_a_lost_broker_undoes_no_repair(world: World) -> None:
    """If nothing has been repaired, the error is raised."""
    found = world.seed({"a": [], "b": ["a"]}, {"a": "released"}, tasks={"a": "COMPLETED"})

    def dispatch(_: ReleaseRequest) -> bool:
        raise ThrottledError("the broker is away")

    evaluation = evaluate(world, found, dispatch)
    assert outcomes(evaluation) == [("advance", "a", "done")]
    assert (evaluation.counts.advanced, evaluation.counts.errors) == (1, 1)
    assert evaluation.counts.stuck == {"lost_release": 1}
    with pytest.raises(ThrottledError):
        evaluate(world, found, dispatch)


def test_a_failed_task_read_hides_no_repair(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The task belongs to a row that somebody else has moved."""
    both = dict.fromkeys("ab", "released")
    found = world.seed({"a": [], "b": []}, both, tasks=dict.fromkeys("ab", "COMPLETED"))
    set_outcome = OrchestrationStore.set_outcome

    def retried(store: OrchestrationStore, child: Child, *more: Any) -> Any:
        if child.sub_issue_id == "b":
            row = {**child.item, "child_task_id": {"S": world.task(found, "b", "RUNNING")}}
            world.put(store.table, row)
        return set_outcome(store, child, *more)

    monkeypatch.setattr(OrchestrationStore, "set_outcome", retried)
    break_on(monkeypatch, TaskStore, "read", ThrottledError("x"), at=2)
    evaluation = evaluate(world, found)
    assert outcomes(evaluation) == [("advance", "a", "done"), ("advance", "b", "lost_race")]
    assert (evaluation.counts.advanced, evaluation.counts.errors) == (1, 1)
    assert evaluation.counts.stuck == {"check_failed": 1}


def test_a_pause_takes_effect_between_two_advances(world: World) -> None:
    both = dict.fromkeys("ab", "released")
    found = world.seed({"a": [], "b": []}, both, tasks=dict.fromkeys("ab", "COMPLETED"))
    evaluation = evaluate(world, found, withhold=answers(None, None, "paused"))
    assert outcomes(evaluation) == [("advance", "a", "done")]
    assert world.statuses(found) == {"a": "succeeded", "b": "released"}


def test_a_report_ignores_whether_repairs_are_withheld(world: World) -> None:
    found = world.seed(CHAIN, {"a": "released"}, tasks={"a": "COMPLETED"})
    evaluation = evaluate(world, found, apply=False, withhold=answers(ValueError("asked")))
    assert (len(evaluation.actions), evaluation.withheld) == (3, None)


def test_skips_before_an_outage_are_reported(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    graph: dict[str, list[str]] = {"a": [], **{f"c{n:03}": ["a"] for n in range(200)}}
    found = world.seed(graph, {"a": "failed"})
    tried: list[int] = []
    skip_together = Repairer._skip_together

    def counted(repairer: Repairer, cause: Child, pending: Any, *more: Any) -> Any:
        tried.append(len(pending))
        return skip_together(repairer, cause, pending, *more)

    monkeypatch.setattr(Repairer, "_skip_together", counted)
    break_on(monkeypatch, DynamoDB, "transact", ThrottledError("x"), at=2)
    evaluation = evaluate(world, found)
    assert tried == [98, 98]
    assert (evaluation.counts.skipped, evaluation.counts.errors) == (98, 98)
    assert evaluation.counts.stuck == {"lost_skip": 102}
    assert list(world.statuses(found).values()).count("skipped") == 98


@pytest.mark.parametrize("error", [InvalidRequestError("the item is too large"), ValueError("x")])
def test_one_unskippable_row_holds_up_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    found = world.seed({"a": [], "b": ["a"], "c": ["a"], "d": ["a"]}, {"a": "failed"})
    transact = DynamoDB.transact

    def refuse(dynamodb: DynamoDB, writes: dict[str, Any]) -> Any:
        if "dependent c" in writes:
            raise error
        return transact(dynamodb, writes)

    monkeypatch.setattr(DynamoDB, "transact", refuse)
    evaluation = evaluate(world, found)
    assert [outcome for _, _, outcome in outcomes(evaluation)] == ["done", "failed", "done"]
    assert world.statuses(found) == {"a": "failed", "b": "skipped", "c": "blocked", "d": "skipped"}
    assert list(whole(world, found).attempts) == ["c"]


def test_a_pause_also_stops_skips(world: World) -> None:
    found = world.seed({"a": [], "b": ["a"]}, {"a": "failed"})
    evaluation = evaluate(world, found, withhold=answers(None, "paused"))
    assert outcomes(evaluation) == []
    assert world.statuses(found)["b"] == "blocked"
    assert evaluation.counts.stuck == {"lost_skip": 1}


WIDE = {"a": [], **{f"c{number:03}": ["a"] for number in range(100)}}


def test_a_pause_takes_effect_between_two_transactions(world: World) -> None:
    found = world.seed(WIDE, {"a": "failed"})
    evaluation = evaluate(world, found, withhold=answers(None, None, "paused"))
    assert evaluation.counts.skipped == 98
    assert evaluation.counts.stuck == {"lost_skip": 2}


def test_without_repairs_the_pause_is_not_read(world: World) -> None:
    found = world.seed({"a": []}, {"a": "released"}, tasks={"a": "RUNNING"})
    evaluation = evaluate(world, found, withhold=answers(ValueError("asked")))
    assert (evaluation.actions, evaluation.stuck) == ((), ())


def test_only_released_children_have_their_tasks_read(
    world: World, tasks_read: list[tuple[list[str], bool]]
) -> None:
    """The read is strongly consistent."""
    found = world.seed(
        {"a": [], "b": []},
        {"a": "succeeded", "b": "released"},
        tasks={"a": "COMPLETED", "b": "RUNNING"},
    )
    (running,) = world.tasks(found, "b")
    evaluate(world, found)
    assert tasks_read == [([running["task_id"]["S"]], True)]


# -- queued releases


@pytest.mark.parametrize(("count", "named"), [(98, True), (99, False)])
def test_a_queued_release_names_its_predecessors(
    world: World,
    count: int,
    named: bool,  # noqa: FBT001
) -> None:
    """It names none if there are more than one read can take."""
    before: dict[str, list[str]] = {f"p{number}": [] for number in range(count)}
    found = world.seed({**before, "j": sorted(before)}, dict.fromkeys(before, "succeeded"))
    handed_on: list[ReleaseRequest] = []

    def dispatch(request: ReleaseRequest) -> bool:
        handed_on.append(request)
        return True

    evaluation = evaluate(world, found, dispatch)
    (request,) = handed_on
    assert request.depends_on == (tuple(sorted(before)) if named else None)
    assert (request.orchestration_id, request.sub_issue_id) == (found, "j")
    assert request.idempotency_key == f"{found}_j"
    assert request.due_since == world.clock() - timedelta(hours=1)
    assert (outcomes(evaluation), evaluation.stuck) == ([("release", "j", "queued")], ())


def test_a_full_queue_leaves_the_release_stuck(
    world: World,
) -> None:
    """A report puts nothing on the queue."""
    found = world.seed({"a": []})
    full = evaluate(world, found, lambda _: False)
    assert outcomes(full) == [("release", "a", "paced")]
    assert full.counts.stuck == {"lost_release": 1}
    report = evaluate(world, found, lambda _: pytest.fail("handed on"), apply=False)
    assert outcomes(report) == [("release", "a", "released")]
    assert report.children[0].code == "running", "a report shows the state after the release"


# -- skips


def roots(world: World) -> dict[str, str]:
    """Return the task whose events record the skip, for each skipped child."""
    return {
        name: event["task_id"]["S"]
        for event in world.events("orchestration_recovered")
        for name in event["metadata"]["M"].get("skipped", {"M": {}})["M"]
    }


def test_skips_are_recorded_under_the_failed_task(world: World) -> None:
    graph = {"a": [], "b": ["a"], "c": ["b"], "d": ["c"], "e": ["d", "b"]}
    found = world.seed(graph, {"a": "released"}, tasks={"a": "FAILED"})
    (task,) = world.tasks(found, "a")
    evaluate(world, found)
    assert roots(world) == dict.fromkeys("bcde", task["task_id"]["S"])


def test_an_earlier_skip_leads_to_the_failed_task(world: World) -> None:
    graph = {"a": [], "b": ["a"], "c": ["b"], "d": ["c"]}
    found = world.seed(
        graph, {"a": "failed", "b": "skipped", "c": "skipped"}, tasks={"a": "FAILED"}
    )
    (task,) = world.tasks(found, "a")
    evaluate(world, found)
    assert roots(world) == {"d": task["task_id"]["S"]}


@pytest.mark.parametrize("status", ["skipped", "failed"])
def test_a_failure_or_own_task_ends_the_search(world: World, status: str) -> None:
    """A child that failed without a task was refused, and the refusal is the cause."""
    tasks = {"a": "FAILED", **({"b": "FAILED"} if status == "skipped" else {})}
    found = world.seed({"a": [], "b": ["a"], "c": ["b"]}, {"a": "failed", "b": status}, tasks=tasks)
    evaluate(world, found)
    child = whole(world, found).children["b"]
    assert roots(world) == {"c": concerned_task(child)}


def test_only_a_failed_predecessor_explains_a_skip(
    world: World,
) -> None:
    found = world.seed(
        {"a": [], "s": [], "b": ["gone", "s", "a"], "c": ["b"]},
        {"a": "failed", "s": "succeeded", "b": "skipped"},
        tasks={"a": "FAILED", "s": "COMPLETED"},
    )
    (task,) = world.tasks(found, "a")
    evaluate(world, found)
    assert roots(world) == {"c": task["task_id"]["S"]}


def test_each_failed_skip_is_reported_separately(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = world.seed({"a": [], "b": ["a"], "c": ["a"]}, {"a": "failed"})
    break_on(monkeypatch, OrchestrationStore, "expect_failure", ThrottledError("x"))
    evaluation = evaluate(world, found)
    assert outcomes(evaluation) == [("skip", "b", "failed"), ("skip", "c", "failed")]
    assert evaluation.counts.errors == 2


def test_a_cycle_of_skips_ends_the_search(world: World) -> None:
    graph = {"b": ["c"], "c": ["b"], "d": ["b"]}
    found = world.seed(graph, {"b": "skipped", "c": "skipped"})
    assert outcomes(evaluate(world, found)) == [("skip", "d", "done")]


# -- releases that fail


def test_a_conflict_holds_up_no_other_release(world: World) -> None:
    found = world.seed({"a": [], "b": []})
    world.task(found, "a", "RUNNING", user="user-2")
    evaluation = evaluate(world, found)
    assert evaluation.counts.stuck == {"idempotency_conflict": 1}
    assert world.statuses(found) == {"a": "blocked", "b": "released"}


def test_dependents_of_a_refused_child_are_skipped(world: World) -> None:
    rows = {"a": {"description": {"S": "x" * 10_001}}}
    found = world.seed({"a": [], "b": ["a"]}, rows=rows)
    evaluation = evaluate(world, found)
    assert outcomes(evaluation) == [("release", "a", "refused"), ("skip", "b", "done")]
    assert evaluation.actions[1].stranded_seconds == 3600.0


# -- the parent


def test_nudging_a_parent_has_to_be_enabled(
    world: World,
) -> None:
    """In a report and during a pause, the nudge is only planned."""
    found = world.seed({"a": []}, {"a": "succeeded"}, tasks={"a": "COMPLETED"})
    unsettling = replace(world.reconciler().policy, settles=False)
    left = evaluate(world, found, policy=unsettling)
    assert (left.actions, left.counts.stuck) == ((), {"unsettled_parent": 1})
    assert left.stuck[0].sub_issue_id is None
    assert left.stuck[0].age_seconds == 3600.0
    report = evaluate(world, found, apply=False)
    assert [(a.verb, a.outcome, a.applied) for a in report.actions] == [("nudge", "done", False)]
    paused = evaluate(world, found, withhold=answers("paused"))
    assert {a.applied for a in paused.actions} == {False}
    assert outcomes(evaluate(world, found)) == [("nudge", "a", "done")]
    assert evaluate(world, found).actions == (), "the live reconciler has time to answer"


def test_a_parent_without_any_task_is_surfaced(world: World) -> None:
    found = world.seed({"a": []}, {"a": "failed"})
    (stuck,) = evaluate(world, found).stuck
    assert stuck.reason.startswith("all children are terminal, and nobody has settled the parent; ")


def test_each_repair_is_tried_once_per_pass(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    found = world.seed({"a": [], "b": []})
    break_on(monkeypatch, drafting, "draft_task", ThrottledError("x"))
    assert len(evaluate(world, found).actions) == 2
    assert whole(world, found).attempts == {}
