"""Whether a worker or a beat is alive: each writes a file now and then, and a probe reads it.

The file is written by what would stop in a process that hangs: a worker's event loop, a beat's
tick. It says nothing about the broker or the tables, since no restart would help against those.
The time in it is that of the monotonic clock, which all processes of a host share and nobody sets.
"""

from __future__ import annotations

import atexit
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

BEAT_SECONDS = 5.0
MAX_SILENCE_SECONDS = 60.0
"""A few times as long as anything that a sound process waits for: a broker's time-outs, say."""


def _directory() -> Path:
    return Path(tempfile.gettempdir()) / f"reconciler-heartbeats-{os.getuid()}"


def _path() -> Path:
    return _directory() / str(os.getpid())


def beat() -> None:
    """Write that this process is alive.

    Raises:
        OSError: the directory for temporary files cannot be written.
    """
    path = _path()
    if not path.exists():
        path.parent.mkdir(mode=0o700, exist_ok=True)
        atexit.register(forget)
    # Replaced in one step: a probe must never read half of it.
    written = path.with_suffix(".new")
    written.write_text(repr(time.monotonic()), encoding="ascii")
    written.replace(path)


def forget() -> None:
    """Remove this process's file, when it ends."""
    with suppress(OSError):
        _path().unlink(missing_ok=True)


def read_silences() -> dict[int, float | None]:
    """Return the workers and beats of this user on this host: process id → seconds since its beat.

    None: its file cannot be read, or is from before the host was started.
    """
    paths = _directory().glob("*") if _directory().is_dir() else ()
    pids = (int(path.name) for path in paths if path.name.isdecimal())
    return {pid: _silence(pid) for pid in sorted(pids) if _is_running(pid)}


def _silence(pid: int) -> float | None:
    try:
        written = float((_directory() / str(pid)).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    seconds = time.monotonic() - written
    return seconds if seconds >= 0 else None


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


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
