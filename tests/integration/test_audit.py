"""Every kind of repair records an event on its task: the state before, and the state after."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from reconciler.domain.identity import task_id_for
from reconciler.stores.items import plain
from reconciler.sweeping.inline import run_inline_sweep
from tests.support.aws_stub import AwsStub, aws_stub
from tests.support.world import World

pytestmark = pytest.mark.integration
ARN = "arn:aws:lambda:us-east-1:123456789012:function:orchestrator:live"
ULID = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}")
HOUR = 3600.0


@pytest.fixture
def aws() -> Iterator[AwsStub]:
    with aws_stub() as stub:
        yield stub


@pytest.fixture
def invoking(make_world: Callable[..., World], aws: AwsStub) -> World:
    """A world with a task pipeline."""
    world = make_world(ORCHESTRATOR_FUNCTION_ARN=ARN)
    world.others = {"lambda": aws.url}
    return world


def repairs(world: World) -> list[dict[str, Any]]:
    """Sweep once, check the form of every event, and return their contents by child and code."""
    reconciler = world.reconciler()
    summary = run_inline_sweep(reconciler, segments=1)
    assert summary.counts.errors == 0
    said = []
    for event in world.events("orchestration_recovered"):
        assert set(event) == {"task_id", "event_id", "event_type", "timestamp", "metadata", "ttl"}
        assert ULID.fullmatch(event["event_id"]["S"])
        assert event["timestamp"] == {"S": world.ago(0)}
        ninety_days = int(world.clock().timestamp()) + 90 * 86_400
        assert event["ttl"] == {"N": str(ninety_days)}
        metadata = plain(event["metadata"])
        assert metadata.pop("sweep_id") == summary.sweep_id
        assert "N" in event["metadata"]["M"]["stranded_seconds"]
        metadata["stranded_seconds"] = float(metadata["stranded_seconds"])
        said.append({"task_id": event["task_id"]["S"], **metadata})
    return sorted(said, key=lambda entry: (entry["sub_issue_id"], entry["code"]))


def event(
    found: str, key: str, task_id: str, change: str, code: str, **more: Any
) -> dict[str, Any]:
    before, _, after = change.partition(" → ")
    return {
        "task_id": task_id,
        "orchestration_id": found,
        "sub_issue_id": key,
        "code": code,
        "before": before,
        "after": after,
        "stranded_seconds": HOUR,
        **more,
    }


def own_task(world: World, found: str, key: str) -> str:
    task_id: str = world.rows(found)[key]["child_task_id"]["S"]
    return task_id


def future_task(world: World, found: str, key: str) -> str:
    """Return the id that our releases give a child that has no task yet."""
    return task_id_for(f"{found}_{key}", world.rows(found)[key]["created_at"]["S"])


def test_releases_and_advances_are_recorded(world: World) -> None:
    graph = {"a": [], "b": ["a"], "f": []}
    found = world.seed(
        graph, {"a": "released", "f": "released"}, tasks={"a": "COMPLETED", "f": "TIMED_OUT"}
    )
    said = repairs(world)
    a, b, f = (own_task(world, found, key) for key in graph)
    assert said == [
        event(found, "a", a, "released → succeeded", "lost_terminal"),
        event(found, "b", b, "blocked → released", "lost_release"),
        event(found, "f", f, "released → failed", "lost_terminal"),
    ]


def test_skips_are_recorded_on_the_failed_task(world: World) -> None:
    """Together the events name every child that was skipped."""
    graph = {"a": [], "b": ["a"], "c": ["a"], "d": ["b"], "e": ["d", "c"]}
    found = world.seed(graph, {"a": "released", "c": "ready"}, tasks={"a": "FAILED"})
    said = [entry for entry in repairs(world) if entry["code"] == "lost_skip"]
    a = own_task(world, found, "a")
    assert {entry["task_id"] for entry in said} == {a}
    assert {entry["after"] for entry in said} == {"skipped"}
    skipped = [entry["skipped"] for entry in said]
    assert {key: was for part in skipped for key, was in part.items()} == {
        "b": "blocked", "c": "ready", "d": "blocked", "e": "blocked"
    }  # fmt: skip
    assert sum(len(part) for part in skipped) == 4
    assert {entry["stranded_seconds"] for entry in said} == {HOUR}


def test_a_refusal_and_its_skips_are_recorded(world: World) -> None:
    """The refused task does not exist; the events have the id that it would have had."""
    too_long = {"description": {"S": "x" * 10_001}}
    found = world.seed({"a": [], "b": ["a"], "c": ["b"]}, rows={"a": too_long})
    future = future_task(world, found, "a")
    said = repairs(world)
    reason = world.rows(found)["a"]["failure_reason"]["S"]
    refused, *skips = said
    assert refused == event(found, "a", future, "blocked → failed", "refused", reason=reason)
    assert [(e["sub_issue_id"], e["task_id"], e["code"]) for e in skips] == [
        ("b", future, "lost_skip"), ("c", future, "lost_skip")
    ]  # fmt: skip


def test_refused_retries_are_recorded_on_the_earlier_task(world: World) -> None:
    too_long = {"description": {"S": "x" * 10_001}}
    found = world.seed({"a": []}, {"a": "ready"}, tasks={"a": "FAILED"}, rows={"a": too_long})
    refused, nudge = repairs(world)
    earlier = own_task(world, found, "a")
    assert (refused["task_id"], refused["before"], refused["code"]) == (earlier, "ready", "refused")
    assert nudge == event(found, "a", earlier, "failed → nudged", "unsettled_parent")


@pytest.mark.parametrize("status", ["blocked", "ready", "releasing", "released"])
def test_an_adoption_is_recorded(world: World, status: str) -> None:
    found = world.seed({"a": []}, {"a": status})
    task_id = world.task(found, "a", "RUNNING")
    code = {"releasing": "abandoned_claim", "released": "missing_task_id"}.get(
        status, "lost_release"
    )
    assert repairs(world) == [event(found, "a", task_id, f"{status} → released", code)]


def test_an_abandoned_claim_records_reset_and_release(world: World) -> None:
    found = world.seed({"a": []}, {"a": "releasing"})
    said = repairs(world)
    task_id = own_task(world, found, "a")
    assert said == [
        event(found, "a", task_id, "releasing → ready", "abandoned_claim"),
        event(found, "a", task_id, "ready → released", "lost_release"),
    ]


def test_a_repeated_invocation_is_recorded(invoking: World) -> None:
    found = invoking.seed({"a": []}, {"a": "released"}, tasks={"a": "SUBMITTED"})
    task_id = own_task(invoking, found, "a")
    assert repairs(invoking) == [
        event(found, "a", task_id, "SUBMITTED → invoked", "unstarted_task")
    ]


def test_a_delayed_first_invocation_is_recorded(invoking: World, aws: AwsStub) -> None:
    found = invoking.seed({"a": []})
    aws.invoke_status = 500
    invoking.reconciler().release(found, "a", sweep_id="s")
    aws.invoke_status = 202
    invoking.clock.forward(HOUR)
    task_id = own_task(invoking, found, "a")
    released = [e for e in invoking.events() if e["event_type"]["S"] == "orchestration_recovered"]
    for entry in released:
        key = {"task_id": entry["task_id"], "event_id": entry["event_id"]}
        invoking.client.delete_item(TableName=invoking.settings.task_events_table_name, Key=key)
    assert repairs(invoking) == [
        event(found, "a", task_id, "SUBMITTED → invoked", "unstarted_task")
    ]


def test_a_nudge_is_recorded(world: World) -> None:
    found = world.seed({"a": []}, {"a": "succeeded"}, tasks={"a": "COMPLETED"})
    task_id = own_task(world, found, "a")
    assert repairs(world) == [event(found, "a", task_id, "succeeded → nudged", "unsettled_parent")]


def test_a_release_by_hand_is_recorded_as_such(world: World) -> None:
    found = world.seed({"a": []})
    world.reconciler().release(found, "a")
    (said,) = world.events("orchestration_recovered")
    assert said["metadata"]["M"]["sweep_id"]["S"].startswith("by-hand:")


def test_a_created_task_has_exactly_two_events(world: World) -> None:
    found = world.seed({"a": []})
    repairs(world)
    task_id = {"S": own_task(world, found, "a")}
    events = {e["event_type"]["S"]: e for e in world.events() if e["task_id"] == task_id}
    assert set(events) == {"task_created", "orchestration_recovered"}
    assert len(world.events()) == 2
    assert events["task_created"]["metadata"] == {
        "M": {"repo": {"S": "acme/shop"}, "channel_source": {"S": "linear"}}
    }
