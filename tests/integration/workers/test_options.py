"""Celery's settings fit each other: trap 14, and misspelt options."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.hosts import Fleet
from workers.messages import MAX_RETRIES
from workers.names import EVALUATE, RELEASE, SEGMENT, SWEEP
from workers.running import retry_pause

pytestmark = [pytest.mark.integration, pytest.mark.workers]

STOP_TIMEOUT_SECONDS = 90
"""The time that the deployments give a worker to stop (``docs/design.md``)."""

ASK = """
import json
from workers import app
import workers.tasks
names = ("acks_late", "max_retries", "default_retry_delay", "ignore_result", "time_limit",
         "soft_time_limit", "reject_on_worker_lost", "retry_on_worker_lost", "store_errors")
tasks = {n: {a: getattr(t, a, None) for a in names} for n, t in app.tasks.items()
         if n.startswith("reconciler.")}
conf = {n: app.conf[n] for n in ("broker_transport_options", "result_backend_transport_options",
        "task_time_limit", "task_soft_time_limit", "accept_content", "worker_prefetch_multiplier",
        "worker_cancel_long_running_tasks_on_connection_loss", "broker_connection_max_retries")}
print(json.dumps({"tasks": tasks, "conf": conf}))
"""


@pytest.fixture
def known(fleet: Fleet) -> dict[str, Any]:
    """Celery's own view of the settings and of each task's options."""
    found: dict[str, Any] = json.loads(fleet.run(ASK))
    return found


def test_every_wait_fits_the_visibility_timeout(known: dict[str, Any]) -> None:
    """Trap 14: Whatever waits or runs for longer than that would be delivered twice."""
    conf, tasks = known["conf"], known["tasks"]
    visible = conf["broker_transport_options"]["visibility_timeout"]
    assert conf["result_backend_transport_options"]["visibility_timeout"] == visible
    limit = conf["task_time_limit"]
    pauses = [retry_pause(retries) for retries in range(MAX_RETRIES + 1)]
    # A task waits and then runs before its message is acknowledged.
    assert max(pauses) + limit < visible
    assert conf["task_soft_time_limit"] < limit < STOP_TIMEOUT_SECONDS < visible
    for name, options in tasks.items():
        assert options["default_retry_delay"] + options["time_limit"] < visible, name
        assert options["soft_time_limit"] < options["time_limit"] <= limit, name


def test_every_task_has_its_intended_options(known: dict[str, Any]) -> None:
    assert set(known["tasks"]) == {SWEEP, SEGMENT, EVALUATE, RELEASE}
    for name, options in known["tasks"].items():
        assert options["acks_late"] is True, name
        assert options["max_retries"] == MAX_RETRIES, name
        assert options["retry_on_worker_lost"] is True, name
        assert not options["reject_on_worker_lost"], name
        assert options["ignore_result"] is (name != SWEEP), name
    assert known["conf"]["accept_content"] == ["json"]
    assert known["conf"]["worker_prefetch_multiplier"] == 1
    assert known["conf"]["broker_connection_max_retries"] is None
    assert known["conf"]["worker_cancel_long_running_tasks_on_connection_loss"] is False
