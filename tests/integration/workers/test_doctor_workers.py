"""The doctor and real workers: which ones answer, their versions and their queues."""

from __future__ import annotations

import json

import celery as celery_app
import pytest

from reconciler.doctor.findings import Level
from reconciler.doctor.workers import judge_deployments, judge_workers
from reconciler.version import describe
from tests.conftest import Servers
from tests.support.processes import Celery, run_reconciler, until
from tests.support.world import World
from workers.about import count_processes, whereabouts

pytestmark = [pytest.mark.integration, pytest.mark.workers]


@pytest.fixture
def endpoint(servers: Servers) -> str:
    """One endpoint is enough: this is about the workers."""
    return servers.endpoint("moto")


def test_the_doctor_finds_a_worker_and_its_version(celery: Celery) -> None:
    tables = celery.world.settings.main_tables
    with celery.worker():
        done = run_reconciler("doctor", "--json", environment=celery.environment)
        asking = celery_app.Celery(broker=f"{celery.broker}/0")
        processes = until("the worker to answer", lambda: count_processes(asking, tables, 2.0))
        asking.close()
    assert processes == 2
    assert done.returncode == 0, done.stdout + done.stderr
    checks = {
        check["subject"]: check
        for check in json.loads(done.stdout)["checks"]
        if check["check"] == "workers"
    }
    assert "w1@" in checks["alive"]["found"]
    assert checks["version"]["found"] == f"all are {describe()}"
    assert checks["queues"]["level"] == "ok"
    assert checks["sweeps"]["level"] == "warning"


def test_the_doctor_names_workers_of_other_tables() -> None:
    """Two deployments share a broker, or a roll-out changes table names."""
    here = {"tables": ["o", "t", "e"], "region": "eu-west-1", "endpoint": None}
    said = {
        "abroad": {**here, "region": "us-east-1"},
        "old": {},
        "ours": here,
        "theirs": {**here, "tables": ["o2", "t", "e"]},
    }
    abroad, theirs = judge_deployments(said, here)
    assert (theirs.level, abroad.level) == (Level.FAILURE, Level.WARNING)
    assert theirs.found == "theirs works on o2, t, e; it drops what is asked here"
    assert abroad.found == "abroad has us-east-1, and here it is eu-west-1"
    assert "CELERY_BROKER_URL" in theirs.advice


def test_whereabouts_go_by_aws_region(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3 by itself ignores AWS_REGION, so two regions would look like one."""
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert whereabouts(world.settings)["region"] == "eu-west-1"


def test_the_doctor_judges_the_workers_answers() -> None:
    queues = ("sweep", "release")
    all_of_them = {"version": "2", "queues": ["sweep", "release"]}
    part = {"version": "2", "queues": ["sweep"]}
    cases = [
        ({}, {"alive": Level.WARNING}),
        ({"a": all_of_them, "b": part}, dict.fromkeys(("alive", "version", "queues"), Level.OK)),
        ({"a": part}, {"alive": Level.OK, "version": Level.OK, "queues": Level.FAILURE}),
        ({"a": all_of_them, "b": {"version": "1"}}, {"version": Level.WARNING}),
        # An older worker that does not know the question: its queues are unknown too.
        ({"a": {"error": "KeyError"}}, {"alive": Level.OK, "version": Level.WARNING}),
    ]
    for said, expected in cases:
        found = {f.subject: f.level for f in judge_workers(said, queues, "2")}  # type: ignore[arg-type]
        assert expected.items() <= found.items()
