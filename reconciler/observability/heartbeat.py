"""Whether a worker or a beat is alive: each writes a file now and then, and a probe reads it.

The file is written by what would stop in a process that hangs: a worker's event loop, a beat's
tick. It says nothing about the broker or the tables, since no restart would help against those.
The time in it is that of the monotonic clock, which all processes of a host share and nobody sets.

A process holds a lock on its file, which ends with it. A process id alone would not tell: that of
a worker that was killed may be another program's by now, which would look like a worker that hangs.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import tempfile
import time
from pathlib import Path

BEAT_SECONDS = 5.0
MAX_SILENCE_SECONDS = 60.0
"""A few times as long as anything that a sound process waits for: a broker's time-outs, say."""


def _directory() -> Path:
    return Path(tempfile.gettempdir()) / f"reconciler-heartbeats-{os.getuid()}"


_files: dict[int, int] = {}
"""This process's id → the descriptor of its file. One only, since closing any ends the lock."""


def beat() -> None:
    """Write that this process is alive.

    Raises:
        OSError: the directory for temporary files cannot be written.
    """
    pid = os.getpid()
    path = _directory() / str(pid)
    if pid not in _files or not path.exists():
        _files[pid] = _open(path)
    # Of one length each time, and so replaced in one step.
    os.pwrite(_files[pid], f"{time.monotonic():020.6f}".encode(), 0)


def _open(path: Path) -> int:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    # Of this process alone: the children of a worker's pool do not inherit such a lock.
    fcntl.lockf(file, fcntl.LOCK_EX)
    atexit.register(path.unlink, missing_ok=True)
    return file


def read_silences() -> dict[int, float | None]:
    """Return the workers and beats of this user on this host: process id → seconds since its beat.

    None: its file cannot be read, or is from before the host was started.
    """
    paths = _directory().glob("*") if _directory().is_dir() else ()
    found = {int(path.name): path for path in paths if path.name.isdecimal()}
    return {pid: _silence(path) for pid, path in sorted(found.items()) if _is_held(path)}


def _silence(path: Path) -> float | None:
    try:
        written = float(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    seconds = time.monotonic() - written
    return seconds if seconds >= 0 else None


def _is_held(path: Path) -> bool:
    """Tell whether the process that wrote it still runs."""
    try:
        with path.open("rb") as file:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def problem_of(silences: dict[int, float | None]) -> str | None:
    """Say why a host's processes are not well; None when each was at work lately."""
    if not silences:
        return "no worker or beat runs here"
    for pid, seconds in silences.items():
        if seconds is None:
            return f"process {pid} has not been at work since it started"
        if seconds > MAX_SILENCE_SECONDS:
            return (
                f"process {pid} has not been at work for {seconds:.0f} s; it should be "
                f"{MAX_SILENCE_SECONDS:.0f} s at most"
            )
    return None
