"""Orchestrations in recovery, retry, extension and cascade, as the platform's own code left them.

The README of ``tests/data/platform-cases-2.jsonl.gz`` says how each was made and how to compare it.
All cases are loaded into one table, with their times moved to the present, and swept.
"""

from __future__ import annotations

import gzip
import json
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from reconciler.domain.model import moment, timestamp
from reconciler.sweeping.inline import run_inline_sweep
from tests.support.world import World

pytestmark = pytest.mark.integration

DATA = Path(__file__).parents[1] / "data" / "platform-cases-2.jsonl.gz"
MAX_SWEEPS = 3
TERMINAL = {"succeeded", "failed", "skipped"}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")

Case = dict[str, Any]
Item = dict[str, Any]
Tables = dict[str, dict[tuple[str, ...], Item]]


def load() -> list[Case]:
    with gzip.open(DATA, "rt") as lines:
        return [json.loads(line) for line in lines]


def moved(item: Item, by: timedelta) -> Item:
    """Return an item with all of its times, and its ``ttl``, moved."""

    def later(found: re.Match[str]) -> str:
        at = moment(found.group())
        assert at is not None
        return timestamp(at + by)

    shifted: Item = json.loads(TIME.sub(later, json.dumps(item)))
    if "ttl" in shifted:
        shifted["ttl"] = {"N": str(int(shifted["ttl"]["N"]) + int(by.total_seconds()))}
    return shifted


def seed(world: World, cases: list[Case]) -> None:
    """Load the cases, moving the time at which each was recorded to the world's present."""
    now = world.clock()
    for name, table in (
        ("OrchestrationTable", world.settings.orchestration_table_name),
        ("TaskTable", world.settings.task_table_name),
    ):
        items = [
            moved(item, now - recorded_at(case)) for case in cases for item in case["before"][name]
        ]
        world.put_all(table, items)


def recorded_at(case: Case) -> datetime:
    at = moment(case["recorded_at"])
    assert at is not None
    return at


def stored(world: World) -> Tables:
    """Return rows and tasks by key, without rows that only we write."""
    rows = world.scan(world.settings.orchestration_table_name)
    tasks = world.scan(world.settings.task_table_name)
    return {
        "rows": {
            (row["orchestration_id"]["S"], row["sub_issue_id"]["S"]): row
            for row in rows
            if not row["sub_issue_id"]["S"].startswith("reconciler#")
        },
        "tasks": {(task["task_id"]["S"],): task for task in tasks},
    }


def orchestration_of(case: Case) -> str:
    name: str = case["before"]["OrchestrationTable"][0]["orchestration_id"]["S"]
    return name


def of(orchestration_id: str, tables: Tables) -> Tables:
    """Return the part of the tables that belongs to one orchestration."""

    def task_of(task: Item) -> bool:
        metadata = task.get("channel_metadata", {}).get("M", {})
        return bool(metadata.get("orchestration_id", {}).get("S") == orchestration_id)

    return {
        "rows": {k: row for k, row in tables["rows"].items() if k[0] == orchestration_id},
        "tasks": {k: task for k, task in tables["tasks"].items() if task_of(task)},
    }


def statuses(tables: Tables) -> dict[str, str]:
    return {
        key: row["child_status"]["S"]
        for (_, key), row in tables["rows"].items()
        if "child_status" in row
    }


def children_that_ended_wrong(case: Case, after: Tables) -> list[str]:
    wanted = [
        case[name]["statuses"] for name in ("after", "right", "after_redelivered") if case[name]
    ]
    either = [*wanted, case["after_sweep"]["statuses"]]
    said = []
    for key, status in statuses(after).items():
        allowed = either if key in case["depends_on_lost_iteration"] else wanted
        if status not in {statuses.get(key) for statuses in allowed}:
            said.append(f"{key} ended {status}, not {[s.get(key) for s in allowed]}")
    return said


def harm(case: Case, before: Tables, after: Tables) -> list[str]:
    """Return the changes by a sweep that it must not make to an orchestration."""
    said = []
    was, now = statuses(before), statuses(after)
    for key, status in was.items():
        if status in TERMINAL and now[key] != status:
            said.append(f"{key} left {status} for {now[key]}")
    for (task_id,), task in before["tasks"].items():
        if task_id in case["hazards"] and after["tasks"][task_id,] != task:
            said.append(f"task {task_id} was touched: {case['effects'][task_id]['hazard']}")
    keys = [t["idempotency_key"]["S"] for t in after["tasks"].values() if "idempotency_key" in t]
    if len(set(keys)) != len(keys):
        said.append("two tasks have one idempotency key")
    for (_, key), row in after["rows"].items():
        if (
            "#" in key
            and key != "#meta"
            and row != before["rows"][row["orchestration_id"]["S"], key]
        ):
            said.append(f"marker row {key} was changed")
        if now.get(key) == "released" and was.get(key) != "released":
            said += [
                f"{key} was released beside {name['S']}, which is {now[name['S']]}"
                for name in row["depends_on"]["L"]
                if now[name["S"]] != "succeeded"
            ]
    return said


def fell_short(case: Case, before: Tables, after: Tables) -> list[str]:
    if case["age"] == "fresh":
        return [] if after == before else ["its last change was seconds ago, but it was changed"]
    return harm(case, before, after) + children_that_ended_wrong(case, after)


def test_reopened_orchestrations_end_as_the_platform_ends_them(
    world: World, request: pytest.FixtureRequest
) -> None:
    """Fresh ones stay unchanged; aged ones end as the platform ends them, without harm."""
    cases = load()
    assert len(cases) == 80
    if request.node.callspec.params["endpoint"] == "moto":
        cases = cases[::5]  # moto copies all its tables for each transaction
    seed(world, cases)
    before = stored(world)
    reconciler = world.reconciler()
    for _ in range(MAX_SWEEPS):
        swept = run_inline_sweep(reconciler, segments=3)
        assert swept.complete
        assert swept.counts.errors == 0
    after = stored(world)
    said = []
    for case in cases:
        name = orchestration_of(case)
        found = fell_short(case, of(name, before), of(name, after))
        said += [f"{case['name']} {case['notes']}: {line}" for line in found]
    assert not said, "\n".join(said)
