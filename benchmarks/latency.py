"""Measures the time from due to released, and its parts.

A task ends and the event is lost: its child stays ``released``, and the dependent waits. The
interval and the grace are a tenth of their defaults; all other settings are the defaults. Workers,
beat and broker are separate processes. Each setting loses events in its own way:

    trickle   one per second
    storm     ten per second, for one interval
    kills     one per second, while one of the two workers after another is killed

*Due* is when the task ended, according to its row. *Released* is when the pipeline of the child's
task was invoked, right after the commit. The time consists of these parts of the sweep that
released the child:

    grace         from due until the grace is over
    wait          until the sweep starts
    scan          until the sweep sends the orchestration to be evaluated
    queue         from sending the two messages (evaluation, release) until a worker starts each
    evaluation    from the start of the evaluation until it sends the release
    transaction   from the start of the release until the pipeline is invoked

Time lost with a killed worker counts as *wait* if a later sweep releases the child, and as *scan*
if the same sweep asks again.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import pairwise
from random import Random
from statistics import mean
from threading import Event
from typing import TYPE_CHECKING, Any

from benchmarks.deployment import Deployment, deployed
from benchmarks.message_times import MessageTimes, message_times
from benchmarks.mix import Mix, WireItem
from benchmarks.place import Place
from benchmarks.runs import Say, seeded
from benchmarks.seeding import BatchWriter
from reconciler.domain.identity import derived_ulid
from reconciler.domain.model import Task, moment, timestamp
from reconciler.stores.rows import parse_task
from reconciler.sweeping.overview import Sweep

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

INTERVAL_SECONDS = 30
GRACE_SECONDS = 12
"""A tenth of the defaults: 300 and 120."""

PARTS = ("grace", "wait", "scan", "queue", "evaluation", "transaction")

_KILL_PAUSE_SECONDS = (3.0, 6.0)
"""Between a worker becoming ready and the next kill."""

_PATIENCE_INTERVALS = 12
_LAST_INVOCATIONS_SECONDS = 10.0
_LOOK_SECONDS = 1.0
_PER_BATCH = 100


@dataclass(frozen=True, slots=True)
class Setting:
    """How many events are lost per second, and how long; ``kills``: while workers are killed."""

    per_second: float
    seconds: int
    kills: bool = False


SETTINGS = {
    "trickle": Setting(1, 240),
    "storm": Setting(10, INTERVAL_SECONDS),
    "kills": Setting(1, 240, kills=True),
}


@dataclass(frozen=True, slots=True)
class Released:
    """How long one child took, in seconds; ``parts``: if all of its messages are known."""

    seconds: float
    parts: tuple[float, ...] | None


@dataclass(frozen=True, slots=True)
class Spread:
    """Seconds: mean, median, 99th percentile, and maximum."""

    mean: float
    p50: float
    p99: float
    longest: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Spread:
        """Return the spread of ``seconds``."""
        found = sorted(seconds)
        at = (len(found) // 2, min(len(found) - 1, len(found) * 99 // 100), -1)
        return cls(round(mean(found), 3), *(round(found[place], 3) for place in at))


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a setting.

    ``bound``: the longest time allowed: grace, interval and the longest sweep. ``whole``: the
    number of children whose parts are known. ``uninvoked``: children whose worker was killed
    between the commit and the invocation; they count as released when their release began.
    """

    setting: str
    rows: int
    lost: int
    kills: int
    sweeps: int
    longest_sweep: float
    seconds: Spread
    parts: Mapping[str, Spread]
    whole: int
    uninvoked: int
    interval_seconds: int = INTERVAL_SECONDS
    grace_seconds: int = GRACE_SECONDS

    @property
    def bound(self) -> float:
        """Return the longest time allowed."""
        return self.grace_seconds + self.interval_seconds + self.longest_sweep

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as a line of the record."""
        return {**asdict(self), "bound": round(self.bound, 3)}


def run(mix: Mix, settings: Mapping[str, Setting], say: Say) -> Iterator[Outcome]:
    """Measure settings, one after the other, on one table."""
    with seeded(mix, say) as place:
        all_lost = {
            name: _Lost(name, place, round(setting.per_second * setting.seconds))
            for name, setting in settings.items()
        }
        rows = mix.rows + sum(lost.seed() for lost in all_lost.values())
        for name, setting in settings.items():
            lost = all_lost[name]
            say(f"{name}: {len(lost.names)} lost events in {setting.seconds} s")
            yield _measure(name, setting, lost, rows)


class _Lost:
    """Orchestrations with a running task and a waiting child; the task's end sends no event."""

    def __init__(self, setting: str, place: Place, count: int) -> None:
        self.names = [f"orch_{setting}{number:05}" for number in range(count)]
        self.due: dict[str, datetime] = {}
        self.place = place
        self._client: DynamoDBClient = place.client()

    def seed(self) -> int:
        """Write the orchestrations, and return their number of rows."""
        writer = BatchWriter(self.place)
        at = timestamp(datetime.now(UTC))
        rows = [row for name in self.names for row in _rows(name, at)]
        for row in rows:
            writer.put(self.place.orchestrations, row)
        for name in self.names:
            writer.put(self.place.tasks, _task(name, at))
        writer.flush()
        return len(rows)

    def end_task(self, name: str) -> None:
        """End the task of one orchestration, as the platform writes it."""
        at = timestamp(datetime.now(UTC))
        self._client.update_item(
            TableName=self.place.tasks,
            Key={"task_id": {"S": _task_id(name)}},
            UpdateExpression="SET #status = :status, status_created_at = :entered, "
            "completed_at = :at, updated_at = :at, build_passed = :true",
            ExpressionAttributeNames={"#status": "status"},
            ExpressionAttributeValues={
                ":status": {"S": "COMPLETED"},
                ":entered": {"S": f"COMPLETED#{at}"},
                ":at": {"S": at},
                ":true": {"BOOL": True},
            },
        )
        self.due[name] = _moment(at)

    def read_tasks(self) -> dict[str, Task]:
        """Return the tasks of the children that were released, by orchestration."""
        keys = [{"orchestration_id": {"S": name}, "sub_issue_id": {"S": "b"}} for name in self.due]
        rows = self._read(self.place.orchestrations, keys)
        names = {
            row["child_task_id"]["S"]: row["orchestration_id"]["S"]
            for row in rows
            if row["child_status"]["S"] == "released"
        }
        tasks = self._read(self.place.tasks, [{"task_id": {"S": task_id}} for task_id in names])
        return {names[task.task_id]: task for task in map(parse_task, tasks)}

    def _read(self, table: str, keys: Sequence[WireItem]) -> Iterator[WireItem]:
        for at in range(0, len(keys), _PER_BATCH):
            part: Any = {"Keys": keys[at : at + _PER_BATCH], "ConsistentRead": True}
            while part:
                answer: Any = self._client.batch_get_item(RequestItems={table: part})
                yield from answer["Responses"][table]
                part = answer["UnprocessedKeys"].get(table)


