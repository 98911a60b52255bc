"""A step: what it does after a throttled page, and how it ends when its time is up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, cast

import pytest

from reconciler.domain.touches import RECOVERY_HORIZON
from reconciler.errors import SettingsError, ThrottledError
from reconciler.repair.counts import Counts
from reconciler.stores.orchestrations import OrchestrationStore, Page
from reconciler.stores.read_pacing import PagePacer
from reconciler.stores.rows import parse_orchestration
from reconciler.stores.tasks import TaskStore
from reconciler.sweeping.scan import nominate_recoveries, scan_segment
from reconciler.sweeping.scan_step import SegmentResult, SegmentScan
from reconciler.sweeping.segments import Place, Scope, Segment
from tests.support.pacing import SleepingClock, pause_of
from tests.support.world import World

FIRST = Segment(Scope.TABLE, 0, 1)
BEGAN = 7.0
THROTTLED = ThrottledError("not now")


def row(orchestration_id: str, key: str) -> dict[str, Any]:
    return {
        "orchestration_id": {"S": orchestration_id},
        "sub_issue_id": {"S": key},
        "child_status": {"S": "blocked"},
        "depends_on": {"L": [{"S": "gone"}]},
    }


def key(orchestration_id: str, sub_issue_id: str) -> dict[str, Any]:
    return {"orchestration_id": {"S": orchestration_id}, "sub_issue_id": {"S": sub_issue_id}}


def one(orchestration_id: str, sub_issue_id: str, **more: Any) -> Page:
    """Return a page of a single row, with more pages after it."""
    at = key(orchestration_id, sub_issue_id)
    return Page([row(orchestration_id, sub_issue_id)], at, 1.0, **more)


LAST = Page([row("z", "a")], None, 1.0)


class Table:
    """Serves these pages and raises these errors, in this order."""

    def __init__(self, *served: Page | ThrottledError) -> None:
        self._served = list(served)
        self.begun_behind: list[Any] = []

    def scan_page(self, _segment: int, _total: int, start: Any, *, limit: int | None) -> Page:
        assert limit is None
        self.begun_behind.append(start)
        served = self._served.pop(0)
        if isinstance(served, ThrottledError):
            raise served
        return served


def never() -> bool:
    return False


def over_after(askings: int) -> Callable[[], bool]:
    """Return a function that says after ``askings`` calls that the time is up."""
    asked = iter(range(1, 1000))
    return lambda: next(asked) > askings


class Taken:
    """Runs one step and keeps its result."""

    def __init__(self, world: World, table: Table, out_of_time: Callable[[], bool]) -> None:
        reconciler = world.reconciler()
        clock = SleepingClock()
        self.pacer = PagePacer(sleep=clock.sleep, monotonic=clock)
        store = cast("OrchestrationStore", table)
        parts = replace(reconciler, orchestrations=store, read_pacer=self.pacer)
        self.nominated: list[str] = []
        self.result: SegmentResult = SegmentScan(parts, FIRST).run(
            Place(BEGAN), out_of_time, lambda name, _rows: self.nominated.append(name)
        )

    @property
    def scanned(self) -> tuple[int, int]:
        counts = self.result.counts
        return counts.rows_scanned, counts.orchestrations_scanned


def test_a_throttled_page_is_read_again_later(world: World) -> None:
    """The read begins at the same place."""
    table = Table(one("a", "a"), THROTTLED, THROTTLED, LAST)
    step = Taken(world, table, never)
    behind = key("a", "a")
    assert table.begun_behind == [None, behind, behind, behind]
    assert (step.result.next, step.scanned) == (None, (2, 2))
    assert pause_of(step.pacer) == pytest.approx(0.9), "0.5, doubled, and eased by one page"


def test_a_retried_page_slows_the_scan(world: World) -> None:
    step = Taken(world, Table(one("a", "a", retries=1), one("b", "a"), LAST), never)
    assert pause_of(step.pacer) == pytest.approx(0.5 * 0.9 * 0.9)


def test_a_step_that_read_nothing_fails(world: World) -> None:
    """Its time is up, and every page was throttled."""
    with pytest.raises(ThrottledError):
        # The step asks after the first refusal, during the pause, and after the second refusal.
        Taken(world, Table(THROTTLED, THROTTLED, LAST), over_after(2))


@pytest.mark.parametrize(
    ("pages", "rows", "last"),
    [
        ([one("a", "a")], 1, "a"),
        ([one("a", "a"), one("b", "a")], 1, "a"),
        ([one("a", "a"), one("a", "b"), one("b", "a")], 2, "b"),
        ([one("a", "a"), one("a", "b")], 2, "b"),
    ],
    ids=["one row", "the end of one was seen", "the end of two rows was seen", "no end was seen"],
)
def test_rows_read_before_a_refusal_are_judged(
    world: World, pages: Sequence[Page], rows: int, last: str
) -> None:
    """The next step goes on after them."""
    step = Taken(world, Table(*pages, THROTTLED), over_after(len(pages)))
    assert step.nominated == ["a"]
    assert step.scanned == (rows, 1)
    assert step.result.next == Place(BEGAN, 1, {"orchestration_id": "a", "sub_issue_id": last})


def test_an_orchestration_that_breaks_parsing_is_nominated_last(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(name: str, rows: Sequence[Any]) -> Any:
        if name == "a":
            raise ValueError(rows)
        return parse_orchestration(name, rows)

    monkeypatch.setattr("reconciler.sweeping.scan_step.parse_orchestration", fails)
    step = Taken(world, Table(one("a", "a"), one("b", "a"), LAST), never)
    assert (step.nominated, step.scanned) == (["b", "z", "a"], (3, 3))


def test_an_orchestration_that_breaks_judging_is_nominated(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The evaluation will fail on it alone, and say why."""

    def fails(*_: object) -> bool:
        raise ValueError

    monkeypatch.setattr("reconciler.sweeping.scan_step.suspicious", fails)
    assert Taken(world, Table(LAST), never).nominated == ["z"]


