"""The demo as a process: Ctrl-C at its start ends it, says so, and leaves nothing running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import ROOT, until

pytestmark = [pytest.mark.integration, pytest.mark.workers]


def running_under(directory: str) -> list[str]:
    """Return the command lines of all processes whose output goes to a file in there."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and directory in str((entry / "fd" / "1").readlink()):
                found.append((entry / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


@pytest.fixture
def heeds_ctrl_c() -> Iterator[None]:
    """Restore Ctrl-C, which a shell disables for whatever it starts in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeds_ctrl_c")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_ctrl_c_ends_everything(number: signal.Signals, tmp_path: Path) -> None:
    theirs = {"AWS_PROFILE": "none", "SWEEP_INTERVAL_SECONDS": "no number", "FLOWER_PORT": "1"}
    demo = subprocess.Popen(
        [sys.executable, "-P", "-m", "reconciler.cli.main", "demo", "--quick"],
        env={**os.environ, **theirs, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until("its processes to run", lambda: len(running_under(str(tmp_path))) >= 5)
    demo.send_signal(number)
    said, complained = demo.communicate(timeout=120)
    assert demo.returncode == 130
    assert "Ctrl-C ends the demo, and everything that it has started." in said
    assert complained.strip() == "interrupted: everything that the demo had started has ended"
    assert running_under(str(tmp_path)) == []
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"
