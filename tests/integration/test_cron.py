"""Cron mode: one sweep at a time, a lock that expires, and a record for the next sweep."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Event
from typing import Any

import pytest

from reconciler import aws_lambda
from reconciler.clock import utc_now
from reconciler.errors import AccessError, ThrottledError
from reconciler.repair.counts import Counts
from reconciler.repair.reconciler import Reconciler
from reconciler.stores import sweeps as sweeps_module
from reconciler.stores.dynamodb import DynamoDB
from reconciler.stores.orchestrations import OrchestrationStore
from reconciler.stores.sweeps import LEASE_SECONDS, LOCK_ROW, SweepStore
from reconciler.sweeping import cron
from reconciler.sweeping import sweeper as sweeper_module
from reconciler.sweeping.cron import CronSweep, recorded_state, run_cron_sweep
from reconciler.sweeping.inline import Hooks, new_state, run_inline_sweep
from reconciler.sweeping.overview import Overview
from reconciler.sweeping.scan_step import SegmentResult
from reconciler.sweeping.segments import Scope, Segment
from reconciler.sweeping.state import SweepState
from tests.support.emf import emf_lines, values
from tests.support.processes import PATIENCE_SECONDS, ROOT, until
from tests.support.world import World

pytestmark = pytest.mark.integration

LIGHTER = pytest.mark.parametrize("endpoint", ["moto"], indirect=True)
"""For behaviour that other tests check on both endpoints, or that needs no endpoint."""

HOLDER = """
import sys
from reconciler.observability.logs import configure_logging
from reconciler.composition import build_reconciler
from reconciler.settings import load_settings
from reconciler.sweeping.cron import run_cron_sweep
from reconciler.sweeping.inline import Hooks

def stay(_):
    print("holding", flush=True)
    sys.stdin.read()

