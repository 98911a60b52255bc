"""Real worker processes, and waiting for their effects."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import redis

from reconciler.embedded.process import running
from reconciler.sweeping.state import SweepState
from tests.support.commands import run_command
from tests.support.world import World
from workers.broker_records import BrokerRecords

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 120.0
"""How long a test waits for anything before it fails: generous, and never asserted on."""

A_BEAT = ("beat", "--pidfile=")
WORKER_READY, BEAT_READY = "ready.", "beat: Starting"
"""What they log when they are ready."""


def a_worker(name: str, concurrency: int) -> tuple[str, ...]:
    """Return the arguments of a worker that does not wait for others."""
    return ("worker", "-c", str(concurrency), "-n", f"{name}@%h", "--without-mingle")


def until(what: str, found: Callable[[], T | None], timeout_seconds: float = PATIENCE_SECONDS) -> T:
    """Wait until ``found`` returns something true, and return it."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        value = found()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_seconds:.0f} s in vain for: {what}")
        time.sleep(0.05)


def run_python(*arguments: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run ``python …`` from the project's root, with only this environment and the path."""
    return subprocess.run(
        [sys.executable, *arguments],
        env={"PATH": os.environ["PATH"], **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def run_reconciler(
    *arguments: str, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run ``reconciler …``, as an operator or a container's runtime does."""
    return run_command(
        "reconciler", *arguments, environment={"PATH": os.environ["PATH"], **environment}
    )


@dataclass
class Celery:
    """A broker, and Celery commands on it from the project's root."""

    world: World
    broker: str
    directory: Path
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return {
            **self.world.environment,
            "CELERY_BROKER_URL": f"{self.broker}/0",
            "CELERY_RESULT_BACKEND": f"{self.broker}/1",
            **self.extra,
        }

    @property
    def redis(self) -> redis.Redis:
        return redis.Redis.from_url(f"{self.broker}/0")

    @property
    def state(self) -> SweepState:
        return SweepState(BrokerRecords(self.redis, self.world.settings.deployment_id))

    def last(self, *, complete: bool = False) -> dict[str, Any] | None:
        """Return the summary of the last sweep, or of the last complete one."""
        found = self.state.overview().last(complete=complete)
        return None if found is None else dict(found)

    def command(self, *arguments: str) -> Sequence[str]:
        return [sys.executable, "-m", "celery", "-A", "workers", *arguments]

    def call(self, task: str, *arguments: str) -> str:
        """Enqueue a task by hand, as an operator would; returns its id."""
        call = ("-A", "workers", "call", task, f"--args={json.dumps(arguments)}")
        done = run_command("celery", *call, environment=self.environment)
        done.check_returncode()
        return done.stdout.strip()

    @contextmanager
    def worker(
        self, name: str = "w1", *, concurrency: int = 2, queues: str | None = None
    ) -> Iterator[int]:
        """A prefork worker until the block ends; gives its pid."""
        command = [
            *self.command(*a_worker(name, concurrency)),
            *(["-Q", queues] if queues is not None else []),
        ]
        log = self.directory / f"{name}.log"
        with running(
            command,
            ready=lambda: log.exists() and WORKER_READY in log.read_text(errors="replace"),
            log=log,
            env=self.environment,
            cwd=ROOT,
        ) as process:
            yield process.pid

    @contextmanager
    def beat(self, name: str = "beat") -> Iterator[int]:
        """A beat until the block ends; gives its pid."""
        log = self.directory / f"{name}.log"
        with running(
            self.command(*A_BEAT),
            ready=lambda: log.exists() and BEAT_READY in log.read_text(errors="replace"),
            log=log,
            env=self.environment,
            cwd=ROOT,
        ) as process:
            yield process.pid
