"""The breaker: when a service is left alone, and for how long."""

from __future__ import annotations

from reconciler.services.breaker import PAUSE_SECONDS, Breaker
from tests.unit.stores.test_control import Hand


def test_a_failure_opens_the_breaker_for_five_seconds() -> None:
    hand = Hand()
    hand.now = 100.0
    breaker = Breaker(hand)
    assert PAUSE_SECONDS == 5.0
    assert not breaker.is_open
    breaker.open()
    for now, is_open in ((100.0, True), (104.999, True), (105.0, False)):
        hand.now = now
        assert breaker.is_open is is_open
    breaker.open()
    hand.now = 109.0
    assert breaker.is_open
