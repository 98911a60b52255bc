"""What the benchmarks calculate from their observations."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

import pytest

from benchmarks.drain import Order, Outcome, Release, order_of
from benchmarks.latency import GRACE_SECONDS, PARTS, Spread, parts_of
from benchmarks.message_times import MessageTimes
from reconciler.domain.model import Task, timestamp
from reconciler.sweeping.overview import Sweep

DUE = 1_800_000_000.0


def order(*dues: float) -> Order:
    return order_of([Release(at=100.0 + place, due=due) for place, due in enumerate(dues)], 100.0)


def test_oldest_first_is_in_order() -> None:
    kept = order(1, 1, 2, 3)
    assert kept.most_places_late == 0
    assert order(1, 2, 3).rank_correlation == 1.0
    assert kept.timeline[-1] == (3.0, 4, 4)


def test_a_child_overtaken_by_younger_ones_is_late() -> None:
    """Here two younger children go first; children of the same age share a turn."""
    found = order(8, 9, 1, 1)
    assert found.most_places_late == 2
    assert found.rank_correlation < 0


def drain(*dues: float, queue: int, seconds: float = 1.0) -> Outcome:
    releases = [Release(at=100.0 + place, due=due) for place, due in enumerate(dues)]
    orders = order_of(releases, 100.0), order_of(releases[queue:], 100.0)
    return Outcome(len(dues), 1, 600, 300, seconds, 1, queue, *orders)


def test_a_backlog_must_keep_order_and_rate() -> None:
    """The first two are found before age decides; each release may take a tenth of a second."""
    assert drain(5, 6, 1, 2, 3, 4, queue=2, seconds=0.6).broken_bounds() == []
    assert drain(5, 6, 1, 2, 3, 4, queue=2, seconds=0.7).broken_bounds() == ["seconds"]
    assert drain(5, 4, 6, 1, 2, 3, queue=2, seconds=0.6).broken_bounds() == [
        "places late",
        "order after the first queue",
    ]


def published(task_id: str, queue: str = "sweep") -> str:
    return f'LPUSH {queue} {{"body": "W10=", "headers": {{"id": "{task_id}"}}}}'


def begun(task_id: str, at: float) -> str:
    event = {"type": "task-started", "uuid": task_id, "timestamp": at}
    body = base64.b64encode(json.dumps([event]).encode()).decode()
    return f'PUBLISH /0.celeryev/task.multi {{"body": "{body}"}}'


def seen_going_by(*commands: tuple[str, float]) -> MessageTimes:
    times = MessageTimes()
    for command, at in commands:
        times.take(command, at)
    return times


def test_the_latest_message_before_a_time_is_found() -> None:
    times = seen_going_by(
        (published("evaluate:orch_1:7"), 10.0),
        (published("evaluate:orch_1:8"), 20.0),
        (begun("evaluate:orch_1:8", 21.0), 22.0),
        ("HSET evaluate:orch_1:9", 23.0),
    )
    assert times.last_sent("evaluate:orch_1", 15.0) == 10.0
    assert times.last_sent("evaluate:orch_1", 99.0) == 20.0
    assert times.last_sent("evaluate:orch_1", 9.0) is None
    assert times.last_begun("evaluate:orch_1", 99.0) == 21.0


def the_way_of_a_child() -> MessageTimes:
    """Return the messages for a child whose sweep starts 20 s after it is due."""
    return seen_going_by(
        (published("evaluate:orch_1:7"), DUE + 23),
        (begun("evaluate:orch_1:7", DUE + 24), DUE + 24.5),
        (published("release:orch_1_b:7", "release"), DUE + 26),
    )


def parts(times: MessageTimes) -> dict[str, float] | None:
    task = Task(
        task_id="t",
        status="SUBMITTED",
        idempotency_key="orch_1_b",
        orchestration_id="orch_1",
        created_at=timestamp(datetime.fromtimestamp(DUE + 27.5, UTC)),
        sweep_id="sweep:7",
    )
    found = parts_of(DUE, task, DUE + 28, {"sweep:7": Sweep("sweep:7", "repair", DUE + 20)}, times)
    return None if found is None else dict(zip(PARTS, found, strict=True))


def test_the_parts_of_a_latency_add_up() -> None:
    found = parts(the_way_of_a_child())
    assert found == {
        "grace": GRACE_SECONDS,
        "wait": 20 - GRACE_SECONDS,
        "scan": 3,
        "queue": 1 + 1.5,
        "evaluation": 2,
        "transaction": 0.5,
    }
    assert sum(found.values()) == 28


def test_a_missing_message_gives_no_parts() -> None:
    assert parts(seen_going_by((published("release:orch_1_b:7", "release"), DUE + 26))) is None


def test_a_spread_has_mean_percentiles_and_maximum() -> None:
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 2.0, 3.0, 3.0)
    assert Spread.of(float(n) for n in range(200)).p99 == pytest.approx(198)
