"""Going through schedules: every one of a small scenario, or seeded random ones of a large one.

*Exhaustive.* Depth-first over choices. Two prefixes that lead to the same ``Execution.state`` have
the same future, so a state that has been seen is not gone into again:

- an actor is deterministic in what it was told (no clock, no dice, no shared memory of its own),
  so the digest of its answers stands for all of its memory;
- the database answers from what stands in its tables and, where an index lags, from what it has
  held; both are in the state;
- the invariants are judged on each call, from the tables before and after it, and calls are judged
  before the state that they lead to is looked up. So cutting there loses no violation.

By the same token what a call comes to is a function of what is asked and of what stands in the
tables, and where its actor comes to stand is one of where it stood and of the answer, whatever the
other actors have been told. So each call is carried out and judged once for all the states in which
it is the same, and each answer is told to an actor once (``cast.py``). What is found is carried out
once more, from the start and in one go.

A call that nobody else can notice (the start of an actor, an invocation, an event that no actor
reads, the pause switch that none turns) commutes with everything that others do, and is carried
out at once, with all of its endings. A schedule that leads back to a state before it would put the
others off for ever (the "ignoring problem" of such reductions): it ends the exploration.

*Random.* A seed makes the choices; one that fails is shrunk by leaving out parts of it, and what is
left over is filled with the plainest choices. The seed alone replays it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from tests.simulation.cast import Cast
from tests.simulation.scheduler import DO, Choice, Execution, Snapshot, Turn, joint

Start = Callable[[], Execution]
Judge = Callable[[Execution], None]
"""Looks at what stands in the tables once all actors have ended; raises on what should not be."""


class Violation(AssertionError):  # noqa: N818 - it is what was found, and reads as such
    """An invariant that does not hold; ``trace`` is the schedule that leads there."""

    def __init__(self, message: str, trace: Sequence[str] = ()) -> None:
        lines = "".join(f"\n  {number:3}. {line}" for number, line in enumerate(trace, 1))
        super().__init__(message + (f"\nafter{lines}" if lines else ""))
        self.message = message
        self.trace = tuple(trace)


@dataclass(frozen=True, slots=True)
class Explored:
    """What an exploration came to. ``schedules``: how many interleavings the states stand for.

    ``steps``: the different calls that were carried out and judged: by whom, in which state of the
    tables, and how they ended.
    """

    states: int
    steps: int
    ends: int
    schedules: int

    def __str__(self) -> str:
        """Return the counts in one line."""
        return (
            f"{self.schedules:,} schedules over {self.states:,} states, from {self.steps:,} "
            "different calls"
        )


class State(NamedTuple):
    """Where an execution stands: numbers of the tables and of each actor; faults that are left."""

    tables: int
    faults: int
    actors: tuple[int, ...]

    def packed(self) -> int:
        """Return it as one number: of states there are many."""
        number = self.tables
        for part in (self.faults, *self.actors):
            number = number << _BITS | part
        return number


_BITS = 24
_ON_THE_PATH = -1


class _Explorer:
    """One exploration at work, depth first.

    ``schedules``: how many there are from each state that has been gone into.
    """

    def __init__(self, start: Start, judge: Judge, most_states: int, *, forget: bool) -> None:
        self.start = start
        self.judge = judge
        self.most_states = most_states
        self.world = start()
        self.cast = Cast(self.world.actors, forget=forget)
        self.snapshots: list[Snapshot] = []
        self.tables: dict[Hashable, int] = {}
        self.turns: dict[tuple[int, int], Turn] = {}
        self.steps: dict[tuple[int, int, str, int], tuple[int, int]] = {}
        self.schedules: dict[int, int] = {}
        self.path: list[_Visit] = []
        self.ends = 0
        self.judged: set[int] = set()

    def run(self) -> Explored:
        first = State(self._note_tables(), self.world.faults, self.cast.first)
        self.path.append(self._visit(first))
        try:
            while True:
                visit = self.path[-1]
                if visit.left:
                    self._go_on(visit)
                    continue
                self._leave(self.path.pop())
                if not self.path:
                    break
        finally:
            self.cast.end()
        return Explored(
            states=len(self.schedules),
            steps=len(self.steps),
            ends=self.ends,
            schedules=self.schedules[first.packed()],
        )

    def _visit(self, state: State) -> _Visit:
        turns = [self._turn(state, i) for i in range(len(state.actors))]
        choices = joint(turns, faulty=state.faults > 0)
        if not choices:
            self.ends += 1
            self._judge(state)
        self.schedules[state.packed()] = _ON_THE_PATH
        return _Visit(state, choices[::-1], schedules=0 if choices else 1)

    def _go_on(self, visit: _Visit) -> None:
        """Take the next choice of a state; go into what it leads to unless that is done with."""
        visit.taken = visit.left.pop()
        there = self._follow(visit.state, visit.taken)
        known = self.schedules.get(there.packed())
        if known is None:
            self.path.append(self._visit(there))
        elif known == _ON_THE_PATH:
            msg = f"{visit.taken} leads back to a state before it: a schedule has no end"
            raise RuntimeError(msg)
        else:
            visit.schedules += known

    def _leave(self, visit: _Visit) -> None:
        if len(self.schedules) >= self.most_states:
            msg = f"more than {self.most_states} states"
            raise RuntimeError(msg)
        self.schedules[visit.state.packed()] = visit.schedules
        if self.path:
            self.path[-1].schedules += visit.schedules

    # -- what follows from a state, learnt once for all in which it is the same

    def _turn(self, state: State, i: int) -> Turn:
        key = state.tables, state.actors[i]
        if key not in self.turns:
            self.world.restore(self.snapshots[state.tables])
            self.turns[key] = self.world.turn_with(i, self.cast.standings[state.actors[i]].call)
        return self.turns[key]

    def _follow(self, state: State, choice: Choice) -> State:
        actors = list(state.actors)
        key = state.tables, actors[choice.actor], choice.how, choice.answer
        if key not in self.steps:
            self.steps[key] = self._carry_out(state, choice)
        tables, actors[choice.actor] = self.steps[key]
        return State(tables, state.faults - (choice.how != DO), tuple(actors))

    def _carry_out(self, state: State, choice: Choice) -> tuple[int, int]:
        number = state.actors[choice.actor]
        asked = self.cast.standings[number].asked
        if asked is None:
            msg = f"{choice} is none: it has ended"
            raise LookupError(msg)
        self.world.restore(self.snapshots[state.tables])
        before = self.world.contents()
        try:
            answer = self.world.perform(asked, choice)
        except AssertionError as error:
            raise self._violation() from error
        after = self.world.contents()
        same = all(after[name] is items for name, items in before.items())
        same = same and self.world.clock.now == self.snapshots[state.tables].now
        tables = state.tables if same else self._note_tables()
        if choice.dies:
            return tables, self.cast.ended(choice.actor)
        try:
            return tables, self.cast.told(choice.actor, number, answer, self.world.clock.now)
        except Exception as error:
            error.add_note(f"an actor let it through, by the choices {self._choices()}")
            raise

    def _note_tables(self) -> int:
        number = self.tables.setdefault(self.world.shared(), len(self.snapshots))
        if number == len(self.snapshots):
            self.snapshots.append(self.world.snapshot())
        return number

    # -- ends, and what is found

    def _judge(self, state: State) -> None:
        if state.tables in self.judged:
            return
        self.judged.add(state.tables)
        execution = self.start()
        try:
            execution.restore(self.snapshots[state.tables])
            self.judge(execution)
        except AssertionError as error:
            raise self._violation() from error
        finally:
            execution.end()

    def _choices(self) -> list[Choice]:
        return [visit.taken for visit in self.path if visit.taken is not None]

    def _violation(self) -> Violation:
        """Carry out, from the start and in one go, the path that has led to a violation."""
        choices = self._choices()
        execution = self.start()
        try:
            for choice in choices:
                execution.step(choice)
            self.judge(execution)
        except AssertionError as error:
            return Violation(str(error), execution.trace)
        finally:
            execution.end()
        msg = f"what was found does not come about again by {choices}"
        raise RuntimeError(msg)


@dataclass(slots=True)
class _Visit:
    """A state on the path: the choices that are ``left``, and the one that was ``taken`` last."""

    state: State
    left: list[Choice]
    schedules: int
    taken: Choice | None = None


def explore(
    start: Start, judge: Judge, *, most_states: int = 4_000_000, forget: bool = True
) -> Explored:
    """Go through every schedule.

    ``forget`` False takes no actor's word for what it knows (``memories.py``): the same schedules,
    over more states.

    Raises:
        Violation: the first that was found, with its schedule.
        RuntimeError: there are more states than ``most_states``: the scenario is too large. Or
            what an actor does is not determined by what it knows.
    """
    return _Explorer(start, judge, most_states, forget=forget).run()


# -- at random


def run_random(start: Start, judge: Judge, seed: int) -> tuple[int, ...]:
    """Run one schedule of dice seeded with ``seed``; returns the numbers that were thrown.

    Raises:
        Violation: shrunk to few choices; its message names the seed.
    """
    dice = Random(seed)  # noqa: S311 - a schedule
    thrown: list[int] = []

    def throw(count: int) -> int:
        # Faults are rare among the choices of a step: else hardly anybody would reach an end.
        thrown.append(dice.randrange(count))
        return thrown[-1]

    found = _attempt(start, judge, throw)
    if found is None:
        return tuple(thrown)
    numbers, violation = shrink(start, judge, thrown, found)
    message = f"{violation.message}\nseed {seed}, shrunk to {len(numbers)} choices {numbers}"
    raise Violation(message, violation.trace)


def replay(start: Start, judge: Judge, numbers: Sequence[int]) -> Violation | None:
    """Run the schedule of these numbers, then the plainest choices; returns what it breaks."""
    left = list(numbers)
    return _attempt(start, judge, lambda count: left.pop(0) % count if left else 0)


def _attempt(start: Start, judge: Judge, throw: Callable[[int], int]) -> Violation | None:
    execution = start()
    try:
        while choices := execution.choices():
            execution.step(choices[throw(len(choices)) if len(choices) > 1 else 0])
        judge(execution)
    except Violation as violation:
        return Violation(violation.message, execution.trace)
    except AssertionError as error:
        return Violation(str(error), execution.trace)
    finally:
        execution.end()
    return None


def shrink(
    start: Start, judge: Judge, numbers: Sequence[int], found: Violation
) -> tuple[list[int], Violation]:
    """Leave out what is not needed, in ever smaller parts, then make the rest plainer."""
    best, violation = list(numbers), found
    size = len(best)
    while size >= 1:
        position = 0
        while position < len(best):
            shorter = best[:position] + best[position + size :]
            again = replay(start, judge, shorter)
            if again is None:
                position += size
            else:
                best, violation = shorter, again
        size //= 2
    for position, number in enumerate(best):
        if number:
            plainer = [*best[:position], 0, *best[position + 1 :]]
            again = replay(start, judge, plainer)
            if again is not None:
                best, violation = plainer, again
    return best, violation
