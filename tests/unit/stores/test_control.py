"""The pause switch: which pause holds, how long it is cached, and what it says."""

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


def test_the_pause_is_cached_for_one_second() -> None:
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


def test_the_writer_sees_its_change_at_once() -> None:
    one = switch(MemoryDynamoDB())
    assert one.paused() is None
    one.pause("", "", NOW)
    assert one.paused() == Pause("2026-06-09T12:00:00.000Z", "no reason given", "unknown")
    one.resume()
    one.resume()
    assert one.paused() is None


def test_the_pause_is_read_strongly_consistently() -> None:
    database = MemoryDynamoDB(lag=lambda *_: 100)
    pause = switch(database).pause("x", "y", NOW)
    assert switch(database).paused() == pause


def test_a_second_pause_keeps_the_first() -> None:
    database = MemoryDynamoDB()
    first = switch(database).pause("first", "a", NOW)
    assert switch(database).pause("second", "b", NOW + timedelta(hours=1)) == first


def test_a_pause_written_by_hand_holds() -> None:
    database = MemoryDynamoDB()
    key = {"orchestration_id": {"S": "reconciler#control"}, "sub_issue_id": {"S": PAUSE_ROW}}
    database.put_item(TableName="OrchestrationTable", Item=key)
    assert switch(database).paused() == Pause("", "", "")
