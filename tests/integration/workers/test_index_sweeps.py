"""Sweeps by the index on real workers: what they repair, and what they do not lose sight of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.integration.workers.conftest import RealClock
from tests.support.processes import Celery, run_reconciler, until
from tests.support.world import build_world
from workers.names import ACTIVE, SEGMENT, SWEEP

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
    world.clock = RealClock()
    celery = Celery(world, broker, tmp_path)
    celery.redis.flushall()
    two = {"a": [], "b": ["a"]}
    unsettled = world.seed(two, dict.fromkeys("ab", "succeeded"))

    def swept(*options: str) -> dict[str, Any]:
        before = celery.ledger.last()
        if options:
            said = run_reconciler("sweep", *options, environment=celery.environment)
            assert said.returncode == 0, said.stderr
        else:
            celery.call(SWEEP)
        return until("a sweep to end", lambda: _other_than(celery.ledger.last(), before))

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


def _other_than(found: dict[str, Any] | None, before: dict[str, Any] | None) -> Any:
    return found if found != before else None
