"""The heartbeat of a worker or a beat, as a container's probe reads it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from reconciler.observability import heartbeat
from reconciler.observability.heartbeat import MAX_SILENCE_SECONDS, problem_of, read_silences

PROGRAM = """
from reconciler.observability import heartbeat
heartbeat.beat()
print("beats", flush=True)
input()
"""

Start = Callable[[], "subprocess.Popen[str]"]


@pytest.fixture(autouse=True)
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return heartbeat._directory()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a process that beats once, and lives until the test ends or its input does."""
    with ExitStack() as stack:

        def start() -> subprocess.Popen[str]:
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", PROGRAM],
                    env={"TMPDIR": str(tmp_path)},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == "beats\n"
            return process

        yield start


def test_a_beating_process_is_healthy(start: Start) -> None:
    process = start()
    for _ in range(2):  # reading does not take the process's lock away
        silences = read_silences()
        assert list(silences) == [process.pid]
        assert problem_of(silences) is None


def test_an_ended_process_leaves_no_file(start: Start, own_directory: Path) -> None:
    process = start()
    process.communicate("end\n")
    assert list(own_directory.iterdir()) == []


def test_a_host_without_processes_is_unhealthy() -> None:
    assert problem_of(read_silences()) == "no worker or beat runs here"


def test_a_silent_process_is_unhealthy(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    start()
    later = time.monotonic() + MAX_SILENCE_SECONDS + 1
    monkeypatch.setattr("time.monotonic", lambda: later)
    assert "has not been at work for" in (problem_of(read_silences()) or "")


@pytest.mark.parametrize("written", ["", "soon", "1e300"])
def test_a_malformed_beat_counts_as_none(start: Start, own_directory: Path, written: str) -> None:
    """It is from another boot, or it was cut off: a time in the future is never fresh."""
    process = start()
    (own_directory / str(process.pid)).write_text(written)
    assert read_silences() == {process.pid: None}
    assert "since it started" in (problem_of(read_silences()) or "")


def test_a_killed_process_is_left_out(start: Start, own_directory: Path) -> None:
    process = start()
    process.kill()
    process.wait()
    assert [path.name for path in own_directory.iterdir()] == [str(process.pid)]
    assert read_silences() == {}


def test_a_reused_process_id_is_left_out(start: Start, own_directory: Path) -> None:
    """A probe that goes by process ids alone would report a healthy host as unhealthy."""
    worker, another = start(), start()
    worker.kill()
    worker.wait()
    (own_directory / str(worker.pid)).rename(own_directory / str(another.pid))
    assert read_silences() == {}


def test_a_held_file_does_not_stop_a_process(
    start: Start, own_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Containers that share a directory may have the same process id."""
    process = start()
    monkeypatch.setattr("os.getpid", lambda: process.pid)
    with pytest.raises(OSError, match="unavailable"):
        heartbeat.beat()
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match="unavailable"):
        heartbeat.beat()
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    assert (own_directory / str(process.pid)).exists()


def test_one_silent_process_makes_the_host_unhealthy() -> None:
    assert problem_of({1: 2.0, 2: MAX_SILENCE_SECONDS + 1}) is not None
    assert problem_of({1: 2.0, 2: 3.0}) is None
