"""Rows whose ids are as long as a table takes."""

from __future__ import annotations

import pytest

from tests.support.processes import Celery, until
from workers.names import SWEEP

pytestmark = [pytest.mark.integration, pytest.mark.workers]

ORCHESTRATION_ID = f"orch_{'x' * 2043}"
SUB_ISSUE_ID = "c" * 1024


def test_the_longest_ids_hold_nothing_up(celery: Celery) -> None:
    """No task can be created for such a child, so it is refused; the others are released."""
    own = {"orchestration_id": {"S": ORCHESTRATION_ID}}
    celery.world.seed({SUB_ISSUE_ID: []}, rows={SUB_ISSUE_ID: own}, meta=own)
    other = celery.world.seed({"a": []})
    with celery.worker():
        celery.call(SWEEP)
        summary = until("the end of the sweep", celery.last)
    assert summary["complete"]
    assert (summary["released"], summary["refused"], summary["errors"]) == (1, 1, 0)
    assert len(celery.world.tasks(other)) == 1
    row = celery.world.rows(ORCHESTRATION_ID)[SUB_ISSUE_ID]
    assert row["child_status"] == {"S": "failed"}
    assert "idempotency key" in row["failure_reason"]["S"]