def _task_id(name: str) -> str:
    return derived_ulid(name, datetime(2026, 1, 1, tzinfo=UTC))


def _rows(name: str, at: str) -> Iterator[WireItem]:
    common: WireItem = {
        "orchestration_id": {"S": name},
        "repo": {"S": "acme/shop"},
        "parent_issue_ref": {"S": "PARENT-1"},
        "credentials_ref": {"S": "workspace-1"},
        "created_at": {"S": at},
        "updated_at": {"S": at},
    }
    yield {
        **common,
        "sub_issue_id": {"S": "a"},
        "depends_on": {"L": []},
        "child_status": {"S": "released"},
        "child_task_id": {"S": _task_id(name)},
        "title": {"S": "Part a"},
    }
    yield {
        **common,
        "sub_issue_id": {"S": "b"},
        "depends_on": {"L": [{"S": "a"}]},
        "child_status": {"S": "blocked"},
        "title": {"S": "Part b"},
    }
    yield {
        **common,
        "sub_issue_id": {"S": "#meta"},
        "child_count": {"N": "2"},
        "platform_user_id": {"S": "user-1"},
    }


def _task(name: str, at: str) -> WireItem:
    return {
        "task_id": {"S": _task_id(name)},
        "user_id": {"S": "user-1"},
        "status": {"S": "RUNNING"},
        "repo": {"S": "acme/shop"},
        "idempotency_key": {"S": f"{name}_a"},
        "branch_name": {"S": f"bgagent/{_task_id(name)}/part-a"},
        "created_at": {"S": at},
        "updated_at": {"S": at},
        "status_created_at": {"S": f"RUNNING#{at}"},
    }


def _moment(at: str | None) -> datetime:
    found = moment(at)
    if found is None:
        raise RuntimeError(f"not a time: {at!r}")
    return found


# -- a run