settings = load_settings()
configure_logging(settings)
run_cron_sweep(build_reconciler(settings), holder="A", hooks=Hooks(on_evaluation=stay))
"""


def sweep(world: World, holder: str = "B", **rest: Any) -> CronSweep:
    reconciler = world.reconciler()
    asked = {name: rest.pop(name) for name in ("out_of_time", "on_evaluation") if name in rest}
    hooks = Hooks(**asked)
    return run_cron_sweep(reconciler, holder=holder, segments=1, hooks=hooks, **rest)


def recorded(world: World) -> Overview:
    """Return the state that sweeps in cron mode have recorded."""
    records = recorded_state(world.reconciler().sweeps, lambda: now(world))
    return SweepState(records).overview()


def lock(world: World) -> dict[str, Any] | None:
    rows = world.scan(world.settings.orchestration_table_name)
    return next((row for row in rows if row["sub_issue_id"]["S"] == LOCK_ROW), None)


@LIGHTER
def test_a_repeated_attempt_finds_its_own_lock(world: World) -> None:
    """The client retries by itself if it misses the answer to its first attempt."""
    sweeps, now = world.reconciler().sweeps, world.clock()
    assert sweeps.take("token", "A", now) is None
    assert sweeps.take("token", "A", now) is None
    assert sweeps.take("another", "B", now) is not None


@LIGHTER
def test_a_lock_from_the_future_is_taken_over(world: World) -> None:
    """The clock of its holder is ahead; a few seconds are tolerated."""
    sweeps, now = world.reconciler().sweeps, world.clock()
    assert sweeps.take("ahead", "A", now + timedelta(hours=1)) is None
    assert sweeps.take("right", "B", now) is None
    assert not sweeps.renew("ahead", now + timedelta(hours=1))
    assert sweeps.take("almost", "C", now + timedelta(seconds=5)) is not None


class Staying:
    """A sweep in a thread that waits in an evaluation until ``end`` is called."""

    def __init__(self, world: World, holder: str, threads: ThreadPoolExecutor) -> None:
        self.there, self.go = Event(), Event()
        self.swept = threads.submit(sweep, world, holder, on_evaluation=self._stay)
        assert self.there.wait(PATIENCE_SECONDS)

    def _stay(self, _: object) -> None:
        self.there.set()
        assert self.go.wait(PATIENCE_SECONDS)

    def end(self) -> CronSweep:
        self.go.set()
        return self.swept.result()


def test_a_second_sweep_leaves_work_to_the_first(world: World) -> None:
    found = world.seed({"a": [], "b": []})
    with ThreadPoolExecutor() as threads:
        first = Staying(world, "A", threads)
        second = sweep(world)
        assert second.lease is not None
        assert second.lease.holder == "A"
        said = second.to_json()
        assert (said["complete"], said["rows_scanned"]) == (False, 0)
        assert said["stepped_aside"]["holder"] == "A"
        summary = first.end().summary
    assert (summary.complete, summary.counts.released) == (True, 2)
    assert len(world.tasks(found)) == 2
    assert lock(world) is None
    assert sweep(world).lease is None


def test_a_long_sweep_renews_its_lock(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cron, "RENEW_SECONDS", 0.01)
    world.seed({"a": []})
    with ThreadPoolExecutor() as threads:
        first = Staying(world, "A", threads)
        world.clock.forward(10 * LEASE_SECONDS)
        until("the renewal", lambda: int((lock(world) or {})["expires_at"]["N"]) > now(world))
        assert sweep(world).lease is not None
        first.end()


def now(world: World) -> float:
    return world.clock().timestamp()


def test_a_forced_sweep_repeats_no_release(world: World) -> None:
    found = world.seed({"a": []})
    with ThreadPoolExecutor() as threads:
        first = Staying(world, "A", threads)
        other = world.seed({"x": []})
        second = sweep(world, force=True)
        assert second.lease is None
        assert second.summary.complete
        assert first.end().summary.complete
    assert [len(world.tasks(each)) for each in (found, other)] == [1, 1]


def test_only_its_holder_gives_back_a_lock(world: World) -> None:
    store = SweepStore(DynamoDB(world.client), world.settings.orchestration_table_name)
    assert store.take("a", "A", world.clock()) is None
    held = store.take("b", "B", world.clock())
    assert held is not None
    assert held.holder == "A"
    assert store.take("b", "B", world.clock(), force=True) is None
    assert not store.renew("a", world.clock())
    store.give_back("a")
    assert (lock(world) or {})["holder"] == {"S": "B"}
    store.give_back("b")
    assert lock(world) is None


def test_the_lock_of_a_killed_process_expires(world: World) -> None:
    world.seed({"a": []})
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        env=world.environment,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holding\n"
        process.kill()
    # The killed process used the real clock.
    world.clock.forward((utc_now() - world.clock()).total_seconds())
    assert sweep(world).lease is not None
    world.clock.forward(LEASE_SECONDS - 60)
    assert sweep(world).lease is not None
    world.clock.forward(120)
    again = sweep(world)
    assert again.lease is None
    assert again.summary.complete
    assert lock(world) is None


@LIGHTER
def test_a_report_writes_neither_lock_nor_record(world: World) -> None:
    world.seed({"a": []})
    before = world.everything()
    reconciler = world.reconciler(repair_mode="report")
    swept = run_cron_sweep(reconciler, holder="A", segments=1)
    assert swept.summary.counts.planned == {"released": 1}
    assert world.everything() == before


@LIGHTER
def test_a_sweep_works_without_its_lock(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every write of the lock and the record is throttled."""

    def throttled(*_: object, **__: object) -> None:
        raise ThrottledError("not now")

    found = world.seed({"a": []})
    for name in ("take", "record", "give_back"):
        monkeypatch.setattr(SweepStore, name, throttled)
    assert sweep(world).summary.complete
    assert world.statuses(found) == {"a": "released"}


def test_the_state_is_kept_for_the_next_sweep(world: World) -> None:
    stranded = world.seed({"a": ["gone"]})
    assert recorded(world).last() is None
    first = sweep(world).summary
    seen = recorded(world)
    assert seen.last() == seen.last(complete=True)
    assert (seen.last() or {})["sweep_id"] == first.sweep_id
    assert seen.covered_as_of(Scope.TABLE) == now(world)
    assert [entry.orchestration_id for entry in seen.list_stuck()] == [stranded]
    world.clock.forward(10)
    second = sweep(world, out_of_time=lambda: True).summary
    seen = recorded(world)
    assert (seen.last() or {})["sweep_id"] == second.sweep_id
    assert (seen.last(complete=True) or {})["sweep_id"] == first.sweep_id
    assert seen.covered_as_of(Scope.TABLE) == now(world) - 10
    assert len(seen.list_stuck()) == 1


