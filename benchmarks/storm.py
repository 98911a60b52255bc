"""Measures a storm: stranded children released through Celery, compared with a plain program.

Both run on a fresh DynamoDB Local, with the same number of processes. Counting starts when they are
ready and stops when everything is released. It covers CPU time as the operating system counts it,
wall time, requests to DynamoDB, messages, and commands as the broker counts them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any

import redis
from celery import Celery

from benchmarks.cpu import cpu_seconds
from benchmarks.fans import seed_shape, storm_of
from benchmarks.place import Place, fresh_place
from benchmarks.plain import FUNCTION_ARN, Share
from benchmarks.runs import Say
from reconciler.demo.task_pipeline import pipeline_endpoint
from reconciler.embedded.process import running
from reconciler.embedded.valkey import valkey_server
from reconciler.settings import load_settings
from reconciler.sweeping.state import SWEEPS
from workers.broker_records import BrokerRecords
from workers.names import SWEEP, SWEEP_QUEUE

WORKERS, PROCESSES_EACH = 2, 2
SWEEP_ID = "sweep:storm"
_ROOT = Path(__file__).parents[1]
_LOOK_SECONDS = 0.05
_PATIENCE_SECONDS = 60.0
_SECONDS_EACH = 0.5
"""How long to wait per release before the run fails; far more than it takes."""

GOALS = {
    "cpu_ratio": 2.0,
    "wall_ratio": 1.3,
    "requests_per_release": 7.0,
    "messages_per_release": 2.1,
    "commands_per_release": 30.0,
}
"""Maximum values for a thousand children."""

COUNT_BOUNDS = {
    "requests_per_release": 7.0,
    "messages_per_release": 2.1,
    "commands_per_release": 65.0,
}
"""Maximum counts for a build on any machine. On a slower machine, fewer tasks share each periodic
write."""


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a storm, one way.

    ``requests``: to DynamoDB. ``messages``: put on the queues. ``events``: published for Flower.
    ``commands``: to the broker, by name.
    """

    cpu_seconds: float
    wall_seconds: float
    requests: int
    messages: int = 0
    events: int = 0
    commands: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A storm of ``children``, ``each`` of them in an orchestration."""

    children: int
    each: int
    plain: Cost
    workers: Cost

    @property
    def cpu_ratio(self) -> float:
        """CPU time through Celery ÷ CPU time of the plain program."""
        return self.workers.cpu_seconds / self.plain.cpu_seconds

    @property
    def wall_ratio(self) -> float:
        """Wall time through Celery ÷ wall time of the plain program."""
        return self.workers.wall_seconds / self.plain.wall_seconds

    @property
    def commands_per_release(self) -> float:
        """All commands to the broker, per release."""
        return sum(self.workers.commands.values()) / self.children

    @property
    def messages_per_release(self) -> float:
        """Messages of all tasks, per release."""
        return self.workers.messages / self.children

    @property
    def requests_per_release(self) -> float:
        """Requests of all tasks, per release."""
        return self.workers.requests / self.children

    @property
    def figures(self) -> dict[str, float]:
        """The values that have a goal, by their names in ``GOALS``."""
        return {name: getattr(self, name) for name in GOALS}

    def broken_bounds(self) -> list[str]:
        """Return the counts that exceed their bounds."""
        return [name for name, most in COUNT_BOUNDS.items() if self.figures[name] > most]

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as a line of the record."""
        return {**asdict(self), **{name: round(value, 3) for name, value in self.figures.items()}}


def run(children: int, each: int, say: Say, repeat: int = 1) -> Outcome:
    """Release ``children`` in orchestrations of ``each``, both ways; return the median run."""
    found: list[Outcome] = []
    for _ in range(repeat):
        say(f"{children:,} children, {each:,} in each orchestration: the plain program")
        plain = _run(children, each, _by_plain_program)
        say("the same through Celery")
        found.append(Outcome(children, each, plain, _run(children, each, _by_workers)))
    at = median(outcome.cpu_ratio for outcome in found)
    return min(found, key=lambda outcome: abs(outcome.cpu_ratio - at))


class Pipeline:
    """Counts tasks whose pipeline was invoked; each may be invoked once."""

    def __init__(self, expected: int) -> None:
        self._expected = expected
        self._counts = Counter[str]()
        self.all_invoked = Event()

    def invoke(self, task_id: str, _name: str | None) -> None:
        """Record an invocation."""
        self._counts[task_id] += 1
        if len(self._counts) == self._expected:
            self.all_invoked.set()

    def check(self) -> None:
        """Check that each task was invoked once.

        Raises:
            RuntimeError: a task was not invoked, or was invoked twice.
        """
        if len(self._counts) != self._expected or self._counts.total() != self._expected:
            raise RuntimeError(
                f"{self._counts.total()} invocations of {len(self._counts)} tasks, "
                f"for {self._expected} children"
            )


def _run(children: int, each: int, measure: Any) -> Cost:  # noqa: ANN401 - one of the two below
    pipeline = Pipeline(children)
    with fresh_place() as place, pipeline_endpoint(pipeline.invoke) as url:
        seed_shape(place, storm_of(children, each))
        cost: Cost = measure(place, url, children, each, pipeline)
    pipeline.check()
    return cost


# -- the plain program


def _by_plain_program(
    place: Place, pipeline_url: str, children: int, each: int, _: Pipeline
) -> Cost:
    with ExitStack() as stack:
        processes = [
            stack.enter_context(_plain_process(share))
            for share in _shares(place, pipeline_url, children, each)
        ]
        for process in processes:
            _line(process)  # it is ready
        pids = [process.pid for process in processes]
        began, before = time.monotonic(), cpu_seconds(pids)
        for process in processes:
            _tell(process, "go")
        requests = sum(sum(json.loads(_line(process)).values()) for process in processes)
        wall = time.monotonic() - began
        return Cost(round(cpu_seconds(pids) - before, 3), round(wall, 3), requests)


