"""A step through the index: how its four queries are merged, and where a step ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from reconciler.domain.model import ChildStatus
from reconciler.stores.orchestrations import OrchestrationStore, Page
from reconciler.stores.read_pacing import PagePacer, Turn
from reconciler.sweeping.index_scan import ActiveRows, IndexScan, bounds_of
from reconciler.sweeping.scan_step import SegmentResult
from reconciler.sweeping.segments import NEVER, Place, Scope, Segment
from tests.support.world import World
from tests.unit.sweeping.test_scan import key, never, over_after

BLOCKED, READY, RELEASING, RELEASED = (
    ChildStatus.BLOCKED,
    ChildStatus.READY,
    ChildStatus.RELEASING,
    ChildStatus.RELEASED,
)


class Index:
    """The rows of each status: ``aab`` stands for two rows of orchestration a and one of b."""

    def __init__(self, rows: Mapping[ChildStatus, str]) -> None:
        self._rows = {
            status: [key(name, f"{status[:4]}{at}") for at, name in enumerate(names)]
            for status, names in rows.items()
        }
        self.asked: list[ChildStatus] = []

    def read(self, status: ChildStatus, behind: dict[str, Any] | None, limit: int | None) -> Page:
        assert limit is not None
        self.asked.append(status)
        rows = self._rows.get(status, [])
        start = 0 if behind is None else rows.index(behind) + 1
        page = rows[start : start + limit]
        # Like DynamoDB: after a full page, only the next one shows that there are no more rows.
        return Page(page, page[-1] if len(page) == limit else None, 1.0, retries=len(self.asked))


def pages(index: Index, limit: int, count: int = 1000) -> list[Page]:
    """Return the pages up to the last, but at most ``count``."""
    active = ActiveRows(index.read)
    found: list[Page] = []
    while len(found) < count and not (found and found[-1].last):
        found.append(active.page(limit))
    return found


def names(page: Page) -> str:
    return "".join(row["orchestration_id"]["S"] for row in page.items)


DRAWN = {BLOCKED: "aabdd", READY: "abe", RELEASED: "accdd"}
"""Much like the picture in the docstring of ``index_scan``."""


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 100])
def test_orchestrations_come_whole_and_in_order(limit: int) -> None:
    """This holds for every page size."""
    read = pages(Index(DRAWN), limit)
    assert "".join(map(names, read)) == "aaaabbccdddde"
    for name in "abcde":
        assert sum(name in names(page) for page in read) == 1, "all of it is in one page"


def test_the_status_furthest_behind_is_read_next() -> None:
    """Each status is read at least once."""
    index = Index(DRAWN)
    read = pages(index, 3)
    assert index.asked == [BLOCKED, READY, RELEASING, RELEASED, BLOCKED, RELEASED, READY]
    assert [names(page) for page in read] == ["", "", "", "aaaa", "bb", "ccdddd", "e"]


def test_a_page_tells_its_cost_and_next_key() -> None:
    """The next key is the last row of the page; it is empty if no orchestration is complete."""
    read = pages(Index(DRAWN), 3)
    assert [page.rows for page in read] == [3, 3, 0, 3, 2, 2, 0]
    assert [page.next_key for page in read[:3]] == [{}, {}, {}]
    assert read[3].next_key == read[3].items[-1]
    assert read[-1].next_key is None
    assert [page.retries for page in read] == [1, 2, 3, 4, 5, 6, 7]
    assert sum(page.read_units for page in read) == 7.0


def test_the_first_orchestration_is_known_after_four_reads() -> None:
    """Every status has to be read once."""
    index = Index({BLOCKED: "b", READY: "ac"})
    active = ActiveRows(index.read)
    assert active.first_held_back() is None
    known = []
    for _ in range(4):
        active.page(2)
        known.append((active.advanced, (active.first_held_back() or {}).get("orchestration_id")))
    a, b, c = ({"S": name} for name in "abc")
    assert known == [(False, b), (False, a), (False, a), (True, c)]


# -- steps


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world(ACTIVE_INDEX_NAME="Active")


def put(world: World, name: str, status: str, sub_issue_id: str = "a") -> None:
    row = {
        **key(name, sub_issue_id),
        "child_status": {"S": status},
        "updated_at": {"S": world.ago(9000)},
        "depends_on": {"L": []},
    }
    world.put(world.settings.orchestration_table_name, row)


WHOLE = Segment(Scope.ACTIVE, 0, 1)


def step(
    world: World,
    place: Place,
    nominate: Callable[[str], None],
    out_of_time: Callable[[], bool],
    pacer: PagePacer | None = None,
    segment: Segment = WHOLE,
) -> SegmentResult:
    reconciler = replace(world.reconciler(), read_pacer=pacer or PagePacer())
    scan = IndexScan(reconciler, segment, "Active")
    return scan.run(place, out_of_time, lambda name, _rows: nominate(name))


@pytest.fixture
def pages_of_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = OrchestrationStore.active_page

    def cut(self: OrchestrationStore, *args: Any) -> Page:
        index, status, between, start_key, _ = args
        return whole(self, index, status, between, start_key, 1)

    monkeypatch.setattr(OrchestrationStore, "active_page", cut)


@pytest.mark.usefixtures("pages_of_one_row")
@pytest.mark.parametrize("askings", range(8))
def test_steps_that_end_anywhere_miss_no_orchestration(world: World, askings: int) -> None:
    """The next step goes on with the incomplete ones, and no row is counted twice."""
    seeded = [("a", "blocked"), ("c", "blocked"), ("c", "ready"), ("d", "released")]
    for name, status in seeded:
        put(world, name, status, status)
    found: list[str] = []
    place: Place | None = Place(NEVER)
    rows = begun = 0
    while place is not None:
        result = step(world, place, found.append, over_after(askings))
        rows += result.counts.rows_scanned
        begun, place = begun + 1, result.next
        assert begun < 10
    assert set(found) == {"a", "c", "d"}
    assert rows <= len(seeded)


@pytest.mark.usefixtures("pages_of_one_row")
def test_an_orchestration_larger_than_a_step_is_nominated(
    world: World,
) -> None:
    """The step that passes it by counts it as scanned."""
    for sub_issue_id in "xyz":
        put(world, "a", "blocked", sub_issue_id)
    found: list[str] = []
    result = step(world, Place(NEVER), found.append, over_after(0))
    assert found == ["a"]
    assert (result.counts.rows_scanned, result.counts.orchestrations_scanned) == (0, 1)
    assert result.next is not None
    assert result.next.start_key == {"orchestration_id": "a", "sub_issue_id": "x"}


class Recording(PagePacer):
    """Records what pages cost."""

    def __init__(self) -> None:
        super().__init__()
        self.units: list[float] = []

    def read(self, turn: Turn, units: float, rows: int, *, strained: bool = False) -> None:
        self.units.append(units)
        super().read(turn, units, rows, strained=strained)


def test_a_finished_range_costs_no_request(world: World) -> None:
    """The step begins after the last id of its range."""
    edge = {"orchestration_id": "orch_80000000", "sub_issue_id": "a"}
    pacer = Recording()
    first_half = Segment(Scope.ACTIVE, 0, 2)
    result = step(world, Place(NEVER, 1, edge), pytest.fail, over_after(0), pacer, first_half)
    assert (result.next, result.counts.requests) == (None, 0)
    assert pacer.units == [0.0] * 4


@pytest.mark.usefixtures("pages_of_one_row")
def test_a_paced_step_reads_until_it_advances(
    world: World,
) -> None:
    """Its time is up from the start, but the next step must begin further on."""
    put(world, "a", "ready")
    put(world, "b", "ready")
    time = [0.0]

    def sleep(seconds: float) -> None:
        time[0] += seconds

    pacer = PagePacer(1.0, sleep=sleep, monotonic=lambda: time[0])
    pacer.spend(10.0)
    result = step(world, Place(NEVER), lambda _: None, over_after(0), pacer)
    assert result.next is not None
    assert result.next.start_key == {"orchestration_id": "a", "sub_issue_id": "a"}
    assert time[0] >= 10.0


def test_a_lease_is_renewed_at_each_page(world: World) -> None:
    """Also while the step may not end yet: its four first pages may take longer than a lease."""
    asked = 0

    def renews() -> bool:
        nonlocal asked
        asked += 1
        return False

    IndexScan(world.reconciler(), WHOLE, "Active").run(Place(NEVER), renews, lambda *_: None)
    assert asked == 3, "after each page but the last"


# -- ranges


def test_ranges_divide_the_ids_evenly() -> None:
    """Whatever is not an id of the platform belongs to the first or the last range."""
    quarters = [bounds_of(segment, 4) for segment in range(4)]
    edges = [None, "orch_40000000", "orch_80000000", "orch_c0000000", None]
    assert quarters == list(pairwise(edges))
    assert bounds_of(0, 1) == (None, None)


def test_a_segment_reads_only_its_range(world: World) -> None:
    names = ["orch_1", "orch_6", "orch_9", "orch_f"]
    for name in names:
        put(world, name, "ready")
    read = [nominations(world, Segment(Scope.ACTIVE, segment, 4)) for segment in range(4)]
    assert [list(found) for found in read] == [[name] for name in names]


# -- nominations


def nominations(
    world: World, segment: Segment = WHOLE, watched: Mapping[str, str] | None = None
) -> dict[str, str | None]:
    """Read a segment to its end; return the nominated orchestrations and their fingerprints."""
    found: dict[str, str | None] = {}
    scan = IndexScan(world.reconciler(), segment, "Active", watched)
    scan.run(Place(NEVER), never, found.__setitem__)
    return found


BOTH: Mapping[str, Sequence[str]] = {"done": [], "runs": [], "last": ["done", "runs"]}
"""A child behind two others, of which one has ended and so is not in the index."""


def seed_both(world: World, ended: str) -> str:
    statuses = {"done": ended, "runs": "released"}
    return world.seed(BOTH, statuses, tasks={"runs": "RUNNING"})


def test_predecessors_outside_the_index_are_read(world: World) -> None:
    """If one of them has failed, the child behind it should have been skipped."""
    seed_both(world, "succeeded")
    stuck = seed_both(world, "failed")
    assert list(nominations(world)) == [stuck]


def test_predecessors_are_unread_if_none_is_active(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The orchestration is nominated without them: the evaluation reads all rows anyway."""
    monkeypatch.setattr(OrchestrationStore, "read_children", pytest.fail)
    due = world.seed({"a": [], "b": ["a"]}, {"a": "succeeded"})
    assert list(nominations(world)) == [due]


