"""How much of a backlog is queued: the asks fill the queue, and what was found just now waits."""

from __future__ import annotations

from unittest.mock import Mock

import pytest

from reconciler.observability.metrics import NULL_METRICS
from workers.dedup import DedupKeys
from workers.enqueue import Enqueuer
from workers.names import ASKS_PER_INTERVAL


def room(queued: int, *, in_turn: bool, a_minute: int = 600) -> int:
    client = Mock(llen=lambda _queue: queued)
    sender = Enqueuer(
        Mock(), DedupKeys(client, "here"), NULL_METRICS, 300, releases_per_minute=a_minute
    )
    return sender.room_for_releases(in_turn=in_turn)


A_THIRD = 600 * 300 // 60 // ASKS_PER_INTERVAL
"""What the rate lets go between two asks."""


def test_an_ask_fills_the_queue_for_the_time_until_the_next_one_and_as_long_again() -> None:
    assert room(0, in_turn=True) == 2 * A_THIRD
    assert room(A_THIRD, in_turn=True) == A_THIRD
    assert room(2 * A_THIRD, in_turn=True) == 0


@pytest.mark.parametrize("queued", [A_THIRD, A_THIRD + 1, 2 * A_THIRD])
def test_what_was_found_just_now_takes_no_room_that_the_oldest_should_have(queued: int) -> None:
    assert room(queued, in_turn=False) == 0


def test_without_a_backlog_an_orchestration_is_handed_on_whole() -> None:
    assert room(A_THIRD - 1, in_turn=False) == A_THIRD + 1


def test_a_slow_rate_has_some_room_too() -> None:
    assert room(0, in_turn=False, a_minute=1) == room(0, in_turn=True, a_minute=1) == 20