def _shares(place: Place, pipeline_url: str, children: int, each: int) -> Iterator[Share]:
    rows = [
        (row["orchestration_id"]["S"], row["sub_issue_id"]["S"]) for row in storm_of(children, each)
    ]
    due = [(name, key) for name, key in rows if key.startswith("c")]
    names = list(dict.fromkeys(name for name, _ in rows))
    total = WORKERS * PROCESSES_EACH
    for number in range(total):
        yield Share(
            place.to_json(),
            pipeline_url,
            number,
            total,
            names[number::total],
            due[number::total],
        )


@contextmanager
def _plain_process(share: Share) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "benchmarks.plain"]
    with subprocess.Popen(  # noqa: S603 - our own module
        command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        _tell(process, json.dumps(asdict(share)))
        yield process


def _tell(process: subprocess.Popen[str], line: str) -> None:
    if process.stdin is not None:
        process.stdin.write(f"{line}\n")
        process.stdin.flush()


def _line(process: subprocess.Popen[str]) -> str:
    line = process.stdout.readline() if process.stdout is not None else ""
    if not line:
        raise RuntimeError("the plain program has ended; its output is above")
    return line


# -- through Celery


def _by_workers(
    place: Place, pipeline_url: str, children: int, each: int, pipeline: Pipeline
) -> Cost:
    del each
    with TemporaryDirectory(prefix="benchmark-") as path, ExitStack() as stack:
        directory = Path(path)
        broker = stack.enter_context(valkey_server(directory))
        environment = environment_of(place, broker, pipeline_url)
        pids = [
            stack.enter_context(worker(directory, f"w{number}", environment))
            for number in range(WORKERS)
        ]
        client = stack.enter_context(redis.Redis.from_url(f"{broker}/0"))
        records = BrokerRecords(client, load_settings(environment).deployment_id)
        before_commands, before = _commands(client), cpu_seconds(pids)
        began = time.monotonic()
        ask(broker)
        requests = _wait_for_the_end(records, directory, pipeline, children)
        wall = time.monotonic() - began
        used = cpu_seconds(pids) - before
        commands = _commands(client)
        commands.subtract(before_commands)
        return Cost(
            round(used, 3),
            round(wall, 3),
            requests,
            messages=commands["lpush"],
            events=commands["publish"],
            commands={name: count for name, count in commands.most_common() if count},
        )


def environment_of(place: Place, broker: str, pipeline_url: str) -> dict[str, str]:
    """Return the environment of workers: default settings, except for the storm."""
    return {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_DYNAMODB": place.endpoint,
        "AWS_ENDPOINT_URL_LAMBDA": pipeline_url,
        "ORCHESTRATION_TABLE_NAME": place.orchestrations,
        "TASK_TABLE_NAME": place.tasks,
        "TASK_EVENTS_TABLE_NAME": place.events,
        "ORCHESTRATOR_FUNCTION_ARN": FUNCTION_ARN,
        "CELERY_BROKER_URL": f"{broker}/0",
        "CELERY_RESULT_BACKEND": f"{broker}/1",
        # As fast as possible, all in one sweep.
        "RELEASE_RATE_PER_MINUTE": "1000000",
        "SWEEP_INTERVAL_SECONDS": "3600",
    }


@contextmanager
def worker(directory: Path, name: str, environment: dict[str, str]) -> Iterator[int]:
    """Run a worker as a deployment does while the block runs; provide its pid."""
    log = directory / f"{name}.log"
    command = [
        *(sys.executable, "-m", "celery", "-A", "workers", "worker"),
        *("-c", str(PROCESSES_EACH), "-n", f"{name}@%h"),
    ]
    with running(
        command,
        ready=lambda: log.exists() and "ready." in log.read_text(errors="replace"),
        log=log,
        env=environment,
        cwd=_ROOT,
    ) as process:
        yield process.pid


def ask(broker: str) -> None:
    """Ask for the sweep with an ordinary message."""
    with Celery(broker=f"{broker}/0", set_as_current=False) as app:
        app.send_task(SWEEP, kwargs={"sweep_id": SWEEP_ID}, task_id=SWEEP_ID, queue=SWEEP_QUEUE)


def _wait_for_the_end(
    records: BrokerRecords, directory: Path, pipeline: Pipeline, children: int
) -> int:
    """Wait for the sweep to end, and return its number of requests."""
    deadline = time.monotonic() + _PATIENCE_SECONDS + children * _SECONDS_EACH
    pipeline.all_invoked.wait(deadline - time.monotonic())
    while time.monotonic() < deadline:
        sweep = records.get(SWEEPS, SWEEP_ID)
        if sweep is not None and sweep["summary"] is not None:
            return int(sweep["summary"]["consumed"]["requests"])
        time.sleep(_LOOK_SECONDS)
    raise RuntimeError(f"the storm did not end:\n{_ends_of(directory.glob('*.log'))}")


def _ends_of(logs: Iterator[Path]) -> str:
    return "\n".join(log.read_text(errors="replace")[-2000:] for log in logs)


def _commands(client: redis.Redis) -> Counter[str]:
    """Return how often each command has been called so far, including calls from scripts."""
    stats: Any = client.info("commandstats")
    return Counter({name.removeprefix("cmdstat_"): found["calls"] for name, found in stats.items()})