# -- a sweep whose time is limited


@LIGHTER
def test_a_sweep_out_of_time_is_incomplete(world: World) -> None:
    """The next sweep repairs the rest."""
    found = [world.seed({"a": []}) for _ in range(6)]
    reconciler = world.reconciler()
    done: list[str] = []
    summary = run_inline_sweep(
        reconciler,
        segments=1,
        hooks=Hooks(
            out_of_time=lambda: len(done) >= 2,
            on_evaluation=lambda evaluation: done.append(evaluation.orchestration_id),
        ),
    )
    assert (summary.complete, summary.counts.released) == (False, 2)
    assert sum(world.statuses(each) == {"a": "released"} for each in found) == 2
    assert sweep(world).summary.complete
    assert all(world.statuses(each) == {"a": "released"} for each in found)


@LIGHTER
def test_the_next_sweep_continues_where_one_stopped(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    scanned: list[int] = []

    def scan(_: Reconciler, segment: Segment, *_args: object, **_how: object) -> SegmentResult:
        scanned.append(segment.number)
        return SegmentResult(Counts(), None)

    monkeypatch.setattr(sweeper_module, "scan_segment", scan)
    state = new_state(world.reconciler())
    for number in range(1, 9):
        world.clock.forward(60)
        hooks = Hooks(out_of_time=lambda: len(scanned) >= number)  # noqa: B023 - within its turn
        summary = run_inline_sweep(world.reconciler(), state=state, segments=8, hooks=hooks)
        assert not summary.complete
    assert set(scanned) == set(range(8))


class Context:
    """The context of Lambda; each question for the remaining time takes up some of it."""

    aws_request_id = "8f1c"

    def __init__(self, milliseconds: int, step: int = 0) -> None:
        self._left, self._step = milliseconds, step

    def get_remaining_time_in_millis(self) -> int:
        self._left -= self._step
        return self._left


@pytest.fixture
def deployed(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world for which the Lambda function is deployed."""
    monkeypatch.setattr(aws_lambda, "_reconciler", lambda: (world.reconciler(), None))
    return world


def test_lambda_sweeps_and_returns_the_summary(deployed: World) -> None:
    found = deployed.seed({"a": []})
    schedule = {"detail-type": "Scheduled Event", "resources": ["arn:aws:events:…"]}
    before = deployed.everything()
    said = aws_lambda.handler({**schedule, "report": True}, Context(900_000))
    assert (said["mode"], said["planned"]) == ("report", {"released": 1})
    assert deployed.everything() == before
    said = aws_lambda.handler(schedule, Context(900_000))
    assert (said["complete"], said["released"]) == (True, 1)
    assert deployed.statuses(found) == {"a": "released"}
    for event in (None, ["report"]):
        assert aws_lambda.handler(event, Context(900_000))["complete"] is True


@LIGHTER
def test_lambda_stops_when_time_runs_out(deployed: World) -> None:
    """It records its state and gives back the lock."""
    for _ in range(5):
        deployed.seed({"a": []})
    context = Context(60_000, step=10_000)
    said = aws_lambda.handler({}, context)
    assert said["complete"] is False
    # Each evaluation asks for the time once or twice more before it ends.
    assert context.get_remaining_time_in_millis() > -120_000
    assert deployed.reconciler().sweeps.recorded() is not None
    assert lock(deployed) is None


@LIGHTER
def test_lambda_leaves_work_to_a_running_sweep(deployed: World) -> None:
    """With ``force`` it sweeps anyway."""
    deployed.seed({"a": []})
    with ThreadPoolExecutor() as threads:
        first = Staying(deployed, "A", threads)
        said = aws_lambda.handler({}, Context(900_000))
        assert said["stepped_aside"]["holder"] == "A"
        assert aws_lambda.handler({"force": True}, Context(900_000))["complete"] is True
        first.end()


@LIGHTER
def test_lambda_reuses_its_clients_and_writes_metrics(
    make_world: Callable[..., World],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    world = make_world(METRICS_EMF="true", METRICS_NAMESPACE="Ours")
    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)
    aws_lambda._reconciler.cache_clear()
    try:
        assert aws_lambda.handler({}, Context(900_000))["complete"] is True
        made, _ = aws_lambda._reconciler()
        assert aws_lambda.handler({}, Context(900_000))["complete"] is True
        assert aws_lambda._reconciler()[0] is made
        lines = emf_lines(capsys.readouterr().out)
        assert values(lines, "reconciler_sweeps_total", outcome="complete") == [1, 1]
        directives = (d for line in lines for d in line["_aws"]["CloudWatchMetrics"])
        assert {directive["Namespace"] for directive in directives} == {"Ours"}
    finally:
        aws_lambda._reconciler.cache_clear()


# -- by an index


def test_with_an_index_full_scans_are_rarer(
    make_world: Callable[..., World],
) -> None:
    world = make_world(ACTIVE_INDEX_NAME="Active", FULL_SCAN_INTERVAL_SECONDS="600")
    world.clock.forward(600 - now(world) % 600)  # full scans follow the wall clock
    two = {"a": [], "b": ["a"]}
    gap = world.seed(two, {"a": "succeeded", "b": "succeeded"}, meta={"child_count": {"N": "3"}})

    def swept(**options: Any) -> tuple[int, dict[str, int], int]:
        summary = sweep(world, **options).summary
        assert summary.complete
        return summary.segments, dict(summary.counts.stuck), summary.counts.released

    assert swept() == (2, {"rows_missing": 1}, 0)
    world.clock.forward(10)
    world.seed(two, {"a": "succeeded"})
    assert swept() == (1, {"rows_missing": 1}, 1)
    world.seed(two, {"a": "succeeded", "b": "succeeded"}, meta={"child_count": {"N": "3"}})
    world.client.delete_item(
        TableName=world.settings.orchestration_table_name,
        Key={"orchestration_id": {"S": gap}, "sub_issue_id": {"S": "#meta"}},
    )
    world.change(gap, "a", child_status="ready", updated_at=world.ago(3600))
    world.clock.forward(1)
    assert swept(full=True)[:2] == (2, {"rows_missing": 2, "orphan_row": 1})
    world.clock.forward(601)
    assert swept()[0] == 2, "the full scan is due"
    world.clock.forward(10)
    assert swept()[0] == 1


@LIGHTER
def test_a_state_too_large_forces_a_full_read(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeps_module, "_MAX_STATE_BYTES", 800)
    world = make_world(ACTIVE_INDEX_NAME="Active", SETTLE_MODE="off")
    for _ in range(20):
        world.seed({"a": []}, {"a": "succeeded"})
    for _ in range(2):
        summary = sweep(world).summary
        assert (summary.segments, summary.counts.stuck) == (2, {"unsettled_parent": 20})
        assert (recorded(world).last() or {})["sweep_id"] == summary.sweep_id
        world.clock.forward(10)


def denied(*_: Any, **__: Any) -> None:
    raise AccessError("query on Active: AccessDeniedException")


@LIGHTER
def test_without_its_index_the_next_sweep_scans(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the index is gone or forbidden, stranded children are still released."""
    world = make_world(ACTIVE_INDEX_NAME="Active")
    world.seed({"a": ["gone"]})
    assert sweep(world).summary.complete
    found = world.seed({"a": [], "b": ["a"]}, {"a": "succeeded"})
    monkeypatch.setattr(OrchestrationStore, "active_page", denied)
    for released in ("blocked", "released"):
        world.clock.forward(10)
        summary = sweep(world).summary
        assert (summary.complete, summary.counts.stuck) == (False, {"dangling_dependency": 1})
        assert world.statuses(found)["b"] == released
    assert recorded(world).covered_as_of(Scope.ACTIVE) == now(world), "covered as far as the table"
    monkeypatch.setattr(OrchestrationStore, "scan_page", denied)
    world.clock.forward(10)
    with pytest.raises(AccessError):
        sweep(world)
