"""A deployment to measure: a broker, two workers and a beat, each its own process."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import redis

from benchmarks.place import Place
from benchmarks.storm import PROCESSES_EACH, WORKERS, environment_of
from reconciler.demo.task_pipeline import pipeline_endpoint
from reconciler.embedded.valkey import valkey_server
from reconciler.settings import load_settings
from reconciler.sweeping.overview import Sweep
from reconciler.sweeping.state import SweepState
from tests.support.supervisor import KillingSupervisor
from workers.broker_records import BrokerRecords

_READY = "ready."
_READY_SECONDS = 120.0
_LOOK_SECONDS = 0.1
_CELERY = (sys.executable, "-m", "celery", "-A", "workers")


class Invocations:
    """Records the invocations of the pipeline. ``at``: task id → first invocation, epoch seconds.

    The invocation follows right after the commit of the release.
    """

    def __init__(self) -> None:
        self.at: dict[str, float] = {}

    def invoke(self, task_id: str, _name: str | None) -> None:
        """Record one."""
        self.at.setdefault(task_id, time.time())


@dataclass(slots=True)
class Deployment:
    """Its processes. ``broker``: the URL, without the database number."""

    broker: str
    environment: Mapping[str, str]
    invocations: Invocations
    supervisor: KillingSupervisor
    _ready: dict[str, int] = field(default_factory=dict)

    def start_workers(self) -> None:
        """Start the workers; return when they are ready."""
        for number in range(WORKERS):
            name = f"w{number}"
            command = [*_CELERY, "worker", "-c", str(PROCESSES_EACH), "-n", f"{name}@%h"]
            self.supervisor.start(name, command, self.environment)
            self._ready[name] = 0
        for name in self._ready:
            self._wait_until_ready(name)

    def start_beat(self) -> None:
        """Start beat, which asks for a sweep at once."""
        self.supervisor.start("beat", [*_CELERY, "beat", "--pidfile="], self.environment)

    def kill(self, worker: str) -> None:
        """Kill a worker and its pool with SIGKILL; return when the worker is ready again."""
        self.supervisor.kill(worker)
        self._wait_until_ready(worker)

    @property
    def workers(self) -> list[str]:
        """The names of the workers."""
        return sorted(self._ready)

    def list_sweeps(self) -> dict[str, Sweep]:
        """Return the remembered sweeps by id."""
        deployment_id = load_settings(self.environment).deployment_id
        with redis.Redis.from_url(f"{self.broker}/0") as client:
            seen = SweepState(BrokerRecords(client, deployment_id)).overview()
        return {sweep.sweep_id: sweep for sweep in seen.sweeps}

    def _wait_until_ready(self, name: str) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        log = self.supervisor.children[name].log
        while (said := _count_ready(log)) <= self._ready[name]:
            self.supervisor.check()
            if time.monotonic() > deadline:
                raise RuntimeError(f"{name} is not ready:\n{self.supervisor.children[name].tail()}")
            time.sleep(_LOOK_SECONDS)
        self._ready[name] = said


def _count_ready(log: Path) -> int:
    return log.read_text(errors="replace").count(_READY) if log.exists() else 0


@contextmanager
def deployed(place: Place, settings: Mapping[str, str]) -> Iterator[Deployment]:
    """Provide a deployment at ``place`` with ``settings``; at first only its broker runs."""
    invocations = Invocations()
    with TemporaryDirectory(prefix="benchmark-") as path, ExitStack() as stack:
        directory = Path(path)
        pipeline = stack.enter_context(pipeline_endpoint(invocations.invoke))
        broker = stack.enter_context(valkey_server(directory))
        environment = {**os.environ, **environment_of(place, broker, pipeline), **settings}
        supervisor = KillingSupervisor(directory)
        stack.callback(supervisor.stop)
        yield Deployment(broker, environment, invocations, supervisor)
