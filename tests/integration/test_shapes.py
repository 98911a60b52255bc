"""Unusual tables: older spellings, missing rows, marker rows, and large orchestrations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from zlib import crc32

import pytest

from reconciler.domain.model import META
from reconciler.stores.orchestrations import OrchestrationStore, Page
from reconciler.stores.rows import SCAN_ATTRIBUTES
from reconciler.sweeping.inline import run_inline_sweep
from reconciler.sweeping.scan import scan_segment
from reconciler.sweeping.segments import NEVER, Place, Scope, Segment
from reconciler.sweeping.summary import SweepSummary
from tests.support.world import World

pytestmark = pytest.mark.integration
OLDER = {
    "parent_issue_ref": "parent_linear_issue_id",
    "credentials_ref": "linear_workspace_id",
    "display_id": "linear_identifier",
}


def sweep(world: World, segments: int = 1) -> SweepSummary:
    reconciler = world.reconciler()
    return run_inline_sweep(reconciler, segments=segments)


def remove(world: World, found: str, key: str) -> None:
    world.client.delete_item(
        TableName=world.settings.orchestration_table_name,
        Key={"orchestration_id": {"S": found}, "sub_issue_id": {"S": key}},
    )


@pytest.mark.parametrize("spelling", ["new", "older", "both", "older in the meta row only"])
def test_rows_are_read_in_either_spelling(world: World, spelling: str) -> None:
    """If a row has both, the new one counts."""
    found = world.seed({"a": []}, rows={"a": {"display_id": {"S": "ENG-42"}}})
    for key in ("a", META):
        row = world.rows(found)[key]
        values = {name: row.pop(name) for name in OLDER if name in row}
        for name, older in OLDER.items():
            value = values.get(name, {"S": "ENG-42"})
            if spelling == "older in the meta row only" and key == "a" and name != "display_id":
                continue
            if spelling in {"new", "both"}:
                row[name] = value
            if spelling != "new":
                row[older] = {"S": f"stale {value['S']}"} if spelling == "both" else value
        world.put(world.settings.orchestration_table_name, row)
    sweep(world)
    (task,) = world.tasks(found)
    metadata = {name: value["S"] for name, value in task["channel_metadata"]["M"].items()}
    assert metadata["parent_linear_issue_id"] == "PARENT-1"
    assert metadata["linear_workspace_id"] == "workspace-1"
    assert metadata["linear_issue_identifier"] == "ENG-42"
    assert task["task_description"] == {"S": "ENG-42: Do a"}
    assert task["branch_name"]["S"].endswith("/eng-42-do-a")


@pytest.mark.parametrize(
    "marker", ["ack#1", "comment#abc", "#other", "#metadata", "a#meta", "reconciler#of another age"]
)
def test_a_marker_row_is_never_a_child(world: World, marker: str) -> None:
    """That holds even for one that looks like a due child, or that a child depends on."""
    found = world.seed({"a": [], "b": [marker]}, {"a": "succeeded"})
    row = {**world.rows(found)["a"], "sub_issue_id": {"S": marker}, "child_status": {"S": "ready"}}
    world.put(world.settings.orchestration_table_name, row)
    before = world.everything()
    summary = sweep(world)
    assert world.everything() == before
    assert summary.counts.stuck == {"dangling_dependency": 1}


@pytest.mark.parametrize(("age", "stuck"), [(60, {}), (180, {"orphan_row": 2, "rows_missing": 1})])
def test_a_missing_meta_row_has_a_grace(world: World, age: float, stuck: dict[str, int]) -> None:
    """The platform writes the meta row last, and we never guess its content."""
    found = world.seed({"a": [], "b": ["a"]}, age=age)
    remove(world, found, META)
    before = world.everything()
    summary = sweep(world)
    assert world.everything() == before
    assert summary.counts.stuck == stuck
    evaluation = world.reconciler().evaluate(found, sweep_id="s", report=True)
    expected = "orphan_row" if stuck else "within_grace"
    assert {child.code.value for child in evaluation.children} == {expected}


@pytest.mark.parametrize(("age", "stuck"), [(60, {}), (180, {"rows_missing": 1})])
def test_missing_rows_are_reported_after_the_grace(
    world: World, age: float, stuck: dict[str, int]
) -> None:
    found = world.seed(
        {"a": [], "b": ["a"], "c": ["b"]}, {"a": "released"}, tasks={"a": "RUNNING"}, age=age
    )
    remove(world, found, "c")
    before = world.everything()
    assert sweep(world).counts.stuck == stuck
    assert world.everything() == before


def test_missing_rows_delay_no_other_child(world: World) -> None:
    found = world.seed({"a": [], "b": ["gone"], "gone": []})
    remove(world, found, "gone")
    summary = sweep(world)
    assert world.statuses(found) == {"a": "released", "b": "blocked"}
    assert summary.counts.stuck == {"dangling_dependency": 1, "rows_missing": 1}


# -- cut by pages, and split across segments


@pytest.fixture
def split(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spread each orchestration over the segments, as can happen to a very large one."""

    def scan_page(
        self: OrchestrationStore,
        segment: int,
        total: int,
        start_key: dict[str, Any] | None,
        limit: int | None = None,
    ) -> Page:
        del start_key, limit
        names = {f"#{name}": name for name in SCAN_ATTRIBUTES}
        page = self._dynamodb.call(
            "scan",
            TableName=self.table,
            ProjectionExpression=", ".join(names),
            ExpressionAttributeNames=names,
        )
        rows = [
            row
            for row in page["Items"]
            if crc32(row["sub_issue_id"]["S"].encode()) % total == segment
        ]
        return Page(rows, None, 1.0)

    monkeypatch.setattr(OrchestrationStore, "scan_page", scan_page)


