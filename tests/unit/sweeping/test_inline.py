"""A sweep in one process: its progress, its mode, and what ends it early."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event
from typing import Any

import pytest

from reconciler.clock import OutOfTime
from reconciler.domain.backoff import BACK_OFF_FROM
from reconciler.errors import (
    AccessError,
    ThrottledError,
    UnknownOrchestrationError,
    UnknownRefusalError,
)
from reconciler.repair.counts import Counts
from reconciler.repair.evaluator import Evaluator
from reconciler.repair.reconciler import Reconciler
from reconciler.stores.orchestrations import OrchestrationStore, Page
from reconciler.sweeping import inline as module
from reconciler.sweeping import sweeper as sweeper_module
from reconciler.sweeping.cron import run_cron_sweep
from reconciler.sweeping.inline import (
    Hooks,
    SweepProgress,
    evaluate_inline,
    new_state,
    run_inline_sweep,
)
from reconciler.sweeping.scan_step import SegmentResult
from reconciler.sweeping.segments import Scope, Segment
from reconciler.sweeping.summary import SweepSummary
from tests.support.processes import PATIENCE_SECONDS
from tests.support.world import World
from tests.unit.repair.test_releaser import context
from tests.unit.sweeping.test_scan import over_after


def sweep(world: World, **how: Any) -> SweepSummary:
    reconciler = world.reconciler(**how.pop("changes", {}))
    asked = {name: how.pop(name) for name in ("out_of_time", "progress") if name in how}
    return run_inline_sweep(reconciler, hooks=Hooks(**asked), **{"segments": 1, **how})


@pytest.fixture
def indexed(make_world: Callable[..., World]) -> World:
    """A world with an index, at the beginning of a rotation."""
    world = make_world(ACTIVE_INDEX_NAME="Active", FULL_SCAN_INTERVAL_SECONDS="600")
    world.clock.forward(600 - world.clock().timestamp() % 600)
    return world


@pytest.fixture
def pages_of_one_row(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Cut pages after each row; return the segment of each page that is read."""
    whole = OrchestrationStore.scan_page
    read: list[int] = []

    def cut(self: OrchestrationStore, segment: int, *args: Any, **kwargs: Any) -> Page:
        read.append(segment)
        return whole(self, segment, *args, **{**kwargs, "limit": 1})

    monkeypatch.setattr(OrchestrationStore, "scan_page", cut)
    return read


# -- progress


def test_progress_counts_each_page_and_segment(world: World, pages_of_one_row: list[int]) -> None:
    world.seed({"a": [], "b": []})
    told: list[SweepProgress] = []
    summary = sweep(world, progress=told.append)
    pages = len(pages_of_one_row)
    assert [t.pages for t in told][:pages] == [*range(1, pages + 1)]
    assert (told[0].segments_done, told[0].segments) == (0, 1)
    assert [t.segments_done for t in told] == sorted(t.segments_done for t in told)
    last = told[-1]
    assert (last.segments_done, last.pages) == (1, pages)
    assert last.counts == replace(summary.counts, stuck={}, oldest_stuck_seconds={})


def test_an_unfinished_segment_is_not_reported_done(world: World) -> None:
    world.seed({"a": []})
    told: list[SweepProgress] = []
    summary = sweep(world, segments=2, out_of_time=over_after(0), progress=told.append)
    assert told == []
    assert (summary.complete, summary.segments) == (False, 2)


@pytest.mark.usefixtures("pages_of_one_row")
def test_unread_rows_make_a_sweep_incomplete(
    world: World,
) -> None:
    """Even if nothing was nominated."""
    for _ in range(2):
        world.seed({"a": []}, {"a": "released"}, tasks={"a": "RUNNING"})
    left = sweep(world, out_of_time=over_after(3))
    assert (left.complete, left.counts.orchestrations_evaluated) == (False, 0)
    assert sweep(world, out_of_time=over_after(100)).complete


