"""Runs ``reconciler …`` and ``celery …`` as processes forked from one that has imported them.

Imports take four fifths of a command's CPU time. Such a process has its own environment, directory,
output and exit code, and ends as any Python process does.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import closing
from functools import cache
from importlib import import_module
from pathlib import Path
from subprocess import CompletedProcess
from typing import IO, Any

_ROOT = Path(__file__).parents[2]
MAINS = {"reconciler": "reconciler.cli.main", "celery": "celery.__main__"}
"""Command → the module whose ``main`` it calls."""

IMPORTED = (
    *MAINS.values(),
    *(
        f"reconciler.cli.commands.{path.stem}"
        for path in _ROOT.glob("reconciler/cli/commands/[a-z]*.py")
    ),
    "boto3",
    "celery.app.control",
    "celery.backends.redis",
    "celery.bin.celery",
    "kombu.transport.redis",
    "reconciler.composition",
    "reconciler.doctor.examine",
    "structlog",
)
"""Modules that read no setting when they are imported."""

_CHUNK_BYTES = 1 << 16


def run_command(
    name: str, *arguments: str, environment: Mapping[str, str], timeout_seconds: float = 120.0
) -> CompletedProcess[str]:
    """Run a command of ``MAINS`` from the project's root, with only this environment.

    Raises:
        subprocess.TimeoutExpired: it took too long, and was killed.
    """
    assert not [read for read in environment if read.startswith(("PYTHON", "LD_"))], "too late"
    with (
        closing(_server().connect()) as connection,
        tempfile.TemporaryFile() as output,
        tempfile.TemporaryFile() as errors,
    ):
        connection.settimeout(timeout_seconds)
        request = json.dumps([name, arguments, dict(environment)]).encode()
        # A long request is sent in parts, and only the first can carry the files.
        socket.send_fds(connection, [b" "], [output.fileno(), errors.fileno()])
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("r") as answers:
            pid = int(answers.readline())
            try:
                code = int(answers.readline())
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired([name, *arguments], timeout_seconds) from None
        return CompletedProcess([name, *arguments], code, _text_of(output), _text_of(errors))


def _text_of(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


class _Server:
    """The process that forks; it ends with this one, whose pipe it watches."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory()
        self._path = f"{self._directory.name}/socket"
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, self._path],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for pytest
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self._path)
        return connection


_server = cache(_Server)


# -- in the process that forks


def serve(path: str) -> tuple[str, list[str]] | None:
    """Fork for each request; returns in each forked process, with its command and arguments.

    Returns None when the parent process has ended.
    """
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait
    os.write(1, b"ready\n")
    while True:
        ready, _, _ = select.select([listener.fileno(), 0], [], [])
        if 0 in ready:
            return None
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            return _fork_and_wait(connection)
        connection.close()


def _fork_and_wait(connection: socket.socket) -> tuple[str, list[str]]:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request, files, *_ = socket.recv_fds(connection, _CHUNK_BYTES, 2)
    while more := connection.recv(_CHUNK_BYTES):
        request += more
    pid = os.fork()
    if pid:
        connection.sendall(f"{pid}\n".encode())
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        connection.sendall(f"{code}\n".encode())
        os._exit(0)
    connection.close()
    name, arguments, environment = json.loads(request)
    for number, file in enumerate([os.open(os.devnull, os.O_RDONLY), *files]):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    return name, arguments


def main() -> Any:
    """Serve, and run the command in each forked process."""
    for module in IMPORTED:
        import_module(module)
    gc.freeze()  # otherwise each process would copy all of this memory when it collects garbage
    request = serve(sys.argv[1])
    if request is None:
        return None
    name, arguments = request
    sys.argv = [name, *arguments]
    return import_module(MAINS[name]).main()


if __name__ == "__main__":
    sys.exit(main())
