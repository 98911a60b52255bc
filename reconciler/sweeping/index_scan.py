"""A step through the active children: four queries of an index on ``child_status``, merged.

The index's partition key is ``child_status``, its sort key ``orchestration_id``. Each status is a
query of its own, and a segment is a range of orchestration ids. Merging by id brings the children
of an orchestration together; rows that one query has read ahead of the others are held back:

    blocked    a a b · · d │        read up to d
    ready      · · b · · · │ e      read up to e
    releasing  ─────────── │        read to its end
    released   a · · c c · │ d d    read up to d
                 a, b and c are complete; d may have more rows

Reads of an index are always eventually consistent, so this scan, too, only nominates.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reconciler.domain.model import ACTIVE_CHILD, Child, ChildStatus, Item, Orchestration
from reconciler.domain.nomination import active_part, unseen_predecessors, with_predecessors
from reconciler.repair.reconciler import Reconciler
from reconciler.stores.orchestrations import Page
from reconciler.stores.rows import parse_orchestration
from reconciler.sweeping.batches import Batches
from reconciler.sweeping.scan_step import Step, key_of
from reconciler.sweeping.segments import Segment

Bounds = tuple[str | None, str | None]
"""The lowest and the highest orchestration id of a range; None: no bound."""

ReadPage = Callable[[ChildStatus, dict[str, Any] | None, int | None], Page]
"""Reads a page of the children of a status: after a key, with at most so many rows."""

_PREFIX = "orch_"
_DIGITS = 8
RowKey = tuple[str, str]


def bounds_of(segment: int, total: int) -> Bounds:
    """Return the range of ids of segment ``segment`` of ``total``.

    An id is ``orch_`` and 32 hex digits; any other belongs to the first or the last segment.
    """

    def edge(number: int) -> str:
        return f"{_PREFIX}{number * 16**_DIGITS // total:0{_DIGITS}x}"

    return edge(segment) if segment else None, edge(segment + 1) if segment + 1 < total else None


@dataclass(slots=True)
class _Stream:
    """The rows of one status that have been read but not handed on."""

    status: ChildStatus
    rows: deque[Item] = field(default_factory=deque)
    read_up_to: str | None = None
    next_key: dict[str, Any] | None = None
    ended: bool = False


class ActiveRows:
    """The active children of a range of orchestrations, whole orchestrations at a time."""

    def __init__(self, read: ReadPage) -> None:
        self._read = read
        self._streams = [_Stream(status) for status in ACTIVE_CHILD]

    def page(self, limit: int | None) -> Page:
        """Read one page of one status; return the orchestrations that are now complete.

        ``next_key`` is empty if there are none: the next page begins where this one did.
        """
        # The stream that holds the others back, or the first that has read nothing yet.
        behind = min(
            (stream for stream in self._streams if not stream.ended),
            key=lambda stream: stream.read_up_to or "",
        )
        page = self._read(behind.status, behind.next_key, limit)
        behind.rows.extend(page.items)
        behind.next_key, behind.ended = page.next_key, page.last
        if page.items:
            behind.read_up_to = _name(page.items[-1])
        rows = self._whole()
        ended = all(stream.ended for stream in self._streams)
        position = key_of(rows[-1]) if rows else {}
        return Page(
            rows, None if ended else position, page.read_units, page.retries, len(page.items)
        )

    def _whole(self) -> list[Item]:
        unfinished = [stream.read_up_to or "" for stream in self._streams if not stream.ended]
        edge = min(unfinished, default=None)
        whole: list[Item] = []
        for stream in self._streams:
            while stream.rows and (edge is None or _name(stream.rows[0]) < edge):
                whole.append(stream.rows.popleft())
        whole.sort(key=_name)
        return whole

    @property
    def advanced(self) -> bool:
        """Whether every status has been read far enough to know which orchestration is first."""
        return all(stream.read_up_to is not None or stream.ended for stream in self._streams)

    def first_held_back(self) -> Item | None:
        """Return a row of the first incomplete orchestration, if there is any."""
        return min((s.rows[0] for s in self._streams if s.rows), key=_name, default=None)


class IndexScan(Step):
    """A step through a range of the index of active children."""

    def __init__(
        self,
        reconciler: Reconciler,
        segment: Segment,
        index: str,
        watched: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(reconciler, segment, watched)
        self._index = index
        self._active: ActiveRows | None = None
        self._until_rows = Batches(self._read_rows, self._judge_with_rows)

    # -- reading

    def _next_page(self, start: dict[str, Any] | None, limit: int | None) -> Page:
        if self._active is None:
            self._active = ActiveRows(self._reading(start))
        return self._active.page(limit)

    def _reading(self, start: dict[str, Any] | None) -> ReadPage:
        low, high = bounds_of(self._segment.number, self._segment.total)
        if start is not None:
            # The lowest greater id: the named orchestration is done.
            low = start["orchestration_id"]["S"] + "\0"

        def read(status: ChildStatus, key: dict[str, Any] | None, limit: int | None) -> Page:
            if low is not None and high is not None and low > high:
                # The last orchestration of the range is done, so nothing is left to read.
                return Page((), None, 0.0)
            return self._orchestrations.active_page(self._index, status, (low, high), key, limit)

        return read

    def _may_end(self) -> bool:
        return self._active is not None and self._active.advanced

    def _passed_by(self, start: dict[str, Any] | None) -> dict[str, Any] | None:
        if self._rows:
            self._finish()  # these rows are complete
            return start
        first = self._active.first_held_back() if self._active is not None else None
        if first is None:
            return start
        # It is too large for one step: nominate it, and let the evaluation read all of it.
        self._nominate(_name(first), None)
        self._scanned += 1
        return key_of(first)

    # -- judging

    def _understood(self, name: str, rows: Sequence[Item]) -> Orchestration | None:
        children = parse_orchestration(name, rows)
        return None if children is None else active_part(children)

    def _look_at(self, orchestration: Orchestration) -> None:
        name = orchestration.orchestration_id
        unseen = unseen_predecessors(orchestration, watched=name in self._watched)
        if unseen is None:
            self._nominate(name, orchestration.fingerprint)
        else:
            keys = [(name, key) for key in unseen]
            self._until_rows.add((orchestration, keys), keys)

    def _judge_with_rows(
        self, waiting: tuple[Orchestration, Sequence[RowKey]], read: Mapping[RowKey, Child]
    ) -> None:
        part, keys = waiting
        super()._look_at(with_predecessors(part, (read[key] for key in keys if key in read)))

    def _read_rows(self, keys: Sequence[RowKey]) -> Mapping[RowKey, Child]:
        with self._paying():
            return self._orchestrations.read_children(keys)

    def _unread(self) -> None:
        self._until_rows.finish()


def _name(row: Item) -> str:
    return str(row["orchestration_id"]["S"])
