"""Workers and beats as processes that a test kills, stops and starts again.

Each has its own session, as if it ran on its own host, and gets its settings from the environment.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import celery

from reconciler.demo.processes import Child
from reconciler.embedded.process import signal_group
from tests.support.processes import (
    A_BEAT,
    BEAT_READY,
    ROOT,
    WORKER_READY,
    Celery,
    a_worker,
    until,
)
from workers.names import RELEASE, RELEASE_QUEUE, SWEEP_QUEUE

QUICK = Path(__file__).parent / "quick"
UNGUARDED = Path(__file__).parent / "unguarded"
"""Directories whose ``celeryconfig`` replaces the real one; see the files there."""

SOON = {"QUICK_VISIBILITY_SECONDS": "5"}
"""For hosts whose unacknowledged messages shall be redelivered soon."""


@dataclass
class Host:
    """One worker or beat."""

    child: Child
    directory: Path
    ready: str

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self.child.process is not None
        return self.child.process

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        """What it has written since its first start."""
        return self.child.log.read_text(errors="replace") if self.child.log.exists() else ""

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        before = self.log.count(self.ready)
        self.child.start(self.directory)

        def said_so() -> bool:
            assert self.alive, f"{self.child.name} ended:\n{self.log[-2000:]}"
            return self.log.count(self.ready) > before

        until(f"{self.child.name} to be ready", said_so)

    def pool(self) -> list[int]:
        """Return the pids of its pool's processes."""
        return forked(self.pid)

    def signal(self, number: signal.Signals) -> None:
        """Signal its main process alone, as a container's runtime does."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End all of its processes at once, as when a host is lost."""
        signal_group(self.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self, timeout_seconds: float = 120.0) -> float:
        """Ask it to end, wait until it has ended, and return the seconds that it took."""
        began = time.monotonic()
        self.signal(signal.SIGTERM)
        self.process.wait(timeout_seconds)
        return time.monotonic() - began


def forked(pid: int) -> list[int]:
    """Return the pids of a process's children, oldest first."""
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(child) for child in thread.read_text().split()]
    return sorted(found)


@dataclass
class Fleet:
    """Hosts around one broker; the running ones are killed at the end."""

    celery: Celery
    environment: Mapping[str, str] = field(default_factory=dict)
    settings: Path = QUICK
    hosts: dict[str, Host] = field(default_factory=dict)

    def worker(
        self,
        name: str = "w1",
        *,
        concurrency: int = 1,
        environment: Mapping[str, str] | None = None,
    ) -> Host:
        """Start a worker."""
        return self._start(name, a_worker(name, concurrency), WORKER_READY, environment or {})

    def beat(self, name: str = "beat") -> Host:
        """Start a beat."""
        return self._start(name, A_BEAT, BEAT_READY, {})

    def _start(
        self, name: str, arguments: tuple[str, ...], ready: str, environment: Mapping[str, str]
    ) -> Host:
        directory = self.celery.directory
        shared = {**os.environ, **self.environment_of(), **environment}
        log = directory / f"{name}.log"
        child = Child(name, self.celery.command(*arguments), shared, log)
        host = self.hosts[name] = Host(child, directory, ready)
        host.start()
        return host

    def environment_of(self) -> dict[str, str]:
        """Return the environment of every host."""
        path = os.pathsep.join((str(self.settings), str(ROOT)))
        return {**self.celery.environment, "PYTHONPATH": path, **self.environment}

    def send(
        self,
        name: str,
        *arguments: Any,
        task_id: str | None = None,
        broker: str | None = None,
        **options: Any,
    ) -> str:
        """Put a message on the broker without a dedup key, as anybody could; returns its id."""
        url = f"{broker or self.celery.broker}/0"
        with celery.Celery(broker=url, set_as_current=False) as sender:
            queue = RELEASE_QUEUE if name == RELEASE else SWEEP_QUEUE
            sent = sender.send_task(name, arguments, task_id=task_id, queue=queue, **options)
            return str(sent.id)

    def run(self, script: str, **environment: str) -> str:
        """Run Python code as a host would, with the real settings; returns its output."""
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, **self.celery.environment, **environment},
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
        )
        return done.stdout.strip()

    def end(self) -> None:
        """Kill the hosts that still run."""
        for host in self.hosts.values():
            if host.child.process is not None:
                host.kill()


@contextmanager
def fleet_of(celery: Celery, settings: Path = QUICK, **environment: str) -> Iterator[Fleet]:
    """Hosts until the block ends; each has ``environment``."""
    fleet = Fleet(celery, environment, settings)
    try:
        yield fleet
    finally:
        fleet.end()
