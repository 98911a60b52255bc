"""Releases that an evaluation hands on: how many, with what, and when they are sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import pytest

from reconciler.domain.model import LONG_AGO
from reconciler.repair.context import ReleaseRequest
from reconciler.sweeping.handed_on import HandedOn, epoch_of
from tests.support.strategies import NOW


def request(child: str, due_since: datetime | None = NOW) -> ReleaseRequest:
    return ReleaseRequest("o", child, f"o_{child}", (), due_since, "s")


@dataclass
class Sender:
    room: int = 2
    asked: list[bool] = field(default_factory=list)
    sent: list[ReleaseRequest] = field(default_factory=list)

    def room_for_releases(self, *, in_turn: bool) -> int:
        self.asked.append(in_turn)
        return self.room

    def release(self, requests: Sequence[ReleaseRequest]) -> None:
        assert requests, "nothing is no message"
        self.sent.extend(requests)


@pytest.mark.parametrize("in_turn", [True, False])
def test_as_many_are_taken_as_there_is_room_for_and_it_is_asked_for_once(in_turn: bool) -> None:  # noqa: FBT001
    sender = Sender()
    handed_on = HandedOn(sender, limited=True, in_turn=in_turn)
    assert [handed_on.take(request(child)) for child in "abc"] == [True, True, False]
    assert sender.asked == [in_turn]
    assert sender.sent == [], "they are remembered first"
    handed_on.send()
    assert sender.sent == [request("a"), request("b")]


def test_what_a_person_asked_for_finds_room_always() -> None:
    sender = Sender(room=0)
    handed_on = HandedOn(sender, limited=False, in_turn=False)
    assert all(handed_on.take(request(child)) for child in "abc")
    assert sender.asked == []


def test_a_single_one_is_known_to_be_alone() -> None:
    sender = Sender()
    handed_on = HandedOn(sender, limited=True, in_turn=False)
    handed_on.take(request("a"))
    handed_on.send()
    assert sender.sent == [replace(request("a"), alone=True)]


def test_without_any_nothing_is_sent() -> None:
    HandedOn(Sender(), limited=True, in_turn=False).send()


def test_it_is_remembered_since_when_each_is_due() -> None:
    handed_on = HandedOn(Sender(), limited=True, in_turn=False)
    handed_on.take(request("a"))
    handed_on.take(request("b", None))
    assert handed_on.due == {"a": NOW.timestamp(), "b": None}
    assert epoch_of(LONG_AGO) is None
