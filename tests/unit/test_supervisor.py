"""The supervisor keeps processes running and quotes the last words of an unexpected exit."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event

from reconciler.demo.processes import Child
from tests.support.supervisor import KillingSupervisor

PATIENCE = 30.0
ONCE = """
import pathlib, sys, time
mark = pathlib.Path(sys.argv[1])
if not mark.exists():
    mark.touch()
    sys.exit("something odd")
time.sleep(60)
"""


def until(what: Callable[[], bool]) -> None:
    for _ in range(int(PATIENCE / 0.05)):
        if what():
            return
        Event().wait(0.05)
    raise AssertionError("the condition did not come true in time")


def is_running(child: Child) -> bool:
    return child.process is not None and child.process.poll() is None


def pid_of(child: Child) -> int | None:
    return child.process.pid if child.process is not None else None


def test_only_an_unexpected_exit_is_counted_and_quoted(tmp_path: Path) -> None:
    supervisor = KillingSupervisor(tmp_path)
    try:
        command = [sys.executable, "-c", ONCE, str(tmp_path / "mark")]
        supervisor.start("odd", command, dict(os.environ))
        child = supervisor.children["odd"]
        until(lambda: bool(supervisor.last_words) and is_running(child))
        first = pid_of(child)
        supervisor.kill("odd")
        until(lambda: pid_of(child) != first)
        assert supervisor.restarts == 1
        (said,) = supervisor.last_words
        assert said.startswith("odd, code 1:")
        assert said.endswith("something odd")
    finally:
        supervisor.stop()
