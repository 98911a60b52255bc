"""Sweeps beside each other, at random: messages come late, twice or never, and workers die.

The real ledger and gate on a real broker, and what the workers do with them; the table is played.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest

from reconciler.operations.context import Stuck, count_stuck
from reconciler.operations.counts import Counts
from reconciler.operations.coverage import Coverage
from reconciler.operations.scan import SegmentCursor, SegmentResult
from tests.integration.workers.conftest import INTERVAL, Time
from workers import sweeping
from workers.gate import PREFIX
from workers.ledger import stale_after
from workers.resources import Resources

pytestmark = [pytest.mark.integration, pytest.mark.workers]

FULL_INTERVAL = 3 * INTERVAL
NAMES = [f"orch_{number}" for number in range(6)]
SHOWN = frozenset(NAMES[:3])
"""What an index shows when it is stuck; the others only a full scan finds."""

ACTIONS, SEEDS = 150, 60


@dataclass
class Message:
    """One on the broker. ``key`` and ``nonce``: what it holds of the gate."""

    work: Any
    key: str
    nonce: str


@dataclass
class Game:
    """The table (``stuck``), the broker (``queue``), and the workers."""

    rng: Random
    now: Time
    held: Resources
    stuck: set[str] = field(default_factory=set)
    queue: list[Message] = field(default_factory=list)
    sweeps: list[str] = field(default_factory=list)
    last_word: dict[str, bool] = field(default_factory=dict)
    """Of each orchestration, whether it was stuck when a sweep at work was last told of it."""

    # -- the enqueuer

    def segment(self, cursor: SegmentCursor, coverage: Coverage, *, report: bool) -> bool:
        assert not report
        key = f"{coverage.value}:{cursor.segment}:{cursor.sweep_id}:{cursor.step}"
        return self._send((cursor, coverage), key, cursor.sweep_id)

    def evaluate(self, orchestration_id: str, sweep_id: str, *, report: bool) -> bool:
        assert not report
        return self._send((orchestration_id, sweep_id), f"evaluate:{orchestration_id}", sweep_id)

    def _send(self, work: Any, key: str, sweep_id: str) -> bool:
        nonce = self.held.gate.enter(key, 10**6, sweep_id)
        if nonce is None:
            return False
        if self.rng.random() < 0.03:
            return True  # its worker dies before it has left, or the broker loses it
        self.queue.append(Message(work, key, nonce))
        return True

    # -- the table

    def scan_segment(
        self, cursor: SegmentCursor, *, nominate: Any, coverage: Coverage, **_: Any
    ) -> SegmentResult:
        shown = NAMES if coverage is Coverage.FULL else sorted(SHOWN)
        for name in shown[cursor.segment :: cursor.total]:
            if name in self.stuck or self.rng.random() < 0.1:
                nominate(name)
            elif coverage is Coverage.FULL:
                self.last_word[name] = False
        return SegmentResult(Counts(), None)

    # -- the workers

    def deliver(self, message: Message) -> None:
        """Run a task; now and then its worker dies behind it, and it is delivered again."""
        first, second = message.work
        if isinstance(first, SegmentCursor):
            sweeping.step(self.held, first, second, report=False)
        else:
            self._look_at(first, second)
        if self.rng.random() < 0.1:
            return
        self.held.gate.leave(message.key, message.nonce)
        self.queue.remove(message)

    def _look_at(self, name: str, sweep_id: str) -> None:
        found = (Stuck(name, None, "missing_task", "why", 60.0),) if name in self.stuck else ()
        unit = sweeping.unit_of_evaluation(name)
        if self.held.ledger.is_open(sweep_id, unit):
            self.last_word[name] = bool(found)
        sweeping.settle(self.held, sweep_id, unit, count_stuck(found), stuck=found)

    def tick(self, *, full: bool = False) -> None:
        sweep_id = f"sweep:{len(self.sweeps)}"
        self.sweeps.append(sweep_id)
        sweeping.start(self.held, sweep_id, report=False, full=full)

    def wait(self, seconds: float) -> None:
        """Let time pass. What has been silent for so long that its key has expired is gone."""
        self.now.seconds += seconds
        if seconds >= INTERVAL:
            alive = {PREFIX + message.key for message in self.queue}
            for key in cast("Any", self.held.gate.client).keys(f"{PREFIX}*"):
                if key.decode() not in alive:
                    self.held.gate.client.delete(key)

    def act(self) -> None:
        dice = self.rng.random()
        if dice < 0.6 and self.queue:
            self.deliver(self.rng.choice(self.queue))
        elif dice < 0.7:
            self.tick(full=self.rng.random() < 0.2)
        elif dice < 0.75 and self.sweeps:
            sweeping.start(self.held, self.rng.choice(self.sweeps[-3:]), report=False, full=False)
        elif dice < 0.8 and self.queue:
            self.queue.remove(self.rng.choice(self.queue))
        elif dice < 0.9:
            self.stuck ^= {self.rng.choice(NAMES)}
        else:
            self.wait(self.rng.choice([1, 20, stale_after(INTERVAL), INTERVAL]))

    def drain(self) -> None:
        while self.queue:
            self.deliver(self.queue[0])

    @property
    def idle(self) -> bool:
        return self.held.ledger.current() is None and self.held.ledger.beside() is None


@pytest.fixture
def game(request: pytest.FixtureRequest, held: Resources, now: Time) -> Game:
    held.settings.active_index_name = "Active"
    held.settings.full_scan_interval_seconds = FULL_INTERVAL
    found = Game(Random(request.param), now, held)  # noqa: S311 - dice
    cast("Any", held).reconciler = SimpleNamespace(
        clock=lambda: datetime.fromtimestamp(now.seconds, UTC),
        choose_segments=lambda *_: found.rng.choice([1, 2]),
        scan_segment=found.scan_segment,
    )
    return found


@pytest.mark.parametrize("game", range(SEEDS), indirect=True)
def test_whatever_comes_nothing_found_is_forgotten_and_sweeps_come_right(
    game: Game, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "enqueuer_of", lambda _: game)
    ledger = game.held.ledger
    game.tick()
    game.drain()
    game.wait(INTERVAL)
    game.tick(full=True)
    game.tick()
    for _ in range(ACTIONS):
        game.act()
        if game.idle:
            known = ledger.known().stuck
            told = {name for name, stuck in game.last_word.items() if stuck}
            assert known is None or told <= set(known), "what was found is listed, or all is read"

    game.rng = SimpleNamespace(random=lambda: 1.0, choice=game.rng.choice)  # type: ignore[assignment]
    for _ in range(2 + FULL_INTERVAL // INTERVAL):
        game.wait(INTERVAL)
        game.tick()
        game.drain()
    assert game.idle
    last, full = ledger.last(complete=True), ledger.last_full()
    assert last is not None
    assert full is not None
    assert last["sweep_id"] == game.sweeps[-1], "every tick has its sweep again"
    assert game.now.seconds - full["ended_at"] <= FULL_INTERVAL, "and all is read when it is due"
    assert set(ledger.known().stuck or ()) == game.stuck
    assert sum(last["stuck"].values()) == len(game.stuck)
