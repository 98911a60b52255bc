"""The demo: a whole platform on one machine, an outage, and the backstop.

Broker, DynamoDB endpoint, workers, two beats and Flower are separate processes; the platform and
the observer run in this one. A phase ends when what it shows has happened, so a slow machine only
makes it longer.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import boto3
import redis

from reconciler.demo.observer import Observer, Snapshot
from reconciler.demo.platform import Platform
from reconciler.demo.processes import DemoFailedError, Supervisor
from reconciler.demo.shapes import Blueprint, mix
from reconciler.demo.snapshots import take_snapshot
from reconciler.demo.task_pipeline import FUNCTION_ARN, Pace, pipeline_endpoint
from reconciler.demo.verdict import Sweep, Verdict, judge
from reconciler.demo.view import Board
from reconciler.embedded.moto_server import moto_server
from reconciler.embedded.process import free_port
from reconciler.embedded.valkey import valkey_server
from reconciler.settings import load_settings
from reconciler.sweeping.state import SweepState
from reconciler.tables import create_tables_of
from workers.broker_records import BrokerRecords

ROOT = Path(__file__).resolve().parents[2]
TURN_SECONDS = 0.25
MAX_START_SECONDS = 300.0

MAX_IDLE_SWEEPS = 10
"""How many sweeps in a row may end without any progress before the demo gives up."""

MAX_IDLE_SECONDS = 300.0
"""The same, if no sweep ends either."""

CAP = 50
"""How many tasks of a user the simulated platform runs at once."""

ORCHESTRATIONS_PER_USER = 6
"""One of each shape: even at their widest, all together stay below the cap."""

KEPT_VARIABLES = (
    "COLORTERM", "COLUMNS", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "LINES", "NO_COLOR", "PATH",
    "SYSTEMROOT", "TERM", "TMPDIR", "TZ",
)  # fmt: skip
"""The variables kept from the caller's environment: for finding programs, and for the terminal."""

Show = Callable[[Board], None]


class OutOfTimeError(Exception):
    """Nothing has moved for too long."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The parameters of the demo; ``interval`` and ``grace`` in seconds.

    The outage lasts for ``outage`` sweeps, and until one event per orchestration is lost.
    """

    orchestrations: int = 24
    seed: int = 1
    outage: int = 3
    interval: int = 5
    grace: int = 2


QUICK = Plan(orchestrations=10, outage=2, interval=3, grace=1)


@dataclass(slots=True)
class Stage:
    """Everything that runs. ``flower`` and ``login``: Flower's address and login.

    ``sweeps``: the sweeps that have ended, by id.
    """

    plan: Plan
    environment: dict[str, str]
    supervisor: Supervisor
    platform: Platform
    look: Callable[[], Snapshot]
    observer: Observer
    state: SweepState
    flower: str
    login: str
    started: float = field(default_factory=time.monotonic)
    sweeps: dict[str, Sweep] = field(default_factory=dict)
    down_since: float | None = None
    phase: str = ""


def seeds(plan: Plan) -> Iterator[tuple[str, Blueprint]]:
    """Yield the user and the blueprint of each orchestration.

    The live reconciler ignores the cap, the platform fails whatever exceeds it, and no backstop can
    make up for that. So no user has enough orchestrations to reach it.
    """
    for number, blueprint in enumerate(mix(plan.orchestrations, Random(plan.seed))):
        yield f"user-{number // ORCHESTRATIONS_PER_USER + 1}", blueprint


