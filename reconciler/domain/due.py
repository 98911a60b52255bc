"""Since when something is due, and which times are believable."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TypeGuard

from reconciler.domain.model import LONG_AGO, Child, Meta, moment

MAX_AHEAD = timedelta(minutes=5)
"""Clocks differ by less; a time further ahead counts as unreadable."""


EXPIRED = "its row's time to live is over, so it gets no new work"


def due_since(
    child: Child, meta: Meta | None, predecessors: Iterable[datetime | None], now: datetime
) -> datetime:
    """Return since when a child has been due; ``LONG_AGO`` if no time is known.

    ``predecessors``: when each got its status. The child's own row shows whether it was just added,
    retried or un-skipped, and the meta row whether the orchestration was just reopened. The live
    reconciler may then be about to act, so the grace starts there.
    """
    own = (child.since, meta.updated_at if meta is not None else None)
    return latest((*predecessors, *map(moment, own)), now)


def is_expired(child: Child | None, meta: Meta | None, now: datetime) -> bool:
    """Whether the TTL of a row is over, so that DynamoDB may delete it at any moment."""
    return any(
        row is not None and row.ttl is not None and row.ttl <= now.timestamp()
        for row in (child, meta)
    )


def latest(times: Iterable[datetime | None], now: datetime) -> datetime:
    """Return the latest believable time; ``LONG_AGO`` if there is none."""
    return max((time for time in times if is_believable(time, now)), default=LONG_AGO)


def is_believable(time: datetime | None, now: datetime) -> TypeGuard[datetime]:
    """Whether a time is known, and not so far ahead that a clock must be wrong."""
    return time is not None and time - now <= MAX_AHEAD


def past(since: datetime | None, wait: timedelta, now: datetime) -> bool:
    """Whether ``wait`` has passed since a moment; an unknown one counts as long ago."""
    # A time far ahead, by a wrong clock, must not delay a repair until then.
    return not is_believable(since, now) or now - since >= wait
