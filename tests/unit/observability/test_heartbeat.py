"""The heartbeat of a worker or a beat, as a container's probe reads it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from reconciler.observability import heartbeat
from reconciler.observability.heartbeat import MAX_SILENCE_SECONDS, beat, problem_of, read_silences


@pytest.fixture(autouse=True)
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "heartbeats"
    monkeypatch.setattr(heartbeat, "_directory", lambda: directory)
    return directory


def test_a_process_that_beats_is_well() -> None:
    beat()
    silences = read_silences()
    assert list(silences) == [os.getpid()]
    assert problem_of(silences) is None


def test_where_nothing_runs_nothing_is_well() -> None:
    assert problem_of(read_silences()) == "no worker or beat runs here"


def test_a_process_that_fell_silent_is_not_well(monkeypatch: pytest.MonkeyPatch) -> None:
    beat()
    later = time.monotonic() + MAX_SILENCE_SECONDS + 1
    monkeypatch.setattr("time.monotonic", lambda: later)
    assert "has not been at work for" in (problem_of(read_silences()) or "")


@pytest.mark.parametrize("written", ["", "soon", "1e300"])
def test_a_beat_that_makes_no_sense_is_none(own_directory: Path, written: str) -> None:
    """Of another boot, or cut: a time ahead of now is never fresh."""
    beat()
    (own_directory / str(os.getpid())).write_text(written)
    assert read_silences() == {os.getpid(): None}
    assert "since it started" in (problem_of(read_silences()) or "")


def test_a_process_that_is_gone_is_left_out(own_directory: Path) -> None:
    own_directory.mkdir()
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    (own_directory / str(child)).write_text("1.0")
    assert read_silences() == {}


def test_one_silent_process_is_enough() -> None:
    assert problem_of({1: 2.0, 2: MAX_SILENCE_SECONDS + 1}) is not None
    assert problem_of({1: 2.0, 2: 3.0}) is None
