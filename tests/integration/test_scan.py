"""The segment scan: what it costs, what it nominates, and what page boundaries do to it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from reconciler.stores.orchestrations import OrchestrationStore, Page
from reconciler.sweeping.inline import run_inline_sweep
from reconciler.sweeping.scan import scan_segment
from reconciler.sweeping.segments import NEVER, Place, Scope, Segment
from tests.support.world import World

pytestmark = pytest.mark.integration


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut pages after seven rows, so that most boundaries fall within orchestrations."""
    whole = OrchestrationStore.scan_page

    def cut(self: OrchestrationStore, *args: Any, **kwargs: Any) -> Page:
        return whole(self, *args, **{**kwargs, "limit": 7})

    monkeypatch.setattr(OrchestrationStore, "scan_page", cut)


def nominated(
    world: World, *, segments: int = 1, out_of_time: Callable[[], bool] = lambda: False
) -> tuple[list[str], int, int, int]:
    """Scan all segments, and return (nominations, rows, orchestrations, steps)."""
    found: list[str] = []
    rows = orchestrations = steps = 0
    for segment in range(segments):
        place: Place | None = Place(NEVER)
        while place is not None:
            result = scan_segment(
                world.reconciler(),
                Segment(Scope.TABLE, segment, segments),
                place,
                out_of_time=out_of_time,
                nominate=lambda name, _rows: found.append(name),
            )
            rows += result.counts.rows_scanned
            orchestrations += result.counts.orchestrations_scanned
            steps += 1
            place = result.next
    return found, rows, orchestrations, steps


def healthy(world: World, count: int) -> int:
    """Seed orchestrations that need no repair, and return how many children are running."""
    for number in range(count):
        if number % 2:
            world.seed(
                {"a": [], "b": ["a"]},
                {"a": "succeeded", "b": "succeeded"},
                meta={"rollup_posted_at": {"S": world.ago(60)}},
            )
        else:
            world.seed(
                {"a": [], "b": ["a"], "c": ["a", "b"]},
                {"a": "succeeded", "b": "released"},
                tasks={"b": "RUNNING"},
            )
    return (count + 1) // 2


@pytest.mark.parametrize("segments", [1, 3])
def test_a_healthy_sweep_reads_only_pages_and_tasks(world: World, segments: int) -> None:
    """It reads a hundred tasks at a time."""
    running = healthy(world, 220)
    reconciler = world.reconciler()
    summary = run_inline_sweep(reconciler, segments=segments)
    assert summary.counts.orchestrations_scanned == 220
    assert summary.counts.orchestrations_evaluated == 0
    assert summary.counts.stuck == {}
    if segments == 1:
        assert summary.counts.requests == 1 + math.ceil(running / 100) + 1  # and the pause switch
    else:
        assert summary.counts.requests <= segments * 2 + math.ceil(running / 100) + 1
    assert summary.counts.write_units == 0


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("stepwise", [False, True])
def test_page_and_step_boundaries_change_no_nomination(world: World, *, stepwise: bool) -> None:
    healthy(world, 12)
    stuck = [world.seed({"a": [], "b": []}, {"a": "succeeded"}) for _ in range(9)]
    found, rows, orchestrations, steps = nominated(world, out_of_time=lambda: stepwise)
    assert set(found) == set(stuck)
    assert len(found) == len(stuck)
    assert orchestrations == 21
    assert rows == len(world.scan(world.settings.orchestration_table_name))
    assert (steps > 5) is stepwise


@pytest.mark.usefixtures("small_pages")
def test_a_read_limit_delays_steps_without_loss(world: World) -> None:
    healthy(world, 12)
    stuck = [world.seed({"a": [], "b": []}, {"a": "succeeded"}) for _ in range(9)]
    reconciler = world.reconciler(scan_read_units_per_second=200.0)
    found: list[str] = []
    place: Place | None = Place(NEVER)
    rows = held_up = 0
    while place is not None:
        result = scan_segment(
            reconciler,
            Segment(Scope.TABLE, 0, 1),
            place,
            out_of_time=lambda: True,
            nominate=lambda name, _rows: found.append(name),
        )
        rows += result.counts.rows_scanned
        held_up += result.counts.requests == 0
        place = result.next
    assert sorted(found) == sorted(stuck)
    assert rows == len(world.scan(world.settings.orchestration_table_name))
    assert held_up > 0


@pytest.mark.usefixtures("small_pages")
def test_an_orchestration_larger_than_a_step_is_nominated(world: World) -> None:
    """The scan then goes on after it."""
    large = world.seed({f"c{number}": [] for number in range(40)}, dict.fromkeys(
        (f"c{number}" for number in range(40)), "succeeded"
    ))  # fmt: skip
    small = world.seed({"a": []})
    found, _, _, steps = nominated(world, out_of_time=lambda: True)
    assert {large, small} <= set(found)
    assert steps > 5


def test_rows_without_a_meta_row_are_reported(world: World) -> None:
    orphan = world.seed({"a": []})
    world.client.delete_item(
        TableName=world.settings.orchestration_table_name,
        Key={"orchestration_id": {"S": orphan}, "sub_issue_id": {"S": "#meta"}},
    )
    reconciler = world.reconciler()
    summary = run_inline_sweep(reconciler, segments=1)
    assert summary.counts.stuck == {"orphan_row": 1, "rows_missing": 1}
    assert world.statuses(orphan) == {"a": "blocked"}


def test_the_cost_of_many_skips_is_linear(world: World, request: pytest.FixtureRequest) -> None:
    """Pages cut an orchestration of three thousand children."""
    # moto copies the table for each action, which takes 1.5 s a transaction at 300 rows. A busy
    # machine came near the client's time limit, and moto does not recognise a retried transaction.
    many = 3000 if request.node.callspec.params["endpoint"] == "dynamodb_local" else 120
    graph: dict[str, list[str]] = {"root": []}
    graph |= {f"c{number:04}": ["root"] for number in range(many)}
    padding = {"description": {"S": "x" * 900}}
    found = world.seed(graph, {"root": "failed"}, rows=dict.fromkeys(graph, padding))
    reconciler = world.reconciler()
    summary = run_inline_sweep(reconciler, segments=2)
    assert summary.counts.skipped == many
    assert set(world.statuses(found).values()) == {"failed", "skipped"}
    # Linear: the scan, the read of it all, and one transaction for each 98 children. Before each,
    # a slow machine asks whether repairs are paused, since the last answer is over a second old.
    assert summary.counts.requests <= 8 + 2 * math.ceil(many / 98) + math.ceil(many / 900) * 2


@pytest.mark.parametrize("scope", Scope)
def test_a_failing_nomination_is_no_malformed_row(
    make_world: Callable[..., World], scope: Scope
) -> None:
    """Its error is raised; an error in reading a row would only nominate the orchestration."""
    world = make_world(ACTIVE_INDEX_NAME="Active")
    world.seed({"a": [], "b": ["a"]}, {"a": "succeeded"})

    def nominate(*_: object) -> None:
        raise ValueError("the one that it was handed to")

    with pytest.raises(ValueError, match="handed to"):
        scan_segment(
            world.reconciler(),
            Segment(scope, 0, 1),
            Place(NEVER),
            out_of_time=lambda: False,
            nominate=nominate,
        )