@pytest.mark.usefixtures("pages_of_one_row")
def test_a_half_read_segment_is_not_reported_done(world: World) -> None:
    world.seed({"a": [], "b": []})
    told: list[SweepProgress] = []
    sweep(world, out_of_time=over_after(2), progress=told.append)
    assert {t.segments_done for t in told} == {0}


def test_a_segment_read_elsewhere_is_not_reported_done(world: World) -> None:
    """Another reader takes it just before this sweep would."""
    reconciler = world.reconciler()
    state = new_state(reconciler)
    told: list[SweepProgress] = []

    def taken() -> bool:
        state.take(Segment(Scope.TABLE, 0, 1), "another", state.now())
        return False

    hooks = Hooks(out_of_time=taken, progress=told.append)
    assert not run_inline_sweep(reconciler, state=state, segments=1, hooks=hooks).complete
    assert [(t.segments_done, t.pages) for t in told] == [(0, 0)]


def test_duration_spans_the_whole_sweep(world: World) -> None:
    def asked_before_the_segment() -> bool:
        world.clock.forward(3.5)
        return False

    world.seed({"a": []}, {"a": "released"}, tasks={"a": "RUNNING"})
    assert sweep(world, out_of_time=asked_before_the_segment).duration_seconds == 3.5


def test_only_a_full_sweep_reads_the_whole_table(indexed: World) -> None:
    """If there is an index, the table is read in rotation."""
    state = new_state(indexed.reconciler())
    read = []
    for full in ({}, {}, {"full": True}):
        read.append(sweep(indexed, state=state, **full).segments)
        indexed.clock.forward(10)
    assert read == [2, 1, 2], "one of the index, and one of the table"


def test_a_corrected_predecessor_ends_a_pause(make_world: Callable[..., World]) -> None:
    """The index shows only the child behind it, whose own row has not changed."""
    world = make_world(ACTIVE_INDEX_NAME="Active")
    found = world.seed({"a": [], "b": ["a"]}, {"a": "done"})
    reconciler = world.reconciler()
    state = new_state(reconciler)
    evaluated = 0
    for _ in range(8):
        world.clock.forward(reconciler.settings.sweep_interval_seconds)
        evaluated += run_inline_sweep(reconciler, state=state).counts.orchestrations_evaluated
    assert evaluated < 6, "it is paused"
    world.change(found, "a", child_status="succeeded", updated_at=world.ago(0))
    world.clock.forward(reconciler.settings.sweep_interval_seconds)
    assert run_inline_sweep(reconciler, state=state).counts.released == 1


# -- mode


@pytest.mark.parametrize(
    ("paused", "how", "mode"),
    [
        (False, {}, "repair"),
        (True, {}, "paused"),
        (True, {"report": True}, "report"),
        (True, {"changes": {"repair_mode": "report"}}, "report"),
        (False, {"changes": {"repair_only_repos": frozenset({"other"})}}, "repair"),
    ],
    ids=["repair", "paused", "report by hand", "report", "limited to others"],
)
def test_mode_is_paused_only_if_pausing_prevented_repairs(
    world: World, how: dict[str, Any], mode: str, *, paused: bool
) -> None:
    found = world.seed({"a": []})
    if paused:
        world.reconciler().pause("a deployment", "me")
    assert sweep(world, **how).mode == mode
    changed = mode == "repair" and not how
    assert world.statuses(found) == {"a": "released" if changed else "blocked"}


@pytest.mark.parametrize(
    ("graph", "report", "settings", "mode"),
    [
        ({"a": []}, False, {}, "paused"),
        ({"a": []}, True, {}, "report"),
        ({"a": []}, False, {"repair_mode": "report"}, "report"),
        ({"a": ["gone"]}, False, {}, "repair"),
    ],
    ids=["repair", "report by hand", "report", "nothing to do"],
)
def test_evaluating_by_hand_is_paused_if_repairs_were(
    world: World, graph: dict[str, list[str]], settings: dict[str, Any], mode: str, *, report: bool
) -> None:
    found = world.seed(graph)
    world.reconciler().pause("a deployment", "me")
    reconciler = world.reconciler(**settings)
    assert evaluate_inline(reconciler, found, report=report, hooks=Hooks()).mode == mode
    assert world.statuses(found) == {"a": "blocked"}


