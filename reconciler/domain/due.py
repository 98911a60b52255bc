"""Since when something is due, and which times can be believed."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TypeGuard

from reconciler.domain.model import LONG_AGO, Child, Meta, moment

MAX_AHEAD = timedelta(minutes=5)
"""Clocks differ by less: a time further ahead of now is as good as unreadable."""


EXPIRED = "its row's time to live is over, so it gets no new work"


def due_since(
    child: Child, meta: Meta | None, predecessors: Iterable[datetime | None], now: datetime
) -> datetime:
    """Return since when a child has been due; ``LONG_AGO`` where no time is known.

    ``predecessors``: when each of them became what it is. The platform may just have added, retried
    or un-skipped the child, which shows on its own row, or reopened the orchestration, which shows
    on the meta row: then the live reconciler may be about to act, and the grace counts from there.
    """
    own = (child.since, meta.updated_at if meta is not None else None)
    return latest((*predecessors, *map(moment, own)), now)


def is_expired(child: Child | None, meta: Meta | None, now: datetime) -> bool:
    """Whether the time to live of a row is over: DynamoDB may delete it at any moment.

    An orchestration that is about to vanish gets no new work.
    """
    return any(
        row is not None and row.ttl is not None and row.ttl <= now.timestamp()
        for row in (child, meta)
    )


def latest(times: Iterable[datetime | None], now: datetime) -> datetime:
    """Return the latest of the times that can be believed; ``LONG_AGO`` where there is none."""
    return max((time for time in times if is_believable(time, now)), default=LONG_AGO)


def is_believable(time: datetime | None, now: datetime) -> TypeGuard[datetime]:
    """Whether a time is known, and not so far ahead that some clock must be wrong."""
    return time is not None and time - now <= MAX_AHEAD


def past(since: datetime | None, wait: timedelta, now: datetime) -> bool:
    """Whether ``wait`` is over since a moment; one that is not known counts as long ago."""
    # A wrong clock far ahead must not put a repair off until its time has come.
    return not is_believable(since, now) or now - since >= wait
