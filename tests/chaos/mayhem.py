"""Which faults happen when: a deck of faults, shuffled by the seed and dealt one by one.

Every fault is dealt once before any is dealt again, so a short run meets them all.
"""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from random import Random

from celery import Celery

from reconciler.embedded.process import signal_group
from tests.chaos.stage import BEATS, WORKERS, Stage
from tests.support.faults import Fault
from tests.support.faulty_endpoint import DENIED, EXPIRED_CREDENTIALS
from tests.support.hosts import forked
from tests.support.refusals import REFUSALS
from workers.names import RELEASE_QUEUE, SWEEP_QUEUE

Weather = Mapping[Fault, float]
"""The chance of each fault for each request."""

THROTTLING: Weather = {Fault.THROTTLED: 0.25, Fault.RATE_LIMITED: 0.15, Fault.CONFLICT: 0.2}
FAULTY: Weather = {Fault.INTERNAL_ERROR: 0.2, Fault.UNAVAILABLE: 0.15, Fault.TORN_MIDWAY: 0.1}
TORN: Weather = {Fault.TORN: 0.15, Fault.TORN_AFTER: 0.2, Fault.TORN_MIDWAY: 0.1}
SLOW: Weather = {Fault.SLOW: 0.4, Fault.TIMEOUT: 0.04, Fault.TIMEOUT_AFTER: 0.04}
DRIZZLE: Weather = {
    fault: 0.01 for fault in Fault if fault not in {Fault.TIMEOUT, Fault.TIMEOUT_AFTER}
}
PIPELINE: Weather = {
    Fault.INTERNAL_ERROR: 0.1,
    Fault.UNAVAILABLE: 0.1,
    Fault.SLOW: 0.1,
    Fault.TORN: 0.05,
    Fault.TORN_AFTER: 0.1,
}


@dataclass(frozen=True)
class Fate:
    """A fault that lasts for a while: for how long, and how it ends."""

    seconds: float
    end: Callable[[], object]


@dataclass(frozen=True)
class Card:
    """One fault; two faults on the same thing do not overlap."""

    name: str
    on: str
    play: Callable[[Stage, Random], Fate | None]


def kill_child(stage: Stage, rng: Random) -> None:
    child = stage.supervisor.children[rng.choice(list(WORKERS))]
    pool = forked(child.process.pid) if child.process is not None else []
    if pool:
        os.kill(rng.choice(pool), signal.SIGKILL)


def kill_worker(stage: Stage, rng: Random) -> None:
    stage.supervisor.kill(rng.choice(list(WORKERS)))


def kill_all_workers(stage: Stage, _rng: Random) -> None:
    for name in WORKERS:
        stage.supervisor.kill(name)


def kill_beat(stage: Stage, rng: Random) -> None:
    stage.supervisor.kill(rng.choice(list(BEATS)))


def restart_broker(stage: Stage, rng: Random) -> Fate:
    stage.broker.stop()
    return Fate(rng.uniform(0.5, 3.0), stage.broker.start)


def lose_broker(stage: Stage, rng: Random) -> Fate:
    stage.broker.kill()
    stage.broker.empty()
    return Fate(rng.uniform(0.5, 3.0), stage.broker.start)


def freeze_broker(stage: Stage, rng: Random) -> Fate:
    stage.broker.freeze()
    return Fate(rng.uniform(1.0, 5.0), stage.broker.thaw)


def drop_clients(stage: Stage, _rng: Random) -> None:
    stage.broker.drop_clients()


def weather(kind: Weather) -> Callable[[Stage, Random], Fate]:
    def change(stage: Stage, rng: Random) -> Fate:
        def clear() -> None:
            stage.tables.weather = DRIZZLE

        stage.tables.weather = kind
        return Fate(rng.uniform(2.0, 4.0), clear)

    return change


def live_away(stage: Stage, rng: Random) -> Fate:
    def back() -> None:
        stage.live.up = True

    stage.live.up = False
    return Fate(rng.uniform(4.0, 8.0), back)


def refuse(code: str) -> Callable[[Stage, Random], Fate]:
    def change(stage: Stage, rng: Random) -> Fate:
        refusal = ExitStack()
        refusal.enter_context(REFUSALS[code](stage.broker))
        return Fate(rng.uniform(2.0, 5.0), refusal.close)

    return change


def purge_queues(stage: Stage, _rng: Random) -> None:
    stage.broker.client.delete(SWEEP_QUEUE, RELEASE_QUEUE)


def wipe_broker(stage: Stage, _rng: Random) -> None:
    stage.broker.client.flushall()