@contextmanager
def environment_of_its_own(directory: Path) -> Iterator[None]:
    """Hide the caller's settings of AWS, Celery, Flower, Python and the reconciler in the block."""
    before = dict(os.environ)
    kept = {name: before[name] for name in KEPT_VARIABLES if name in before}
    nowhere = {
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "FLOWER_DB": str(directory / "flower"),
        "PYTHONPATH": str(ROOT),
    }
    os.environ.clear()
    os.environ.update({**kept, **nowhere})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _settings(endpoint: str, broker: str, plan: Plan) -> dict[str, str]:
    """Return the settings of all processes of the demo.

    The timeouts of claims and starts keep their defaults, because the simulated platform takes
    seconds on a slow machine.
    """
    return {
        "AWS_ACCESS_KEY_ID": "demo",
        "AWS_SECRET_ACCESS_KEY": "demo",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_DYNAMODB": endpoint,
        "ORCHESTRATION_TABLE_NAME": "demo-Orchestration",
        "TASK_TABLE_NAME": "demo-Task",
        "TASK_EVENTS_TABLE_NAME": "demo-TaskEvents",
        "USER_CONCURRENCY_TABLE_NAME": "demo-UserConcurrency",
        "MAX_CONCURRENT_TASKS_PER_USER": str(CAP),
        "ORCHESTRATOR_FUNCTION_ARN": FUNCTION_ARN,
        "CELERY_BROKER_URL": f"{broker}/0",
        "CELERY_RESULT_BACKEND": f"{broker}/1",
        "SWEEP_INTERVAL_SECONDS": str(plan.interval),
        "SWEEP_SEGMENTS": "2",
        "STRANDED_GRACE_SECONDS": str(plan.grace),
    }


@contextmanager
def staged(plan: Plan, directory: Path, say: Callable[[str], None]) -> Iterator[Stage]:
    """Run everything during the block. Logs go to ``directory``.

    Raises:
        DemoFailedError: something does not start.
    """
    with ExitStack() as stack:
        stack.enter_context(environment_of_its_own(directory))
        say("starting a broker and a DynamoDB endpoint")
        broker = stack.enter_context(valkey_server(directory))
        endpoint = stack.enter_context(moto_server(directory))
        environment = _settings(endpoint, broker, plan)
        settings = load_settings(environment)
        session = boto3.Session("demo", "demo", region_name="us-east-1")
        client = session.client("dynamodb", endpoint_url=endpoint)
        create_tables_of(client, settings)
        streams = session.client("dynamodbstreams", endpoint_url=endpoint)
        platform = Platform(client, settings, streams=streams, seed=plan.seed, pace=Pace())
        pipeline = stack.enter_context(pipeline_endpoint(platform.pipeline.invoke))
        environment["AWS_ENDPOINT_URL_LAMBDA"] = pipeline
        supervisor = Supervisor(directory)
        stack.callback(supervisor.stop)
        say("starting two beats, two worker processes and Flower")
        flower, login = _start(supervisor, environment)
        client_of_broker = redis.Redis.from_url(settings.celery_broker_url)
        records = BrokerRecords(client_of_broker, settings.deployment_id)
        stage = Stage(
            plan=plan,
            environment=environment,
            supervisor=supervisor,
            platform=platform,
            look=lambda: take_snapshot(client, settings),
            observer=Observer(settings),
            state=SweepState(records),
            flower=flower,
            login=login,
        )
        _await_first_sweep(stage)
        yield stage


def _start(supervisor: Supervisor, environment: dict[str, str]) -> tuple[str, str]:
    """Start workers, beats and Flower; returns Flower's address and login."""
    shared = {**os.environ, **environment, "LOG_FORMAT": "json"}
    login = f"demo:{secrets.token_urlsafe(9)}"
    port = free_port()
    celery = [sys.executable, "-m", "celery", "-A", "workers"]
    supervisor.start("worker", [*celery, "worker", "-c", "2", "--without-mingle"], shared)
    for number in (1, 2):
        supervisor.start(f"beat-{number}", [*celery, "beat", "--pidfile="], shared)
    flower = [f"--conf={ROOT / 'flowerconfig.py'}", f"--port={port}", "--address=127.0.0.1"]
    supervisor.start("flower", [*celery, "flower", *flower], {**shared, "FLOWER_BASIC_AUTH": login})
    return f"http://127.0.0.1:{port}", login


