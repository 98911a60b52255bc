"""The demo: a whole platform on one machine, an outage, and the backstop.

Broker, DynamoDB endpoint, workers, two beats and Flower are processes of their own; the platform
and the eyes on it are this one.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import boto3
import redis

from reconciler.clock import utc_now
from reconciler.demo.observer import Observer, Patience
from reconciler.demo.pipeline_endpoint import FUNCTION_ARN, Invoke, pipeline_endpoint
from reconciler.demo.platform import Platform
from reconciler.demo.processes import ProcessFailedError, Supervisor
from reconciler.demo.shapes import Blueprint, mix
from reconciler.demo.snapshots import take_snapshot
from reconciler.demo.task_pipeline import Pace
from reconciler.demo.verdict import Promise, Sweep, Verdict, judge
from reconciler.demo.view import Board
from reconciler.embedded.moto_server import moto_server
from reconciler.embedded.process import free_port
from reconciler.embedded.valkey import valkey_server
from reconciler.errors import ReconcilerError
from reconciler.repair.counts import REPAIRS
from reconciler.settings import Settings, load_settings
from reconciler.sweeping.state import SweepState
from reconciler.tables import create_tables_of
from workers.broker_records import BrokerRecords

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

ROOT = Path(__file__).resolve().parents[2]
TURN_SECONDS = 0.25
_START_SECONDS = 60.0

CAP = 50
"""How many tasks of a user the platform of the demo runs at once."""

ORCHESTRATIONS_PER_USER = 6
"""Of each shape one: even all at their widest stay well below the cap."""

Say = Callable[[str], None]
Show = Callable[[Board], None]


class DemoFailedError(ReconcilerError):
    """The demo could not be run to its end; says why."""

    kind = "demo"


@dataclass(frozen=True, slots=True)
class Plan:
    """How the demo goes; times in seconds."""

    orchestrations: int = 24
    seed: int = 1
    before: float = 6.0
    outage: float = 15.0
    most: float = 120.0
    interval: int = 5
    grace: int = 2


@dataclass(frozen=True, slots=True)
class Flower:
    """Where Flower answers, and who may look."""

    url: str
    login: str


@dataclass(slots=True)
class Stage:
    """Everything that runs, once it runs."""

    plan: Plan
    settings: Settings
    platform: Platform
    client: DynamoDBClient
    supervisor: Supervisor
    state: SweepState
    flower: Flower
    observer: Observer
    environment: dict[str, str]
    started: float = field(default_factory=time.monotonic)
    sweeps: dict[str, Sweep] = field(default_factory=dict)
    swept_at: float | None = None
    down_since: float | None = None
    phase: str = ""


def seeds(plan: Plan) -> Iterator[tuple[str, Blueprint]]:
    """Yield whose an orchestration is, and its blueprint.

    The live reconciler heeds no cap: what it starts beyond one the platform fails on admission, and
    no backstop can make up for that. So no user has as many as could ever run into it.
    """
    for number, blueprint in enumerate(mix(plan.orchestrations, Random(plan.seed))):
        yield f"user-{number // ORCHESTRATIONS_PER_USER + 1}", blueprint


def environment_for(endpoint: str, broker: str, pipeline: str, plan: Plan) -> dict[str, str]:
    """Return the settings of every process of the demo."""
    return {
        "AWS_ACCESS_KEY_ID": "demo",
        "AWS_SECRET_ACCESS_KEY": "demo",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_DYNAMODB": endpoint,
        "AWS_ENDPOINT_URL_DYNAMODB_STREAMS": endpoint,
        "AWS_ENDPOINT_URL_LAMBDA": pipeline,
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
        "CLAIM_TIMEOUT_SECONDS": "10",
        "TASK_START_TIMEOUT_SECONDS": "15",
    }


@contextmanager
def staged(plan: Plan, directory: Path, say: Say) -> Iterator[Stage]:
    """Start everything, and end everything when the block does.

    Raises:
        DemoFailedError: something does not come up.
    """
    with ExitStack() as stack:
        say("starting a broker and a DynamoDB endpoint")
        broker = stack.enter_context(valkey_server(directory))
        endpoint = stack.enter_context(moto_server(directory))
        invoked: list[Invoke] = []
        pipeline = stack.enter_context(
            pipeline_endpoint(lambda *asked: invoked[0](*asked))  # noqa: PLW0108 - the platform comes later
        )
        environment = environment_for(endpoint, broker, pipeline, plan)
        settings = load_settings(environment)
        session = boto3.Session("demo", "demo", region_name="us-east-1")
        client = session.client("dynamodb", endpoint_url=endpoint)
        create_tables_of(client, settings)
        streams = session.client("dynamodbstreams", endpoint_url=endpoint)
        platform = Platform(client, settings, streams=streams, seed=plan.seed, pace=Pace())
        invoked.append(platform.pipeline.invoke)
        supervisor = Supervisor(directory)
        stack.callback(supervisor.stop)
        say("starting two beats, two worker processes and Flower")
        flower = _start(supervisor, environment)
        state = SweepState(BrokerRecords(redis.Redis.from_url(settings.celery_broker_url)))
        stage = Stage(
            plan=plan,
            settings=settings,
            platform=platform,
            client=client,
            supervisor=supervisor,
            state=state,
            flower=flower,
            observer=Observer(Patience.of(settings)),
            environment=environment,
        )
        _await_first_sweep(stage)
        yield stage


def _start(supervisor: Supervisor, environment: dict[str, str]) -> Flower:
    shared = {**os.environ, **environment, "PYTHONPATH": str(ROOT), "LOG_FORMAT": "json"}
    login = f"demo:{secrets.token_urlsafe(9)}"
    port = free_port()
    celery = [sys.executable, "-m", "celery", "-A", "workers"]
    supervisor.start("worker", [*celery, "worker", "-c", "2", "--without-mingle"], shared)
    for number in (1, 2):
        supervisor.start(f"beat-{number}", [*celery, "beat", "--pidfile="], shared)
    config = f"--conf={ROOT / 'flowerconfig.py'}"
    supervisor.start(
        "flower",
        [*celery, "flower", config, f"--port={port}", "--address=127.0.0.1"],
        {**shared, "FLOWER_BASIC_AUTH": login},
    )
    return Flower(f"http://127.0.0.1:{port}", login)


def _await_first_sweep(stage: Stage) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while stage.state.overview().last(complete=True) is None:
        _check(stage)
        if time.monotonic() > deadline:
            tail = stage.supervisor.children["worker"].tail()
            raise DemoFailedError(f"no sweep completed within {_START_SECONDS:.0f} s: {tail}")
        time.sleep(TURN_SECONDS)


def _check(stage: Stage) -> None:
    try:
        stage.supervisor.check()
    except ProcessFailedError as error:
        raise DemoFailedError(str(error)) from error


def play(stage: Stage, show: Show) -> Verdict:
    """Play the demo to its end, and judge it."""
    plan, platform = stage.plan, stage.platform
    for user, blueprint in seeds(plan):
        platform.seed(blueprint, user_id=user)
    stage.started = time.monotonic()
    _turns(stage, "all is well", plan.before, show)
    platform.take_down()
    stage.down_since = time.monotonic()
    _turns(stage, "the live reconciler is down: events are lost", plan.outage, show)
    platform.bring_up()
    stage.down_since = None
    left = plan.most - (time.monotonic() - stage.started)
    _turns(stage, "it is back, and knows nothing of what it missed", left, show, until=_settled)
    expected = {key: seeded.expected() for key, seeded in platform.seeded.items()}
    promise = Promise(Patience.of(stage.settings), timedelta(seconds=plan.interval))
    sweeps = list(stage.sweeps.values())
    return judge(stage.observer, expected, sweeps, promise, events_lost=len(platform.live.lost))


def _turns(
    stage: Stage,
    phase: str,
    seconds: float,
    show: Show,
    until: Callable[[Stage], bool] = lambda _: False,
) -> None:
    stage.phase = phase
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        turn(stage, show)
        if until(stage):
            return
        time.sleep(TURN_SECONDS)


def turn(stage: Stage, show: Show) -> None:
    """One turn: the platform moves, everything is looked at, and shown."""
    stage.platform.step()
    snapshot = take_snapshot(stage.client, stage.settings, utc_now)
    stage.observer.observe(snapshot)
    _note_sweeps(stage)
    _check(stage)
    show(board_of(stage))


def _settled(stage: Stage) -> bool:
    snapshot = stage.observer.latest
    return snapshot is not None and all(
        (found := snapshot.orchestrations.get(key)) is not None
        and found.meta is not None
        and found.meta.settled
        for key in stage.platform.seeded
    )


def _note_sweeps(stage: Stage) -> None:
    for summary in stage.state.overview().list_ended():
        if summary["sweep_id"] in stage.sweeps:
            continue
        stage.swept_at = float(summary["ended_at"])
        stage.sweeps[summary["sweep_id"]] = Sweep(
            sweep_id=summary["sweep_id"],
            complete=summary["complete"],
            duration_seconds=summary["duration_seconds"],
            repairs=sum(summary[name] for name in REPAIRS),
        )


def board_of(stage: Stage) -> Board:
    """Return what one frame shows."""
    now = time.monotonic()
    last = next(reversed(stage.sweeps.values()), None)
    return Board(
        elapsed=now - stage.started,
        phase=stage.phase,
        down_for=None if stage.down_since is None else now - stage.down_since,
        events_lost=len(stage.platform.live.lost),
        sweeps=len(stage.sweeps),
        sweep_age=None if stage.swept_at is None else max(0.0, time.time() - stage.swept_at),
        sweep_took=last.duration_seconds if last is not None else None,
        interval=stage.plan.interval,
        restarts=stage.supervisor.restarts,
        seeded=list(stage.platform.seeded.values()),
        observer=stage.observer,
    )