def test_evaluating_outside_the_limits_is_no_pause(world: World) -> None:
    found = world.seed({"a": []})
    reconciler = world.reconciler(repair_only_repos=frozenset({"other"}))
    assert evaluate_inline(reconciler, found, hooks=Hooks()).mode == "repair"
    assert world.statuses(found) == {"a": "blocked"}


# -- one orchestration


def test_evaluating_one_orchestration_counts_as_no_sweep(
    world: World,
) -> None:
    """Its summary has no segments, and other orchestrations stay as they are."""
    found = world.seed({"a": []})
    other = world.seed({"a": []})
    summary = evaluate_inline(world.reconciler(), found, hooks=Hooks())
    assert (summary.segments, summary.complete, summary.counts.released) == (0, True, 1)
    assert world.statuses(other) == {"a": "blocked"}
    assert world.metrics.count("reconciler_sweeps_total", outcome="complete") == 0


def test_evaluating_by_hand_ends_backing_off(world: World) -> None:
    found = world.seed({"a": []})
    failures = world.reconciler().evaluator.failures
    for _ in range(BACK_OFF_FROM):
        failures.hold_against(found, {"a": ValueError("x")}, context(world))
    assert sweep(world).counts.stuck == {"quarantined": 1}
    assert evaluate_inline(world.reconciler(), found, hooks=Hooks()).counts.released == 1


# -- what ends it early, and what does not