@pytest.mark.usefixtures("split")
def test_a_split_orchestration_is_repaired_and_counted_once(world: World) -> None:
    graph: dict[str, list[str]] = {f"c{number}": [] for number in range(12)}
    due = world.seed(graph)
    odd = world.seed({**graph, "x": ["nowhere"]}, dict.fromkeys(graph, "succeeded"))
    summary = sweep(world, segments=3)
    assert set(world.statuses(due).values()) == {"released"}
    assert len(world.tasks(due)) == 12
    assert summary.counts.orchestrations_evaluated == 2
    assert summary.counts.released == 12
    assert summary.counts.stuck == {"dangling_dependency": 1}
    assert world.statuses(odd)["x"] == "blocked"
    assert summary.counts.rows_scanned == len(world.scan(world.settings.orchestration_table_name))


@pytest.mark.usefixtures("split")
@pytest.mark.parametrize("settled", [True, False])
def test_a_healthy_split_orchestration_is_left_alone(world: World, *, settled: bool) -> None:
    graph: dict[str, list[str]] = {f"c{number}": [] for number in range(12)}
    meta = {"rollup_posted_at": {"S": world.ago(60)}} if settled else {}
    if settled:
        world.seed(graph, dict.fromkeys(graph, "succeeded"), meta=meta)
    else:
        world.seed(graph, dict.fromkeys(graph, "released"), tasks=dict.fromkeys(graph, "RUNNING"))
    before = world.everything()
    summary = sweep(world, segments=3)
    assert world.everything() == before
    assert summary.counts.stuck == {}


def test_a_very_large_orchestration_is_nominated(
    world: World, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Pages and steps cut its three thousand children."""
    many, most = 3000, 701
    if request.node.callspec.params["endpoint"] == "moto":
        many, most = 500, 117  # it is slow with each row
    graph: dict[str, list[str]] = {f"c{number:04}": [] for number in range(many)}
    graph["last"] = ["c0000"]
    large = world.seed(graph, dict.fromkeys(graph, "succeeded") | {"last": "blocked"})
    small = [world.seed({"a": []}) for _ in range(3)]
    whole: Callable[..., Page] = OrchestrationStore.scan_page

    def cut(self: OrchestrationStore, *args: Any, limit: int | None = None) -> Page:
        return whole(self, *args, limit=min(most, limit or most))

    monkeypatch.setattr(OrchestrationStore, "scan_page", cut)
    found: set[str] = set()
    rows = steps = 0
    place: Place | None = Place(NEVER)
    while place is not None:
        result = scan_segment(
            world.reconciler(),
            Segment(Scope.TABLE, 0, 1),
            place,
            out_of_time=lambda: True,
            nominate=lambda name, _rows: found.add(name),
        )
        rows += result.counts.rows_scanned
        steps += 1
        place = result.next
    assert found == {large, *small}
    assert rows == many + 2 + 3 * 2
    assert steps >= many // most
    assert world.reconciler().evaluate(large, sweep_id="s").counts.released == 1
    assert world.statuses(large)["last"] == "released"
