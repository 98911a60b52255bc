"""Shapes of orchestrations: their dependencies, and how each task will end.

Pure. From that, a blueprint derives how each of its children has to end, so a run can be judged
without any reconciler.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from random import Random
from string import ascii_uppercase

from reconciler.domain.model import FAILURE, ChildStatus

INTEGRATION = "integration"
"""Key of the synthetic child that merges all leaves."""


class Outcome(StrEnum):
    """How a child's task ends."""

    COMPLETED = "completed"
    BROKEN_BUILD = "broken_build"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"

    @property
    def task_status(self) -> str:
        """The task's terminal status; a broken build is a completed task."""
        return "COMPLETED" if self is Outcome.BROKEN_BUILD else self.value.upper()

    @property
    def child_status(self) -> ChildStatus:
        """The resulting status of the child."""
        return ChildStatus.SUCCEEDED if self is Outcome.COMPLETED else ChildStatus.FAILED


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """A child: its key, unique in the blueprint, its predecessors' keys, and its outcome."""

    key: str
    depends_on: tuple[str, ...] = ()
    outcome: Outcome = Outcome.COMPLETED


@dataclass(frozen=True, slots=True)
class Blueprint:
    """An orchestration to seed; ``children`` are in topological order."""

    shape: str
    children: tuple[ChildSpec, ...]

    def expected(self) -> Mapping[str, ChildStatus]:
        """Return how every child has to end: it runs only if all predecessors succeed (I1, I5)."""
        ends: dict[str, ChildStatus] = {}
        for child in self.children:
            doomed = any(ends[key] in FAILURE for key in child.depends_on)
            ends[child.key] = ChildStatus.SKIPPED if doomed else child.outcome.child_status
        return ends


def chain(length: int) -> Blueprint:
    """One after another: A → B → C, and so on."""
    keys = ascii_uppercase[:length]
    return _of_letters("chain", **dict(zip(keys, ["", *keys], strict=False)))


def diamond() -> Blueprint:
    """A → (B, C) → D: D may start only when both are done."""
    return _of_letters("diamond", A="", B="A", C="A", D="BC")


def fan_out(width: int) -> Blueprint:
    """A → ``width`` children at once."""
    return _of_letters("fan-out", A="", **dict.fromkeys(ascii_uppercase[1 : width + 1], "A"))


def integration(leaves: int) -> Blueprint:
    """A → several leaves → the synthetic node that merges them."""
    keys = ascii_uppercase[1 : leaves + 1]
    return _of_letters("integration", A="", **dict.fromkeys(keys, "A"), **{INTEGRATION: keys})


def failing_leg(outcome: Outcome) -> Blueprint:
    """Two legs, of which one fails: what is behind it is skipped, the other leg goes on."""
    return _of_letters("failing leg", outcome, A="", B="A", C="A", D="B", E="C", F="DE")


def broken_build() -> Blueprint:
    """A chain whose second task completes with a broken build: the rest is skipped."""
    return _of_letters("broken build", Outcome.BROKEN_BUILD, A="", B="A", C="B", D="C")


def _of_letters(shape: str, of_b: Outcome = Outcome.COMPLETED, /, **before: str) -> Blueprint:
    """Return a blueprint from each key's predecessors; ``of_b``: how the task of B ends."""
    specs = (
        ChildSpec(key, tuple(letters), of_b if key == "B" else Outcome.COMPLETED)
        for key, letters in before.items()
    )
    return Blueprint(shape, tuple(specs))


def mix(count: int, rng: Random) -> list[Blueprint]:
    """Return ``count`` blueprints; six or more contain every shape."""
    return list(islice(_endless(rng), count))


def _endless(rng: Random) -> Iterator[Blueprint]:
    failures = (Outcome.FAILED, Outcome.CANCELLED, Outcome.TIMED_OUT)
    while True:
        yield chain(rng.randint(3, 5))
        yield diamond()
        yield fan_out(rng.randint(6, 9))
        yield integration(rng.randint(3, 4))
        yield failing_leg(rng.choice(failures))
        yield broken_build()
