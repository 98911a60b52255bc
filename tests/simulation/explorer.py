"""Going through schedules: every one of a small scenario, or seeded random ones of a large one.

*Exhaustive.* Depth-first over choices. Two prefixes that lead to the same ``Execution.state`` have
the same future, so a state that has been seen is not gone into again:

- an actor is deterministic in what it was told (no clock, no dice, no shared memory of its own),
  so the digest of its answers stands for all of its memory;
- the database answers from what stands in its tables and, where an index lags, from what it has
  held; both are in the state;
- the invariants are judged on each step, from the state before and after it, and steps are judged
  before the state that they lead to is looked up. So cutting there loses no violation.

By the same token a *step* is a function of what the actor was told and of what stands in the
tables, whatever the other actors have been told. So each such step of real code is executed, and
judged, once (``Memory``); where the others stand elsewhere, what it comes to is known. An execution
cannot be copied: to go on from a state, its prefix is executed again.

A call that nobody else can notice (the start of an actor, an invocation, an event that no actor
reads, the pause switch that none turns) commutes with everything that others do, and is carried
out at once, with all of its endings. States form no cycles, since each step tells an actor
something; so nothing is put off for ever (the "ignoring problem" of such reductions).

*Random.* A seed makes the choices; one that fails is shrunk by leaving out parts of it, and what is
left over is filled with the plainest choices. The seed alone replays it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from tests.simulation.scheduler import DO, Choice, Execution, Turn, joint

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


@dataclass(slots=True)
class Explored:
    """What an exploration came to. ``schedules``: how many interleavings the states stand for.

    ``steps``: the different steps of real code that were executed and judged.
    """

    executions: int = 0
    states: int = 0
    steps: int = 0
    ends: int = 0
    schedules: int = 0

    def __str__(self) -> str:
        """Return the counts in one line."""
        return (
            f"{self.schedules:,} schedules over {self.states:,} states, from {self.steps:,} "
            f"different steps in {self.executions:,} executions"
        )


class State(NamedTuple):
    """Where an execution stands: numbers that ``Memory`` gave to its parts."""

    shared: int
    faults: int
    actors: tuple[int, ...]


class Memory:
    """What has been learnt of single actors, from which the steps of all of them follow."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}
        self._turns: dict[tuple[int, int], Turn] = {}
        self._steps: dict[tuple[int, int, str, int], tuple[int, int]] = {}

    def _number(self, part: Hashable) -> int:
        return self._numbers.setdefault(part, len(self._numbers))

    def look(self, execution: Execution) -> State:
        """Return where an execution stands, and remember what its actors can do there."""
        indices = range(len(execution.actors))
        actors = tuple(self._number(execution.local(i)) for i in indices)
        state = State(self._number(execution.shared()), execution.faults, actors)
        for i, actor in enumerate(actors):
            if (state.shared, actor) not in self._turns:
                self._turns[state.shared, actor] = execution.turn(i)
        return state

    def choices(self, state: State) -> list[Choice] | None:
        """Return what can happen in a state; None where that has to be looked at first."""
        turns = []
        for actor in state.actors:
            turn = self._turns.get((state.shared, actor))
            if turn is None:
                return None
            turns.append(turn)
        return joint(turns, faulty=state.faults > 0)

    def follow(self, state: State, choice: Choice) -> State | None:
        """Return what a choice leads to; None where it has to be carried out first."""
        actor = state.actors[choice.actor]
        there = self._steps.get((state.shared, actor, choice.how, choice.answer))
        if there is None:
            return None
        actors = list(state.actors)
        actors[choice.actor] = there[1]
        return State(there[0], state.faults - (choice.how != DO), tuple(actors))

    def learn(self, state: State, choice: Choice, there: State) -> None:
        """Remember what a choice has led to."""
        actor = state.actors[choice.actor]
        self._steps[state.shared, actor, choice.how, choice.answer] = (
            there.shared,
            there.actors[choice.actor],
        )

    @property
    def steps(self) -> int:
        """How many different steps were carried out."""
        return len(self._steps)


