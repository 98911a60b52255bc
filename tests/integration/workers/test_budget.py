"""The budget of a user with eight worker processes at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.integration.workers.conftest import celery_over
from tests.support.processes import until
from tests.support.world import USER, World, build_world

pytestmark = [pytest.mark.integration, pytest.mark.workers]

CAP = 10
CHILDREN = 50


class Admission:
    """The platform's part: admits submitted tasks, runs them for a while and ends them."""

    def __init__(self, world: World, orchestration_id: str) -> None:
        self._world = world
        self._orchestration_id = orchestration_id
        self._users = str(world.settings.user_concurrency_table_name)
        self.most_at_once = 0
        self.finished: set[str] = set()

    def sample(self) -> dict[str, list[dict[str, Any]]]:
        """Read all tasks, and keep the highest number that were under way at once."""
        by_status: dict[str, list[dict[str, Any]]] = {}
        for task in self._world.tasks(self._orchestration_id):
            by_status.setdefault(task["status"]["S"], []).append(task)
        under_way = sum(len(by_status.get(s, ())) for s in ("SUBMITTED", "RUNNING"))
        self.most_at_once = max(self.most_at_once, under_way)
        return by_status

    def step(self) -> bool:
        """End one running task and admit two waiting ones; True when all have run."""
        by_status = self.sample()
        for task in by_status.get("RUNNING", ())[:1]:
            self._move(task, "RUNNING", "COMPLETED", -1)
            self.finished.add(task["task_id"]["S"])
        for task in by_status.get("SUBMITTED", ())[:2]:
            self._move(task, "SUBMITTED", "RUNNING", 1)
        self.sample()
        return len(self.finished) == CHILDREN

    def _move(self, task: dict[str, Any], before: str, after: str, change: int) -> None:
        self._world.client.transact_write_items(
            TransactItems=[
                {
                    "Update": {
                        "TableName": self._world.settings.task_table_name,
                        "Key": {"task_id": task["task_id"]},
                        "UpdateExpression": "SET #s = :after, status_created_at = :entered",
                        "ConditionExpression": "#s = :before",
                        "ExpressionAttributeNames": {"#s": "status"},
                        "ExpressionAttributeValues": {
                            ":before": {"S": before},
                            ":after": {"S": after},
                            ":entered": {"S": f"{after}#{self._world.ago(0)}"},
                        },
                    }
                },
                {
                    "Update": {
                        "TableName": self._users,
                        "Key": {"user_id": {"S": USER}},
                        "UpdateExpression": "ADD active_count :change",
                        "ExpressionAttributeValues": {":change": {"N": str(change)}},
                    }
                },
            ]
        )


def test_a_fan_out_stays_within_the_cap(endpoint: str, broker: str, tmp_path: Path) -> None:
    """Every child still gets its turn."""
    world = build_world(
        endpoint,
        SWEEP_INTERVAL_SECONDS="1",
        STRANDED_GRACE_SECONDS="0",
        SWEEP_SEGMENTS="1",
        USER_CONCURRENCY_TABLE_NAME="{prefix}-Users",
        MAX_CONCURRENT_TASKS_PER_USER=str(CAP),
    )
    celery = celery_over(world, broker, tmp_path)
    found = world.seed({f"c{number:02}": [] for number in range(CHILDREN)})
    admission = Admission(world, found)
    with celery.worker(concurrency=8), celery.beat():
        until("all fifty to have run", admission.step, timeout_seconds=200)
    assert admission.most_at_once <= CAP
    assert len(world.tasks(found)) == CHILDREN
    assert {
        row["child_status"]["S"] for key, row in world.rows(found).items() if key != "#meta"
    } <= {
        "released",
        "succeeded",
    }