def test_a_scan_reads_tasks_eventually_consistently(
    world: World, tasks_read: list[tuple[list[str], bool]]
) -> None:
    """That costs half, and a scan only nominates."""
    runs = {"child_status": {"S": "released"}, "child_task_id": {"S": "T-1"}}
    Taken(world, Table(Page([{**row("a", "a"), **runs}], None, 1.0)), never)
    assert tasks_read == [(["T-1"], False)]


# -- settled and watched orchestrations


SETTLED = {"rollup_posted_at": {"S": "2026-01-01T00:00:00.000Z"}}


def scanned(
    world: World, watched: Mapping[str, str] | None = None
) -> tuple[dict[str, str | None], Counts]:
    """Read the table; return the nominated orchestrations with their fingerprints, and counts."""
    nominated: dict[str, str | None] = {}
    scan = SegmentScan(world.reconciler(), FIRST, watched)
    return nominated, scan.run(Place(BEGAN), never, nominated.__setitem__).counts


def test_a_settled_orchestration_is_scanned_but_not_nominated(world: World) -> None:
    world.seed({"a": []}, {"a": "succeeded"}, meta=SETTLED)
    nominated, counts = scanned(world)
    assert (nominated, counts.orchestrations_scanned) == ({}, 1)


def test_a_watched_orchestration_is_nominated_once_settled(world: World) -> None:
    """Its record is cleared then. The scan has no fingerprint, because it does not parse it."""
    settled = world.seed({"a": []}, {"a": "succeeded"}, meta=SETTLED)
    assert scanned(world, {settled: "other rows"})[0] == {settled: None}


def test_a_watched_orchestration_is_nominated_when_rows_change(world: World) -> None:
    """Even if nothing looks wrong with them."""
    runs = world.seed({"a": []}, {"a": "released"}, tasks={"a": "RUNNING"})
    ((_, rows),) = scanned(world, {runs: "other rows"})[0].items()
    assert rows is not None
    assert scanned(world, {runs: rows})[0] == {}
    world.change(runs, "a", updated_at=world.ago(1))
    assert list(scanned(world, {runs: rows})[0]) == [runs]


def test_a_watched_orchestration_is_nominated_when_tasks_end(world: World) -> None:
    """While its releases wait their turn, the end of another task may be lost: no row changes."""
    graph: dict[str, list[str]] = {"a": [], "runs": [], "due": ["a"], "last": ["runs"]}
    statuses = {"a": "succeeded", "runs": "released"}
    waits = world.seed(graph, statuses, tasks={"runs": "RUNNING"})
    rows = scanned(world)[0][waits]
    assert rows is not None
    (task,) = world.tasks(waits, "runs")
    world.finish(task["task_id"]["S"], age=600)
    assert scanned(world, {waits: rows})[0][waits] == f"{rows}+1"


# -- the scope of a scan, and recoveries


def test_an_unnamed_index_cannot_be_read(world: World) -> None:
    """The message came from a worker with other settings."""
    active = Segment(Scope.ACTIVE, 0, 1)
    with pytest.raises(SettingsError, match="ACTIVE_INDEX_NAME"):
        scan_segment(
            world.reconciler(), active, Place(BEGAN), out_of_time=never, nominate=lambda *_: None
        )


def test_a_recently_iterated_orchestration_is_nominated(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[datetime] = []

    def iterated(_: TaskStore, since: datetime) -> list[str]:
        asked.append(since)
        return ["a", "b"]

    monkeypatch.setattr(TaskStore, "orchestrations_iterated", iterated)
    nominated: list[tuple[str, str | None]] = []
    nominate_recoveries(world.reconciler(), lambda *given: nominated.append(given), "s")
    assert nominated == [("a", None), ("b", None)]
    assert asked == [world.clock() - RECOVERY_HORIZON]


def test_a_failed_recovery_search_ends_no_scan(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The failure is counted as an error."""

    def throttled(*_: Any) -> Any:
        raise THROTTLED

    monkeypatch.setattr(TaskStore, "orchestrations_iterated", throttled)
    nominated: list[str] = []
    nominate_recoveries(world.reconciler(), lambda name, _rows: nominated.append(name), "s")
    assert nominated == []
    assert world.metrics.count("reconciler_errors_total", kind="throttled") == 1
