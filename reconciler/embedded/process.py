"""Servers in separate processes: starts them, waits until they are ready, and ends them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from reconciler.errors import ReconcilerError

_STOP_SECONDS = 5.0
_POLL_SECONDS = 0.05


class EmbeddedServerError(ReconcilerError, kind="embedded_server"):
    """An embedded server is unavailable or did not start."""


def free_port() -> int:
    """Return a port on loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def spawn(
    command: Sequence[str], output: BinaryIO, *, env: Mapping[str, str], cwd: Path | None
) -> subprocess.Popen[bytes]:
    """Start a process in a new session, so that Ctrl-C at a terminal does not reach it."""
    return subprocess.Popen(
        command,
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def signal_group(pid: int, number: int) -> bool:
    """Signal a spawned process and its children; False if none is left."""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


@contextlib.contextmanager
def running(
    command: Sequence[str],
    *,
    ready: Callable[[], bool],
    log: Path,
    timeout_seconds: float = 60.0,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server during the block; ``ready``: whether it answers yet.

    Raises:
        EmbeddedServerError: it ended, or did not answer in time; the message ends with its log.
    """
    with log.open("wb") as output:
        process = spawn(command, output, env={**os.environ, **(env or {})}, cwd=cwd)
    try:
        _wait(process, ready, log, timeout_seconds)
        yield process
    finally:
        stop(process)


def _wait(
    process: subprocess.Popen[bytes], ready: Callable[[], bool], log: Path, timeout_seconds: float
) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            said = log.read_text(errors="replace")[-2000:].strip()
            how = "ended" if process.poll() is not None else "did not answer in time"
            raise EmbeddedServerError(f"{process.args!r} {how}: {said}")
        time.sleep(_POLL_SECONDS)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process: terminate, wait, then kill."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def answers_http(url: str) -> bool:
    """Whether an HTTP server answers at ``url`` (``http://127.0.0.1:<port>``)."""
    host, _, port = url.removeprefix("http://").partition(":")
    return answers(host, int(port), b"GET / HTTP/1.0\r\n\r\n", b"HTTP/")


def answers(host: str, port: int, question: bytes, beginning: bytes) -> bool:
    """Whether a server answers ``question`` with an answer that begins with ``beginning``."""
    try:
        with socket.create_connection((host, port), timeout=1) as connection:
            connection.sendall(question)
            return connection.recv(len(beginning)) == beginning
    except OSError:
        return False
