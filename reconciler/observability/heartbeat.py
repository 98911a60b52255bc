"""Heartbeats: each worker and beat writes a file regularly, and a probe reads it.

A worker's event loop or a beat's tick writes the file, so it stops if the process hangs. It says
nothing about the broker or the tables, because a restart would not help there. It holds the time of
the monotonic clock, which all processes of a host share.

A process holds a lock on its file until it ends. Its process id alone would not show whether it
runs: after a kill, another program may get the same id, and would look like a hanging worker.
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
"""Several times longer than anything a healthy process waits for, such as a broker's timeout."""


def _directory() -> Path:
    return Path(tempfile.gettempdir()) / f"reconciler-heartbeats-{os.getuid()}"


_files: dict[int, int] = {}
"""Own process id → file descriptor. Only one, because closing any descriptor ends the lock."""


def beat() -> None:
    """Write the heartbeat of this process.

    Raises:
        OSError: the directory for temporary files cannot be written, or another container's
            process has the same file.
    """
    pid = os.getpid()
    path = _directory() / str(pid)
    if pid not in _files or not path.exists():
        _files[pid] = _open(path)
    # Always the same length, so that it is replaced in one step.
    os.pwrite(_files[pid], f"{time.monotonic():020.6f}".encode(), 0)


def _open(path: Path) -> int:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        # The children of a worker's pool do not inherit this lock. Never wait for it: containers
        # that share the directory may have the same process id.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        raise
    atexit.register(path.unlink, missing_ok=True)
    return file


def read_silences() -> dict[int, float | None]:
    """Return process id → seconds since its beat, for this user's workers and beats on this host.

    None: the file cannot be read, or is from before the host's start.
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
    """Whether the process that wrote it still runs."""
    try:
        with path.open("rb") as file:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def problem_of(silences: dict[int, float | None]) -> str | None:
    """Return why a host's processes are unhealthy; None if each has beaten recently."""
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
