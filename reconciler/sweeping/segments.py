"""Segments: how many there are, who reads one, how far that read is, and when one is due.

A segment's *mark* is when its last complete read began. Whatever was overdue then has been seen.
While a segment is read it has a *lease* of a few seconds. The lease only saves work: two readers of
one segment do no harm.

A time in the future counts as absent: the clock must have jumped back, for example when the broker
failed over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Literal

from reconciler.sweeping.records import read_as


class Scope(StrEnum):
    """What a scan covers: the active children (by the index), or the whole table."""

    ACTIVE = "active"
    TABLE = "table"


NEVER = 0.0
"""The time of what has not happened or is unknown."""

LEASE_SECONDS = 6.0
"""When a reader was killed, its segment is read again after this. No page should take longer."""

_BYTES_PER_SEGMENT = 32 * 1024 * 1024
_MIN_BYTES_PER_SEGMENT = 4 * 1024 * 1024
_MAX_SEGMENTS = 4096
_MAX_ACTIVE_SEGMENTS = 8


@dataclass(frozen=True, slots=True)
class Segment:
    """One of ``total`` parts of a scope, numbered from 0."""

    scope: Scope
    number: int
    total: int

    @property
    def label(self) -> str:
        """The segment as shown in task ids."""
        suffix = "-active" if self.scope is Scope.ACTIVE else ""
        return f"{self.number + 1}of{self.total}{suffix}"


@dataclass(frozen=True, slots=True)
class Place:
    """Where an unfinished read goes on. ``began``: when it began, at the first row.

    ``start_key``: orchestration and sub-issue id of the last row before it.
    """

    began: float
    step: int = 0
    start_key: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class SegmentState:
    """The recorded state of a segment."""

    mark: float = NEVER
    place: Place | None = None
    token: str | None = None
    leased_until: float = NEVER

    @classmethod
    def from_record(cls, record: Mapping[str, Any] | None, now: float) -> SegmentState:
        """Parse a record; times after ``now`` count as absent."""
        found = read_as(cls, record) or cls()
        place = found.place
        if place is not None and place.began > now:
            place = None
        # A lease that would last longer was taken before the clock jumped back.
        leased = now < found.leased_until <= now + LEASE_SECONDS
        return cls(
            mark=found.mark if found.mark <= now else NEVER,
            place=place,
            token=found.token if leased else None,
            leased_until=found.leased_until if leased else NEVER,
        )

    def to_record(self) -> dict[str, Any]:
        """Return the state as JSON values."""
        return asdict(self)

    def taken_by(self, token: str, now: float) -> SegmentState:
        """Lease it to a new reader; a read that has not completed a step begins anew."""
        place = self.place or Place(now)
        if place.step == 0:
            place = replace(place, began=now)
        return replace(self, place=place).leased_to(token, now)

    def leased_to(self, token: str, now: float) -> SegmentState:
        """Lease it, or renew the lease."""
        return replace(self, token=token, leased_until=now + LEASE_SECONDS)

    def left_at(self, place: Place | None) -> SegmentState:
        """Free it; the next reader goes on from ``place``."""
        return replace(self, place=place, token=None, leased_until=NEVER)

    def read_to_its_end(self) -> SegmentState:
        """Free it and set its mark, since the read is complete."""
        began = self.place.began if self.place is not None else NEVER
        return SegmentState(mark=max(self.mark, began))


def choose_by_rotation(marks: Mapping[int, float], now: float, every_seconds: float) -> list[int]:
    """Return which segments of the table a sweep reads besides the index, oldest mark first.

    Each segment has its own time within ``every_seconds``, evenly spread, and is due if it was not
    read since then. One that was never read is due at once.
    """
    apart = every_seconds / max(1, len(marks))

    def last_time(number: int) -> float:
        offset = number * apart
        return (now - offset) // every_seconds * every_seconds + offset

    due = [n for n, mark in marks.items() if mark == NEVER or mark < last_time(n)]
    return sorted(due, key=lambda number: (marks[number], number))


def choose_totals(
    setting: Literal["auto"] | int,
    read_size: Callable[[], int],
    workers: Callable[[], int],
    current: Mapping[Scope, int],
) -> dict[Scope, int]:
    """Return the number of segments of the table and of the index (``SWEEP_SEGMENTS``).

    ``auto``: one for each 32 MiB of the table, but enough to keep all ``workers`` busy as long as
    each has 4 MiB to read. The index gets at most one per worker, since each segment costs one
    request per status. Numbers are powers of two and rarely change, because marks are lost when
    the number changes.
    """
    if setting != "auto":
        return {Scope.TABLE: setting, Scope.ACTIVE: min(setting, _MAX_ACTIVE_SEGMENTS)}
    size = read_size()
    most = math.ceil(size / _MIN_BYTES_PER_SEGMENT)
    by_workers = min(workers(), most) if most > 1 else 1
    by_size = min(max(math.ceil(size / _BYTES_PER_SEGMENT), by_workers), _MAX_SEGMENTS)
    wanted = {Scope.TABLE: by_size, Scope.ACTIVE: by_workers}
    return {scope: _settled(number, current.get(scope)) for scope, number in wanted.items()}


def _settled(wanted: int, current: int | None) -> int:
    """Return a power of two; keep the current one while it is less than four times too large."""
    if current is not None and wanted <= current < 4 * wanted:
        return current
    return 1 << max(0, wanted - 1).bit_length()
