"""Beat: our sweep follows the monotonic clock; other entries are sent as Celery would."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import celery
import pytest
from celery.beat import SchedulingError
from kombu.exceptions import OperationalError

from workers import beat
from workers.beat import AskPoints, SweepScheduler
from workers.enqueue import BrokerUnavailableError, ask_at


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def monotonic(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("time.monotonic", clock)
    return clock


class Stage:
    """A scheduler whose sends are recorded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, entries: dict[str, Any]) -> None:
        self.wall = datetime(2026, 6, 9, 12, tzinfo=UTC)
        self.asks = 0
        self.sent: list[tuple[str, Any]] = []
        self.fails: Exception | None = None
        app = celery.Celery(set_as_current=False, broker="memory://")
        app.conf.beat_schedule = {"sweep": {"task": "s", "schedule": AskPoints(100.0)}, **entries}
        monkeypatch.setattr(app, "now", lambda: self.wall)
        monkeypatch.setattr(app, "send_task", self._send)
        monkeypatch.setattr(beat, "check_broker", lambda: None)
        monkeypatch.setattr(beat, "ask_for_sweep", self._ask)
        monkeypatch.setattr("workers.heartbeat.beat", lambda: None)
        self.scheduler = SweepScheduler(app)

    def _ask(self, _: object) -> float:
        if self.fails is not None:
            raise BrokerUnavailableError("away") from self.fails
        self.asks += 1
        return 60.0

    def _send(self, name: str, _args: Any, kwargs: Any, **_: object) -> None:
        if self.fails is not None:
            raise self.fails
        self.sent.append((name, kwargs))

    def run(self) -> None:
        """Tick until nothing is due."""
        while self.scheduler.tick() == 0:
            pass


MakeStage = Callable[..., Stage]


@pytest.fixture
def make_stage(monkeypatch: pytest.MonkeyPatch, monotonic: Clock) -> MakeStage:
    assert monotonic() == 1000.0
    return lambda **entries: Stage(monkeypatch, entries)


def test_a_beat_asks_at_once_and_periodically(make_stage: MakeStage, monotonic: Clock) -> None:
    stage = make_stage()
    stage.run()
    assert stage.asks == 1
    monotonic.seconds += 59.9
    stage.run()
    assert stage.asks == 1
    monotonic.seconds += 0.2
    stage.run()
    assert stage.asks == 2


@pytest.mark.parametrize("jump", [timedelta(hours=-2), timedelta(hours=2)], ids=["back", "forward"])
def test_a_wall_clock_that_jumps_changes_nothing(
    make_stage: MakeStage, monotonic: Clock, jump: timedelta
) -> None:
    other = {"task": "other", "schedule": timedelta(seconds=30)}
    stage = make_stage(other=other)
    stage.run()
    stage.wall += jump
    stage.run()
    assert stage.asks == 1
    monotonic.seconds += 60.0
    stage.run()
    assert stage.asks == 2


def test_other_entries_are_sent_unchanged(make_stage: MakeStage) -> None:
    entry = {"task": "other", "schedule": timedelta(seconds=30), "kwargs": {"full": True}}
    stage = make_stage(nightly=entry)
    stage.run()
    assert stage.sent == []
    stage.wall += timedelta(seconds=30)
    stage.run()
    assert stage.sent == [("other", {"full": True})]


def test_other_entries_survive_a_clock_set_back(make_stage: MakeStage) -> None:
    stage = make_stage(other={"task": "other", "schedule": timedelta(seconds=30)})
    stage.wall -= timedelta(hours=2)
    stage.run()
    stage.wall += timedelta(seconds=30)
    stage.run()
    assert [name for name, _ in stage.sent] == ["other"]


@pytest.mark.parametrize(("every", "after"), [(10.0, 10.0), (28_800.0, 30.0)])
def test_an_unreachable_broker_is_tried_again_soon(
    make_stage: MakeStage, monotonic: Clock, every: float, after: float
) -> None:
    """With a long interval, the next ask would come hours later."""
    sweep = {"task": "s", "schedule": AskPoints(every)}
    stage = make_stage(sweep=sweep, other={"task": "other", "schedule": timedelta(seconds=30)})
    stage.fails = OperationalError("away")
    stage.wall += timedelta(seconds=30)
    stage.run()
    stage.fails = None
    monotonic.seconds += after - 0.1
    stage.run()
    assert (stage.asks, stage.sent) == (0, [])
    monotonic.seconds += 0.2
    stage.wall += timedelta(seconds=30)
    stage.run()
    assert (stage.asks, stage.sent) == (1, [("other", {})])


def test_an_invalid_entry_is_not_an_outage(make_stage: MakeStage) -> None:
    stage = make_stage(other={"task": "other", "schedule": timedelta(seconds=30)})
    stage.fails = TypeError("no such argument")
    with pytest.raises(SchedulingError):
        stage.scheduler.apply_async(stage.scheduler.schedule["other"])


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (600.0, ("sweep:2", 0, 700.0)),
        (699.9, ("sweep:2", 0, 700.0)),
        (700.0, ("sweep:2", 1, 800.0)),
        (899.9, ("sweep:2", 2, 900.0)),
    ],
)
def test_a_sweep_is_asked_for_three_times(at: float, expected: tuple[str, int, float]) -> None:
    assert ask_at(300.0, at) == expected
