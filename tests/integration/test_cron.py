"""Sweeps without a broker: one at a time, a lock that no death holds for long, and a record."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event
from typing import Any

import pytest

from reconciler import aws_lambda
from reconciler.errors import AccessError, ThrottledError
from reconciler.operations import cron
from reconciler.operations.counts import Counts
from reconciler.operations.reconciler import Reconciler
from reconciler.operations.scan import SegmentCursor, SegmentResult
from reconciler.stores.dynamodb import DynamoDB
from reconciler.stores.orchestrations import OrchestrationStore
from reconciler.stores.sweeps import LEASE_SECONDS, LOCK_ROW, SweepStore
from reconciler.sweeping.cron import CronSweep, run_cron_sweep
from reconciler.sweeping.inline import run_inline_sweep
from tests.support.emf import emf_lines, values
from tests.support.processes import PATIENCE_SECONDS, ROOT, until
from tests.support.world import World

pytestmark = pytest.mark.integration

LIGHTER = pytest.mark.parametrize("endpoint", ["moto"], indirect=True)
"""For what has been seen on both endpoints in other tests, or needs none."""

HOLDER = """
import sys
from reconciler.observability.logs import configure_logging
from reconciler.sweeping.cron import run_cron_sweep
from reconciler.operations.wiring import build_reconciler
from reconciler.settings import load_settings

def stay(_):
    print("holding", flush=True)
    sys.stdin.read()

