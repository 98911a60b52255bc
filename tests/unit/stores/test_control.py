"""The pause switch: who holds it, how long what is known of it is good, and what it says."""

from __future__ import annotations

from datetime import timedelta

from reconciler.stores.control import PAUSE_ROW, ControlStore, Pause
from reconciler.stores.dynamodb import DynamoDB
from tests.simulation.memory_dynamodb import MemoryDynamoDB
from tests.support.strategies import NOW


class Hand:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def switch(database: MemoryDynamoDB, hand: Hand | None = None) -> ControlStore:
    return ControlStore(DynamoDB(database), "OrchestrationTable", hand or Hand())  # type: ignore[arg-type]


def test_what_is_known_of_it_is_at_most_a_second_old() -> None:
    database, hand = MemoryDynamoDB(), Hand()
    reader = switch(database, hand)
    assert reader.paused() is None
    pause = switch(database).pause("a deployment", "ops", NOW)
    hand.now = 0.999
    assert reader.paused() is None
    hand.now = 1.0
    assert reader.paused() == pause == Pause("2026-06-09T12:00:00.000Z", "a deployment", "ops")
    switch(database).resume()
    hand.now = 1.999
    assert reader.paused() == pause
    hand.now = 2.0
    assert reader.paused() is None


def test_who_pauses_or_resumes_knows_of_it_at_once() -> None:
    one = switch(MemoryDynamoDB())
    assert one.paused() is None
    one.pause("", "", NOW)
    assert one.paused() == Pause("2026-06-09T12:00:00.000Z", "no reason given", "unknown")
    one.resume()
    one.resume()
    assert one.paused() is None


def test_it_is_read_as_it_stands_though_replicas_lag() -> None:
    database = MemoryDynamoDB(lag=lambda *_: 100)
    pause = switch(database).pause("x", "y", NOW)
    assert switch(database).paused() == pause


def test_of_two_pauses_the_first_holds() -> None:
    database = MemoryDynamoDB()
    first = switch(database).pause("first", "a", NOW)
    assert switch(database).pause("second", "b", NOW + timedelta(hours=1)) == first


def test_a_pause_that_somebody_wrote_by_hand_holds() -> None:
    database = MemoryDynamoDB()
    key = {"orchestration_id": {"S": "reconciler#control"}, "sub_issue_id": {"S": PAUSE_ROW}}
    database.put_item(TableName="OrchestrationTable", Item=key)
    assert switch(database).paused() == Pause("", "", "")
