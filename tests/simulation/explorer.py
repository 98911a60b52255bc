"""Going through schedules: every one of a small scenario, or seeded random ones of a large one.

*Exhaustive.* Depth-first over choices. An execution cannot be copied, so each branch is reached by
executing its prefix again. Two prefixes that lead to the same ``Execution.state`` have the same
future, so a state that has been seen is not gone into again:

- an actor is deterministic in what it was told (no clock, no dice, no shared memory of its own),
  so the digest of its answers stands for all of its memory;
- the database answers from what stands in its tables and, where an index lags, from what it has
  held; both are in the state;
- the invariants are judged on each step, from the state before and after it, and steps are judged
  before the state that they lead to is looked up. So cutting there loses no violation.

A call that nobody else can notice (the start of an actor, an invocation, an event that no actor
reads, the pause switch that none turns) commutes with everything that others do, and is carried
out at once, with all of its endings. States form no cycles, since each step tells an actor
something; so nothing is put off for ever (the "ignoring problem" of such reductions).

*Random.* A seed makes the choices; one that fails is shrunk by leaving out parts of it, and what is
left over is filled with the plainest choices. The seed alone replays it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from tests.simulation.scheduler import Choice, Execution

Start = Callable[[], Execution]
Judge = Callable[[Execution], None]
"""Looks at an execution whose actors have all ended; raises on what should not be."""


class Violation(AssertionError):  # noqa: N818 - it is what was found, and reads as such
    """An invariant that does not hold; ``trace`` is the schedule that leads there."""

    def __init__(self, message: str, trace: Sequence[str] = ()) -> None:
        lines = "".join(f"\n  {number:3}. {line}" for number, line in enumerate(trace, 1))
        super().__init__(message + (f"\nafter{lines}" if lines else ""))
        self.message = message
        self.trace = tuple(trace)


@dataclass(slots=True)
class Explored:
    """What an exploration came to. ``schedules``: how many interleavings the states stand for."""

    executions: int = 0
    states: int = 0
    steps: int = 0
    ends: int = 0
    schedules: int = 0
    outcomes: set[int] = field(default_factory=set)

    def __str__(self) -> str:
        """Return the counts in one line."""
        return (
            f"{self.schedules:,} schedules over {self.states:,} states and {self.steps:,} steps, "
            f"by {self.executions:,} executions"
        )


def explore(start: Start, judge: Judge, *, most_states: int = 2_000_000) -> Explored:
    """Go through every schedule.

    Raises:
        Violation: the first that was found, with its schedule.
        RuntimeError: there are more states than ``most_states``: the scenario is too large.
    """
    explored = Explored()
    edges: dict[int, list[int]] = {}
    ends: set[int] = set()
    waiting: list[tuple[tuple[Choice, ...], int | None]] = [((), None)]
    while waiting:
        prefix, source = waiting.pop()
        execution = start()
        explored.executions += 1
        try:
            _go_down(execution, prefix, source, edges, ends, waiting, judge, explored)
        except Violation as violation:
            raise Violation(violation.message, execution.trace) from violation
        except AssertionError as error:
            raise Violation(str(error), execution.trace) from error
        finally:
            execution.end()
        if len(edges) > most_states:
            msg = f"more than {most_states} states"
            raise RuntimeError(msg)
    explored.states = len(edges)
    explored.ends = len(ends)
    explored.schedules = _paths(edges, ends)
    return explored


def _go_down(
    execution: Execution,
    prefix: tuple[Choice, ...],
    source: int | None,
    edges: dict[int, list[int]],
    ends: set[int],
    waiting: list[tuple[tuple[Choice, ...], int | None]],
    judge: Judge,
    explored: Explored,
) -> None:
    for choice in prefix:
        execution.step(choice)
    explored.steps += bool(prefix)
    path = prefix
    while True:
        here = hash(execution.state())
        if source is not None:
            edges[source].append(here)
        if here in edges:
            return
        edges[here] = []
        choices = execution.choices()
        if not choices:
            ends.add(here)
            judge(execution)
            return
        waiting.extend(((*path, choice), here) for choice in choices[1:])
        execution.step(choices[0])
        explored.steps += 1
        path = (*path, choices[0])
        source = here


def _paths(edges: dict[int, list[int]], ends: set[int]) -> int:
    """Count the ways from the first state to any end: the states form no cycles."""
    if not edges:
        return 0
    first = next(iter(edges))
    ways: dict[int, int] = dict.fromkeys(ends, 1)
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
