"""Cron mode at the command line: the lock, and what ``status`` knows without a broker."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable

import pytest
import yaml

from reconciler.clock import utc_now
from reconciler.stores.dynamodb import DynamoDB
from reconciler.stores.sweeps import SweepStore
from tests.integration.cli.test_command_line import Run, run
from tests.support.processes import run_reconciler
from tests.support.world import World

__all__ = ["run"]

pytestmark = pytest.mark.integration


def test_status_and_health_work_without_a_broker(world: World, run: Run) -> None:
    before = run("health")
    assert (before.returncode, len(before.stdout.splitlines())) == (3, 1)
    assert "no sweep without a broker is recorded either" in before.stdout
    assert "go by its exit code" in run("health", REPAIR_MODE="report").stdout
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


def test_a_second_sweep_exits_0_naming_the_holder(world: World, run: Run) -> None:
    """With ``--force`` it sweeps anyway."""
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


def listed(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [entry["sub_issue_id"] for entry in json.loads(done.stdout)["entries"]]


def test_list_shows_stuck_children_without_a_broker(world: World, run: Run) -> None:
    """It filters them, divides them into pages, and prints each format."""
    unknown = run("list")
    assert unknown.returncode == 3
    assert "`reconciler sweep --inline --report` reads the tables" in unknown.stderr
    rows = {"a": {"display_id": {"S": "ENG-42"}}}
    found = world.seed({"a": ["gone"]}, rows=rows, age=2.5 * 3600)
    world.seed({"b": ["b"]}, user="eva", age=500.0)
    run("sweep", "--inline")
    everything = run("list", "--json")
    assert (everything.returncode, listed(everything)) == (1, ["a", "b"])
    for arguments, expected in (
        (("--code", "dependency_cycle"), ["b"]),
        (("--user", "eva"), ["b"]),
        (("--older-than", "2h"), ["a"]),
        (("--limit", "1", "--offset", "1"), ["b"]),
        (("eng-42",), ["a"]),
    ):
        assert listed(run("list", *arguments, "--json")) == expected, arguments
    table = run("list").stdout
    assert re.search(rf" 2h  ■ dangling_dependency  ENG-42 +{found}", table)
    assert f"begin: reconciler inspect {found}" in table
    assert yaml.safe_load(run("list", "-o", "yaml").stdout)[0]["display_id"] == "ENG-42"
    names = run("list", "-o", "name").stdout.split()
    assert names[0] == f"{found}/a"
    shown = run("inspect", *names, "--json")
    assert [json.loads(line)["orchestration_id"] for line in shown.stdout.splitlines()] == [
        name.partition("/")[0] for name in names
    ]
    beyond = run("list", "--offset", "2")
    assert beyond.returncode == 1, "the exit code is about all matches, not about the page"
    assert "There are 2: --offset leaves out all of them." in beyond.stdout
    nothing = run("list", "--repo", "no/where")
    assert (nothing.returncode, nothing.stdout) == (0, "None of the 2 that are stuck match.\n")
    together = (("--since", "1h"), ("--recovered", "--needs-action"), ("--recovered", "--report=x"))
    for odd in together:
        refused = run("list", *odd)
        assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1), odd
    recovered = run("list", "--recovered")
    assert recovered.returncode == 2
    assert "`reconciler inspect ID` reads those of one orchestration" in recovered.stderr


def test_inspect_names_the_holders_of_slots(make_world: Callable[..., World]) -> None:
    world = make_world(USER_CONCURRENCY_TABLE_NAME="{prefix}-Users")
    users = str(world.settings.user_concurrency_table_name)
    world.put(users, {"user_id": {"S": "eva"}, "active_count": {"N": "10"}})
    busy = world.seed({"a": []}, {"a": "released"}, tasks={"a": "RUNNING"}, user="eva")
    waits = world.seed({"b": []}, user="eva", age=900.0)
    done = run_reconciler("inspect", waits, environment=world.environment)
    assert done.returncode == 0, "waiting for a slot is no failure"
    text = " ".join(done.stdout.split())
    assert "of 10 slots, 10 are taken by admitted tasks and 0 by tasks on their way" in text
    (task,) = world.tasks(busy, "a")
    assert re.search(rf"by task {task['task_id']['S']}, RUNNING since 20", text)
