"""The original report, on real worker processes."""

from __future__ import annotations

import json

import pytest

from reconciler.settings import DAY_SECONDS
from tests.support.processes import Celery, run_reconciler, until
from tests.support.world import REPO
from workers.recoveries import Recoveries

pytestmark = [pytest.mark.integration, pytest.mark.workers]


def test_sweeps_release_a_stranded_dependent_once(celery: Celery) -> None:
    """The live reconciler is down when the predecessor completes."""
    world = celery.world
    found = world.seed({"a": [], "b": ["a"]}, {"a": "released"}, tasks={"a": "RUNNING"})
    (running,) = world.tasks(found, "a")
    with celery.worker(), celery.beat("beat-1"), celery.beat("beat-2"):
        until("a first complete sweep", lambda: celery.last(complete=True))
        assert world.statuses(found) == {"a": "released", "b": "blocked"}
        # No live reconciler runs, so nobody hears of this.
        world.finish(running["task_id"]["S"], age=0)
        until("b to be released", lambda: world.statuses(found)["b"] == "released")
        (task,) = world.tasks(found, "b")
        settled = world.everything()
        ended = celery.last()
        until(
            "two more sweeps",
            lambda: (celery.last() or {})["ended_at"] > (ended or {})["ended_at"] + 3,
        )
        assert world.everything() == settled
    assert task["reconciler_sweep_id"]["S"].startswith("sweep:")
    latency = Recoveries(celery.redis, celery.world.settings.deployment_id).list_last(DAY_SECONDS)
    assert {entry["code"] for entry in latency} == {"lost_terminal", "lost_release"}


def test_an_evaluation_by_hand_shows_in_list_recovered(celery: Celery) -> None:
    """Asking three times makes one task; the filters of `list` narrow what is shown."""
    world = celery.world
    rows = {"b": {"display_id": {"S": "ENG-42"}}}
    found = world.seed(
        {"a": [], "b": ["a"]}, {"a": "released"}, tasks={"a": "COMPLETED"}, rows=rows, user="eva"
    )
    with celery.worker():
        for _ in range(3):
            celery.call("reconciler.evaluate_orchestration", found)
        until("b to be released", lambda: world.statuses(found)["b"] == "released")
    assert len(world.tasks(found, "b")) == 1

    def recovered(*narrowed: str) -> list[str]:
        options = ("list", "--recovered", *narrowed, "--json")
        done = run_reconciler(*options, environment=celery.environment)
        assert done.returncode == 0, done.stderr
        entries = json.loads(done.stdout)["entries"]
        assert all(entry["orchestration_id"] == found for entry in entries)
        return [entry["sub_issue_id"] for entry in entries]

    until("both repairs to be remembered", lambda: recovered() == ["b", "a"])
    assert recovered("--code", "lost_terminal") == ["a"]
    assert recovered("eng-42") == ["b"]
    assert recovered("--user", "eva", "--repo", REPO, "--limit", "1", "--offset", "1") == ["a"]
    assert recovered("--user", "ann") == recovered("--older-than", "1d") == []