def test_an_orchestration_deleted_meanwhile_is_no_error(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts as evaluated."""
    world.seed({"a": []})

    def gone(*_: object, **__: object) -> None:
        raise UnknownOrchestrationError("gone")

    monkeypatch.setattr(Reconciler, "evaluate", gone)
    summary = sweep(world)
    assert (summary.complete, summary.counts.orchestrations_evaluated) == (True, 1)
    assert (summary.counts.errors, summary.counts.stuck) == (0, {})


def test_ctrl_c_ends_scans_at_the_next_page(world: World, pages_of_one_row: list[int]) -> None:
    """Not at the end of the segment, which may be minutes away."""
    for _ in range(20):
        world.seed({"a": [], "b": []}, dict.fromkeys("ab", "released"))

    def interrupt(_: SweepProgress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(world, segments=4, progress=interrupt)
    assert len(pages_of_one_row) <= 8, "of 60 rows"


class Executor(ThreadPoolExecutor):
    """Records how many threads it was given, and when it was shut down."""

    def __init__(self, threads: int, closing: Event, given: list[int]) -> None:
        super().__init__(threads)
        self._closing = closing
        given.append(threads)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - its own
        super().shutdown(wait=False, cancel_futures=cancel_futures)
        self._closing.set()
        super().shutdown(wait=wait)


Executed = tuple[Event, list[int]]


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> Executed:
    """Return an event for the shutdown of the threads, and the number of threads per sweep."""
    closing, given = Event(), list[int]()
    monkeypatch.setattr(
        module, "ThreadPoolExecutor", lambda threads, **_: Executor(threads, closing, given)
    )
    return closing, given


@pytest.mark.parametrize("mistaken", [0, 3])
def test_an_operators_mistake_stops_further_segments(
    world: World, monkeypatch: pytest.MonkeyPatch, executed: Executed, mistaken: int
) -> None:
    """Even while segments that were begun before it are still being read."""
    closing, given = executed
    begun: list[int] = []

    def scan(_: Reconciler, segment: Segment, *_args: object, **__: object) -> SegmentResult:
        begun.append(segment.number)
        if segment.number == mistaken:
            raise AccessError("scan is forbidden")
        assert closing.wait(PATIENCE_SECONDS)
        return SegmentResult(Counts(), None)

    monkeypatch.setattr(sweeper_module, "scan_segment", scan)
    with pytest.raises(AccessError):
        sweep(world, segments=50)
    assert len(begun) <= 1 + given[0], "those under way, and one that took its place"


def test_a_mistake_stops_segments_being_read(
    world: World, monkeypatch: pytest.MonkeyPatch, executed: Executed
) -> None:
    """Each stops after its current page."""
    closing, _ = executed
    begun = Event()
    stopped: list[bool] = []

    def scan(
        _: Reconciler, segment: Segment, *_args: object, out_of_time: OutOfTime, **__: object
    ) -> SegmentResult:
        if segment.number == 0:
            assert begun.wait(PATIENCE_SECONDS)
            raise AccessError("scan is forbidden")
        begun.set()
        assert closing.wait(PATIENCE_SECONDS)
        stopped.append(out_of_time())
        return SegmentResult(Counts(), None)

    monkeypatch.setattr(sweeper_module, "scan_segment", scan)
    with pytest.raises(AccessError):
        sweep(world, segments=2)
    assert stopped == [True]


@pytest.mark.parametrize(
    ("scope", "error"),
    [
        (Scope.ACTIVE, AccessError("query is forbidden")),
        (Scope.TABLE, ThrottledError("not now")),
    ],
    ids=["the index is forbidden", "the table is throttled"],
)
def test_an_unread_segment_makes_a_sweep_incomplete(
    indexed: World, monkeypatch: pytest.MonkeyPatch, scope: Scope, error: Exception
) -> None:
    """The next sweep reads it, or the whole table instead of the index."""

    def scan(_: Reconciler, segment: Segment, *_args: object, **__: object) -> SegmentResult:
        if segment.scope is scope:
            raise error
        return SegmentResult(Counts(), None)

    monkeypatch.setattr(sweeper_module, "scan_segment", scan)
    summary = sweep(indexed)
    assert (summary.complete, summary.counts.errors) == (False, 1)


@pytest.mark.parametrize(
    "error", [AssertionError("odd"), KeyError("odd"), UnknownRefusalError("odd")]
)
def test_a_failed_evaluation_does_not_stop_others(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    first, *others = sorted(world.seed({"a": []}) for _ in range(3))
    sound = Evaluator.evaluate

    def evaluate(self: Evaluator, orchestration_id: str, *args: Any, **given: Any) -> Any:
        if orchestration_id == first:
            raise error
        return sound(self, orchestration_id, *args, **given)

    monkeypatch.setattr(Evaluator, "evaluate", evaluate)
    summary = sweep(world)
    assert (summary.complete, summary.counts.errors) == (True, 1)
    assert summary.counts.stuck == {"check_failed": 1}
    assert all(world.statuses(name) == {"a": "released"} for name in others)


@pytest.mark.parametrize(("segments", "threads"), [(1, 1), (3, 3), (4, 4), (9, 4)])
def test_at_most_four_segments_are_read_at_once(
    world: World,
    executed: Executed,
    segments: int,
    threads: int,
) -> None:
    _, given = executed
    assert sweep(world, segments=segments).complete
    assert given == [threads]


# -- a clock that is set back


@pytest.mark.parametrize("recorded", [False, True])
def test_a_sweep_completes_after_a_clock_jump_back(
    world: World, monkeypatch: pytest.MonkeyPatch, *, recorded: bool
) -> None:
    """Otherwise its own start and its nominations would lie in the future."""
    found = world.seed({"a": []})
    whole = Reconciler.evaluate
    evaluated: list[str] = []

    def late(self: Reconciler, orchestration_id: str, **how: Any) -> Any:
        world.clock.forward(0.05 if evaluated else -60)
        evaluated.append(orchestration_id)
        return whole(self, orchestration_id, **how)

    monkeypatch.setattr(Reconciler, "evaluate", late)
    reconciler = world.reconciler()
    if recorded:
        summary = run_cron_sweep(reconciler, holder="A", segments=1).summary
    else:
        summary = run_inline_sweep(reconciler, segments=1)
    assert (summary.complete, summary.counts.released) == (True, 1)
    assert evaluated == [found]
