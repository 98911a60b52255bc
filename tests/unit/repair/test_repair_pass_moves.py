"""Rows that somebody else changes during a pass: lost races and second reads."""

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
    """Return a ``withhold`` that does the next deed at each call, so before each write."""
    left = iter(deeds)

    def withhold(_: Orchestration) -> None:
        deed = next(left, None)
        if deed is not None:
            deed()

    return withhold


def overtake(monkeypatch: pytest.MonkeyPatch, deed: Deed) -> None:
    """Do the deed between the reads of a release and its transaction."""
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


def rows_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the orchestrations whose rows are read from now on."""
    read = OrchestrationStore.read
    reads: list[str] = []

    def counted(self: OrchestrationStore, orchestration_id: str, *args: Any, **kw: Any) -> Any:
        reads.append(orchestration_id)
        return read(self, orchestration_id, *args, **kw)

    monkeypatch.setattr(OrchestrationStore, "read", counted)
    return reads


def test_without_a_lost_race_rows_are_read_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = world.seed({"a": [], "b": ["a"]}, {"a": "released"}, tasks={"a": "COMPLETED"})
    reads = rows_read(monkeypatch)
    assert len(evaluate(world, found).actions) == 2
    assert reads == [found]


def test_no_child_is_skipped_for_a_changed_cause(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The orchestration is read again instead."""
    found = world.seed({"a": [], "b": ["a"]}, {"a": "failed"})
    reads = rows_read(monkeypatch)

    def moved(orchestration: Orchestration) -> None:
        children = cast("dict[str, Child]", orchestration.children)
        child = children["a"]
        children["a"] = child.moved(ChildStatus.RELEASING, world.ago(0))

    evaluation = evaluate(world, found, withhold=moved)
    assert outcomes(evaluation) == []
    assert (len(reads), world.statuses(found)["b"]) == (2, "blocked")


def test_no_child_is_skipped_for_a_vanished_cause(
    world: World,
) -> None:
    found = world.seed({"a": [], "b": ["a"], "c": ["b"]}, {"a": "failed"})
    gone = meanwhile(None, lambda: remove(world, found, "b"))
    evaluation = evaluate(world, found, withhold=gone)
    assert outcomes(evaluation) == [("skip", "b", "lost_race")]
    assert world.statuses(found) == {"a": "failed", "c": "blocked"}
    assert [child.code for child in evaluation.children] == ["dangling_dependency"]


@pytest.mark.parametrize("overtaken", ["a", "b"])
def test_a_lost_race_rereads_the_whole_orchestration(world: World, overtaken: str) -> None:
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
    assert evaluation.children == (), "c has succeeded, too"


def test_a_child_claimed_meanwhile_is_read_again(
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
def test_a_failed_second_read_hides_no_action(
    world: World, monkeypatch: pytest.MonkeyPatch, key: str, status: str, code: str
) -> None:
    """The children have the codes that follow from the first read and the lost race."""
    found = world.seed({"a": [], "b": ["a"]}, {"a": "succeeded"})
    moved = {"child_status": status, "updated_at": world.ago(0)}
    overtake(monkeypatch, lambda: world.change(found, key, **moved))
    break_on(monkeypatch, OrchestrationStore, "read", ThrottledError("x"), at=2)
    evaluation = evaluate(world, found)
    assert (len(evaluation.actions), evaluation.counts.errors) == (1, 1)
    assert [child.code for child in evaluation.children] == [code]


def test_a_vanished_orchestration_is_missing_its_rows(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second read finds nothing, so the pass reports what it last knew."""
    found = world.seed({"a": []})
    overtake(monkeypatch, lambda: remove(world, found, "a", "#meta"))
    evaluation = evaluate(world, found)
    assert outcomes(evaluation) == [("release", "a", "no_longer_due")]
    assert [entry.code for entry in evaluation.stuck] == ["rows_missing"]


# -- the time


def test_each_write_of_a_pass_is_timed(world: World) -> None:
    """The platform fails a task that has waited for too long since it was created."""
    found = world.seed({"a": [], "b": []})

    def slow(_: Orchestration) -> None:
        world.clock.forward(600)

    evaluate(world, found, withhold=slow)
    ages = {task["created_at"]["S"] for task in world.tasks(found)}
    assert ages == {world.ago(600), world.ago(0)}
    assert {row["updated_at"]["S"] for row in world.rows(found).values()} > ages