def revoke_messages(stage: Stage, _rng: Random) -> None:
    client = stage.broker.client
    queued = (raw for queue in (SWEEP_QUEUE, RELEASE_QUEUE) for raw in client.lrange(queue, 0, -1))
    ids = [json.loads(raw)["headers"]["id"] for raw in queued if raw not in POISON]
    with Celery(broker=f"{stage.broker.url}/0", set_as_current=False) as sender:
        sender.control.revoke(ids)


def poison_queue(stage: Stage, rng: Random) -> None:
    stage.broker.client.lpush(SWEEP_QUEUE, rng.choice(POISON))


def stop_worker(stage: Stage, rng: Random) -> Fate:
    process = stage.supervisor.children[rng.choice(list(WORKERS))].process
    pid = process.pid if process is not None else 0
    if pid:
        signal_group(pid, signal.SIGSTOP)
    return Fate(rng.uniform(5.0, 15.0), lambda: pid and signal_group(pid, signal.SIGCONT))


def answer(code: tuple[int, str]) -> Callable[[Stage, Random], Fate]:
    def change(stage: Stage, rng: Random) -> Fate:
        stage.refusing.fail(code)
        return Fate(rng.uniform(2.0, 4.0), stage.refusing.mend)

    return change


POISON = (b"no JSON", b'{"headers": {"eta": ""}, "properties": {}}', b"[" * 100_000, b"{}")

DECK = (
    Card("kill -9 of a worker's child", "workers", kill_child),
    Card("kill -9 of a worker", "workers", kill_worker),
    Card("kill -9 of all workers", "workers", kill_all_workers),
    Card("kill -9 of a beat", "beats", kill_beat),
    Card("broker restarted, data kept", "broker", restart_broker),
    Card("broker restarted, data lost", "broker", lose_broker),
    Card("broker frozen", "broker", freeze_broker),
    Card("broker's clients dropped", "broker", drop_clients),
    Card("tables throttle", "tables", weather(THROTTLING)),
    Card("tables answer 5xx", "tables", weather(FAULTY)),
    Card("connections to tables torn", "tables", weather(TORN)),
    Card("tables slow and silent", "tables", weather(SLOW)),
    *(Card(f"broker answers {code}", "broker", refuse(code)) for code in REFUSALS),
    Card("broker wiped", "broker", wipe_broker),
    Card("queues purged", "broker", purge_queues),
    Card("messages revoked", "broker", revoke_messages),
    Card("poison message", "broker", poison_queue),
    Card("worker stopped", "workers", stop_worker),
    Card("tables deny access", "tables", answer(DENIED)),
    Card("credentials expired", "tables", answer(EXPIRED_CREDENTIALS)),
    Card("live reconciler away", "live", live_away),
    Card("live reconciler away", "live", live_away),
)


@dataclass
class Mayhem:
    """Deals faults; call ``turn`` with the seconds since the start."""

    stage: Stage
    injected: Counter[str] = field(default_factory=Counter)
    _rng: Random = field(init=False)
    _deck: Iterator[Card] = field(init=False)
    _next: Card = field(init=False)
    _next_at: float = 0.0
    _lasting: dict[str, tuple[float, Fate]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._rng = Random(f"{self.stage.seed}/mayhem")
        self._deck = self._dealt()
        self._next = next(self._deck)
        self.stage.tables.weather = DRIZZLE
        self.stage.pipeline.weather = PIPELINE

    def _dealt(self) -> Iterator[Card]:
        while True:
            cards = list(DECK)
            self._rng.shuffle(cards)
            yield from cards

    @property
    def all_dealt(self) -> bool:
        """Whether every card has been dealt and every lasting fault has ended."""
        return sum(self.injected.values()) >= len(DECK) and not self._lasting

    def turn(self, elapsed: float) -> None:
        """End the faults that have lasted long enough, and deal the next one when it is time."""
        for on, (ends_at, fate) in list(self._lasting.items()):
            if ends_at <= elapsed:
                del self._lasting[on]
                fate.end()
        card = self._next
        if elapsed < self._next_at or card.on in self._lasting:
            return
        fate_of_it = card.play(self.stage, self._rng)
        self.injected[card.name] += 1
        if fate_of_it is not None:
            self._lasting[card.on] = (elapsed + fate_of_it.seconds, fate_of_it)
        self._next, self._next_at = next(self._deck), elapsed + self._rng.uniform(1.0, 3.0)

    def calm(self) -> None:
        """End all faults, so that everything works again."""
        for _, fate in self._lasting.values():
            fate.end()
        self._lasting.clear()
        self.stage.tables.weather = {}
        self.stage.pipeline.weather = {}
