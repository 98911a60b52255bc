"""Rows as the platform's own code left them, and what its own sweep made of them.

``tests/data/platform-cases.jsonl.gz`` has 150 orchestrations in many states. The test loads and
sweeps all of them, and compares them attribute by attribute. It normalises what may differ: new
task ids and times, the slug of a branch, the wording of the context block and of the integration
node's instructions, attributes that only we write, and ``updated_at``. ``README.md`` beside the
data lists these, and the differences that are intended.
"""

from __future__ import annotations

import gzip
import json
import re
from collections import defaultdict
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from reconciler.domain.model import moment
from reconciler.domain.task import INTEGRATION_INSTRUCTIONS
from reconciler.sweeping.inline import run_inline_sweep
from tests.support.world import World

pytestmark = pytest.mark.integration

DATA = Path(__file__).parents[1] / "data" / "platform-cases.jsonl.gz"
OURS = {
    "reconciler_sweep_id",
    "reconciler_invoked_at",
    "reconcile_nudged_at",
    "reconcile_nudge_count",
    "reconciler_written_at",
    "reconciler_effective_at",
}
"""Attributes that only we write."""

Item = dict[str, Any]


def load() -> list[dict[str, Any]]:
    with gzip.open(DATA, "rt") as lines:
        return [json.loads(line) for line in lines]


def seed(world: World, cases: list[dict[str, Any]]) -> None:
    rows = [row for case in cases for row in case["before"]["OrchestrationTable"]]
    world.put_all(world.settings.orchestration_table_name, rows)
    tasks = [task for case in cases for task in case["before"]["TaskTable"]]
    world.put_all(world.settings.task_table_name, tasks)
    newest = moment(max(row.get("updated_at", {}).get("S", "") for row in rows))
    assert newest is not None
    world.clock.now = newest + timedelta(hours=2)


CONTEXT = re.compile(
    r"----- Context: [^\n]*-----\n(?:Title: (?P<title>[^\n]*)\n)?(?P<body>.*?)(?:\n)?"
    r"----- End of context -----",
    re.DOTALL,
)


def plain_description(text: str) -> str:
    """Convert our description to the form of the recorded ones."""

    def shown(found: re.Match[str]) -> str:
        title, body = found.group("title"), found.group("body")
        parts = [f"title={title!r}"] if title else []
        parts += [f"body={body!r}"] if body else []
        return f"<<context {' '.join(parts)}>>"

    return CONTEXT.sub(shown, text).replace(INTEGRATION_INSTRUCTIONS, "<<integration>>")


def normal(item: Mapping[str, Any], ids: Mapping[str, str], *, created: bool) -> Item:
    raw = json.dumps(item, sort_keys=True, ensure_ascii=False)
    for ours, theirs in ids.items():
        raw = raw.replace(ours, theirs)
    raw = re.sub(r"(bgagent/[^/\"]+/)[a-z0-9-]+", r"\1slug", raw)
    found: Item = {
        name: value
        for name, value in json.loads(raw).items()
        if name != "updated_at" and name not in OURS
    }
    if created:
        found.pop("created_at", None)
        found.pop("status_created_at", None)
    if "task_description" in found:
        found["task_description"] = {"S": plain_description(found["task_description"]["S"])}
    return found


def key_of(task: Item) -> str:
    key: str = (task.get("idempotency_key") or task["task_id"])["S"]
    return key


def differences(case: dict[str, Any], rows: dict[str, Item], tasks: dict[str, Item]) -> list[str]:
    wanted = case.get("after_second") or case["after"]
    before = {task["task_id"]["S"] for task in case["before"]["TaskTable"]}
    theirs = {key_of(task): task for task in wanted["TaskTable"]}
    said = [f"tasks {sorted(set(theirs) ^ set(tasks))}"] if set(theirs) != set(tasks) else []
    both = set(theirs) & set(tasks)
    ids = {tasks[key]["task_id"]["S"]: theirs[key]["task_id"]["S"] for key in both}
    for key in both:
        created = theirs[key]["task_id"]["S"] not in before
        want, got = (normal(t[key], ids, created=created) for t in (theirs, tasks))
        said += compare(f"task {key}", want, got)
    expected = {row["sub_issue_id"]["S"]: row for row in wanted["OrchestrationTable"]}
    if set(expected) != set(rows):
        said.append(f"rows {sorted(set(expected) ^ set(rows))}")
    for key in set(expected) & set(rows):
        want, got = (normal(r[key], ids, created=False) for r in (expected, rows))
        said += compare(f"row {key}", want, got)
    return said


def compare(what: str, want: Item, got: Item) -> list[str]:
    return [
        f"{what} {name}: want {want.get(name)}, got {got.get(name)}"
        for name in sorted(set(want) | set(got))
        if want.get(name) != got.get(name)
    ]


def test_every_case_ends_as_the_platform_ends_it(
    world: World, request: pytest.FixtureRequest
) -> None:
    cases = load()
    assert len(cases) == 150
    if request.node.callspec.params["endpoint"] == "moto":
        cases = cases[::10]  # it copies all its tables for each transaction
    seed(world, cases)
    reconciler = world.reconciler()
    summary = run_inline_sweep(reconciler, segments=3)
    assert summary.complete
    assert summary.counts.errors == 0

    rows: dict[str, dict[str, Item]] = defaultdict(dict)
    for row in world.scan(world.settings.orchestration_table_name):
        rows[row["orchestration_id"]["S"]][row["sub_issue_id"]["S"]] = row
    tasks = world.scan(world.settings.task_table_name)
    said: list[str] = []
    for case in cases:
        orchestration_id = case["before"]["OrchestrationTable"][0]["orchestration_id"]["S"]
        before = {task["task_id"]["S"] for task in case["before"]["TaskTable"]}
        own = [t for t in tasks if t["task_id"]["S"] in before or of(orchestration_id, t)]
        assert len({key_of(t) for t in own}) == len(own), f"a duplicate in {case['name']}"
        found = differences(case, rows[orchestration_id], {key_of(t): t for t in own})
        said += [f"{case['name']} {case['notes']}: {line}" for line in found]
    assert said == []


def of(orchestration_id: str, task: Item) -> bool:
    return key_of(task).startswith(orchestration_id)


def test_a_second_sweep_changes_nothing(world: World, request: pytest.FixtureRequest) -> None:
    """Neither does a third."""
    seed(world, load()[: 40 if request.node.callspec.params["endpoint"] != "moto" else 8])
    reconciler = world.reconciler()
    run_inline_sweep(reconciler, segments=3)
    before = world.everything()
    for _ in range(2):
        again = run_inline_sweep(reconciler, segments=1)
        assert again.complete
        assert (again.counts.repairs, again.counts.errors) == (0, 0)
        assert world.everything() == before


def test_the_data_has_no_attribute_of_ours() -> None:
    """Otherwise the comparison would leave out an attribute of the platform."""
    for case in load():
        for table in ("OrchestrationTable", "TaskTable"):
            for tables in (case["before"], case["after"], case.get("after_second") or {}):
                assert not any(OURS & set(item) for item in tables.get(table, ()))
