"""Releases that an evaluation hands on: how many, their due times, and when they are sent."""

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
        assert requests, "an empty list must not be sent"
        self.sent.extend(requests)


@pytest.mark.parametrize("in_turn", [True, False])
def test_releases_are_taken_while_there_is_room(in_turn: bool) -> None:  # noqa: FBT001
    """The room is asked for once, and nothing is sent before ``send``."""
    sender = Sender()
    handed_on = HandedOn(sender, limited=True, in_turn=in_turn)
    assert [handed_on.take(request(child)) for child in "abc"] == [True, True, False]
    assert sender.asked == [in_turn]
    assert sender.sent == [], "they are recorded first"
    handed_on.send()
    assert sender.sent == [request("a"), request("b")]


def test_releases_by_hand_need_no_room() -> None:
    sender = Sender(room=0)
    handed_on = HandedOn(sender, limited=False, in_turn=False)
    assert all(handed_on.take(request(child)) for child in "abc")
    assert sender.asked == []


def test_a_single_release_is_marked_alone() -> None:
    sender = Sender()
    handed_on = HandedOn(sender, limited=True, in_turn=False)
    handed_on.take(request("a"))
    handed_on.send()
    assert sender.sent == [replace(request("a"), alone=True)]


def test_without_releases_nothing_is_sent() -> None:
    HandedOn(Sender(), limited=True, in_turn=False).send()


def test_each_release_keeps_its_due_time() -> None:
    handed_on = HandedOn(Sender(), limited=True, in_turn=False)
    handed_on.take(request("a"))
    handed_on.take(request("b", None))
    assert handed_on.due == {"a": NOW.timestamp(), "b": None}
    assert epoch_of(LONG_AGO) is None