settings = load_settings()
configure_logging(settings)
run_cron_sweep(build_reconciler(settings), holder="A", on_evaluation=stay)
"""


def sweep(world: World, holder: str = "B", **rest: Any) -> CronSweep:
    reconciler = world.reconciler()
    return run_cron_sweep(reconciler, holder=holder, segments=1, **rest)


def lock(world: World) -> dict[str, Any] | None:
    rows = world.scan(world.settings.orchestration_table_name)
    return next((row for row in rows if row["sub_issue_id"]["S"] == LOCK_ROW), None)


@LIGHTER
def test_a_lock_whose_taking_was_not_heard_of_is_ours(world: World) -> None:
    """The client tries again by itself, and finds the lock that it has just taken."""
    sweeps, now = world.reconciler().sweeps, world.clock()
    assert sweeps.take("nonce", "A", now) is None
    assert sweeps.take("nonce", "A", now) is None
    assert sweeps.take("another", "B", now) is not None


class Staying:
    """A sweep in a thread that stays where it is until it is let go."""

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


def test_of_two_at_once_the_second_steps_aside_and_the_first_does_the_work(world: World) -> None:
    found = world.seed({"a": [], "b": []})
    with ThreadPoolExecutor() as threads:
        first = Staying(world, "A", threads)
        second = sweep(world)
        assert second.aside is not None
        assert second.aside.holder == "A"
        said = second.to_json()
        assert (said["complete"], said["rows_scanned"]) == (False, 0)
        assert said["stepped_aside"]["holder"] == "A"
        summary = first.end().summary
    assert (summary.complete, summary.counts.released) == (True, 2)
    assert len(world.tasks(found)) == 2
    assert lock(world) is None
    assert sweep(world).aside is None


def test_a_lock_is_renewed_for_as_long_as_its_sweep_lasts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cron, "RENEW_SECONDS", 0.01)
    world.seed({"a": []})
    with ThreadPoolExecutor() as threads:
        first = Staying(world, "A", threads)
        world.clock.forward(10 * LEASE_SECONDS)
        until("the renewal", lambda: int((lock(world) or {})["expires_at"]["N"]) > now(world))
        assert sweep(world).aside is not None
        first.end()


def now(world: World) -> float:
    return world.clock().timestamp()


def test_with_force_both_sweep_and_nothing_is_done_twice(world: World) -> None:
    found = world.seed({"a": []})
    with ThreadPoolExecutor() as threads:
        first = Staying(world, "A", threads)
        other = world.seed({"x": []})
        second = sweep(world, force=True)
        assert second.aside is None
        assert second.summary.complete
        assert first.end().summary.complete
    assert [len(world.tasks(each)) for each in (found, other)] == [1, 1]


def test_a_lock_that_was_taken_over_is_not_given_back_by_who_lost_it(world: World) -> None:
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
    assert sweep(world).aside is not None
    world.clock.forward(LEASE_SECONDS - 60)
    assert sweep(world).aside is not None
    world.clock.forward(120)
    again = sweep(world)
    assert again.aside is None
    assert again.summary.complete
    assert lock(world) is None


@LIGHTER
def test_a_report_takes_no_lock_and_leaves_no_record(world: World) -> None:
    world.seed({"a": []})
    before = world.everything()
    reconciler = world.reconciler(repair_mode="report")
    swept = run_cron_sweep(reconciler, holder="A", segments=1)
    assert swept.summary.counts.planned == {"released": 1}
    assert world.everything() == before


@LIGHTER
def test_a_table_that_cannot_be_locked_is_swept_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def throttled(*_: object, **__: object) -> None:
        raise ThrottledError("not now")

    found = world.seed({"a": []})
    for name in ("take", "record", "give_back"):
        monkeypatch.setattr(SweepStore, name, throttled)
    assert sweep(world).summary.complete
    assert world.statuses(found) == {"a": "released"}


def test_the_last_sweep_and_the_last_complete_one_are_recorded(world: World) -> None:
    stranded = world.seed({"a": ["gone"]})
    reconciler = world.reconciler()
    assert reconciler.sweeps.recorded() is None
    first = sweep(world).summary
    known = reconciler.sweeps.recorded()
    assert known is not None
    assert known.last == known.last_complete
    assert known.last["sweep_id"] == first.sweep_id
    assert known.last["ended_at"] == now(world)
    assert [entry["orchestration_id"] for entry in known.stuck] == [stranded]
    second = sweep(world, out_of_time=lambda: True).summary
    known = reconciler.sweeps.recorded()
    assert known is not None
    assert (known.last["sweep_id"], known.last["complete"]) == (second.sweep_id, False)
    assert (known.last_complete or {})["sweep_id"] == first.sweep_id
    assert len(known.stuck) == 1


# -- a sweep whose time is limited


@LIGHTER
def test_a_sweep_that_runs_out_of_time_says_so_and_the_next_goes_on(world: World) -> None:
    found = [world.seed({"a": []}) for _ in range(6)]
    reconciler = world.reconciler()
    done: list[str] = []
    summary = run_inline_sweep(
        reconciler,
        segments=1,
        out_of_time=lambda: len(done) >= 2,
        on_evaluation=lambda evaluation: done.append(evaluation.orchestration_id),
    )
    assert (summary.complete, summary.counts.released) == (False, 2)
    assert sum(world.statuses(each) == {"a": "released"} for each in found) == 2
    assert sweep(world).summary.complete
    assert all(world.statuses(each) == {"a": "released"} for each in found)


@LIGHTER
def test_what_is_left_is_not_the_same_segments_each_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    scanned: list[int] = []

    def scan(_: Reconciler, cursor: SegmentCursor, **__: object) -> SegmentResult:
        scanned.append(cursor.segment)
        return SegmentResult(Counts(), None)

    monkeypatch.setattr(Reconciler, "scan_segment", scan)
    reconciler = world.reconciler()
    for number in range(1, 21):
        summary = run_inline_sweep(
            reconciler,
            segments=16,
            out_of_time=lambda: len(scanned) >= number,  # noqa: B023 - within its turn only
        )
        assert not summary.complete
    assert len(set(scanned)) > 5


class Context:
    """Lambda's, with a time that goes by as it is asked for."""

    aws_request_id = "8f1c"

    def __init__(self, milliseconds: int, step: int = 0) -> None:
        self._left, self._step = milliseconds, step

    def get_remaining_time_in_millis(self) -> int:
        self._left -= self._step
        return self._left


