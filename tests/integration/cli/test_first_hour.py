"""The commands of ``docs/first-hour.md`` run as the page shows them.

These tests stop before the workers; ``make transcript`` runs all of the page.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest

from docs.transcript import FIRST_HOUR, STAYS, Normaliser, first_hour, perform, shell
from reconciler.embedded.process import EmbeddedServerError
from tests.support.local import playground
from tests.support.processes import ROOT

pytestmark = pytest.mark.integration
WORKERS = "### With workers and Flower"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A directory like the project's root, with its own ``.venv`` and ``.cache``."""
    for name in ("reconciler", "workers", "celeryconfig.py", "flowerconfig.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    command = programs / "reconciler"
    command.write_text(
        f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m reconciler.cli.main "$@"\n',
        encoding="utf-8",
    )
    command.chmod(0o755)
    (programs / "activate").write_text(f"PATH={programs}:$PATH\n", encoding="utf-8")
    return tmp_path


def test_the_commands_before_the_workers_succeed(clone: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(clone), "PYTHONPATH": str(ROOT)}
    printed: dict[str, str] = {}
    try:
        with (
            playground(clone / ".cache" / "local.env"),
            shell(clone, environment) as held,
        ):
            for each in first_hour(before=WORKERS):
                if each.text not in STAYS:  # `make local` is the playground
                    printed[each.text] = "\n".join(perform(held, each.text))
    except EmbeddedServerError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    assert "✗" not in printed["reconciler doctor"]
    assert "2 advanced, 3 released" in printed["reconciler sweep --inline --report"]
    little = printed["REPAIR_ONLY_REPOS=acme/sandbox reconciler sweep --inline"]
    assert "repaired  1 released, 1 advanced" in little
    assert "repaired  2 released, 1 advanced" in printed["reconciler sweep --inline"]
    assert "ENG-101" in printed["reconciler inspect ENG-101"]
    assert not (clone / ".cache" / "local.env").exists()


def test_a_failing_command_ends_the_recording(tmp_path: Path) -> None:
    with shell(tmp_path, {"PATH": os.environ["PATH"]}) as held:
        assert perform(held, "cd /; pwd") == ["/"]
        assert perform(held, "pwd") == ["/"]
        with pytest.raises(Exception, match="ended with 3"):
            perform(held, "(exit 3)")


def test_the_shell_waits_for_its_children(tmp_path: Path) -> None:
    """The child here needs a second to end."""
    slow = "import signal, sys, time; signal.signal(15, lambda *_: (time.sleep(1), sys.exit()))"
    waits = f"{slow}; print(1, file=open('there', 'w')); signal.pause()"
    with shell(tmp_path, {"PATH": os.environ["PATH"]}) as held:
        held.stay(f'{shlex.quote(sys.executable)} -c "{waits}" & wait', tmp_path / "there")
        (stayed,) = held._stays
    with pytest.raises(ProcessLookupError):
        os.killpg(stayed.pid, 0)


def test_the_transcript_replaces_varying_ids_and_times(tmp_path: Path) -> None:
    normaliser = Normaliser(tmp_path)
    orchestration = "orch_f0ebb94491760b67da177eced96fee4e"
    said = normaliser.lines(
        [
            f"{orchestration} {orchestration} orch_{'1' * 32}",
            f"{tmp_path}/x at 2026-11-25 02:48:53, task 01M8867ZYED1EHV09CGH2Z2NYT",
            '{"sweep_id": "x", "event": "orch.sweep.started"}',
        ]
    )
    assert said == [
        f"orch_{1:032x} orch_{1:032x} orch_{2:032x}",
        f"~/reconciler/x at 2026-01-01 12:00:00, task 01{3:024d}",
    ]


def test_the_page_shows_the_steps_in_order() -> None:
    text = FIRST_HOUR.read_text(encoding="utf-8")
    steps = ["reconciler doctor", "--inline --report", "REPAIR_ONLY_REPOS", "sweep --inline\n"]
    places = [text.index(step) for step in steps]
    assert places == sorted(places)
