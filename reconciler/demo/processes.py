"""Supervised child processes: started, restarted when they exit, and ended by their ids."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reconciler.embedded.process import signal_group, spawn
from reconciler.errors import ReconcilerError

_LOOK_EVERY_SECONDS = 0.3
_STOP_SECONDS = 8.0
MAX_RESTARTS = 5
_TAIL_LINES = 8


class DemoFailedError(ReconcilerError, kind="demo"):
    """The demo failed; the message says why."""


@dataclass(slots=True)
class Child:
    """One supervised process; ``restarts`` counts its exits."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    restarts: int = 0

    def start(self, directory: Path) -> None:
        """Start it; its output is appended to its log."""
        with self.log.open("ab") as log:
            self.process = spawn(self.argv, log, env=self.env, cwd=directory)

    def tail(self) -> str:
        """Return the last lines of its output."""
        written = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(written.splitlines()[-_TAIL_LINES:])


@dataclass(slots=True)
class Supervisor:
    """Keeps processes running until ``stop``; logs and working files go to ``directory``."""

    directory: Path
    children: dict[str, Child] = field(default_factory=dict)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _thread: threading.Thread | None = None

    def start(self, name: str, argv: Sequence[str], env: Mapping[str, str]) -> None:
        """Start and supervise a process; its output goes to ``<name>.log``.

        A thread starts it, because Ctrl-C interrupts only the main thread, and so cannot come
        between the start of a process and the record of its id.
        """
        with self._lock:
            self.children[name] = Child(name, argv, env, self.directory / f"{name}.log")
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)
            self._thread.start()

    @property
    def restarts(self) -> int:
        """The number of exits of all processes."""
        return sum(child.restarts for child in self.children.values())

    def check(self) -> None:
        """Check that all processes stay up.

        Raises:
            DemoFailedError: a process exited more than a few times.
        """
        for child in self.children.values():
            if child.restarts > MAX_RESTARTS:
                raise DemoFailedError(
                    f"{child.name} keeps exiting; the last lines of {child.log}:\n{child.tail()}"
                )

    def stop(self) -> None:
        """End all processes, newest first: terminate, wait, then kill. Safe to call twice."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            running = [
                child.process
                for child in reversed(self.children.values())
                if child.process is not None
            ]
        for process in running:
            if process.poll() is None:
                signal_group(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        for process in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            # Its children may have outlived it.
            signal_group(process.pid, signal.SIGKILL)
            process.wait()

    def _watch(self) -> None:
        while not self._stopping.is_set():
            with self._lock:
                for child in self.children.values():
                    self._look_after(child)
            self._stopping.wait(_LOOK_EVERY_SECONDS)

    def _look_after(self, child: Child) -> None:
        process = child.process
        if process is None:
            child.start(self.directory)
        elif process.poll() is not None and child.restarts <= MAX_RESTARTS:
            # Its children may have outlived it.
            signal_group(process.pid, signal.SIGKILL)
            child.restarts += 1
            child.start(self.directory)
