"""How much of a backlog is queued: asks fill the queue, and new finds wait."""

from __future__ import annotations

from unittest.mock import Mock

import pytest

from reconciler.observability.metrics import NULL_METRICS
from reconciler.settings import load_settings
from workers.dedup import DedupKeys
from workers.enqueue import Enqueuer
from workers.names import ASKS_PER_INTERVAL

TABLES = dict.fromkeys(
    ("ORCHESTRATION_TABLE_NAME", "TASK_TABLE_NAME", "TASK_EVENTS_TABLE_NAME"), "table"
)


def room(queued: int, *, in_turn: bool, a_minute: int = 600) -> int:
    client = Mock(llen=lambda _queue: queued)
    settings = load_settings({**TABLES, "RELEASE_RATE_PER_MINUTE": str(a_minute)})
    sender = Enqueuer(Mock(), DedupKeys(client, "here"), NULL_METRICS, settings)
    return sender.room_for_releases(in_turn=in_turn)


A_THIRD = 600 * 300 // 60 // ASKS_PER_INTERVAL
"""How many releases the rate allows between two asks."""


def test_an_ask_queues_enough_for_two_asks() -> None:
    """So the next ask finds the queue half full."""
    assert room(0, in_turn=True) == 2 * A_THIRD
    assert room(A_THIRD, in_turn=True) == A_THIRD
    assert room(2 * A_THIRD, in_turn=True) == 0


@pytest.mark.parametrize("queued", [A_THIRD, A_THIRD + 1, 2 * A_THIRD])
def test_new_finds_leave_room_for_the_oldest(queued: int) -> None:
    """They get no room once the queue is half full."""
    assert room(queued, in_turn=False) == 0


def test_without_a_backlog_new_finds_have_room() -> None:
    assert room(A_THIRD - 1, in_turn=False) == A_THIRD + 1


def test_even_a_slow_rate_has_room() -> None:
    assert room(0, in_turn=False, a_minute=1) == room(0, in_turn=True, a_minute=1) == 20
