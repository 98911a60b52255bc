"""Everything that runs: servers, proxies, hosts and the platform."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import redis
from mypy_boto3_dynamodb import DynamoDBClient

from reconciler.clock import utc_now
from reconciler.demo.observer import Observer, Snapshot
from reconciler.demo.platform import Platform
from reconciler.demo.processes import Supervisor
from reconciler.demo.task_pipeline import FUNCTION_ARN, Pace, pipeline_endpoint
from reconciler.domain.codes import OrchestrationCode
from reconciler.domain.model import moment
from reconciler.settings import Settings, load_settings
from reconciler.sweeping.overview import Overview
from reconciler.sweeping.state import SweepState
from reconciler.tables import create_tables_of
from tests.chaos.claims import Claims
from tests.chaos.crashing import CrashingLive
from tests.support.broker import Broker, broker_of_its_own
from tests.support.faults import FaultProxy, fault_proxy
from tests.support.faulty_endpoint import FaultyEndpoint, faulty_endpoint
from tests.support.hosts import QUICK
from tests.support.processes import A_BEAT, ROOT, a_worker, until
from tests.support.refusals import LOGIN, WITH_ACCOUNT
from tests.support.supervisor import KillingSupervisor
from tests.support.world import CREDENTIALS, make_client, make_session
from workers.broker_records import BrokerRecords

INTERVAL_SECONDS = 2
TURN_SECONDS = 0.1
SKEW_SECONDS = 3.0
"""How wrong some clocks are: more than the interval, and less than any claim timeout."""

SETTINGS = {
    "ORCHESTRATION_TABLE_NAME": "Orchestration",
    "TASK_TABLE_NAME": "Task",
    "TASK_EVENTS_TABLE_NAME": "TaskEvents",
    "USER_CONCURRENCY_TABLE_NAME": "UserConcurrency",
    "MAX_CONCURRENT_TASKS_PER_USER": "100",
    "ORCHESTRATOR_FUNCTION_ARN": FUNCTION_ARN,
    "SWEEP_INTERVAL_SECONDS": str(INTERVAL_SECONDS),
    "SWEEP_SEGMENTS": "2",
    "STRANDED_GRACE_SECONDS": "1",
    # Longer than the platform needs between two steps on a slow machine.
    "CLAIM_TIMEOUT_SECONDS": "20",
    "TASK_START_TIMEOUT_SECONDS": "20",
    "RELEASE_RATE_PER_MINUTE": "3000",
    "LOG_FORMAT": "json",
}
MODES: Mapping[str, Mapping[str, str]] = {
    "scan": {},
    # Only parents ever wait for the rotation of the table, never a child.
    "index": {"ACTIVE_INDEX_NAME": "ChildStatusIndex", "FULL_SCAN_INTERVAL_SECONDS": "20"},
}

Hosts = Mapping[str, tuple[str, ...]]
WORKERS: Hosts = {
    "worker-a": a_worker("a", 2),
    "worker-b": a_worker("b", 2),
}
BEATS: Hosts = {"beat-a": A_BEAT, "beat-b": A_BEAT, "beat-c": A_BEAT}
CLOCKS = {"worker-b": SKEW_SECONDS, "beat-b": SKEW_SECONDS, "beat-c": -SKEW_SECONDS}
"""Host → seconds by which its clock is ahead."""


@dataclass
class Stage:
    """Everything that a run breaks or watches."""

    seed: int
    settings: Settings
    client: DynamoDBClient
    platform: Platform
    live: CrashingLive
    broker: Broker
    tables: FaultProxy
    refusing: FaultyEndpoint
    pipeline: FaultProxy
    supervisor: KillingSupervisor
    observer: Observer
    claims: Claims
    turns: Turns
    skewed: bool
    sweeps: dict[str, dict[str, Any]] = field(default_factory=dict)
    never_started: set[str] = field(default_factory=set)

    @property
    def state(self) -> SweepState:
        return SweepState(BrokerRecords(self.broker.client, self.settings.deployment_id))

    def overview(self) -> Overview | None:
        """Return the state of the sweeps, or None while the broker does not answer."""
        try:
            return self.state.overview()
        except redis.RedisError:
            return None

    def note_sweeps(self, overview: Overview) -> None:
        """Keep the summaries of all ended sweeps."""
        for summary in overview.list_ended():
            self.sweeps.setdefault(summary["sweep_id"], dict(summary))

    def fail_unstarted(self, snapshot: Snapshot) -> None:
        """Fail tasks that are SUBMITTED for a third longer than our start timeout.

        The platform does the same. A task is invoked twice at most, and faults may swallow both
        invocations.
        """
        patience = timedelta(seconds=self.settings.task_start_timeout_seconds * 4 / 3)
        for task in snapshot.tasks.values():
            since = moment(task.status_since)
            if task.status != "SUBMITTED" or since is None or snapshot.at - since < patience:
                continue
            with self.turns.lock:
                if self._fail(task.task_id):
                    self.never_started.add(task.task_id)

    def _fail(self, task_id: str) -> bool:
        """Fail a task without a run; the platform does so after 1,200 s."""
        pipeline = self.platform.pipeline
        with pipeline._lock:
            started = task_id in pipeline._runs or task_id in pipeline._invoked
        said = {"error_message": {"S": "it was never started"}}
        return not started and pipeline._write(task_id, "SUBMITTED", "FAILED", utc_now(), said)

    def shown_unsettled(self) -> frozenset[str]:
        """Return the orchestrations that operators see as unsettled; none without the broker."""
        overview = self.overview()
        stuck = overview.list_stuck() if overview is not None else ()
        unsettled = OrchestrationCode.UNSETTLED_PARENT.value
        return frozenset(e.orchestration_id for e in stuck if e.code == unsettled)


@dataclass
class Turns:
    """Runs the platform in its own thread, so that it goes on while a test waits.

    A test that uses the platform must hold ``lock``.
    """

    platform: Platform
    lock: threading.Lock = field(default_factory=threading.Lock)
    _over: threading.Event = field(default_factory=threading.Event)
    _failed: BaseException | None = None

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Let the platform take its turns until the block ends."""
        thread = threading.Thread(target=self._take, name="platform", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _take(self) -> None:
        try:
            while not self._over.wait(TURN_SECONDS):
                with self.lock:
                    self.platform.step()
        except Exception as error:  # noqa: BLE001 - for the thread that checks
            self._failed = error

    def check(self) -> None:
        """Raise the error that ended the platform's thread, if any."""
        if self._failed is not None:
            raise self._failed


@contextmanager
def staged(seed: int, endpoint: str, directory: Path, mode: str) -> Iterator[Stage]:
    """Start everything, and end it with the block; ``mode`` is one of ``MODES``."""
    with ExitStack() as stack:
        broker = stack.enter_context(broker_of_its_own(directory / "broker", *WITH_ACCOUNT))
        refusing = stack.enter_context(faulty_endpoint(endpoint))
        tables = stack.enter_context(fault_proxy(refusing.url, seed))
        url = broker.url.replace("redis://", f"redis://{LOGIN}@")
        names = {
            name: f"chaos-{mode}-{value}" for name, value in SETTINGS.items() if "TABLE" in name
        }
        environment = {
            **CREDENTIALS,
            **SETTINGS,
            **names,
            **MODES[mode],
            "AWS_ENDPOINT_URL_DYNAMODB": tables.url,
            "CELERY_BROKER_URL": f"{url}/0",
            "CELERY_RESULT_BACKEND": f"{url}/1",
            "QUICK_VISIBILITY_SECONDS": "8",
            "PYTHONPATH": os.pathsep.join((str(QUICK), str(ROOT))),
        }
        settings = load_settings(environment)
        client = make_client(endpoint)
        create_tables_of(client, settings)
        platform = Platform(
            client,
            settings,
            streams=make_session(endpoint).client("dynamodbstreams"),
            seed=seed,
            pace=Pace(),
        )
        live = CrashingLive(client, settings, utc_now, platform.pipeline.invoke, seed=seed)
        platform.live = live
        invoked = stack.enter_context(pipeline_endpoint(platform.pipeline.invoke))
        pipeline = stack.enter_context(fault_proxy(invoked, seed + 1))
        environment["AWS_ENDPOINT_URL_LAMBDA"] = pipeline.url
        supervisor = KillingSupervisor(directory)
        stack.callback(supervisor.stop)
        skewed = _start(supervisor, environment)
        stage = Stage(
            seed=seed,
            settings=settings,
            client=client,
            platform=platform,
            live=live,
            broker=broker,
            tables=tables,
            refusing=refusing,
            pipeline=pipeline,
            supervisor=supervisor,
            observer=Observer(settings),
            claims=Claims(settings, timedelta(seconds=SKEW_SECONDS + INTERVAL_SECONDS)),
            turns=Turns(platform),
            skewed=skewed,
        )
        until("a first complete sweep", lambda: _swept(stage))
        with stage.turns.taken():
            yield stage


def _swept(stage: Stage) -> bool:
    stage.supervisor.check()
    return stage.state.overview().last(complete=True) is not None


def _start(supervisor: Supervisor, environment: Mapping[str, str]) -> bool:
    """Start all hosts; returns whether the clocks of some could be set wrong."""
    celery = (sys.executable, "-m", "celery", "-A", "workers")
    clocks = {name: clock_ahead(ahead, supervisor.directory) for name, ahead in CLOCKS.items()}
    for name, arguments in {**WORKERS, **BEATS}.items():
        shared = {**os.environ, **environment, **clocks.get(name, {})}
        supervisor.start(name, [*celery, *arguments], shared)
    return all(clocks.values())


def clock_ahead(seconds: float, directory: Path) -> dict[str, str]:
    """Return the environment of a process whose clock is ahead; empty without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return {}
    source, library = Path(__file__).parent / "clock_ahead.c", directory / "clock_ahead.so"
    command = [
        compiler,
        "-shared",
        "-fPIC",
        "-Wall",
        "-Werror",
        "-o",
        str(library),
        str(source),
        "-ldl",
    ]
    subprocess.run(command, check=True)
    return {"LD_PRELOAD": str(library), "CLOCK_AHEAD_SECONDS": str(seconds)}


def pause() -> None:
    """Wait for the next turn."""
    time.sleep(TURN_SECONDS)
