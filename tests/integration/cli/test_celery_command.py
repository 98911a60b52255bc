"""``celery -A workers …`` as typed in the project's root: a mistake gives one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.processes import ROOT, run_python
from tests.support.world import World

pytestmark = pytest.mark.integration

CELERY = str(Path(sys.executable).with_name("celery"))
NOWHERE = "redis://127.0.0.1:1/0"
CALL = ["call", "reconciler.evaluate_orchestration", '--args=["orch_x"]']


def celery(
    *arguments: str, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the script itself; it must find the project in its working directory."""
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
def test_celery_names_every_missing_setting(command: list[str]) -> None:
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
def test_celery_stops_at_an_invalid_setting(world: World, setting: str, value: str) -> None:
    done = celery("beat", environment={**world.environment, setting: value})
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert setting in line


def test_calling_without_a_broker_fails_in_one_line(world: World) -> None:
    away = {"CELERY_BROKER_URL": NOWHERE, "CELERY_RESULT_BACKEND": NOWHERE}
    done = celery(*CALL, environment={**world.environment, **away})
    assert done.returncode == 2, done.stderr
    said = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert len(said) == 1, done.stderr
    assert "broker cannot be reached" in said[0]
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


STOPPED = """
import os, signal, sys
left = int(sys.argv.pop())
before = signal.getsignal(signal.SIGTERM)

def stop(event, arguments):
    global left
    if event in {"import", "socket.connect"} and signal.getsignal(signal.SIGTERM) is not before:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGTERM)

sys.addaudithook(stop)
from celery.__main__ import main
main()
"""


@pytest.mark.parametrize("number", [1, 2])
def test_a_beat_stopped_while_starting_exits_cleanly(world: World, number: int) -> None:
    """The signal comes at the first or second import or connection after beat handles it."""
    done = run_python(
        *("-c", STOPPED, "-A", "workers", "beat", "--pidfile=", str(number)),
        environment={**world.environment, "CELERY_BROKER_URL": NOWHERE},
    )
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in (done.stdout + done.stderr).splitlines()]
    assert "beat: Starting..." in [line["event"] for line in said]
    assert not [line for line in said if "exception" in line]
