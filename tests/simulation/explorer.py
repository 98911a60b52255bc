"""Explore schedules: every one of a small scenario, or seeded random ones of a large one.

*Exhaustive.* Depth-first over choices. Two prefixes that lead to the same ``Execution.state`` have
the same future, so the explorer does not enter a state twice:

- an actor is deterministic in its answers (it has no clock, no random numbers and no shared
  memory), so the digest of its answers represents all of its memory;
- the database answers from its tables and, if an index lags, from their earlier contents; both are
  in the state;
- each call is judged from the tables before and after it, before the explorer looks up the state
  that it leads to. So stopping at a known state misses no violation.

For the same reason the request and the tables determine the result of a call, and an actor's state
and the answer determine its next state, whatever the other actors were told. So each call is
carried out and judged once for all states in which it is the same, and each answer is given to an
actor once (``cast.py``). A finding is carried out once more, from the start and in one go.

Some calls nobody else can notice: the start of an actor, an invocation, an event that no actor
reads, the pause switch that none turns. Such a call commutes with everything that others do, and is
carried out at once, with all its endings. A schedule that returned to an earlier state would put
the others off for ever (the "ignoring problem" of such reductions), so it ends the exploration.

*Random.* A seed makes the choices. A failing schedule is shrunk by leaving out parts of it, and the
gaps are filled with the plainest choices. The seed alone replays it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random

from tests.simulation.cast import Cast
from tests.simulation.scheduler import DO, Choice, Execution, Snapshot, Turn

Start = Callable[[], Execution]
Judge = Callable[[Execution], None]
"""Judges the tables once all actors have ended; raises if something is wrong."""


class Violation(AssertionError):  # noqa: N818 - a finding, not an error of the program
    """An invariant that was broken; ``trace`` is the schedule that leads there."""

    def __init__(self, message: str, trace: Sequence[str] = ()) -> None:
        lines = "".join(f"\n  {number:3}. {line}" for number, line in enumerate(trace, 1))
        super().__init__(message + (f"\nafter{lines}" if lines else ""))
        self.message = message
        self.trace = tuple(trace)


@dataclass(frozen=True, slots=True)
class Explored:
    """The result of an exploration. ``schedules``: how many interleavings the states stand for.

    ``steps``: the number of different calls carried out and judged: by whom, in which state of the
    tables, and with which ending.
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


@dataclass(slots=True)
class _Moves:
    """What an actor in some state can do next, and what each choice adds to the state.

    None: not known yet. Choices that no schedule reaches are never carried out.
    """

    turn: Turn
    plain: Sequence[int] | None = None
    faulty: Sequence[int] | None = None


_BITS, _FAULT_BITS = 24, 4
_MASK = (1 << _BITS) - 1
_FAULT_MASK = (1 << _FAULT_BITS) - 1
_ON_THE_PATH = -1