def _await_first_sweep(stage: Stage) -> None:
    deadline = time.monotonic() + MAX_START_SECONDS
    while stage.state.overview().last(complete=True) is None:
        stage.supervisor.check()
        if time.monotonic() > deadline:
            tail = stage.supervisor.children["worker"].tail()
            raise DemoFailedError(
                f"ran out of time: no sweep completed within {MAX_START_SECONDS:.0f} s: {tail}"
            )
        time.sleep(TURN_SECONDS)


# -- the phases


def play(stage: Stage, show: Show) -> Verdict:
    """Run all phases and return the verdict."""
    gave_up = None
    try:
        _play(stage, show)
    except OutOfTimeError as error:
        gave_up = str(error)
    seeded = stage.platform.seeded
    return judge(
        stage.observer,
        {key: found.expected() for key, found in seeded.items()},
        list(stage.sweeps.values()),
        events_lost=len(stage.platform.live.lost),
        gave_up=gave_up,
    )


def _play(stage: Stage, show: Show) -> None:
    platform = stage.platform
    for user, blueprint in seeds(stage.plan):
        platform.seed(blueprint, user_id=user)
    stage.started = time.monotonic()
    half = max(1, stage.plan.orchestrations // 2)
    play_phase(stage, "all is well", show, lambda seen: _ended_tasks(seen) >= half)
    platform.live.up = False
    stage.down_since = time.monotonic()
    sweeps, events = len(stage.sweeps) + stage.plan.outage, stage.plan.orchestrations
    play_phase(
        stage,
        "the live reconciler is down: events are lost",
        show,
        lambda _: len(stage.sweeps) >= sweeps and len(platform.live.lost) >= events,
    )
    platform.live.up = True
    stage.down_since = None
    play_phase(
        stage,
        "it is back, unaware of what it missed",
        show,
        lambda seen: all(map(seen.is_settled, platform.seeded)),
    )


def play_phase(stage: Stage, phase: str, show: Show, over: Callable[[Snapshot], bool]) -> None:
    """Run one phase.

    Raises:
        OutOfTimeError: nothing has moved for too long.
    """
    stage.phase = phase
    moved_at, sweeps, before = time.monotonic(), len(stage.sweeps), (-1, -1)
    while not over(seen := turn(stage, show)):
        now = (_ended_tasks(seen), sum(map(seen.is_settled, stage.platform.seeded)))
        if now != before:
            moved_at, sweeps, before = time.monotonic(), len(stage.sweeps), now
        idle, idle_sweeps = time.monotonic() - moved_at, len(stage.sweeps) - sweeps
        if idle_sweeps >= MAX_IDLE_SWEEPS or idle > MAX_IDLE_SECONDS:
            raise OutOfTimeError(
                f"nothing moved for {idle:.0f} s and {idle_sweeps} sweeps, while {phase}; "
                f"{now[1]} of {len(stage.platform.seeded)} orchestrations were settled"
            )


def _ended_tasks(snapshot: Snapshot) -> int:
    return sum(task.terminal for task in snapshot.tasks.values())


def turn(stage: Stage, show: Show) -> Snapshot:
    """Move the platform, observe it, show a frame, and pause."""
    began = time.monotonic()
    stage.platform.step()
    snapshot = stage.look()
    stage.observer.observe(snapshot)
    for summary in stage.state.overview().list_ended():
        stage.sweeps.setdefault(summary["sweep_id"], summary)
    stage.supervisor.check()
    show(_board(stage, snapshot))
    # If a snapshot takes long, leave the endpoint to the workers for as long.
    time.sleep(max(TURN_SECONDS, time.monotonic() - began))
    return snapshot


def _board(stage: Stage, snapshot: Snapshot) -> Board:
    now = time.monotonic()
    return Board(
        elapsed=now - stage.started,
        phase=stage.phase,
        down_for=None if stage.down_since is None else now - stage.down_since,
        events_lost=len(stage.platform.live.lost),
        sweeps=tuple(stage.sweeps.values()),
        interval=stage.plan.interval,
        restarts=stage.supervisor.restarts,
        seeded=tuple(stage.platform.seeded.values()),
        stranded=stage.observer.stranded,
        snapshot=snapshot,
    )
