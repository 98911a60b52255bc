"""Malformed rows: nothing crashes, and a row that is not understood stays as it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, given, settings

from reconciler.domain.diagnosis import Evidence, diagnose
from reconciler.domain.planning import plan
from reconciler.repair.reconciler import Reconciler
from reconciler.stores.items import plain
from reconciler.stores.rows import parse_orchestration, parse_task
from reconciler.sweeping.inline import Hooks, run_inline_sweep
from tests.simulation.actors import ClockHand
from tests.simulation.memory_dynamodb import MemoryDynamoDB
from tests.simulation.world import ORCH, START, DirectPort, reconciler_on
from tests.support.strategies import NOW, POLICY
from tests.unit.hostile.values import Item, items, nested, orchestrations, values

STATUSES = {"blocked", "ready", "releasing", "released", "succeeded", "failed", "skipped"}
Rows = Mapping[tuple[str, str], Item]


def understood(row: Item) -> bool:
    """Judge a child row from the contract alone."""
    after = row.get("depends_on", {}).get("L")
    return (
        row.get("child_status", {}).get("S") in STATUSES
        and isinstance(after, list)
        and all(isinstance(entry.get("S"), str) and entry["S"] for entry in after)
        and next(iter(row.get("child_task_id", {"S": ""}))) in {"S", "NULL"}
    )


@settings(max_examples=80, deadline=None)
@given(orchestrations(ORCH))
def test_every_unfinished_child_gets_a_diagnosis(drawn: tuple[list[Item], list[Item]]) -> None:
    """A child whose row is not understood gets a code that says so."""
    rows, tasks = drawn
    orchestration = parse_orchestration(ORCH, rows)
    if orchestration is None:
        return
    evidence = Evidence(tasks={task["task_id"]["S"]: parse_task(task) for task in tasks})
    diagnosis = diagnose(orchestration, evidence, POLICY, NOW)
    plan(orchestration, diagnosis, evidence, POLICY, NOW)
    alive = {key for key, child in orchestration.children.items() if not child.terminal}
    reopened = {k for k, found in diagnosis.children.items() if found.code == "lost_unskip"}
    assert set(diagnosis.children) == alive | reopened
    for row in rows:
        key = row["sub_issue_id"]["S"]
        if "#" not in key and key in alive and not understood(row) and orchestration.meta:
            assert diagnosis.children[key].code in {"malformed_row", "unknown_status"}


@settings(max_examples=60)
@given(values)
def test_any_value_can_be_shown(value: Item) -> None:
    json.dumps(plain(value), default=repr)


class Alone:
    """Tables in memory that hold exactly these rows, and a reconciler."""

    def __init__(self, rows: list[Item], tasks: list[Item]) -> None:
        self.database = MemoryDynamoDB(metered=False)
        for name, found in (("OrchestrationTable", rows), ("TaskTable", tasks)):
            schema = self.database.tables[name].spec.key
            self.database.tables[name].replace({schema.of(item): item for item in found})
        self.reconciler: Reconciler = reconciler_on(DirectPort(self.database, ClockHand(START)))

    @property
    def rows(self) -> Rows:
        return dict(self.database.tables["OrchestrationTable"].items)

    @property
    def tasks(self) -> Rows:
        return dict(self.database.tables["TaskTable"].items)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(orchestrations(ORCH))
def test_a_sweep_keeps_rows_it_does_not_understand(
    drawn: tuple[list[Item], list[Item]],
) -> None:
    """This is a whole sweep, from scan to release; it reports each row that it keeps."""
    world = Alone(*drawn)
    before, tasks = world.rows, world.tasks
    stuck: set[str | None] = set()
    summary = run_inline_sweep(
        world.reconciler,
        segments=1,
        hooks=Hooks(
            on_evaluation=lambda found: stuck.update(entry.sub_issue_id for entry in found.stuck)
        ),
    )
    assert summary.complete
    after = world.rows
    has_meta = (ORCH, "#meta") in before
    for key, row in before.items():
        marker = "#" in key[1]
        if marker or not understood(row) or not has_meta:
            assert after[key] == row, f"{key[1]} was changed"
        status = row.get("child_status", {}).get("S")
        terminal = status in {"succeeded", "failed", "skipped"}
        if not marker and not understood(row) and not terminal:
            assert key[1] in stuck, f"{key[1]} is not reported"
    for key, task in tasks.items():
        foreign = {
            name
            for name in task.keys() | world.tasks[key].keys()
            if task.get(name) != world.tasks[key].get(name)
        }
        assert all(name.startswith(("reconcile_", "reconciler_")) for name in foreign)


@settings(max_examples=60)
@given(items({"status": values, "build_passed": values, "status_created_at": values}))
def test_a_malformed_task_has_no_verdict(drawn: Item) -> None:
    task = parse_task({**drawn, "task_id": {"S": "T"}})
    known = drawn.get("status", {}).get("S") in {"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"}
    built = "build_passed" not in drawn or next(iter(drawn["build_passed"])) in {"BOOL", "NULL"}
    assert (task.problem is None and task.terminal) == (known and built)


def child(name: str, *after: str, **more: Any) -> Item:
    return {
        "orchestration_id": {"S": ORCH},
        "sub_issue_id": {"S": name},
        "child_status": {"S": "blocked"},
        "depends_on": {"L": [{"S": key} for key in after]},
        "updated_at": {"S": "2026-06-09T09:00:00Z"},
        "created_at": {"S": "2026-06-09T09:00:00Z"},
        "repo": {"S": "acme/widgets"},
        **more,
    }


def meta(count: int, **more: Any) -> Item:
    return {
        "orchestration_id": {"S": ORCH},
        "sub_issue_id": {"S": "#meta"},
        "child_count": {"N": str(count)},
        "platform_user_id": {"S": "user-1"},
        "repo": {"S": "acme/widgets"},
        "created_at": {"S": "2026-06-09T09:00:00Z"},
        **more,
    }


NEARLY_400_KB = "x" * 390_000


@pytest.mark.parametrize(
    "row",
    [
        child("a", title={"S": NEARLY_400_KB}),
        child("a", description={"S": NEARLY_400_KB}),
        child("a", channel_metadata={"M": {"note": {"S": NEARLY_400_KB}}}),
        child("a", child_branch_name={"S": NEARLY_400_KB}),
        child(
            "a",
            pre_screened_attachments={
                "L": [
                    {
                        "M": {
                            "attachment_id": {"S": "1"},
                            "screening": {"M": {"status": {"S": "passed"}}},
                            "body": {"S": NEARLY_400_KB},
                        }
                    }
                ]
            },
        ),
        child("a", title=nested(32)),
        child("a", **{name: nested(31) for name in ("channel_metadata", "description", "ttl")}),
    ],
    ids=["title", "description", "metadata", "branch", "attachment", "nested", "nested more"],
)
def test_a_huge_row_is_released_or_refused(row: Item) -> None:
    """So is a deeply nested row; a refusal has a short reason."""
    world = Alone([row, meta(1)], [])
    world.database._size = MemoryDynamoDB()._size
    evaluation = world.reconciler.evaluate(ORCH, sweep_id="s")
    (action,) = [found for found in evaluation.actions if found.verb == "release"]
    assert action.outcome in {"released", "refused"}, action.detail
    after = world.rows[ORCH, "a"]
    reason = after.get("failure_reason", {}).get("S", "")
    assert (action.outcome == "refused") == bool(reason)
    assert len(reason) < 1000


@pytest.mark.parametrize("levels", [10, 30, 500, 10_000])
def test_json_nested_too_deep_is_left_out(levels: int) -> None:
    """There is a warning, and the child is released."""
    deep = "[" * levels + "]" * levels
    raw = f'[{{"attachment_id": "1", "screening": {{"status": "passed"}}, "deep": {deep}}}]'
    world = Alone([child("a"), meta(1, pre_screened_attachments_json={"S": raw})], [])
    (action,) = world.reconciler.evaluate(ORCH, sweep_id="s").actions
    assert action.outcome == "released"
    (task,) = world.tasks.values()
    assert ("attachments" in task) == (levels <= 20)
    assert bool(action.warnings) == (levels > 20)


@pytest.mark.parametrize("number", ["1e400", "-1e400", "1e130", "1" * 39, "NaN", "Infinity"])
def test_attachments_with_unstorable_numbers_are_left_out(number: str) -> None:
    """There is a warning, and the child is released."""
    record = f'"screening": {{"status": "passed"}}, "size": {number}'
    raw = f'[{{"attachment_id": "1", {record}}}]'
    world = Alone([child("a"), meta(1, pre_screened_attachments_json={"S": raw})], [])
    (action,) = world.reconciler.evaluate(ORCH, sweep_id="s").actions
    assert (action.outcome, bool(action.warnings)) == ("released", True)
    (task,) = world.tasks.values()
    assert "attachments" not in task


@pytest.mark.parametrize("name", ["\u00fc", "a b", "x" * 200, "a/b", "\U0001f600"])
def test_a_child_with_an_unusable_id_is_refused(name: str) -> None:
    """Its dependents are skipped."""
    world = Alone([child(name), child("b", name), meta(2)], [])
    with structlog.testing.capture_logs():
        counts = world.reconciler.evaluate(ORCH, sweep_id="s").counts
    assert (counts.refused, counts.skipped, counts.released) == (1, 1, 0)
    assert "cannot be used" in world.rows[ORCH, name]["failure_reason"]["S"]
