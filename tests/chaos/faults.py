"""The table of faults, measured on real processes: ``make faults`` writes docs/faults.md.

Two workers and two beats run on DynamoDB Local and their own broker. For each fault in turn, a
child is stranded while it lasts, and the output of the operator's commands is recorded. The system
has recovered when the child is released and everything that was due when the fault ended has been
looked at.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import redis

from reconciler.embedded.process import signal_group
from reconciler.sweeping.segments import Scope
from tests.chaos.mayhem import POISON
from tests.chaos.stage import clock_ahead
from tests.support.broker import Broker, broker_of_its_own
from tests.support.dynamodb_local import dynamodb_local
from tests.support.faults import Fault, FaultProxy, fault_proxy
from tests.support.faulty_endpoint import (
    DENIED,
    EXPIRED_CREDENTIALS,
    FaultyEndpoint,
    faulty_endpoint,
)
from tests.support.hosts import Fleet, Host, fleet_of
from tests.support.processes import (
    A_BEAT,
    BEAT_READY,
    ROOT,
    WORKER_READY,
    Celery,
    a_worker,
    run_reconciler,
    until,
)
from tests.support.refusals import LOGIN, REFUSALS, WITH_ACCOUNT
from tests.support.world import RealClock, World, build_world
from workers.names import RELEASE_QUEUE, SWEEP_QUEUE

PAGE = ROOT / "docs" / "faults.md"
INTERVAL = 5
GRACE = 1
LASTS_SECONDS = 2.0 * INTERVAL
SKEW_SECONDS = 3600.0
GIVE_UP_SECONDS = 300.0
"""Even a slow machine recovers within this time."""

MAX_WORDS = 160
INTRODUCTION = """
What happens when something breaks, how long recovery takes, and what an operator sees meanwhile.
`make faults` measures it on two workers, two beats, a broker and DynamoDB Local, at an interval of
{interval} s, and writes this page. A lasting fault is ended after two intervals. *Recovered after*
counts sweep intervals from the end of the fault until everything that was due has been looked at,
and a child that was stranded during the fault is released. After each fault the child has one task.
"""


@dataclass
class Place:
    """The processes and servers to break. ``baseline``: what ``doctor`` reports if all is well."""

    fleet: Fleet
    broker: Broker
    tables: FaultyEndpoint
    wire: FaultProxy
    baseline: frozenset[str] = frozenset()

    @property
    def world(self) -> World:
        return self.fleet.celery.world

    def hosts(self, kind: str) -> list[Host]:
        return [host for name, host in self.fleet.hosts.items() if name.startswith(kind)]

    def covered_since(self, at: float) -> bool:
        """Whether everything due by then has been looked at; False while nobody can say."""
        try:
            return self.fleet.celery.state.overview().covered_as_of(Scope.ACTIVE) > at
        except redis.RedisError:
            return False


Maker = Callable[[Place], AbstractContextManager[None]]


@dataclass(frozen=True)
class Drill:
    """A fault, its effect, and how to make it; ``lasts``: it continues until it is ended."""

    name: str
    happens: str
    make: Maker
    lasts: bool = True


# -- how faults are made


def at_once(do: Callable[[Place], object]) -> Maker:
    @contextmanager
    def make(place: Place) -> Iterator[None]:
        do(place)
        yield

    return make


def refuses(code: str) -> Maker:
    return lambda place: REFUSALS[code](place.broker)


@contextmanager
def broker_gone(place: Place) -> Iterator[None]:
    place.broker.stop()
    try:
        yield
    finally:
        place.broker.start()


@contextmanager
def broker_frozen(place: Place) -> Iterator[None]:
    place.broker.freeze()
    try:
        yield
    finally:
        place.broker.thaw()


def weather(faults: Mapping[Fault, float]) -> Maker:
    @contextmanager
    def make(place: Place) -> Iterator[None]:
        place.wire.weather = faults
        try:
            yield
        finally:
            place.wire.weather = {}

    return make


def answers(code: tuple[int, str]) -> Maker:
    @contextmanager
    def make(place: Place) -> Iterator[None]:
        place.tables.fail(code)
        try:
            yield
        finally:
            place.tables.mend()

    return make


def kill_workers(place: Place) -> None:
    for host in place.hosts("worker"):
        host.kill()
        host.child.start(host.directory)


@contextmanager
def stopped(place: Place, *, count: int) -> Iterator[None]:
    hosts = place.hosts("worker")[:count]
    for host in hosts:
        signal_group(host.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for host in hosts:
            signal_group(host.pid, signal.SIGCONT)


@contextmanager
def beats_killed(place: Place, *, count: int) -> Iterator[None]:
    hosts = place.hosts("beat")[:count]
    for host in hosts:
        host.kill()
    try:
        yield
    finally:
        for host in hosts:
            host.child.start(host.directory)


@contextmanager
def wrong_clock(place: Place, *, seconds: float) -> Iterator[None]:
    """Replace both beats by one whose clock is wrong."""
    directory = place.fleet.celery.directory
    with beats_killed(place, count=2):
        clock = clock_ahead(seconds, directory)
        if not clock:
            raise SystemExit("a C compiler is needed to set the clock of a beat")
        name = f"clock-{seconds:+.0f}"
        host = place.fleet._start(name, A_BEAT, BEAT_READY, clock)
        try:
            yield
        finally:
            host.kill()
            del place.fleet.hosts[name]


@contextmanager
def another_deployment(place: Place) -> Iterator[None]:
    """A worker of other tables takes messages from the same queues."""
    elsewhere = build_world(place.world.endpoint)
    name = "stranger"
    host = place.fleet._start(name, a_worker(name, 1), WORKER_READY, elsewhere.environment)
    try:
        yield
    finally:
        host.kill()


def purge(place: Place) -> None:
    place.broker.client.delete(SWEEP_QUEUE, RELEASE_QUEUE)


def poison(place: Place) -> None:
    for raw in POISON:
        place.broker.client.lpush(SWEEP_QUEUE, raw)


_STAY = "Workers and beats keep running, log it once, and reconnect."
_HELD = "Nothing is held against an orchestration; the next sweep finds the work again."

DRILLS = (
    *(Drill(f"the broker answers {code}", _STAY, refuses(code)) for code in REFUSALS),
    Drill("the broker is gone", _STAY, broker_gone),
    Drill("the broker hangs", "Requests time out; workers and beats reconnect.", broker_frozen),
    Drill(
        "the broker is wiped",
        "Coverage is unknown until everything has been read again.",
        at_once(lambda place: place.broker.client.flushall()),
        lasts=False,
    ),
    Drill(
        "the queues are purged",
        "The sweep is requested again within the interval.",
        at_once(purge),
        lasts=False,
    ),
    Drill(
        "poison messages",
        "Each is dropped, counted, and logged; the worker goes on.",
        at_once(poison),
        lasts=False,
    ),
    Drill(
        "a worker of another deployment",
        "It counts and drops the messages that it takes; their work is requested again.",
        another_deployment,
    ),
    Drill("DynamoDB is away", _HELD, weather({Fault.TORN: 1.0})),
    Drill("DynamoDB throttles", _HELD, weather({Fault.THROTTLED: 1.0})),
    Drill("DynamoDB denies access", _HELD, answers(DENIED)),
    Drill("the credentials have expired", _HELD, answers(EXPIRED_CREDENTIALS)),
    Drill(
        "answers are torn off",
        "The reconciler recognises its own completed writes, and does nothing twice.",
        weather({Fault.TORN_AFTER: 0.4, Fault.TORN_MIDWAY: 0.2}),
    ),
    Drill(
        "all workers are killed",
        "They are started again; leases expire, and the sweep is requested again.",
        at_once(kill_workers),
        lasts=False,
    ),
    Drill("a worker is stopped", "The other one does the work.", partial(stopped, count=1)),
    Drill(
        "all workers are stopped", "No work is done until they resume.", partial(stopped, count=2)
    ),
    Drill("a beat is killed", "The other one goes on.", partial(beats_killed, count=1)),
    Drill("all beats are killed", "No sweep is requested.", partial(beats_killed, count=2)),
    Drill(
        "the clock of the beat is an hour ahead",
        "Sweeps use the broker's clock.",
        partial(wrong_clock, seconds=SKEW_SECONDS),
    ),
    Drill(
        "the clock of the beat is an hour back",
        "Sweeps use the broker's clock.",
        partial(wrong_clock, seconds=-SKEW_SECONDS),
    ),
)


# -- measuring


@dataclass(frozen=True)
class Measured:
    """The result of a drill; ``events``: warnings and errors in the logs, and how often."""

    drill: Drill
    intervals: float
    tasks: int
    health: str
    doctor: tuple[str, ...]
    events: Mapping[str, int]


def measure(place: Place, drill: Drill) -> Measured:
    """Make a fault, and measure its effect.

    Raises:
        AssertionError: the system does not recover.
    """
    world, asked = place.world, time.time()
    until("everything to be looked at", lambda: place.covered_since(asked))
    logs = {name: len(host.log) for name, host in place.fleet.hosts.items()}
    with ThreadPoolExecutor(2) as pool:
        with drill.make(place):
            ended = time.time()
            found = world.seed({"a": [], "b": ["a"]}, {"a": "succeeded"}, age=GRACE + 1)
            if drill.lasts:
                time.sleep(LASTS_SECONDS)
            asking = [pool.submit(say, place, command) for command in ("health", "doctor")]
            if drill.lasts:
                wait(asking)
        if drill.lasts:
            ended = time.time()
        until(
            f"recovery after {drill.name}",
            lambda: world.statuses(found)["b"] == "released" and place.covered_since(ended),
            timeout_seconds=GIVE_UP_SECONDS,
        )
        took = time.time() - ended
        health, doctor = (answer.result() for answer in asking)
    return Measured(
        drill,
        intervals=took / INTERVAL,
        tasks=len(world.tasks(found, "b")),
        health=plain(health.splitlines()[-1] if health else "no answer"),
        doctor=tuple(line for line in failures(doctor) if line not in place.baseline),
        events=Counter(
            event
            for name, host in place.fleet.hosts.items()
            for event in complaints(host.log[logs.get(name, 0) :])
        ),
    )


def say(place: Place, command: str) -> str:
    """Return the output of a command."""
    done = run_reconciler(command, environment=place.fleet.celery.environment)
    return (done.stdout + done.stderr).strip()


def failures(doctor: str) -> list[str]:
    """Return the problems that ``doctor`` reports, one per line."""
    return [plain(line[2:]) for line in doctor.splitlines() if line.startswith(("✗", "X ", "! "))]


def complaints(log: str) -> Iterator[str]:
    """Yield the names of the events that are logged as warnings and errors."""
    for line in log.splitlines():
        if line.startswith("{") and '"level": "info"' not in line and '"event"' in line:
            event = json.loads(line)["event"]
            yield event if event.startswith("orch.") else "(Celery's own)"


def plain(line: str) -> str:
    """Remove what differs between runs: ports, times, names of the run."""
    line = " ".join(line.split()).replace("|", "\\|")
    line = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:PORT", line)
    line = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", line)
    line = re.sub(r"\b\d+(\.\d+)? s\b", "N s", line)
    return line if len(line) <= MAX_WORDS else line[:MAX_WORDS].rsplit(" ", 1)[0] + " …"


# -- the page


def page(measured: list[Measured]) -> str:
    """Return docs/faults.md."""
    lines = [
        "# Faults",
        "",
        *textwrap.wrap(INTRODUCTION.format(interval=INTERVAL).strip(), 100),
        "",
        "| fault | what happens | recovered after | what the operator sees |",
        "|---|---|---|---|",
    ]
    for one in measured:
        sees = [f"`health`: {one.health}", *(f"`doctor`: {line}" for line in one.doctor[:2])]
        if one.events:
            sees.append("log: " + ", ".join(f"`{name}`" for name in sorted(one.events)))
        drill = one.drill
        lines.append(
            f"| {drill.name} | {drill.happens} | {one.intervals:.1f} | {'<br>'.join(sees)} |"
        )
    return "\n".join(lines) + "\n"


@contextmanager
def placed(directory: Path) -> Iterator[Place]:
    """Start everything, and end it with the block."""
    with ExitStack() as stack:
        endpoint = stack.enter_context(dynamodb_local(directory))
        tables = stack.enter_context(faulty_endpoint(endpoint))
        wire = stack.enter_context(fault_proxy(tables.url))
        broker = stack.enter_context(broker_of_its_own(directory / "broker", *WITH_ACCOUNT))
        world = build_world(
            endpoint,
            SWEEP_INTERVAL_SECONDS=str(INTERVAL),
            STRANDED_GRACE_SECONDS=str(GRACE),
            SWEEP_SEGMENTS="2",
        )
        world.clock = RealClock()
        world.endpoint = wire.url
        url = broker.url.replace("redis://", f"redis://{LOGIN}@")
        fleet = stack.enter_context(fleet_of(Celery(world, url, directory)))
        place = Place(fleet, broker, tables, wire)
        for name in ("worker-1", "worker-2"):
            fleet.worker(name)
        for name in ("beat-1", "beat-2"):
            fleet.beat(name)
        until("a complete sweep", lambda: fleet.celery.last(complete=True))
        place.baseline = frozenset(failures(say(place, "doctor")))
        yield place


def main() -> None:
    """Measure every fault, or those named; write the page if every fault was measured."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="the faults whose name contains this")
    only: str = parser.parse_args().only
    measured = []
    directory = tempfile.mkdtemp(prefix="reconciler-faults-")
    sys.stdout.write(f"the logs of every process are in {directory}\n")
    with placed(Path(directory)) as place:
        for drill in DRILLS:
            if only not in drill.name:
                continue
            one = measure(place, drill)
            assert one.tasks == 1, f"{drill.name}: {one.tasks} tasks"
            measured.append(one)
            sys.stdout.write(f"{drill.name}: {one.intervals:.1f} intervals; {one.health}\n")
            sys.stdout.flush()
    if len(measured) == len(DRILLS):
        PAGE.write_text(page(measured), encoding="utf-8")
        sys.stdout.write(f"wrote {PAGE.relative_to(ROOT)}\n")
    else:
        sys.stdout.write(page(measured))


if __name__ == "__main__":
    main()
