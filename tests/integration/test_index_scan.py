"""A scan of the index of active children: what it costs, nominates and leaves out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from reconciler.errors import PermanentError
from reconciler.stores.orchestrations import OrchestrationStore, Page
from reconciler.sweeping.index_scan import bounds_of
from reconciler.sweeping.scan import scan_segment
from reconciler.sweeping.scan_step import SegmentResult
from reconciler.sweeping.segments import NEVER, Place, Scope, Segment
from tests.support.world import World

pytestmark = pytest.mark.integration

INDEX = "ChildStatusIndex"
SETTLED = {"rollup_posted_at": {"S": "2026-01-01T00:00:00.000Z"}}


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world(ACTIVE_INDEX_NAME=INDEX)


def cut_pages(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    whole = OrchestrationStore.active_page

    def cut(self: OrchestrationStore, *args: Any) -> Page:
        index, status, between, start_key, _ = args
        return whole(self, index, status, between, start_key, rows)

    monkeypatch.setattr(OrchestrationStore, "active_page", cut)


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three rows in a page, so that each of the four queries cuts every orchestration."""
    cut_pages(monkeypatch, 3)


def steps(
    world: World,
    nominate: Callable[[str], None],
    *,
    segments: int = 1,
    out_of_time: Callable[[], bool] = lambda: False,
) -> Sequence[SegmentResult]:
    """Take all steps through all segments."""
    taken = []
    for segment in range(segments):
        place: Place | None = Place(NEVER)
        while place is not None:
            taken.append(
                scan_segment(
                    world.reconciler(),
                    Segment(Scope.ACTIVE, segment, segments),
                    place,
                    out_of_time=out_of_time,
                    nominate=lambda name, _rows: nominate(name),
                )
            )
            place = taken[-1].next
    return taken


def nominated(world: World, **how: Any) -> list[str]:
    """Return what all steps nominate."""
    found: list[str] = []
    steps(world, found.append, **how)
    return found


def history(world: World, count: int) -> None:
    for _ in range(count):
        world.seed({"a": [], "b": ["a"]}, dict.fromkeys("ab", "succeeded"), meta=SETTLED)


def in_flight(world: World, count: int) -> list[str]:
    """Seed diamonds whose left side is running and whose right side has ended."""
    return [
        world.seed(
            {"a": [], "l": ["a"], "r": ["a"], "z": ["l", "r"]},
            {"a": "succeeded", "l": "released", "r": "succeeded"},
            tasks={"l": "RUNNING"},
        )
        for _ in range(count)
    ]


def test_the_cost_depends_only_on_active_work(world: World) -> None:
    """There is a query for each status, and a batch for each 100 tasks and predecessors."""
    in_flight(world, 60)
    costs = []
    for _ in range(2):
        found: list[str] = []
        (step,) = steps(world, found.append)
        assert found == []
        assert (step.counts.orchestrations_scanned, step.counts.rows_scanned) == (60, 120)
        assert step.counts.requests == 4 + 1 + 1
        costs.append(step.counts.read_units)
        history(world, 80)
    assert costs[0] == costs[1]


def stuck_world(world: World) -> dict[str, str]:
    """Seed one orchestration for each way of being stuck that an index shows; name → id."""
    two = {"a": [], "b": ["a"]}
    both = {"a": [], "r": [], "z": ["a", "r"]}
    old = {"updated_at": {"S": world.ago(90_000)}}
    return {
        "a root that was never released": world.seed({"a": []}, {"a": "ready"}),
        "lost release": world.seed(two, {"a": "succeeded"}),
        "lost terminal": world.seed(two, {"a": "released"}, tasks={"a": "COMPLETED"}),
        "lost skip": world.seed(two, {"a": "failed"}),
        "lost skip beside one that runs": world.seed(
            both, {"a": "skipped", "r": "released"}, tasks={"r": "RUNNING"}
        ),
        "abandoned claim": world.seed(two, {"a": "releasing"}, rows={"a": old}),
        "never started": world.seed(two, {"a": "released"}, tasks={"a": "SUBMITTED"}),
        "very long": world.seed(
            two, {"a": "released"}, tasks={"a": "RUNNING"}, age=200_000, rows={"a": old}
        ),
        "no such task": world.seed(
            two, {"a": "released"}, rows={"a": {"child_task_id": {"S": "T-GONE"}}}
        ),
        "no task id": world.seed(two, {"a": "released"}),
        "a predecessor that is not there": world.seed({"a": ["gone"]}),
        "the same beside one that runs": world.seed(
            {"a": [], "b": ["a", "gone"]}, {"a": "released"}, tasks={"a": "RUNNING"}
        ),
        "a cycle": world.seed({"a": ["b"], "b": ["a"]}),
        "a cycle beside one that runs": world.seed(
            {"a": ["b"], "b": ["a"], "r": []}, {"r": "released"}, tasks={"r": "RUNNING"}
        ),
        "behind a status that nobody knows": world.seed(
            both, {"a": "paused", "r": "released"}, tasks={"r": "RUNNING"}
        ),
        "dependencies that are no list": world.seed(
            two, {"a": "released"}, tasks={"a": "RUNNING"}, rows={"b": {"depends_on": {"S": "a"}}}
        ),
    }


