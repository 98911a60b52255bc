"""Record one message of each task, as this version puts it on the broker.

    python -m tests.support.record_messages

This writes or replaces ``tests/data/messages/<version>.json``. The recordings of earlier versions
stay as they are: ``test_message_versions.py`` checks that the present code understands them.
"""

from __future__ import annotations

import json
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from reconciler.settings import load_settings
from tests.support.broker import broker_of_its_own
from tests.support.hosts import Fleet
from tests.support.processes import ROOT, Celery
from tests.support.world import World, make_client
from workers.names import RELEASE_QUEUE, SWEEP_QUEUE

RECORDED = ROOT / "tests" / "data" / "messages"
ORCHESTRATION = "orch_" + 32 * "0"
CHILD = "b"
SWEEP_ID = "sweep:7"

PUBLISH = f"""
from datetime import UTC, datetime
from redis import Redis
from workers import app
from workers.enqueue import Enqueuer
from workers.dedup import DedupKeys
from reconciler.settings import load_settings
from reconciler.observability.metrics import NULL_METRICS
from reconciler.repair.context import ReleaseRequest
from reconciler.sweeping.segments import Scope
from reconciler.sweeping.segments import Segment
from reconciler.sweeping.sender import SegmentTask
settings = load_settings()
dedup = DedupKeys(Redis.from_url(app.conf.broker_url), settings.deployment_id)
sender = Enqueuer(app, dedup, NULL_METRICS, settings)
sender.sweep()
sender.segment(SegmentTask(Segment(Scope.TABLE, 0, 1), {SWEEP_ID!r}, 1.5))
sender.evaluate({ORCHESTRATION!r}, {SWEEP_ID!r}, 1.5)
sender.release([ReleaseRequest(
    orchestration_id={ORCHESTRATION!r}, sub_issue_id={CHILD!r}, depends_on=("a",),
    idempotency_key={f"{ORCHESTRATION}_{CHILD}"!r}, sweep_id={SWEEP_ID!r}, alone=True,
    due_since=datetime(2026, 6, 9, 12, tzinfo=UTC))])
"""


def sent_by(fleet: Fleet) -> dict[str, dict[str, Any]]:
    """Return the messages that the present code sends: task → the message in the queue."""
    broker = fleet.celery.redis
    fleet.run(PUBLISH)
    found: dict[str, dict[str, Any]] = {}
    for queue in (SWEEP_QUEUE, RELEASE_QUEUE):
        lying: Any = broker.lrange(queue, 0, -1)
        for raw in lying:
            message = json.loads(raw)
            found[message["headers"]["task"]] = message
        broker.delete(queue)
    return dict(sorted(found.items()))


def version() -> str:
    """Return the version in the project file."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return str(project["project"]["version"])


def main() -> None:
    """Record the messages."""
    tables = {
        "ORCHESTRATION_TABLE_NAME": "Orchestration",
        "TASK_TABLE_NAME": "Task",
        "TASK_EVENTS_TABLE_NAME": "TaskEvents",
    }
    nowhere = "http://127.0.0.1:9"  # nothing is read or written to send a message
    world = World(nowhere, make_client(nowhere), load_settings(tables))
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        with broker_of_its_own(directory / "broker") as broker:
            found = sent_by(Fleet(Celery(world, broker.url, directory)))
    for message in found.values():
        message["headers"]["origin"] = "recorded"
    RECORDED.mkdir(parents=True, exist_ok=True)
    path = RECORDED / f"{version()}.json"
    path.write_text(json.dumps(found, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
