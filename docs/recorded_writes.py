"""Records which attributes the reconciler writes, for the page *What it writes*.

It repairs one case of each kind on tables in memory and compares the rows before and after.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from structlog.testing import capture_logs

from reconciler.sweeping.cron import run_cron_sweep
from tests.support.aws_stub import aws_stub
from tests.support.memory import MEMORY
from tests.support.one_of_each import SETTINGS, OneOfEach
from tests.support.world import World, build_world

Rows = Mapping[tuple[str, str, str], Mapping[str, Any]]

OWN = "reconciler#"
_DAY_SECONDS = 86_400


def record() -> dict[str, list[str]]:
    """Return the names of the written attributes, for each kind of row."""
    world = build_world(MEMORY, **SETTINGS)
    with aws_stub() as pipeline, capture_logs():
        world.others = {"lambda": pipeline.url}
        case = OneOfEach(world).seed()
        case.seed_refused()
        # The reconciler's own rows always count as written, even if seeding wrote them.
        seeded = _rows(world)
        before = {key: item for key, item in seeded.items() if not _is_own(key)}
        _repair(world, case)
        return _changes(before, {**seeded, **_rows(world)})


def _repair(world: World, case: OneOfEach) -> None:
    run_cron_sweep(world.reconciler(), holder="docs", full=True)
    where = case.where["lost_unskip"]
    for key, status in world.statuses(where).items():
        if status == "skipped":
            world.reconciler().unskip(where, key)
    world.clock.forward(_DAY_SECONDS)
    run_cron_sweep(world.reconciler(), holder="docs", full=True)
    world.reconciler().pause("docs", "docs")


def _rows(world: World) -> Rows:
    settings = world.settings
    tables = {
        "OrchestrationTable": settings.orchestration_table_name,
        "TaskTable": settings.task_table_name,
        "TaskEventsTable": settings.task_events_table_name,
    }
    keys = ("orchestration_id", "task_id"), ("sub_issue_id", "event_id")
    return {
        (name, _first(item, keys[0]), _first(item, keys[1])): item
        for name, table in tables.items()
        for item in world.scan(table)
    }


def _first(item: Mapping[str, Any], names: tuple[str, ...]) -> str:
    return next((str(item[name]["S"]) for name in names if name in item), "")


def _changes(before: Rows, after: Rows) -> dict[str, list[str]]:
    found: dict[str, set[str]] = {}
    for key, item in after.items():
        old = before.get(key, {})
        names = {name for name, value in item.items() if old.get(name) != value}
        names |= {name for name in old if name not in item}
        names = {name.partition(":")[0] for name in names}
        if names:
            found.setdefault(_kind(key, new=key not in before), set()).update(names)
    return {kind: sorted(found[kind]) for kind in sorted(found)}


def _is_own(key: tuple[str, str, str]) -> bool:
    _, partition, sort = key
    return partition.startswith(OWN) or sort.startswith(OWN)


def _kind(key: tuple[str, str, str], *, new: bool) -> str:
    table, _, sort = key
    if table == "OrchestrationTable":
        if _is_own(key):
            return "OrchestrationTable: rows of the reconciler's own"
        return (
            "OrchestrationTable: meta rows" if sort == "#meta" else "OrchestrationTable: children"
        )
    if table == "TaskTable":
        return "TaskTable: new tasks" if new else "TaskTable: tasks that exist"
    return table