@pytest.mark.parametrize("segments", [1, 3])
def test_every_visible_problem_is_nominated_once(world: World, segments: int) -> None:
    in_flight(world, 5)
    history(world, 5)
    stuck = stuck_world(world)
    found = nominated(world, segments=segments)
    assert {name for name, known in stuck.items() if known not in found} == set()
    assert sorted(found) == sorted(stuck.values())


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("stepwise", [False, True])
@pytest.mark.parametrize("segments", [1, 4])
def test_pages_and_steps_lose_no_orchestration(
    world: World, segments: int, *, stepwise: bool
) -> None:
    """Without steps, the scan nominates nothing else either."""
    in_flight(world, 9)
    stuck = stuck_world(world)
    found: list[str] = []
    taken = steps(world, found.append, segments=segments, out_of_time=lambda: stepwise)
    assert set(found) >= set(stuck.values())
    if not stepwise:
        assert sorted(found) == sorted(stuck.values())
        assert sum(step.counts.orchestrations_scanned for step in taken) == 9 + len(stuck)
    assert (len(taken) > segments) is stepwise


@pytest.mark.usefixtures("small_pages")
def test_an_orchestration_larger_than_a_step_is_nominated(world: World) -> None:
    """So are those that come after it."""
    keys = [f"c{number:02}" for number in range(40)]
    large = world.seed(
        {"r": [], **{key: ["r"] for key in keys}}, {"r": "released"}, tasks={"r": "RUNNING"}
    )
    others = [world.seed({"a": []}, {"a": "ready"}) for _ in range(5)]
    found = nominated(world, out_of_time=lambda: True)
    assert {large, *others} <= set(found)


def test_every_id_falls_into_a_range(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ranges are balanced for the platform's ids, but contain all others as well."""
    names = ["0", "orch_", "orch_8", "orch_80000000", "orch_zz", "orch_ffffffffffff", "z", "é", "￿"]
    for name in names:
        row = {
            "orchestration_id": {"S": name},
            "sub_issue_id": {"S": "a"},
            "child_status": {"S": "ready"},
            "updated_at": {"S": world.ago(9000)},
            "depends_on": {"L": []},
        }
        world.put(world.settings.orchestration_table_name, row)
    for segments in (1, 2, 7):
        assert set(nominated(world, segments=segments)) == set(names)
    # With one row a page and one page a step, one step ends at the very edge of a range.
    cut_pages(monkeypatch, 1)
    assert set(nominated(world, segments=2, out_of_time=lambda: True)) == set(names)


def test_ranges_leave_no_gap() -> None:
    assert bounds_of(0, 1) == (None, None)
    assert bounds_of(0, 2) == (None, "orch_80000000")
    assert bounds_of(1, 2) == ("orch_80000000", None)
    for total in (3, 16, 1000):
        ranges = [bounds_of(segment, total) for segment in range(total)]
        assert [high for _, high in ranges[:-1]] == [low for low, _ in ranges[1:]]
        assert len(set(ranges)) == total


def test_some_problems_need_the_full_scan(world: World) -> None:
    """docs/scaling.md lists them: change it together with this list."""
    whole = {"a": [], "b": ["a"]}
    left = {
        "unsettled parent": world.seed(whole, dict.fromkeys("ab", "succeeded")),
        "rows missing": world.seed(
            whole, dict.fromkeys("ab", "succeeded"), meta={**SETTLED, "child_count": {"N": "3"}}
        ),
        "a status that nobody knows": world.seed({"a": []}, {"a": "paused"}),
    }
    assert nominated(world) == []
    found: list[str] = []
    scan_segment(
        world.reconciler(),
        Segment(Scope.TABLE, 0, 1),
        Place(NEVER),
        out_of_time=lambda: False,
        nominate=lambda name, _rows: found.append(name),
    )
    assert sorted(found) == sorted(left.values())


def test_a_missing_index_is_named_in_the_error(world: World) -> None:
    reconciler = world.reconciler(active_index_name="NoSuchIndex")
    with pytest.raises(PermanentError, match="NoSuchIndex"):
        scan_segment(
            reconciler,
            Segment(Scope.ACTIVE, 0, 1),
            Place(NEVER),
            out_of_time=lambda: False,
            nominate=lambda *_: None,
        )
