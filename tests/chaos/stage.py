"""Everything that runs: servers, proxies, hosts, and the platform beside them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import redis
from mypy_boto3_dynamodb import DynamoDBClient

from reconciler.demo.live import LiveReconcilerCrashError, Step
from reconciler.demo.observer import Observer, Patience, Snapshot
from reconciler.demo.platform import Platform
from reconciler.demo.processes import Supervisor
from reconciler.demo.task_pipeline import FUNCTION_ARN, Pace, pipeline_endpoint
from reconciler.domain.codes import OrchestrationCode
from reconciler.domain.model import Child, moment
from reconciler.settings import Settings, load_settings
from reconciler.sweeping.state import SweepState
from reconciler.tables import create_tables_of
from tests.support.broker import Broker, broker_of_its_own
from tests.support.faults import FaultProxy, fault_proxy
from tests.support.hosts import QUICK
from tests.support.processes import A_BEAT, ROOT, a_worker, until
from tests.support.world import CREDENTIALS, make_client, make_session
from workers.broker_records import BrokerRecords

INTERVAL_SECONDS = 2
SKEW_SECONDS = 3.0
"""How far the clock of one host is ahead: more than the interval, and less than any claim."""

SETTINGS = {
    "ORCHESTRATION_TABLE_NAME": "chaos-Orchestration",
    "TASK_TABLE_NAME": "chaos-Task",
    "TASK_EVENTS_TABLE_NAME": "chaos-TaskEvents",
    "USER_CONCURRENCY_TABLE_NAME": "chaos-UserConcurrency",
    "MAX_CONCURRENT_TASKS_PER_USER": "100",
    "ORCHESTRATOR_FUNCTION_ARN": FUNCTION_ARN,
    "SWEEP_INTERVAL_SECONDS": str(INTERVAL_SECONDS),
    "SWEEP_SEGMENTS": "2",
    # What waits for the rotation of the table is parents alone, never a child.
    "ACTIVE_INDEX_NAME": "ChildStatusIndex",
    "FULL_SCAN_INTERVAL_SECONDS": "20",
    "STRANDED_GRACE_SECONDS": "1",
    "CLAIM_TIMEOUT_SECONDS": "12",
    "TASK_START_TIMEOUT_SECONDS": "12",
    "RELEASE_RATE_PER_MINUTE": "3000",
    "LOG_FORMAT": "json",
}
_CRASH_PROBABILITY = 0.03

Hosts = Mapping[str, tuple[str, ...]]
WORKERS: Hosts = {
    "worker-a": a_worker("a", 2),
    "worker-b": a_worker("b", 2),
}
BEATS: Hosts = {"beat-a": A_BEAT, "beat-b": A_BEAT}


@dataclass
class Stage:
    """What a run plays on."""

    seed: int
    settings: Settings
    client: DynamoDBClient
    platform: Platform
    broker: Broker
    tables: FaultProxy
    pipeline: FaultProxy
    supervisor: Supervisor
    observer: Observer
    skewed: bool
    sweeps: dict[str, dict[str, Any]] = field(default_factory=dict)
    never_started: set[str] = field(default_factory=set)

    @property
    def state(self) -> SweepState:
        return SweepState(BrokerRecords(self.broker.client))

    def note_sweeps(self) -> None:
        """Keep the summaries of the sweeps that have ended, if the broker answers."""
        try:
            ended = self.state.overview().list_ended()
        except redis.RedisError:
            return
        for summary in ended:
            self.sweeps.setdefault(summary["sweep_id"], dict(summary))

    def fail_unstarted(self, snapshot: Snapshot) -> None:
        """Fail what is SUBMITTED for a third longer than our start timeout, as the platform does.

        A task is invoked twice at most, and faults may swallow both invocations.
        """
        patience = timedelta(seconds=self.settings.task_start_timeout_seconds * 4 / 3)
        for task in snapshot.tasks.values():
            since = moment(task.status_since)
            if task.status != "SUBMITTED" or since is None or snapshot.at - since < patience:
                continue
            if self.platform.pipeline.fail_unstarted(task.task_id):
                self.never_started.add(task.task_id)

    def shown_unsettled(self) -> frozenset[str]:
        """Return what operators are shown as unsettled; nothing while the broker is away."""
        try:
            stuck = self.state.overview().list_stuck()
        except redis.RedisError:
            return frozenset()
        unsettled = OrchestrationCode.UNSETTLED_PARENT.value
        return frozenset(e.orchestration_id for e in stuck if e.code == unsettled)


@contextmanager
def staged(seed: int, endpoint: str, directory: Path) -> Iterator[Stage]:
    """Start everything, and end everything when the block does."""
    with ExitStack() as stack:
        broker = stack.enter_context(broker_of_its_own(directory / "broker"))
        tables = stack.enter_context(fault_proxy(endpoint, seed))
        environment = {
            **CREDENTIALS,
            **SETTINGS,
            "AWS_ENDPOINT_URL_DYNAMODB": tables.url,
            "CELERY_BROKER_URL": f"{broker.url}/0",
            "CELERY_RESULT_BACKEND": f"{broker.url}/1",
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
            hook=_crashes(Random(f"{seed}/crashes")),
        )
        invoked = stack.enter_context(pipeline_endpoint(platform.pipeline.invoke))
        pipeline = stack.enter_context(fault_proxy(invoked, seed + 1))
        environment["AWS_ENDPOINT_URL_LAMBDA"] = pipeline.url
        supervisor = Supervisor(directory)
        stack.callback(supervisor.stop)
        skewed = _start(supervisor, environment)
        stage = Stage(
            seed=seed,
            settings=settings,
            client=client,
            platform=platform,
            broker=broker,
            tables=tables,
            pipeline=pipeline,
            supervisor=supervisor,
            observer=Observer(Patience.of(settings)),
            skewed=skewed,
        )
        until("a first complete sweep", lambda: _swept(stage))
        yield stage


def _swept(stage: Stage) -> bool:
    stage.supervisor.check()
    return stage.state.overview().last(complete=True) is not None


def _crashes(rng: Random) -> Callable[[Step, Child], None]:
    """Let the live reconciler die now and then, just before any step of a release."""

    def hook(_step: Step, _child: Child) -> None:
        if rng.random() < _CRASH_PROBABILITY:
            raise LiveReconcilerCrashError

    return hook


def _start(supervisor: Supervisor, environment: Mapping[str, str]) -> bool:
    """Start all hosts; returns whether the clock of one of them could be set ahead."""
    celery = (sys.executable, "-m", "celery", "-A", "workers")
    ahead = clock_ahead(SKEW_SECONDS, supervisor.directory)
    for name, arguments in {**WORKERS, **BEATS}.items():
        clock = ahead if name.endswith("-b") else {}
        supervisor.start(name, [*celery, *arguments], {**os.environ, **environment, **clock})
    return bool(ahead)


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
    time.sleep(0.1)