@dataclass(slots=True)
class _Explorer:
    """One exploration at work. ``came``: how each state was first reached."""

    start: Start
    judge: Judge
    most_states: int
    remember: bool
    explored: Explored = field(default_factory=Explored)
    memory: Memory = field(default_factory=Memory)
    edges: dict[State, list[State]] = field(default_factory=dict)
    came: dict[State, tuple[State, Choice]] = field(default_factory=dict)
    ends: set[State] = field(default_factory=set)
    judged: set[int] = field(default_factory=set)
    waiting: list[tuple[State, Choice | None]] = field(default_factory=list)

    def run(self) -> Explored:
        execution = self._begin()
        try:
            first = self.memory.look(execution)
            self.edges[first] = []
            self._go_down(execution, first)
        finally:
            execution.end()
        while self.waiting:
            state, choice = self.waiting.pop()
            self._go_on(state, choice)
        self.explored.states = len(self.edges)
        self.explored.ends = len(self.ends)
        self.explored.steps = self.memory.steps
        self.explored.schedules = _paths(first, self.edges, self.ends)
        return self.explored

    def _begin(self) -> Execution:
        self.explored.executions += 1
        return self.start()

    def _go_on(self, state: State, choice: Choice | None) -> None:
        """Take a choice that was put off; ``None``: the state itself is still to be gone into."""
        there = self.memory.follow(state, choice) if choice is not None and self.remember else None
        if choice is not None and there is not None:
            if not self._arrive(state, choice, there):
                return
            state, choice = there, None
        if choice is None and self._spread(state):
            return
        execution = self._begin()
        try:
            for step in self._path(state):
                _take(execution, step)
            if choice is not None:
                there = self._carry_out(execution, state, choice)
                if not self._arrive(state, choice, there):
                    return
                state = there
            else:
                self.memory.look(execution)
            self._go_down(execution, state)
        finally:
            execution.end()

    def _path(self, state: State) -> list[Choice]:
        choices = []
        while state in self.came:
            state, choice = self.came[state]
            choices.append(choice)
        return choices[::-1]

    def _arrive(self, state: State, choice: Choice, there: State) -> bool:
        """Take note of an edge; returns whether it leads to a state that is new."""
        self.edges[state].append(there)
        if there in self.edges:
            return False
        if len(self.edges) >= self.most_states:
            msg = f"more than {self.most_states} states"
            raise RuntimeError(msg)
        self.edges[there] = []
        self.came[there] = (state, choice)
        return True

    def _carry_out(self, execution: Execution, state: State, choice: Choice) -> State:
        _take(execution, choice)
        there = self.memory.look(execution)
        known = self.memory.follow(state, choice)
        if known is not None and known != there:
            msg = f"{choice} is not determined by what was told: {execution.trace[-1]}"
            raise RuntimeError(msg)
        self.memory.learn(state, choice, there)
        return there

    def _spread(self, state: State) -> bool:
        """Follow what is known from a state; False where it takes an execution to go on."""
        choices = self.memory.choices(state)
        if choices is None:
            return False
        if not choices and state.shared in self.judged:
            self.ends.add(state)
            return True
        if not choices or not self.remember:
            return False
        known = [(choice, self.memory.follow(state, choice)) for choice in choices]
        for choice, there in known:
            if there is None:
                self.waiting.append((state, choice))
            elif self._arrive(state, choice, there):
                self.waiting.append((there, None))
        return True

    def _go_down(self, execution: Execution, state: State) -> None:
        """Go on with an execution that stands in ``state``, which is new, to an end."""
        while True:
            choices = self.memory.choices(state)
            if choices is None:
                raise AssertionError("it has just been looked at")
            if not choices:
                self.ends.add(state)
                self._judge(execution, state)
                return
            first, *others = choices
            self.waiting.extend((state, choice) for choice in others)
            there = self._carry_out(execution, state, first)
            if not self._arrive(state, first, there):
                return
            state = there

    def _judge(self, execution: Execution, state: State) -> None:
        if state.shared in self.judged:
            return
        self.judged.add(state.shared)
        try:
            self.judge(execution)
        except Violation as violation:
            raise Violation(violation.message, execution.trace) from violation
        except AssertionError as error:
            raise Violation(str(error), execution.trace) from error


def _take(execution: Execution, choice: Choice) -> None:
    try:
        execution.step(choice)
    except AssertionError as error:
        raise Violation(str(error), execution.trace) from error


def explore(
    start: Start, judge: Judge, *, most_states: int = 4_000_000, remember: bool = True
) -> Explored:
    """Go through every schedule.

    ``remember`` False executes every step in every state: the same result, for much more time.

    Raises:
        Violation: the first that was found, with its schedule.
        RuntimeError: there are more states than ``most_states``: the scenario is too large.
    """
    return _Explorer(start, judge, most_states, remember).run()


def _paths(first: State, edges: dict[State, list[State]], ends: set[State]) -> int:
    """Count the ways from the first state to any end: the states form no cycles."""
    ways: dict[State, int] = dict.fromkeys(ends, 1)
    stack = [first]
    while stack:
        here = stack[-1]
        missing = [there for there in edges[here] if there not in ways]
        if here in ways or not missing:
            ways.setdefault(here, sum(ways[there] for there in edges[here]))
            stack.pop()
        else:
            stack.extend(missing)
    return ways[first]


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
