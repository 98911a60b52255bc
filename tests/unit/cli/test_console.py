"""What the console prints: in a limited encoding, on a terminal, and of untrusted text."""

from __future__ import annotations

import io
import sys
from datetime import UTC, datetime

import pytest
from rich.console import Console
from rich.progress import TextColumn
from rich.text import Text

from reconciler.cli.commands import health, sweep
from reconciler.cli.console import STAND_IN, print_json, progress, repeat, show
from reconciler.cli.main import root
from reconciler.domain.codes import STUCK_CODES
from reconciler.inspection.theme import SIGNS, Tone
from reconciler.stores.sweeps import Lease
from reconciler.sweeping.cron import CronSweep
from reconciler.sweeping.summary import SweepSummary
from tests.unit.cli.test_status import overview, state, stuck, text_of


def test_every_tone_has_its_own_ascii_sign() -> None:
    """Only a ghost is a question mark."""
    signs = {tone: sign.glyph.encode("ascii", STAND_IN) for tone, sign in SIGNS.items()}
    assert len(set(signs.values())) == len(SIGNS)
    assert [tone for tone, sign in signs.items() if sign == b"?"] == [Tone.GHOST]


def test_unknown_characters_become_question_marks() -> None:
    assert "├ ✓ a → 日…".encode("ascii", STAND_IN) == b"+ + a > ?~"
    assert "é →".encode("latin-1", STAND_IN) == "é >".encode("latin-1")


# -- a terminal


HOSTILE = "a[/b]\x1b]0;c\x07[red]"
SHOWN = "a[/b]\u241b]0;c\u2407[red]"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    found = Terminal()
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys, "stdout", found)
    monkeypatch.setattr(sys, "stderr", found)
    return found


def test_progress_escapes_control_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_terminal(monkeypatch)
    with progress(f"Reading {HOSTILE}") as shown:
        assert shown is not None
        (task,) = shown.tasks
        texts = [column for column in shown.columns if isinstance(column, TextColumn)]
        said = [str(column.render(task)) for column in texts]
    assert f"Reading {SHOWN}" in said


def test_a_watched_screen_stays_until_the_next_draw(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So does JSON, which is not printed through the console."""
    terminal = on_a_terminal(monkeypatch)

    def enough(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", enough)

    def draw(out: Console) -> int:
        show(out, "first")
        print_json({"second": 2})
        return 0

    with pytest.raises(KeyboardInterrupt):
        repeat(draw, watch=True)
    before, _, after = terminal.getvalue().rpartition("\x1b[3J")
    assert before == "\x1b[H\x1b[2J"
    assert [line.strip() for line in after.splitlines()] == ["first", "{", '"second": 2', "}"]


def test_a_command_on_a_terminal_is_not_wrapped() -> None:
    """Otherwise a shell would run only its first line."""
    out = Console(file=io.StringIO(), width=40, force_terminal=True)
    command = f"begin: reconciler unskip orch_{'0' * 32} child"
    with out.capture() as captured:
        show(out, Text("above"), Text(command, no_wrap=True, overflow="ignore"))
    assert [line.rstrip() for line in captured.get().splitlines()] == ["above", command]


def test_the_table_of_codes_fits_80_columns() -> None:
    """The meaning is folded, not the numbers."""
    found = [stuck(code, age=9 * 3600.0, name="orch_1") for code in STUCK_CODES]
    lines = text_of(state(seen=overview(*found)), 80).splitlines()
    assert all(len(line.rstrip()) <= 80 for line in lines)
    assert any(line.split() == ["code", "count", "oldest", "meaning"] for line in lines)
    assert all(any(line.split()[1:4] == [c, "1", "9h"] for line in lines) for c in STUCK_CODES)


def test_ctrl_c_during_an_import_is_an_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise RuntimeError("Error calling __set_name__") from KeyboardInterrupt()

    monkeypatch.setattr(health, "_find_covered", interrupted)
    with pytest.raises(SystemExit) as ended:
        root.main(["health"])
    assert ended.value.code == 130


# -- untrusted text


def run(*arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        root.main(list(arguments))
    assert ended.value.code == 0


def test_health_escapes_control_characters(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = health._Finding(None, f"repairs are paused since {HOSTILE}", {})
    monkeypatch.setattr(health, "_find_covered", lambda: found)
    run("health")
    assert capsys.readouterr().out == f"healthy: repairs are paused since {SHOWN}\n"


def test_a_sweep_escapes_the_lock_holders_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lease = Lease(HOSTILE, HOSTILE, datetime.now(UTC))
    aside = CronSweep(SweepSummary("inline:x", "repair", False, 0, 0.0), lease)  # noqa: FBT003
    monkeypatch.setattr(sweep, "settings_for_cli", lambda **_: None)
    monkeypatch.setattr(sweep, "reconciler_for_cli", lambda *_, **__: None)
    monkeypatch.setattr(sweep, "_swept", lambda *_: aside)
    run("sweep", "--inline")
    said = f"nothing done: {SHOWN} has been sweeping since {SHOWN} ("
    assert capsys.readouterr().out.startswith(said)
