"""``reconciler doctor`` as an operator runs it: what is printed, and how it exits."""

from __future__ import annotations

import json

import pytest

from tests.integration.cli.test_command_line import Run, run
from tests.support.world import World

__all__ = ["run"]

pytestmark = pytest.mark.integration


def test_a_first_look_without_a_broker(world: World, run: Run) -> None:
    before = world.everything()
    done = run("doctor", "--inline")
    assert done.returncode == 0, done.stdout
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("✗")] == []
    assert "nothing failed, 2 to look at" in lines[-1]  # no pipeline, and no sweep yet
    assert world.everything() == before


def test_what_failed_is_said_with_what_to_do(run: Run) -> None:
    done = run("doctor", "--json", TASK_TABLE_NAME="nowhere", CELERY_BROKER_URL="redis://[::1]:9/0")
    said = json.loads(done.stdout)
    assert (done.returncode, said["ok"], said["failures"]) == (1, False, 2)
    failed = [check for check in said["checks"] if check["level"] == "failure"]
    assert [check["check"] for check in failed] == ["tables", "broker"]
    assert all(check["advice"] for check in failed)


def test_settings_that_make_no_sense_are_code_2_and_a_line_each(run: Run) -> None:
    done = run("doctor", REPAIR_MODE="yolo", SWEEP_INTERVAL_SECONDS="-5")
    assert done.returncode == 2
    lines = [line for line in done.stdout.splitlines() if line.startswith("✗")]
    assert ["REPAIR_MODE" in lines[1], "SWEEP_INTERVAL_SECONDS" in lines[0]] == [True, True]
    assert len(lines) == 2


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "credentials"),
        ({"AWS_REGION": "", "AWS_DEFAULT_REGION": ""}, "AWS_REGION"),
    ],
)
def test_credentials_that_are_not_there(run: Run, changes: dict[str, str], named: str) -> None:
    done = run("doctor", "--inline", **changes)
    assert done.returncode == 1
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("✗"))
    assert named in line
