"""``celery -A workers …`` from the project's root, as it is typed: mistakes are one line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.processes import ROOT
from tests.support.world import World

pytestmark = pytest.mark.integration

CELERY = str(Path(sys.executable).with_name("celery"))
NOWHERE = "redis://127.0.0.1:1/0"
CALL = ["call", "reconciler.evaluate_orchestration", '--args=["orch_x"]']


def celery(
    *arguments: str, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the script itself: it must find the project in the directory that it is run in."""
    return subprocess.run(
        [CELERY, "-A", "workers", *arguments],
        env={"PATH": os.environ["PATH"], **(environment or {})},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("command", [["worker"], ["beat"], ["flower"], CALL], ids=lambda c: c[0])
def test_without_settings_it_names_each_one_that_is_missing(command: list[str]) -> None:
    done = celery(*command)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    for name in ("ORCHESTRATION_TABLE_NAME", "TASK_TABLE_NAME", "TASK_EVENTS_TABLE_NAME"):
        assert f"{name} is required" in line


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("SWEEP_INTERVAL_SECONDS", "-1"),
        ("STRANDED_GRACE_SECONDS", "86401"),
        ("SETTLE_MODE", "maybe"),
        ("MAX_CONCURRENT_TASKS_PER_USER", "0"),
        ("GUARDRAIL_ID", "alone"),
    ],
)
def test_a_setting_that_makes_no_sense_stops_it(world: World, setting: str, value: str) -> None:
    done = celery("beat", environment={**world.environment, setting: value})
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert setting in line


def test_a_call_while_the_broker_is_away_is_one_line(world: World) -> None:
    away = {"CELERY_BROKER_URL": NOWHERE, "CELERY_RESULT_BACKEND": NOWHERE}
    done = celery(*CALL, environment={**world.environment, **away})
    assert done.returncode == 2, done.stderr
    said = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert len(said) == 1, done.stderr
    assert "broker cannot be reached" in said[0]
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