@pytest.fixture
def deployed(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A function that was deployed for this world."""
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
    assert aws_lambda.handler(None, Context(900_000))["complete"] is True


@LIGHTER
def test_lambda_stops_in_time_and_says_so(deployed: World) -> None:
    for _ in range(5):
        deployed.seed({"a": []})
    context = Context(60_000, step=10_000)
    said = aws_lambda.handler({}, context)
    assert said["complete"] is False
    assert context.get_remaining_time_in_millis() > -60_000
    assert deployed.reconciler().sweeps.recorded() is not None
    assert lock(deployed) is None


@LIGHTER
def test_lambda_steps_aside_too(deployed: World) -> None:
    deployed.seed({"a": []})
    with ThreadPoolExecutor() as threads:
        first = Staying(deployed, "A", threads)
        said = aws_lambda.handler({}, Context(900_000))
        assert said["stepped_aside"]["holder"] == "A"
        assert aws_lambda.handler({"force": True}, Context(900_000))["complete"] is True
        first.end()


@LIGHTER
def test_lambda_makes_its_clients_once_and_writes_its_metrics(
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


def test_between_full_scans_a_sweep_goes_by_the_index(
    make_world: Callable[..., World],
) -> None:
    world = make_world(ACTIVE_INDEX_NAME="Active", FULL_SCAN_INTERVAL_SECONDS="600")
    two = {"a": [], "b": ["a"]}
    gap = world.seed(two, {"a": "succeeded", "b": "succeeded"}, meta={"child_count": {"N": "3"}})

    def swept(**options: Any) -> tuple[str, dict[str, int], int]:
        summary = sweep(world, **options).summary
        assert summary.complete
        return summary.coverage.value, dict(summary.counts.stuck), summary.counts.released

    assert swept() == ("full", {"rows_missing": 1}, 0)
    world.clock.forward(300)
    world.seed(two, {"a": "succeeded"})
    assert swept() == ("active", {"rows_missing": 1}, 1)
    world.seed(two, {"a": "succeeded", "b": "succeeded"}, meta={"child_count": {"N": "3"}})
    world.client.delete_item(
        TableName=world.settings.orchestration_table_name,
        Key={"orchestration_id": {"S": gap}, "sub_issue_id": {"S": "#meta"}},
    )
    world.change(gap, "a", child_status="ready", updated_at=world.ago(3600))
    assert swept(full=True)[:2] == ("full", {"rows_missing": 2, "orphan_row": 1})
    world.clock.forward(601)
    assert swept()[0] == "full", "it is due"
    world.clock.forward(60)
    assert swept()[0] == "active"


@LIGHTER
def test_with_more_stuck_than_is_remembered_all_of_it_is_read(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cron, "_MOST_STUCK", 1)
    world = make_world(ACTIVE_INDEX_NAME="Active", SETTLE_MODE="off")
    for _ in range(2):
        world.seed({"a": []}, {"a": "succeeded"})
    assert sweep(world).summary.coverage.value == "full"
    second = sweep(world).summary
    assert (second.coverage.value, second.counts.stuck) == ("full", {"unsettled_parent": 2})


@pytest.mark.parametrize("endpoint", ["dynamodb_local"], indirect=True)
def test_an_index_that_is_gone_costs_no_more_than_every_other_sweep(
    make_world: Callable[..., World],
) -> None:
    """Nobody has to notice: a full scan finds in its place what it would have shown."""
    world = make_world(ACTIVE_INDEX_NAME="Active")
    assert sweep(world).summary.complete
    found = world.seed({"a": [], "b": ["a"]}, {"a": "succeeded"})
    world = replace(world, settings=world.settings.model_copy(update={"active_index_name": "Gone"}))
    assert not sweep(world).summary.complete
    assert world.statuses(found)["b"] == "blocked"
    assert sweep(world).summary.complete
    assert world.statuses(found)["b"] == "released"


@LIGHTER
def test_an_index_that_is_forbidden_is_done_without_at_once(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(ACTIVE_INDEX_NAME="Active")
    world.seed({"a": ["gone"]})
    assert sweep(world).summary.complete
    found = world.seed({"a": [], "b": ["a"]}, {"a": "succeeded"})

    def denied(*_: Any, **__: Any) -> None:
        raise AccessError("query on Active: AccessDeniedException")

    monkeypatch.setattr(OrchestrationStore, "active_page", denied)
    summary = sweep(world).summary
    assert summary.coverage.value == "full"
    assert world.statuses(found)["b"] == "released"
    recorded = world.reconciler().sweeps.recorded()
    assert recorded is not None
    assert len(recorded.stuck) == sum(summary.counts.stuck.values()) == 1, "told once, not twice"
    monkeypatch.setattr(OrchestrationStore, "scan_page", denied)
    world.clock.forward(1)
    with pytest.raises(AccessError):
        sweep(world)