def test_a_fingerprint_covers_the_rows_read(world: World) -> None:
    stuck = seed_both(world, "failed")
    first = nominations(world)[stuck]
    for name in ("done", "last"):
        world.change(stuck, name, updated_at=world.ago(9000))
        before, first = first, nominations(world)[stuck]
        assert first != before


def test_the_predecessors_of_the_watched_are_read(world: World) -> None:
    """Somebody may have corrected them, and nothing in the index has changed."""
    stuck = world.seed({"a": [], "b": ["a"]}, {"a": "done"})
    rows = nominations(world, watched={stuck: "unread"})[stuck]
    assert rows is not None
    assert nominations(world, watched={stuck: rows}) == {stuck: rows}
    world.change(stuck, "a", child_status="succeeded", updated_at=world.ago(0))
    assert nominations(world, watched={stuck: rows})[stuck] != rows


def test_the_tasks_of_the_watched_are_read(world: World) -> None:
    """The end of one may be lost while other releases wait their turn."""
    graph: dict[str, list[str]] = {"a": [], "runs": [], "due": ["a"], "last": ["runs"]}
    statuses = {"a": "succeeded", "runs": "released"}
    waits = world.seed(graph, statuses, tasks={"runs": "RUNNING"})
    rows = nominations(world, watched={waits: "unread"})[waits]
    assert rows is not None
    (task,) = world.tasks(waits, "runs")
    world.finish(task["task_id"]["S"], age=600)
    assert nominations(world, watched={waits: rows})[waits] == f"{rows}+1"
