"""Sweeps by the index on real workers: what they repair, and what they do not lose sight of."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import celery as celery_app
import pytest
from workers.ledger import Ledger, Plan

from reconciler.errors import ERROR_KINDS
from reconciler.observability.redis_metrics import read_series
from reconciler.operations.scan import Scope, SegmentCursor
from tests.conftest import Servers
from tests.integration.workers.conftest import celery_over
from tests.support.faults import FaultProxy
from tests.support.processes import Celery, run_reconciler, until
from tests.support.world import World, build_world
from workers.names import ACTIVE, FULL_QUEUE, SEGMENT, SWEEP, SWEEP_QUEUE

pytestmark = [pytest.mark.integration, pytest.mark.workers]


def test_what_only_a_full_scan_finds_is_looked_at_until_it_is_settled(
    endpoint: str, broker: str, tmp_path: Path
) -> None:
    """First everything; then what is active, and what was known to be stuck."""
    world = build_world(
        endpoint,
        ACTIVE_INDEX_NAME="ChildStatusIndex",
        STRANDED_GRACE_SECONDS="1",
        SWEEP_INTERVAL_SECONDS="60",
        SETTLE_MODE="off",
    )
    celery = celery_over(world, broker, tmp_path)
    two = {"a": [], "b": ["a"]}
    unsettled = world.seed(two, dict.fromkeys("ab", "succeeded"))

    def swept(*options: str) -> dict[str, Any]:
        before = celery.last()
        if options:
            said = run_reconciler("sweep", *options, environment=celery.environment)
            assert said.returncode == 0, said.stderr
        else:
            celery.call(SWEEP)
        return until("a sweep to end", lambda: _other_than(celery.last(), before))

    with celery.worker():
        first = swept()
        assert (first.get("coverage"), first["stuck"]) == (None, {"unsettled_parent": 1})

        stranded = world.seed(two, {"a": "released"}, tasks={"a": "COMPLETED"})
        unseen = world.seed(two, dict.fromkeys("ab", "succeeded"))
        second = swept()
        assert second["complete"]
        assert second["coverage"] == "active"
        assert (second["advanced"], second["released"]) == (1, 1)
        assert second["stuck"] == {"unsettled_parent": 1}, "that of the first, and not forgotten"
        assert len(world.tasks(stranded, "b")) == 1

        world.change(unsettled, "#meta", rollup_posted_at=world.ago(0))
        third = swept()
        assert (third["coverage"], third["stuck"]) == ("active", {})

        fourth = swept("--full")
        assert (fourth.get("coverage"), fourth["stuck"]) == (None, {"unsettled_parent": 1})
        (entry,) = celery.ledger.last_stuck()
        assert entry["orchestration_id"] == unseen
    log = (tmp_path / "w1.log").read_text(errors="replace")
    assert ACTIVE in log
    assert SEGMENT in log


def test_a_worker_that_lacks_the_name_says_so_and_the_sweep_is_not_complete(
    endpoint: str, broker: str, tmp_path: Path
) -> None:
    """As while the setting goes out: one began the sweep by the index, and this one has none."""
    celery = celery_over(build_world(endpoint), broker, tmp_path)
    cursor = SegmentCursor("sweep:1", 0, 1)
    celery.ledger.start("sweep:1", Plan("repair", 1, Scope.ACTIVE), ["segment:0:0"])
    sender = celery_app.Celery(broker=f"{celery.broker}/0")
    with celery.worker():
        sender.send_task(ACTIVE, args=(asdict(cursor),), queue=SWEEP_QUEUE)
        summary = until("the sweep to end", celery.ledger.last)
    sender.close()
    assert (summary["complete"], summary["coverage"], summary["errors"]) == (False, "active", 1)
    counted = read_series(celery.redis, celery.world.settings)
    assert counted["reconciler_errors_total", (("kind", "settings"),), ""] == 1
    assert "settings" in ERROR_KINDS
    assert "ACTIVE_INDEX_NAME is not set here" in (tmp_path / "w1.log").read_text(errors="replace")


# -- beside a full scan


@pytest.fixture
def indexed(servers: Servers, proxy: FaultProxy, broker: str, tmp_path: Path) -> Celery:
    """Tables with an index, which workers reach through the proxy; one sweep has been made."""
    world = build_world(
        servers.endpoint("dynamodb_local"),
        ACTIVE_INDEX_NAME="ChildStatusIndex",
        STRANDED_GRACE_SECONDS="1",
        SWEEP_INTERVAL_SECONDS="60",
        SWEEP_SEGMENTS="1",
        SETTLE_MODE="off",
    )
    world.endpoint = proxy.url
    return celery_over(world, broker, tmp_path)


TWO: dict[str, list[str]] = {"a": [], "b": ["a"]}


def _unsettled(world: World) -> str:
    """What no index shows."""
    return world.seed(TWO, dict.fromkeys("ab", "succeeded"))


def _full_scan(celery: Celery) -> str:
    """Ask for one; returns its id."""
    said = run_reconciler("sweep", "--full", "--json", environment=celery.environment)
    assert said.returncode == 0, said.stderr
    return str(json.loads(said.stdout)["sweep_id"])


def test_a_child_is_released_beside_a_full_scan_and_neither_forgets_what_the_other_found(
    indexed: Celery, proxy: FaultProxy
) -> None:
    """The scan is held before it has read a row, and the other at what both are to look at."""
    world, ledger = indexed.world, indexed.ledger
    known = _unsettled(world)
    with indexed.worker(concurrency=3):
        indexed.call(SWEEP)
        first = until("the first sweep", ledger.last)
        with proxy.holding("Query", known) as looking:
            with proxy.holding("Scan") as scanning:
                scan = _full_scan(indexed)
                scanning.wait()
                stranded = world.seed(TWO, {"a": "released"}, tasks={"a": "COMPLETED"})
                unseen = _unsettled(world)
                index = indexed.call(SWEEP)
                looking.wait()
                until("the release", lambda: world.statuses(stranded)["b"] == "released")
                said = run_reconciler("status", "--json", environment=indexed.environment)
                at_work = json.loads(said.stdout)
                assert at_work["sweep_at_work"]["sweep_id"] == scan
                assert at_work["sweep_beside_it"]["sweep_id"] == index
                assert ledger.last() == first, "neither has ended"
            full = until("the full scan", lambda: _other_than(ledger.last_full(), first))
            assert (full["sweep_id"], full["complete"]) == (scan, True)
            assert full["stuck"] == {"unsettled_parent": 2}, "the other, as it was last seen"
            assert _listed(ledger) == {known, unseen}
        beside = until("the sweep beside it", lambda: _other_than(ledger.last(), full))
        assert (beside["sweep_id"], beside["complete"]) == (index, True)
        assert (beside["coverage"], beside["advanced"], beside["released"]) == ("active", 1, 1)
        assert _listed(ledger) == {known, unseen}
        assert ledger.last_full() == full
        indexed.call(SWEEP)
        after = until("the next sweep", lambda: _other_than(ledger.last(), beside))
    assert (after["coverage"], after["stuck"]) == ("active", {"unsettled_parent": 2})
    assert len(world.tasks(stranded, "b")) == 1


def test_a_sweep_beside_a_full_scan_does_not_wait_behind_its_segments(indexed: Celery) -> None:
    """They are sent as it begins: in one queue it would be over before the other could begin."""
    indexed.extra["SWEEP_SEGMENTS"] = "60"
    world, ledger = indexed.world, indexed.ledger
    with indexed.worker():
        indexed.call(SWEEP)
        first = until("the first sweep", ledger.last)
    with indexed.worker("starter", queues=SWEEP_QUEUE):
        scan = _full_scan(indexed)
        until("its segments to be sent", lambda: indexed.redis.llen(FULL_QUEUE) == 60)
    stranded = world.seed(TWO, {"a": "released"}, tasks={"a": "COMPLETED"})
    index = indexed.call(SWEEP)
    with indexed.worker("other", concurrency=1):
        until("the full scan", lambda: _other_than(ledger.last_full(), first))
    ended = [summary["sweep_id"] for summary in ledger.ended()]
    assert ended == [first["sweep_id"], index, scan]
    assert len(world.tasks(stranded, "b")) == 1


def _listed(ledger: Ledger) -> set[str]:
    return {entry["orchestration_id"] for entry in ledger.last_stuck()}


def _other_than(found: dict[str, Any] | None, before: dict[str, Any] | None) -> Any:
    return found if found != before else None
