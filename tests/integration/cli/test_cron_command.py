"""Cron mode at the command line: stepping aside, and what ``status`` knows without a broker."""

from __future__ import annotations

import json

import pytest

from reconciler.clock import utc_now
from reconciler.stores.dynamodb import DynamoDB
from reconciler.stores.sweeps import SweepStore
from tests.integration.cli.test_command_line import Run, run
from tests.support.world import World

__all__ = ["run"]

pytestmark = pytest.mark.integration


def test_status_and_health_without_a_broker(world: World, run: Run) -> None:
    before = run("health")
    assert (before.returncode, len(before.stdout.splitlines())) == (3, 1)
    stuck = world.seed({"a": ["gone"]})
    world.seed({"a": []})
    assert run("sweep", "--inline").returncode == 1
    assert run("health").returncode == 0
    done = run("status", "--json")
    said = json.loads(done.stdout)
    assert done.returncode == 1  # something is stuck
    assert (said["healthy"], said["without_broker"], said["workers"]) == (True, True, None)
    assert said["last_sweep"]["released"] == 1
    assert [entry["orchestration_id"] for entry in said["oldest"]] == [stuck]
    shown = run("status").stdout
    assert "alive" in shown
    assert "1 by the last sweep" in shown


def test_a_second_sweep_steps_aside_with_a_word_and_code_0(world: World, run: Run) -> None:
    found = world.seed({"a": []})
    store = SweepStore(DynamoDB(world.client), world.settings.orchestration_table_name)
    store.take("nonce", "ann at host-1", utc_now())
    done = run("sweep", "--inline")
    assert (done.returncode, world.statuses(found)) == (0, {"a": "blocked"})
    assert done.stdout.startswith("nothing done: ann at host-1")
    said = json.loads(run("sweep", "--inline", "--json").stdout)
    assert (said["complete"], said["stepped_aside"]["holder"]) == (False, "ann at host-1")
    assert run("sweep", "--inline", "--force").returncode == 0
    assert world.statuses(found) == {"a": "released"}
