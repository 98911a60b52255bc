"""``reconciler doctor`` as an operator runs it: its output and its exit codes."""

from __future__ import annotations

import json

import pytest

from tests.integration.cli.test_command_line import Run, run
from tests.support.world import World

__all__ = ["run"]

pytestmark = pytest.mark.integration


def test_an_inline_doctor_passes_and_writes_nothing(world: World, run: Run) -> None:
    before = world.everything()
    done = run("doctor", "--inline")
    assert done.returncode == 0, done.stdout
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("✗")] == []
    assert "nothing failed, 2 to look at" in lines[-1]  # no pipeline, and no sweep yet
    assert world.everything() == before


def test_each_failure_comes_with_advice(run: Run) -> None:
    done = run("doctor", "--json", TASK_TABLE_NAME="nowhere", CELERY_BROKER_URL="redis://[::1]:9/0")
    said = json.loads(done.stdout)
    assert (done.returncode, said["ok"], said["failures"]) == (1, False, 2)
    failed = [check for check in said["checks"] if check["level"] == "failure"]
    assert [check["check"] for check in failed] == ["tables", "broker"]
    assert all(check["advice"] for check in failed)


def test_doctor_exits_2_listing_each_invalid_setting(run: Run) -> None:
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
def test_doctor_names_missing_credentials_or_region(
    run: Run, changes: dict[str, str], named: str
) -> None:
    done = run("doctor", "--inline", **changes)
    assert done.returncode == 1
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("✗"))
    assert named in line


def test_doctor_reports_an_unknown_profile_as_json(run: Run) -> None:
    done = run("doctor", "--json", AWS_PROFILE="none")
    assert done.returncode == 2
    (check,) = json.loads(done.stdout)["checks"]
    assert (check["subject"], "AWS_PROFILE" in check["found"]) == ("AWS", True)
