"""Random schedules of readers and evaluators over the real state of sweeps.

Orchestrations become overdue at random. Readers read segments row by row and nominate overdue
orchestrations. Evaluators read an orchestration and record the result a while later. Any of them
may be lost between two steps, and the whole state may be wiped. After each step no claim may cover
something that was not looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from reconciler.sweeping.known_stuck import Finding
from reconciler.sweeping.overview import Sweep
from reconciler.sweeping.segments import NEVER, Place, Scope, Segment, SegmentState
from reconciler.sweeping.state import SweepState

SEGMENTS = 3
ORCHESTRATIONS = 9
INTERVAL = 60


@dataclass
class Reader:
    """Reads the orchestrations of a segment one by one."""

    segment: Segment
    token: str
    taken: SegmentState
    place: Place
    at: int = 0


@dataclass
class Evaluator:
    """Has read an orchestration but not recorded it yet."""

    orchestration: int
    read_at: float


class Schedule:
    """One random schedule; ``step`` does one thing, ``check`` fails if a claim is false."""

    def __init__(self, state: SweepState, seed: int, wipe: Callable[[], object]) -> None:
        self.dice = Random(seed)  # noqa: S311 - a schedule
        self.state, self._wipe = state, wipe
        self.overdue: dict[int, float] = {}
        self.readers: list[Reader] = []
        self.evaluators: list[Evaluator] = []
        self.sweeps = 0
        self.covered = 0
        self.completed = 0
        state.set_total(Scope.TABLE, SEGMENTS)

    def step(self) -> None:
        """Do one thing at random."""
        (do,) = self.dice.choices(
            [
                self._become_overdue,
                self._begin_reading,
                self._read_on,
                self._evaluate,
                self._record,
                self._lose_somebody,
                self._begin_sweep,
                self._change_totals,
                self._forget_everything,
            ],
            [6, 8, 30, 10, 10, 1, 3, 0.2, 0.1],
        )
        do()

    def check(self) -> None:
        """Fail if the watermark or a complete sweep claims something that was not looked at."""
        seen = self.state.overview()
        as_of = seen.covered_as_of(Scope.TABLE)
        missed = {name: due for name, due in self.overdue.items() if due < as_of}
        assert not missed, f"covered as of {as_of}, but these are overdue: {missed}"
        self.covered += as_of != NEVER
        for sweep in seen.sweeps:
            if seen.is_read(sweep):
                self.completed += 1
                late = {n: due for n, due in self.overdue.items() if due < sweep.started_at}
                assert not late, f"{sweep} is complete, but these are overdue: {late}"

    # -- the steps

    def _become_overdue(self) -> None:
        self.overdue.setdefault(self.dice.randrange(ORCHESTRATIONS), self.state.now())

    def _begin_reading(self) -> None:
        total = self.state.totals()[Scope.TABLE]
        segment = Segment(Scope.TABLE, self.dice.randrange(total), total)
        token = f"{self.dice.random()}"
        taken = self.state.take(segment, token, self.state.now())
        if taken is not None and taken.place is not None:
            at = int((taken.place.start_key or {"at": "0"})["at"])
            self.readers.append(Reader(segment, token, taken, taken.place, at))

    def _read_on(self) -> None:
        if not self.readers:
            return
        reader = self.dice.choice(self.readers)
        rows = range(reader.segment.number, ORCHESTRATIONS, reader.segment.total)
        if reader.at >= len(rows):
            self.readers.remove(reader)
            self.state.finish(reader.segment, reader.token)
            return
        name = rows[reader.at]
        if name in self.overdue:
            self.state.nominate(str(name), Scope.TABLE, reader.taken.mark, reader.place.began, None)
        reader.at += 1
        if self.dice.random() < 0.3:
            self.readers.remove(reader)
            place = Place(reader.place.began, 1, {"at": str(reader.at)})
            self.state.leave(reader.segment, reader.token, place)

    def _evaluate(self) -> None:
        known = self.state.overview().known
        waiting = [int(name) for name, found in known.items() if found.waiting]
        if waiting:
            self.evaluators.append(Evaluator(self.dice.choice(waiting), self.state.now()))

    def _record(self) -> None:
        if not self.evaluators:
            return
        done = self.evaluators.pop(self.dice.randrange(len(self.evaluators)))
        self.state.evaluated(str(done.orchestration), Finding(done.read_at), INTERVAL)
        if self.overdue.get(done.orchestration, float("inf")) <= done.read_at:
            del self.overdue[done.orchestration]

    def _lose_somebody(self) -> None:
        for those in (self.readers, self.evaluators):
            if those:
                those.pop(self.dice.randrange(len(those)))

    def _begin_sweep(self) -> None:
        total = self.state.totals()[Scope.TABLE]
        owed = {Scope.TABLE.value: tuple(range(total))}
        totals = {Scope.TABLE.value: total}
        self.sweeps += 1
        self.state.begin(Sweep(f"sweep:{self.sweeps}", "repair", self.state.now(), owed, totals))

    def _change_totals(self) -> None:
        self.state.set_total(Scope.TABLE, self.dice.choice([1, SEGMENTS, 2 * SEGMENTS]))

    def _forget_everything(self) -> None:
        self._wipe()
        self.state.set_total(Scope.TABLE, SEGMENTS)
