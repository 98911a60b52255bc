"""The segment scan: reads a slice of the table, cheaply, and nominates.

An orchestration's rows stand together in a scan, but a page, a step or a segment boundary may cut
through them. Rows are carried from page to page; a step ends at the last orchestration that was
read whole, and its continuation begins there. Tasks of running children are read 100 at a time
over all orchestrations, so a scan in which nothing is wrong costs its pages and those reads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from reconciler.clock import Clock
from reconciler.domain.diagnosis import Policy
from reconciler.domain.model import Item, Orchestration, Task
from reconciler.domain.nomination import plainly_settled, running_tasks, suspicious
from reconciler.domain.rows import parse_orchestration
from reconciler.errors import DEFECTS, ThrottledError
from reconciler.operations.counts import Counts
from reconciler.operations.pacing import PagePacer
from reconciler.stores import control
from reconciler.stores.dynamodb import measured
from reconciler.stores.orchestrations import MAX_KEYS_PER_BATCH, OrchestrationStore, ScanPage
from reconciler.stores.tasks import TaskStore

Nominate = Callable[[str], None]
"""Is given the id of each orchestration that the authority should look at."""


@dataclass(frozen=True, slots=True)
class SegmentCursor:
    """Where in a segment a step begins; JSON-able by ``dataclasses.asdict``.

    ``start_key``: orchestration and sub-issue id of the row before the first one to read.
    """

    sweep_id: str
    segment: int
    total: int
    step: int = 0
    start_key: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class SegmentResult:
    """What a step read; ``next`` is where the rest begins, None when the segment is read.

    ``paused_since``: the time on the pause switch, where the step came by it.
    """

    counts: Counts
    next: SegmentCursor | None
    paused_since: str | None = None


class SegmentScan:
    """One step through one segment."""

    def __init__(
        self,
        orchestrations: OrchestrationStore,
        tasks: TaskStore,
        policy: Policy,
        clock: Clock,
        pacer: PagePacer,
    ) -> None:
        self._orchestrations = orchestrations
        self._tasks = tasks
        self._policy = policy
        self._clock = clock
        self._pacer = pacer
        self._counts = Counts()
        self._rows: list[Item] = []
        self._seen = 0
        self._scanned = 0
        self._waiting: deque[tuple[Orchestration, list[str]]] = deque()
        self._wanted: deque[str] = deque()
        self._asked = 0  # tasks that have been read for those who wait
        self._read: dict[str, Task | None] = {}
        self._broken: list[str] = []
        self._paused_since: str | None = None
        self._nominate: Nominate = lambda _: None

    def run(
        self, cursor: SegmentCursor, out_of_time: Callable[[], bool], nominate: Nominate
    ) -> SegmentResult:
        """Read pages until the segment ends or ``out_of_time`` says so after one.

        Raises:
            TemporaryError, PermanentError: the table cannot be read; nothing is lost, since the
                step can be done again from its cursor.
        """
        self._nominate = nominate
        start = _typed(cursor.start_key)
        resume: dict[str, Any] | None = None
        while True:
            page = self._page(cursor, start, out_of_time)
            if page is None:
                # Held up until the step's time was over: go on from here in the next one.
                return self._handed_on(cursor, resume, start)
            for row in page.items:
                if self._rows and row["orchestration_id"] != self._rows[-1]["orchestration_id"]:
                    resume = _key(self._rows[-1])
                    self._finish()
                self._rows.append(row)
            if page.next_key is None:
                self._finish()
                self._judge_all()
                return SegmentResult(self._total(), None, self._paused_since)
            start = page.next_key
            if out_of_time():
                return self._handed_on(cursor, resume, start)

    def _page(
        self,
        cursor: SegmentCursor,
        start: dict[str, Any] | None,
        out_of_time: Callable[[], bool],
    ) -> ScanPage | None:
        """Read the next page; None when the step's time is over before it could be read."""
        while True:
            turn = self._pacer.wait(out_of_time)
            if turn is None:
                return None
            try:
                with measured() as consumed:
                    page = self._orchestrations.scan_page(
                        cursor.segment, cursor.total, start, limit=turn.limit
                    )
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
        self,
        cursor: SegmentCursor,
        resume: dict[str, Any] | None,
        start: dict[str, Any] | None,
    ) -> SegmentResult:
        """End a step between two orchestrations, if it saw the end of any."""
        if resume is not None:
            # What was read of the next one is read again, and counted then.
            self._seen -= len(self._rows)
            start = resume
        elif self._rows:
            # A single one fills the whole step; its later part is nominated for its own gap.
            self._nominate(self._rows[0]["orchestration_id"]["S"])
            self._scanned += 1
        self._rows = []
        self._judge_all()
        following = SegmentCursor(
            cursor.sweep_id, cursor.segment, cursor.total, cursor.step + 1, _plain(start)
        )
        return SegmentResult(self._total(), following, self._paused_since)

    def _total(self) -> Counts:
        return self._counts + Counts(rows_scanned=self._seen, orchestrations_scanned=self._scanned)

    # -- judging

    def _finish(self) -> None:
        rows, self._rows = self._rows, []
        if not rows:
            return
        name = rows[0]["orchestration_id"]["S"]
        if name == control.PARTITION:
            self._paused_since = control.paused_since(rows)
            return
        try:
            plain = plainly_settled(rows)
            orchestration = None if plain else parse_orchestration(name, rows)
        except DEFECTS:
            # Where our code fails on one, the authority fails on it alone, and says why.
            self._broken.append(name)
            self._scanned += 1
            return
        if orchestration is None:
            self._scanned += plain  # else it is nothing but markers
            return
        self._scanned += 1
        wanted = running_tasks(orchestration)
        if not wanted:
            self._judge(orchestration, self._clock())
            return
        self._waiting.append((orchestration, wanted))
        self._wanted.extend(wanted)
        while len(self._wanted) >= MAX_KEYS_PER_BATCH:
            self._read_tasks([self._wanted.popleft() for _ in range(MAX_KEYS_PER_BATCH)])

    def _judge_all(self) -> None:
        rest = list(self._wanted)
        self._wanted.clear()
        if rest:
            self._read_tasks(rest)
        for name in self._broken:
            self._nominate(name)

    def _read_tasks(self, task_ids: Sequence[str]) -> None:
        with measured() as consumed:
            self._read.update(self._tasks.read(task_ids, consistent=False))
        self._counts = self._counts.with_consumed(consumed)
        self._pacer.spend(consumed.read_units)
        now = self._clock()
        # Tasks are wanted and read in the order of their orchestrations, so it is the first of
        # them that have all of theirs.
        self._asked += len(task_ids)
        while self._waiting and self._asked >= len(self._waiting[0][1]):
            orchestration, wanted = self._waiting.popleft()
            self._asked -= len(wanted)
            self._judge(orchestration, now)
            for task_id in wanted:
                self._read.pop(task_id, None)

    def _judge(self, orchestration: Orchestration, now: datetime) -> None:
        try:
            nominated = suspicious(orchestration, self._read, self._policy, now)
        except DEFECTS:
            nominated = True
        if nominated:
            self._nominate(orchestration.orchestration_id)


def _key(row: Item) -> dict[str, Any]:
    return {name: row[name] for name in ("orchestration_id", "sub_issue_id")}


def _typed(key: dict[str, str] | None) -> dict[str, Any] | None:
    return None if key is None else {name: {"S": value} for name, value in key.items()}


def _plain(key: dict[str, Any] | None) -> dict[str, str] | None:
    return None if key is None else {name: value["S"] for name, value in key.items()}
