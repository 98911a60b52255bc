"""Malformed rows on real endpoints are left as they are and reported."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.sweeping.inline import Hooks, run_inline_sweep
from tests.support.world import World
from tests.unit.hostile.values import nested

pytestmark = pytest.mark.integration

ODD: dict[str, dict[str, Any]] = {
    "no status": {"depends_on": {"L": []}},
    "a number for a status": {"child_status": {"N": "1"}, "depends_on": {"L": []}},
    "an unknown status": {"child_status": {"S": "pau\u202esed\U0001f600"}, "depends_on": {"L": []}},
    "a set of predecessors": {"child_status": {"S": "ready"}, "depends_on": {"SS": ["a"]}},
    "a map of predecessors": {"child_status": {"S": "ready"}, "depends_on": {"M": {}}},
    "deep predecessors": {"child_status": {"S": "ready"}, "depends_on": {"L": [nested(30)]}},
    "no predecessors": {"child_status": {"S": "ready"}},
    # A task id cannot have another type: it is the key of an index.
    "a released row with odd predecessors": {
        "child_status": {"S": "released"},
        "depends_on": {"L": [{"B": b"a"}]},
        "child_task_id": {"S": "T"},
    },
    "nearly 400 KB": {
        "child_status": {"S": "\x00"},
        "depends_on": {"L": []},
        "title": {"S": "\u00e9" * 195_000},
    },
}


def test_malformed_rows_stay_unchanged_and_are_reported(world: World) -> None:
    found = world.seed({"a": []}, meta={"child_count": {"N": str(1 + len(ODD))}})
    for name, attributes in ODD.items():
        own = {"orchestration_id": {"S": found}, "sub_issue_id": {"S": name}}
        at = {"updated_at": {"S": world.ago(3600)}}
        table = world.settings.orchestration_table_name
        world.client.put_item(TableName=table, Item={**own, **at, **attributes})
    before = odd_rows(world, found)
    assert set(before) == set(ODD)
    stuck: dict[str | None, str] = {}
    summary = run_inline_sweep(
        world.reconciler(),
        segments=2,
        hooks=Hooks(
            on_evaluation=lambda e: stuck.update({s.sub_issue_id: s.code for s in e.stuck})
        ),
    )
    assert (summary.complete, summary.counts.errors, summary.counts.released) == (True, 0, 1)
    assert odd_rows(world, found) == before
    assert {name: stuck[name] for name in ODD} == {
        name: "unknown_status"
        if name in {"an unknown status", "nearly 400 KB"}
        else "malformed_row"
        for name in ODD
    }


def odd_rows(world: World, orchestration_id: str) -> dict[str, Any]:
    return {name: row for name, row in world.rows(orchestration_id).items() if name in ODD}
