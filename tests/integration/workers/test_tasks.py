"""Sweeps on a real worker: how much they queue, sweeps by hand, and who waits for whom."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from reconciler.sweeping.segments import Scope, Segment
from tests.integration.workers.conftest import celery_over
from tests.support.processes import ROOT, Celery, run_reconciler, until
from tests.support.world import build_world
from workers.names import RELEASE_QUEUE, SWEEP, SWEEP_QUEUE

pytestmark = [pytest.mark.integration, pytest.mark.workers]


def test_the_release_rate_limits_queued_releases(
    endpoint: str, broker: str, tmp_path: Path
) -> None:
    """The other children are reported as stuck."""
    world = build_world(
        endpoint,
        SWEEP_INTERVAL_SECONDS="2",
        STRANDED_GRACE_SECONDS="0",
        SWEEP_SEGMENTS="1",
        RELEASE_RATE_PER_MINUTE="600",
    )
    celery = celery_over(world, broker, tmp_path)
    found = world.seed({f"c{number:02}": [] for number in range(50)})
    with celery.worker("sweeper", queues=SWEEP_QUEUE):
        celery.call(SWEEP)
        until("its evaluation", lambda: len(celery.state.known(found).stuck) == 30)
        until("its releases", lambda: celery.redis.llen(RELEASE_QUEUE) == 20)
        assert celery.last() is None, "the sweep is not over before its releases"
        with celery.worker("releaser", queues=RELEASE_QUEUE):
            summary = until("the end of the sweep", celery.last)
    assert summary["complete"]
    assert summary["released"] == 20
    assert summary["stuck"] == {"lost_release": 30}
    assert len(world.tasks(found)) == 20


def test_a_sweep_by_hand_waits_for_other_readers(celery: Celery) -> None:
    """Somebody else reads half of the table; a report by hand does not wait for them."""
    state, half = celery.state, Segment(Scope.TABLE, 0, 2)
    state.set_total(Scope.TABLE, 2)
    command = [sys.executable, "-m", "reconciler.cli.main", "sweep", "--wait", "--json"]
    environment = {"PATH": "/usr/bin:/bin", **celery.environment}
    with celery.worker():
        # Only now: the lease would expire before a slow machine has started a worker.
        assert state.take(half, "somebody", state.now()) is not None
        by_hand = subprocess.Popen(
            command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        (sweep,) = until(
            "the sweep to begin",
            lambda: state.overview().at_work() if state.renew(half, "somebody") else (),
        )
        until("the other half", lambda: state.renew(half, "somebody") and one_left(celery))
        report = run_reconciler("sweep", "--wait", "--json", "--report", environment=environment)
        assert json.loads(report.stdout)["complete"]
        assert json.loads(report.stdout)["mode"] == "report"
        assert state.renew(half, "somebody"), "a report takes no lease"
        assert one_left(celery), "a report moves no mark"
        assert celery.last() is None
        # The other reader goes silent, so the sweep asks for its half again.
        said, _ = by_hand.communicate(timeout=60)
    assert by_hand.returncode == 0
    assert json.loads(said)["sweep_id"] == sweep.sweep_id
    assert json.loads(said)["complete"]


def one_left(celery: Celery) -> bool:
    seen = celery.state.overview()
    return [seen.count_unread(sweep) for sweep in seen.at_work()] == [1]


def test_known_stuck_survives_a_sweep_by_index(endpoint: str, broker: str, tmp_path: Path) -> None:
    """The first sweep reads the table, the next ones the index and what is known stuck."""
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
        done = run_reconciler("sweep", "--wait", "--json", *options, environment=celery.environment)
        assert done.returncode in {0, 1}, done.stderr
        return dict(json.loads(done.stdout))

    with celery.worker():
        first = swept()
        assert (first["segments"], first["stuck"]) == (2, {"unsettled_parent": 1})

        stranded = world.seed(two, {"a": "released"}, tasks={"a": "COMPLETED"})
        unseen = world.seed(two, dict.fromkeys("ab", "succeeded"))
        second = swept()
        assert (second["complete"], second["segments"]) == (True, 1)
        assert (second["advanced"], second["released"]) == (1, 1)
        assert second["stuck"] == {"unsettled_parent": 1}, (
            "the parent from the first sweep is not forgotten"
        )
        assert len(world.tasks(stranded, "b")) == 1

        world.change(unsettled, "#meta", rollup_posted_at=world.ago(0))
        assert swept()["stuck"] == {}

        assert swept("--full")["stuck"] == {"unsettled_parent": 1}
        (entry,) = celery.state.overview().list_stuck()
        assert entry.orchestration_id == unseen


def test_a_sweep_without_its_index_reads_the_table(
    endpoint: str, broker: str, tmp_path: Path
) -> None:
    """The settings name an index that does not exist."""
    world = build_world(endpoint, STRANDED_GRACE_SECONDS="1", SWEEP_INTERVAL_SECONDS="3")
    celery = celery_over(world, broker, tmp_path)
    celery.extra["ACTIVE_INDEX_NAME"] = "NoSuchIndex"
    with celery.worker(), celery.beat():
        until("the table to be read", lambda: celery.state.overview().covered_as_of(Scope.ACTIVE))
        stranded = world.seed({"a": [], "b": ["a"]}, {"a": "succeeded"})
        until("the release", lambda: world.statuses(stranded)["b"] == "released")
        last = until(
            "a sweep to report the error",
            lambda: (said := celery.last()) and said["errors"] and said,
        )
    assert not last["complete"]
