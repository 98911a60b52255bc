"""A step through a part of the table: reads it cheaply and nominates.

An orchestration's rows come together, but a page, step or segment boundary may cut through them.
Rows are carried over from page to page. A step ends after the last orchestration that was read
completely, and the next step goes on there. Tasks of running children are read 100 at a time across
orchestrations, so a sweep that finds nothing wrong costs only its pages and those reads.

``SegmentScan`` reads a segment of the table, ``reconciler.sweeping.index_scan`` one of the index.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from reconciler.clock import OutOfTime
from reconciler.domain.model import Item, Orchestration, Task
from reconciler.domain.nomination import fingerprint_of, running_tasks, suspicious
from reconciler.errors import DEFECTS, ThrottledError
from reconciler.repair.counts import Counts
from reconciler.repair.reconciler import Reconciler
from reconciler.stores import control
from reconciler.stores.dynamodb import measured
from reconciler.stores.orchestrations import Page
from reconciler.stores.rows import parse_orchestration, plainly_settled
from reconciler.sweeping.batches import Batches
from reconciler.sweeping.segments import Place, Segment

Nominate = Callable[[str, str | None], None]
"""Called for each orchestration that should be evaluated, with its id and a fingerprint of what the
scan saw (None if that was not all of it)."""


@dataclass(frozen=True, slots=True)
class SegmentResult:
    """What a step read; ``next`` is where the rest begins, None at the end of the segment."""

    counts: Counts
    next: Place | None


class Step(ABC):
    """One step: handles pages, carried rows and tasks. Subclasses say how to read.

    ``watched``: orchestration id → fingerprint; nominated as well if the scan sees another one.
    """

    def __init__(
        self, reconciler: Reconciler, segment: Segment, watched: Mapping[str, str] | None = None
    ) -> None:
        self._orchestrations = reconciler.orchestrations
        self._tasks = reconciler.tasks
        self._policy = reconciler.policy
        self._clock = reconciler.clock
        self._pacer = reconciler.read_pacer
        self._segment = segment
        self._watched = watched or {}
        self._counts = Counts()
        self._rows: list[Item] = []
        self._seen = 0
        self._scanned = 0
        self._until_tasks = Batches(self._read_tasks, self._judge)
        self._broken: list[str] = []
        self._nominate: Nominate = lambda *_: None

    # -- reading

    @abstractmethod
    def _next_page(self, start: dict[str, Any] | None, limit: int | None) -> Page:
        """Read the page after ``start``."""

    @abstractmethod
    def _understood(self, name: str, rows: Sequence[Item]) -> Orchestration | None:
        """Parse an orchestration's rows; None if it needs no judging."""

    def _look_at(self, orchestration: Orchestration) -> None:
        """Judge an orchestration once the tasks that it needs have been read."""
        self._until_tasks.add(orchestration, running_tasks(orchestration))

    def _may_end(self) -> bool:
        """Whether this step has made progress, so that the next one begins further on."""
        return True

    def _unread(self) -> None:
        """Read what is still missing, except tasks, at the end of a step."""
        return

    def _passed_by(self, start: dict[str, Any] | None) -> dict[str, Any] | None:
        """Return where to go on after a step that completed no orchestration."""
        if self._rows:
            # One orchestration fills the whole step. The next step will see only a part of it,
            # and nominate it for what is missing.
            self._nominate(self._rows[0]["orchestration_id"]["S"], None)
            self._scanned += 1
        return start

    # -- pages

    def run(self, place: Place, out_of_time: OutOfTime, nominate: Nominate) -> SegmentResult:
        """Read pages from ``place`` until the segment ends or ``out_of_time`` returns True.

        Raises:
            TemporaryError, PermanentError: the table cannot be read. Nothing is lost, since the
                step can be repeated from its place.
        """
        self._nominate = nominate
        start = _typed(place.start_key)
        resume: dict[str, Any] | None = None

        def over() -> bool:
            # Asked first, because that also renews the lease.
            return out_of_time() and self._may_end()

        while True:
            page = self._page(start, over, out_of_time)
            if page is None:
                # Reads were paced until the time was up: the next step goes on from here.
                return self._handed_on(place, resume, start)
            for row in page.items:
                if self._rows and row["orchestration_id"] != self._rows[-1]["orchestration_id"]:
                    resume = key_of(self._rows[-1])
                    self._finish()
                self._rows.append(row)
            if page.last:
                self._finish()
                self._judge_all()
                return SegmentResult(self._total(), None)
            start = page.next_key or start
            if over():
                return self._handed_on(place, resume, start)

    def _page(
        self,
        start: dict[str, Any] | None,
        over: Callable[[], bool],
        out_of_time: OutOfTime,
    ) -> Page | None:
        """Read the next page; None if the time is up before it could be read."""
        while True:
            turn = self._pacer.wait(over)
            if turn is None:
                return None
            try:
                with measured() as consumed:
                    page = self._next_page(start, turn.limit)
            except ThrottledError:
                self._pacer.throttled(turn)
                if not out_of_time():
                    continue
                if self._seen == 0:
                    raise
                return None
            finally:
                self._counts = self._counts.with_consumed(consumed)
            self._pacer.read(turn, page.read_units, page.rows, strained=page.retries > 0)
            self._seen += len(page.items)
            return page

    def _handed_on(
        self, place: Place, resume: dict[str, Any] | None, start: dict[str, Any] | None
    ) -> SegmentResult:
        """End a step, between two orchestrations if it completed any."""
        if resume is not None:
            # Rows of the incomplete orchestration are read again, and counted then.
            self._seen -= len(self._rows)
            start = resume
        else:
            start = self._passed_by(start)
        self._rows = []
        self._judge_all()
        return SegmentResult(self._total(), Place(place.began, place.step + 1, _plain(start)))

    def _total(self) -> Counts:
        return self._counts + Counts(rows_scanned=self._seen, orchestrations_scanned=self._scanned)

    # -- judging

    def _finish(self) -> None:
        rows, self._rows = self._rows, []
        if not rows:
            return
        name = rows[0]["orchestration_id"]["S"]
        try:
            orchestration = self._understood(name, rows)
        except DEFECTS:
            # The evaluation will fail on this one alone, and say why.
            self._broken.append(name)
            self._scanned += 1
            return
        if orchestration is None:
            if name in self._watched:
                self._nominate(name, None)
            return
        self._scanned += 1
        self._look_at(orchestration)

    def _judge_all(self) -> None:
        self._unread()
        self._until_tasks.finish()
        for name in self._broken:
            self._nominate(name, None)

    def _read_tasks(self, task_ids: Sequence[str]) -> Mapping[str, Task | None]:
        with self._paying():
            return self._tasks.read(task_ids, consistent=False)

    @contextmanager
    def _paying(self) -> Iterator[None]:
        """Count what the block reads, which is not a page."""
        with measured() as consumed:
            yield
        self._counts = self._counts.with_consumed(consumed)
        self._pacer.spend(consumed.read_units)

    def _judge(self, orchestration: Orchestration, tasks: Mapping[str, Task | None]) -> None:
        name, state = orchestration.orchestration_id, fingerprint_of(orchestration, tasks)
        try:
            nominated = self._watched.get(name, state) != state or suspicious(
                orchestration, tasks, self._policy, self._clock()
            )
        except DEFECTS:
            nominated = True
        if nominated:
            self._nominate(name, state)


class SegmentScan(Step):
    """A step through one segment of a scan of the whole table."""

    def _next_page(self, start: dict[str, Any] | None, limit: int | None) -> Page:
        part = self._segment
        return self._orchestrations.scan_page(part.number, part.total, start, limit=limit)

    def _understood(self, name: str, rows: Sequence[Item]) -> Orchestration | None:
        if name == control.PARTITION:
            return None  # our own switch
        if plainly_settled(rows):
            self._scanned += 1
            return None
        return parse_orchestration(name, rows)


def key_of(row: Item) -> dict[str, Any]:
    """Return a row's key in DynamoDB's format."""
    return {name: row[name] for name in ("orchestration_id", "sub_issue_id")}


def _typed(key: dict[str, str] | None) -> dict[str, Any] | None:
    return None if key is None else {name: {"S": value} for name, value in key.items()}


def _plain(key: dict[str, Any] | None) -> dict[str, str] | None:
    return None if key is None else {name: value["S"] for name, value in key.items()}