def _measure(name: str, setting: Setting, lost: _Lost, rows: int) -> Outcome:
    settings = {
        "SWEEP_INTERVAL_SECONDS": str(INTERVAL_SECONDS),
        "STRANDED_GRACE_SECONDS": str(GRACE_SECONDS),
        "RELEASE_RATE_PER_MINUTE": "600",
    }
    with deployed(lost.place, settings) as deployment:
        deployment.start_workers()
        deployment.start_beat()
        _wait_for_a_sweep(deployment)
        with message_times(deployment.broker) as times, _kills(setting, deployment) as kills:
            _lose(setting, lost)
            _wait_for_releases(lost, deployment)
        tasks, sweeps = lost.read_tasks(), deployment.list_sweeps()
    invoked = deployment.invocations.at
    found = [
        _released(lost.due[name], task, invoked.get(task.task_id), sweeps, times)
        for name, task in tasks.items()
    ]
    parts = list(zip(*(one.parts for one in found if one.parts is not None), strict=True))
    return Outcome(
        setting=name,
        rows=rows,
        lost=len(found),
        kills=len(kills),
        sweeps=len(sweeps),
        longest_sweep=max(_durations(sweeps.values())),
        seconds=Spread.of(one.seconds for one in found),
        parts={part: Spread.of(took) for part, took in zip(PARTS, parts, strict=True)},
        whole=len(parts[0]),
        uninvoked=sum(task.task_id not in invoked for task in tasks.values()),
    )


def _durations(sweeps: Iterable[Sweep]) -> Iterator[float]:
    for sweep in sweeps:
        if sweep.ended_at is not None:
            yield round(sweep.ended_at - sweep.started_at, 3)


def _wait_for_a_sweep(deployment: Deployment) -> None:
    """Wait for the first sweep, so that the start-up is not measured."""
    deadline = time.monotonic() + _PATIENCE_INTERVALS * INTERVAL_SECONDS
    while not any(sweep.complete for sweep in deployment.list_sweeps().values()):
        _check(deployment, deadline)


def _check(deployment: Deployment, deadline: float) -> None:
    deployment.supervisor.check()
    if time.monotonic() > deadline:
        tails = (child.tail() for child in deployment.supervisor.children.values())
        raise RuntimeError("the run takes too long:\n" + "\n".join(tails))
    time.sleep(_LOOK_SECONDS)


def _lose(setting: Setting, lost: _Lost) -> None:
    began = time.monotonic()
    for number, name in enumerate(lost.names):
        time.sleep(max(0.0, began + number / setting.per_second - time.monotonic()))
        lost.end_task(name)


def _wait_for_releases(lost: _Lost, deployment: Deployment) -> None:
    deadline = time.monotonic() + _PATIENCE_INTERVALS * INTERVAL_SECONDS
    while len(tasks := lost.read_tasks()) < len(lost.names):
        _check(deployment, deadline)
    # If its worker was killed before it could invoke, a task waits for minutes.
    deadline = time.monotonic() + _LAST_INVOCATIONS_SECONDS
    wanted = {task.task_id for task in tasks.values()}
    while time.monotonic() < deadline and not wanted <= deployment.invocations.at.keys():
        time.sleep(_LOOK_SECONDS)


@contextmanager
def _kills(setting: Setting, deployment: Deployment) -> Iterator[list[str]]:
    """Kill workers until the block ends; provide the list of the killed ones."""
    killed: list[str] = []
    over = Event()
    dice = Random(1)  # noqa: S311 - not for secrets

    def kill() -> None:
        while not over.wait(dice.uniform(*_KILL_PAUSE_SECONDS)):
            killed.append(dice.choice(deployment.workers))
            deployment.kill(killed[-1])

    if not setting.kills:
        yield killed
        return
    with ThreadPoolExecutor(1) as pool:
        killing = pool.submit(kill)
        try:
            yield killed
        finally:
            over.set()
    killing.result()


def _released(
    due: datetime,
    task: Task,
    invoked: float | None,
    sweeps: Mapping[str, Sweep],
    times: MessageTimes,
) -> Released:
    since = due.timestamp()
    at = _moment(task.created_at).timestamp() if invoked is None else invoked
    return Released(at - since, parts_of(since, task, at, sweeps, times))


def parts_of(
    due: float, task: Task, at: float, sweeps: Mapping[str, Sweep], times: MessageTimes
) -> tuple[float, ...] | None:
    """Return the parts of the time until ``at``, in the order of ``PARTS``; None if one is unknown.

    ``task``: the child's task; its row says when the release began.
    """
    begun = _moment(task.created_at).timestamp()
    sweep = sweeps.get(task.sweep_id or "")
    release_sent = times.last_sent(f"release:{task.idempotency_key}", begun)
    if sweep is None or release_sent is None:
        return None
    work = f"evaluate:{task.orchestration_id}"
    evaluation_begun = times.last_begun(work, release_sent)
    if evaluation_begun is None:
        return None
    evaluation_sent = times.last_sent(work, evaluation_begun)
    if evaluation_sent is None:
        return None
    over = due + GRACE_SECONDS
    started = max(over, sweep.started_at)
    sent = max(started, evaluation_sent)
    moments = [due, over, started, sent, evaluation_begun, release_sent, begun, at]
    steps = [later - earlier for earlier, later in pairwise(moments)]
    if min(steps) < 0:
        return None
    grace, wait, scan, first, evaluation, second, transaction = steps
    return grace, wait, scan, first + second, evaluation, transaction
