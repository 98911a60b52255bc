"""The tasks on a real worker: how much is queued, and who steps aside for whom."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from workers.ledger import Plan

from tests.integration.workers.conftest import celery_over
from tests.support.processes import ROOT, Celery, until
from tests.support.world import build_world
from workers.names import FULL_QUEUE, RELEASE_QUEUE, SWEEP, SWEEP_QUEUE

pytestmark = [pytest.mark.integration, pytest.mark.workers]


def test_no_more_releases_are_queued_than_can_be_made_and_the_rest_is_said_to_be_stuck(
    endpoint: str, broker: str, tmp_path: Path
) -> None:
    world = build_world(
        endpoint,
        SWEEP_INTERVAL_SECONDS="2",
        STRANDED_GRACE_SECONDS="0",
        SWEEP_SEGMENTS="1",
        RELEASE_RATE_PER_MINUTE="600",
    )
    celery = celery_over(world, broker, tmp_path)
    found = world.seed({f"c{number:02}": [] for number in range(50)})
    with celery.worker("sweeper", queues=f"{SWEEP_QUEUE},{FULL_QUEUE}"):
        celery.call(SWEEP)
        # The evaluation is the last unit to be settled while nobody makes releases.
        until("its evaluation", lambda: celery.ledger.in_progress().get("stuck:lost_release"))
        assert celery.redis.llen(RELEASE_QUEUE) == 20
        assert celery.last() is None, "it is not over before they have been made"
        with celery.worker("releaser", queues=RELEASE_QUEUE):
            summary = until("the end of the sweep", celery.ledger.last)
    assert summary["complete"]
    assert summary["released"] == 20
    assert summary["stuck"] == {"lost_release": 30}
    assert len(world.tasks(found)) == 20


def test_a_sweep_by_hand_waits_for_one_that_is_at_work(celery: Celery) -> None:
    ledger = celery.ledger
    ledger.start("sweep:other", Plan("repair", 1), ["segment:0:0"])
    command = [sys.executable, "-m", "reconciler.cli.main", "sweep", "--wait", "--json"]
    environment = {"PATH": "/usr/bin:/bin", **celery.environment}
    with celery.worker():
        by_hand = subprocess.Popen(
            command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        report = subprocess.run(
            [*command, "--report"],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert report.returncode == 2
        assert "sweep:other is at work" in report.stderr
        until("it to step aside", lambda: len(list(celery.redis.scan_iter("*by-hand*:done"))) >= 1)
        ledger.close("sweep:other")
        said, _ = by_hand.communicate(timeout=60)
    assert json.loads(said)["sweep_id"] == "sweep:other"
    assert by_hand.returncode == 0
