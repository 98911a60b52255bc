"""Releases that an evaluation hands on to other tasks."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from reconciler.domain.model import LONG_AGO
from reconciler.repair.context import ReleaseRequest
from reconciler.sweeping.sender import ReleaseSender


class HandedOn:
    """Collects releases to hand on, as many as there is room for.

    They are sent only after they have been recorded, since a result may come at once.
    ``in_turn``: they were chosen by age.
    """

    def __init__(self, sender: ReleaseSender, *, limited: bool, in_turn: bool) -> None:
        self._sender = sender
        self._limited = limited
        self._in_turn = in_turn
        self._room: int | None = None
        self._requests: list[ReleaseRequest] = []

    def take(self, request: ReleaseRequest) -> bool:
        """Take a release; False if there is no room for it."""
        if self._limited:
            # Ask once, not for each of thousands: it is a round trip.
            if self._room is None:
                self._room = self._sender.room_for_releases(in_turn=self._in_turn)
            if len(self._requests) >= self._room:
                return False
        self._requests.append(request)
        return True

    @property
    def due(self) -> dict[str, float | None]:
        """Child → since when it is due (epoch seconds), for each release taken."""
        return {request.sub_issue_id: epoch_of(request.due_since) for request in self._requests}

    def send(self) -> None:
        """Send the releases."""
        if len(self._requests) == 1:
            self._requests = [replace(self._requests[0], alone=True)]
        if self._requests:
            self._sender.release(self._requests)


def epoch_of(at: datetime | None) -> float | None:
    """Return a moment in epoch seconds; None if it is unknown."""
    return None if at is None or at == LONG_AGO else at.timestamp()