class _Explorer:
    """One exploration at work, depth first.

    There are many states, so each is a single number. From the left it holds the number of the
    tables' contents, the faults left, and the state of each actor. ``schedules``: state → how many
    schedules start there.
    """

    def __init__(self, start: Start, judge: Judge, most_states: int, *, forget: bool) -> None:
        self.start = start
        self.judge = judge
        self.most_states = most_states
        self.world = start()
        self.cast = Cast(self.world.actors, forget=forget)
        actors = len(self.world.actors)
        self.shifts = [_BITS * (actors - 1 - i) for i in range(actors)]
        self.fault = 1 << _BITS * actors
        self.snapshots: list[Snapshot] = []
        self.tables: dict[Hashable, int] = {}
        self.moves: dict[int, _Moves] = {}
        self.steps: dict[tuple[int, int, str, int], tuple[int, int]] = {}
        self.schedules: dict[int, int] = {}
        self.path: list[int] = []
        self.ends = 0
        self.judged: set[int] = set()

    def run(self) -> Explored:
        first = self._note_tables() << _FAULT_BITS | self.world.faults
        for number in self.cast.first:
            first = first << _BITS | number
        try:
            self._explore(first)
        finally:
            self.cast.end()
        return Explored(
            states=len(self.schedules),
            steps=len(self.steps),
            ends=self.ends,
            schedules=self.schedules[first],
        )

    def _explore(self, first: int) -> None:
        """Visit everything that follows; this is the hot loop, so a known state costs no call."""
        schedules, path = self.schedules, self.path
        following: list[list[int]] = []
        counts: list[int] = []
        there: int | None = first
        while True:
            if there is not None:
                path.append(there)
                schedules[there] = _ON_THE_PATH
                following.append(self._following(there))
                counts.append(0 if following[-1] else self._end(there))
            there = None
            left = following[-1]
            while left:
                state = left.pop()
                known = schedules.get(state)
                if known is None:
                    there = state
                    break
                if known == _ON_THE_PATH:
                    msg = f"{self._choices()} lead back to an earlier state: a schedule has no end"
                    raise RuntimeError(msg)
                counts[-1] += known
            if there is not None:
                continue
            if len(schedules) > self.most_states:
                msg = f"more than {self.most_states} states"
                raise RuntimeError(msg)
            following.pop()
            schedules[path.pop()] = count = counts.pop()
            if not path:
                return
            counts[-1] += count

    def _end(self, state: int) -> int:
        """Judge the tables once all actors have ended; this is the end of one schedule."""
        self.ends += 1
        self._judge(self._tables_of(state))
        return 1

    # -- the consequences of a state, learnt once for all states in which they are the same

    def _following(self, state: int) -> list[int]:
        """Return the states that the choices lead to, the plainest choice last."""
        faulty = self._faults_of(state) > 0
        found: list[int] = []
        for moves in self._moves(state):
            if moves.plain is None:
                moves.plain = self._added(state, moves.turn.plain)
            found += moves.plain
            if faulty:
                if moves.faulty is None:
                    moves.faulty = self._added(state, moves.turn.faulty)
                found += moves.faulty
        return [state + added for added in reversed(found)]

    def _moves(self, state: int) -> list[_Moves]:
        """Return each actor's moves, or one actor's alone if nobody else can notice them."""
        tables = self._tables_of(state)
        every: list[_Moves] = []
        for shift in self.shifts:
            key = tables << _BITS | state >> shift & _MASK
            moves = self.moves.get(key)
            if moves is None:
                moves = self.moves[key] = self._learn(tables, len(every), state >> shift & _MASK)
            if moves.turn.alone:
                return [moves]
            every.append(moves)
        return every

    def _learn(self, tables: int, i: int, number: int) -> _Moves:
        self.world.restore(self.snapshots[tables])
        return _Moves(self.world.turn_with(i, self.cast.standings[number].call))

    def _added(self, state: int, choices: Sequence[Choice]) -> list[int]:
        return [self._follow(state, choice) - state for choice in choices]

    def _follow(self, state: int, choice: Choice) -> int:
        tables, number = self._tables_of(state), self._standing(state, choice.actor)
        key = tables, number, choice.how, choice.answer
        if key not in self.steps:
            self.steps[key] = self._carry_out(tables, number, choice)
        other_tables, other_number = self.steps[key]
        if max(other_number, len(self.snapshots)) > _MASK:
            msg = "more different tables or actor states than a state has room for"
            raise RuntimeError(msg)
        added = (other_tables - tables) * (self.fault << _FAULT_BITS)
        added += other_number - number << self.shifts[choice.actor]
        return state + added - (self.fault if choice.how != DO else 0)

    def _tables_of(self, state: int) -> int:
        return state // (self.fault << _FAULT_BITS)

    def _faults_of(self, state: int) -> int:
        return state // self.fault & _FAULT_MASK

    def _standing(self, state: int, i: int) -> int:
        return state >> self.shifts[i] & _MASK

    def _carry_out(self, tables: int, number: int, choice: Choice) -> tuple[int, int]:
        asked = self.cast.standings[number].asked
        if asked is None:
            msg = f"{choice} is impossible: the actor has ended"
            raise LookupError(msg)
        self.world.restore(self.snapshots[tables])
        before = self.world.contents()
        try:
            answer = self.world.perform(asked, choice)
        except AssertionError as error:
            raise self._violation(choice) from error
        after = self.world.contents()
        same = all(after[name] is items for name, items in before.items())
        same = same and self.world.clock.now == self.snapshots[tables].now
        left_as = tables if same else self._note_tables()
        if choice.dies:
            return left_as, self.cast.ended(choice.actor)
        try:
            return left_as, self.cast.told(choice.actor, number, answer, self.world.clock.now)
        except Exception as error:
            choices = [*self._choices(), choice]
            error.add_note(f"an actor let it through, by the choices {choices}")
            raise

    def _note_tables(self) -> int:
        number = self.tables.setdefault(self.world.shared(), len(self.snapshots))
        if number == len(self.snapshots):
            self.snapshots.append(self.world.snapshot())
        return number

    # -- ends and findings

    def _judge(self, tables: int) -> None:
        if tables in self.judged:
            return
        self.judged.add(tables)
        execution = self.start()
        try:
            execution.restore(self.snapshots[tables])
            self.judge(execution)
        except AssertionError as error:
            raise self._violation() from error
        finally:
            execution.end()

    def _choices(self) -> list[Choice]:
        """Return the choices that lead from each state of the path to the next."""
        return [self._between(*states) for states in pairwise(self.path)]

    def _between(self, state: int, there: int) -> Choice:
        faulty = self._faults_of(state) > 0
        every = (c for moves in self._moves(state) for c in moves.turn.choices(faulty=faulty))
        return next(choice for choice in every if self._follow(state, choice) == there)

    def _violation(self, *last: Choice) -> Violation:
        """Run the path to a violation again, from the start and in one go."""
        choices = [*self._choices(), *last]
        execution = self.start()
        try:
            for choice in choices:
                execution.step(choice)
            self.judge(execution)
        except AssertionError as error:
            return Violation(str(error), execution.trace)
        finally:
            execution.end()
        msg = f"the finding does not recur with {choices}"
        raise RuntimeError(msg)


