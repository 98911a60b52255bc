"""What somebody else moves while a pass is at work: lost, told, and read again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from reconciler.domain.model import Child, ChildStatus, Orchestration
from reconciler.domain.task import draft_task
from reconciler.errors import ThrottledError
from reconciler.repair import drafter as drafting
from reconciler.stores.orchestrations import OrchestrationStore
from tests.support.world import World
from tests.unit.repair.test_repair_pass import break_on, evaluate, outcomes

Deed = Callable[[], object]


def meanwhile(*deeds: Deed | None) -> Callable[[Orchestration], None]:
    """Do one of them each time that it is asked whether all is withheld: before each write."""
    left = iter(deeds)

    def withhold(_: Orchestration) -> None:
        deed = next(left, None)
        if deed is not None:
            deed()

    return withhold


def overtake(monkeypatch: pytest.MonkeyPatch, deed: Deed) -> None:
    """Do it between the reads of a release and its transaction."""
    sound = draft_task

    def overtaken(*args: Any, **kwargs: Any) -> Any:
        deed()
        return sound(*args, **kwargs)

    monkeypatch.setattr(drafting, "draft_task", overtaken)


def remove(world: World, orchestration_id: str, *keys: str) -> None:
    for key in keys:
        world.client.delete_item(
            TableName=world.settings.orchestration_table_name,
            Key={"orchestration_id": {"S": orchestration_id}, "sub_issue_id": {"S": key}},
        )


def test_a_cause_that_moves_while_the_pass_is_at_work_is_left_to_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = world.seed({"a": [], "b": ["a"]}, {"a": "failed"})
    read = OrchestrationStore.read
    reads: list[str] = []

    def counted(self: OrchestrationStore, orchestration_id: str, *args: Any, **kw: Any) -> Any:
        reads.append(orchestration_id)
        return read(self, orchestration_id, *args, **kw)

    def moved(orchestration: Orchestration) -> None:
        children = cast("dict[str, Child]", orchestration.children)
        child = children["a"]
        children["a"] = child.moved(ChildStatus.RELEASING, world.ago(0))

    monkeypatch.setattr(OrchestrationStore, "read", counted)
    evaluation = evaluate(world, found, withhold=moved)
    assert outcomes(evaluation) == []
    assert (len(reads), world.statuses(found)["b"]) == (2, "blocked")


def test_a_cause_whose_row_goes_while_the_pass_is_at_work_is_left_to_the_next(
    world: World,
) -> None:
    found = world.seed({"a": [], "b": ["a"], "c": ["b"]}, {"a": "failed"})
    gone = meanwhile(None, lambda: remove(world, found, "b"))
    evaluation = evaluate(world, found, withhold=gone)
    assert outcomes(evaluation) == [("skip", "b", "lost_race")]
    assert world.statuses(found) == {"a": "failed", "c": "blocked"}
    assert [child.code for child in evaluation.children] == ["dangling_dependency"]


@pytest.mark.parametrize("overtaken", ["a", "b"])
def test_after_one_race_that_was_lost_everything_is_read_again(
    world: World, overtaken: str
) -> None:
    found = world.seed(
        {"a": [], "b": [], "c": []},
        dict.fromkeys("abc", "released"),
        tasks={"a": "COMPLETED", "b": "COMPLETED", "c": "RUNNING"},
    )

    def move() -> None:
        for key in (overtaken, "c"):
            world.change(found, key, child_status="succeeded")

    evaluation = evaluate(world, found, withhold=meanwhile(None, move))
    assert {key: outcome for _, key, outcome in outcomes(evaluation)} == {
        **dict.fromkeys("ab", "done"),
        overtaken: "lost_race",
    }
    assert evaluation.children == (), "nor does c run any more"


def test_what_somebody_else_moved_is_read_again_before_it_is_reported(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = world.seed({"a": []})
    claimed = {"child_status": "releasing", "updated_at": world.ago(0)}
    overtake(monkeypatch, lambda: world.change(found, "a", **claimed))
    evaluation = evaluate(world, found)
    assert outcomes(evaluation) == [("release", "a", "claim_in_progress")]
    assert (evaluation.stuck, world.tasks(found)) == ((), [])
    assert evaluation.children[0].code == "claim_in_progress"


@pytest.mark.parametrize(
    ("key", "status", "code"),
    [("b", "releasing", "claim_in_progress"), ("a", "released", "lost_release")],
    ids=["the row itself was seen", "it was its predecessor"],
)
def test_where_it_cannot_be_read_again_what_was_done_is_told_and_what_was_seen(
    world: World, monkeypatch: pytest.MonkeyPatch, key: str, status: str, code: str
) -> None:
    found = world.seed({"a": [], "b": ["a"]}, {"a": "succeeded"})
    moved = {"child_status": status, "updated_at": world.ago(0)}
    overtake(monkeypatch, lambda: world.change(found, key, **moved))
    break_on(monkeypatch, OrchestrationStore, "read", ThrottledError("x"), at=2)
    evaluation = evaluate(world, found)
    assert (len(evaluation.actions), evaluation.counts.errors) == (1, 1)
    assert [child.code for child in evaluation.children] == [code]


def test_one_that_is_gone_when_it_is_read_again_is_told_as_it_was(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = world.seed({"a": []})
    overtake(monkeypatch, lambda: remove(world, found, "a", "#meta"))
    evaluation = evaluate(world, found)
    assert outcomes(evaluation) == [("release", "a", "no_longer_due")]
    assert [entry.code for entry in evaluation.stuck] == ["rows_missing"]
