"""The facade: what a person asks for, which a sweep does not do."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from reconciler.errors import InvalidRequestError
from tests.support.world import World
from tests.unit.repair.test_releaser import context

SKIPPED = {"a": "succeeded", "b": "skipped", "c": "skipped"}
GRAPH = {"a": [], "b": ["a"], "c": ["b"]}


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ({"sweep_id": "sweep-1"}, "blocked"),
        ({"sweep_id": "sweep-1", "by_hand": True}, "released"),
        ({}, "released"),
    ],
    ids=["a sweep", "by hand for a sweep", "by hand"],
)
def test_only_a_person_ends_the_backoff(world: World, how: dict[str, Any], status: str) -> None:
    found = world.seed({"a": []})
    reconciler = world.reconciler()
    for _ in range(3):
        reconciler.evaluator.failures.hold_against(
            found, {"a": InvalidRequestError("the item is too large")}, context(world)
        )
    reconciler.evaluate(found, **how)
    assert world.statuses(found) == {"a": status}


def test_an_unskip_is_written_and_logged(world: World) -> None:
    found = world.seed(GRAPH, SKIPPED)
    with capture_logs() as lines:
        done = world.reconciler().unskip(found, "b")
    assert [(action.sub_issue_id, action.outcome) for action in done] == [
        ("b", "done"),
        ("c", "done"),
    ]
    assert world.statuses(found) == {"a": "succeeded", "b": "blocked", "c": "blocked"}
    told = [line["sub_issue_id"] for line in lines if line["event"] == "orch.sweep.recovered"]
    assert told == ["b", "c"]


def test_a_reported_unskip_changes_nothing(world: World) -> None:
    """It is planned during a pause, too."""
    world.reconciler().pause("a deployment", "me")
    found = world.seed(GRAPH, SKIPPED)
    planned = world.reconciler().unskip(found, "b", report=True)
    assert [(action.outcome, action.applied) for action in planned] == [("done", False)] * 2
    assert world.statuses(found) == SKIPPED


def test_a_pause_withholds_an_unskip(world: World) -> None:
    world.reconciler().pause("a deployment", "me")
    found = world.seed(GRAPH, SKIPPED)
    (action,) = world.reconciler().unskip(found, "b")
    assert (action.outcome, action.applied) == ("paused", False)
    assert action.detail.endswith("by me: a deployment")
    assert world.statuses(found) == SKIPPED