def explore(
    start: Start, judge: Judge, *, most_states: int = 4_000_000, forget: bool = True
) -> Explored:
    """Go through every schedule.

    ``forget`` False ignores what actors declare about their knowledge (``memories.py``): the same
    schedules, over more states.

    Raises:
        Violation: the first that was found, with its schedule.
        RuntimeError: there are more states than ``most_states``, so the scenario is too large; or
            an actor's knowledge does not determine what it does.
    """
    return _Explorer(start, judge, most_states, forget=forget).run()


# -- at random


def run_random(start: Start, judge: Judge, seed: int) -> tuple[int, ...]:
    """Run one random schedule from ``seed``; returns the numbers that were drawn.

    Raises:
        Violation: shrunk to few choices; its message names the seed.
    """
    dice = Random(seed)  # noqa: S311 - a schedule
    thrown: list[int] = []

    def throw(count: int) -> int:
        thrown.append(dice.randrange(count))
        return thrown[-1]

    found = _attempt(start, judge, throw)
    if found is None:
        return tuple(thrown)
    numbers, violation = shrink(start, judge, thrown, found)
    message = f"{violation.message}\nseed {seed}, shrunk to {len(numbers)} choices {numbers}"
    raise Violation(message, violation.trace)


def replay(start: Start, judge: Judge, numbers: Sequence[int]) -> Violation | None:
    """Run the schedule of these numbers, then the plainest choices; returns a violation or None."""
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
    """Leave out unneeded numbers, in ever smaller parts, then make the rest plainer."""
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
