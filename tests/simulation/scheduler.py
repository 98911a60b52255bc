"""Executions: several actors on one database, driven call by call by choices.

A call is carried out only when its actor is chosen. So the sequence of choices determines the
execution, and the same sequence gives the same execution.

A choice names the actor and the ending of its call: carried out; *crash before* (the process dies
before the write); *crash after* (it dies after the write, before the answer); *torn* (the write
happens, but the actor sees a broken connection and goes on). An eventually consistent read of an
index has one choice for each different answer that the index may still give.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from botocore.exceptions import ClientError, ReadTimeoutError

from tests.simulation.actors import Actor, ActorSpec, Call, ClockHand
from tests.simulation.executions import have_run, invoke
from tests.simulation.expressions import Item
from tests.simulation.memory_dynamodb import MemoryDynamoDB
from tests.simulation.storage import Key, Table

DO, CRASH_BEFORE, CRASH_AFTER, TORN = "do", "crash before", "crash after", "torn"
FAULTS = (CRASH_BEFORE, CRASH_AFTER, TORN)


@dataclass(frozen=True, slots=True, order=True)
class Choice:
    """Which actor goes on, how its call ends, and which possible answer of an index it gets."""

    actor: int
    how: str = DO
    answer: int = 0

    @property
    def dies(self) -> bool:
        """Whether the actor dies before it hears the answer."""
        return self.how in {CRASH_BEFORE, CRASH_AFTER}


@dataclass(frozen=True, slots=True)
class Turn:
    """What one actor can do next; empty once it has ended.

    ``faulty``: only possible while a fault is left. ``alone``: nobody else can notice when it
    happens.
    """

    plain: tuple[Choice, ...] = ()
    faulty: tuple[Choice, ...] = ()
    alone: bool = False

    def choices(self, *, faulty: bool) -> list[Choice]:
        """Return all of them, the plainest first."""
        return [*self.plain, *(self.faulty if faulty else ())]


def joint(turns: Sequence[Turn], *, faulty: bool) -> list[Choice]:
    """Return everything that can happen next, the plainest first."""
    for turn in turns:
        if turn.alone:
            # Nobody else can notice when it happens, so only its ending matters.
            return turn.choices(faulty=faulty)
    return [choice for turn in turns for choice in turn.choices(faulty=faulty)]


class Asked(NamedTuple):
    """A call and its actor; ``lookups``: idempotency key → the tasks that the actor was shown."""

    spec: ActorSpec
    call: Call
    lookups: Mapping[str, frozenset[str]]


Contents = Mapping[str, Mapping[Key, Item]]
"""The items of each table."""


Observer = Callable[[Asked, Contents], None]
"""Judges a call that was carried out, given the contents before it."""


class Snapshot(NamedTuple):
    """Everything that an execution consists of except its actors."""

    tables: Mapping[str, Table]
    now: datetime


class Execution:
    """One execution: a database, a clock and actors, driven by choices.

    ``lagging``: names of indexes whose answers may be old. ``faults``: how many processes may die,
    or connections break, over the whole execution. ``private``: tables that no actor reads, so the
    order of writes to them does not matter.
    """

    def __init__(
        self,
        database: MemoryDynamoDB,
        clock: ClockHand,
        actors: Sequence[ActorSpec],
        *,
        lagging: frozenset[str] = frozenset(),
        faults: int = 0,
        fault_kinds: Sequence[str] = FAULTS,
        private: frozenset[str] = frozenset(),
    ) -> None:
        self.database = database
        self.clock = clock
        self.lagging = lagging
        self.faults = faults
        self.fault_kinds = tuple(fault_kinds)
        self.private = private
        self.actors = [Actor(spec, clock) for spec in actors]
        self.trace: list[str] = []
        self.observers: list[Observer] = []
        self._back = 0
        database.lag = lambda _table, index, _request: self._back if index in lagging else 0

    # -- choices

    def choices(self) -> list[Choice]:
        """Return what can happen next, the plainest first; none when all have ended."""
        return joint([self.turn(i) for i in range(len(self.actors))], faulty=self.faults > 0)

    def turn(self, i: int) -> Turn:
        """Return what an actor can do next; its answers and the tables determine it."""
        return self.turn_with(i, self.actors[i].pending)

    def turn_with(self, i: int, call: Call | None) -> Turn:
        """Return what an actor can do if its next call is ``call``; None: it has ended."""
        if call is None:
            return Turn()
        plain = tuple(Choice(i, DO, answer) for answer in range(len(self._answers(call))))
        faulty: tuple[Choice, ...] = ()
        if call.writes and self.actors[i].spec.crashes:
            faulty = tuple(Choice(i, how) for how in self.fault_kinds)
        return Turn(plain, faulty, alone=self._alone(call))

    def _alone(self, call: Call) -> bool:
        if call.operation in {"begin", "invoke"}:
            return not self._runs_pipeline
        if (
            call.operation == "get_item"
            and call.request["Key"].get("orchestration_id", {}).get("S") == "reconciler#control"
        ):
            return True
        return bool(call.tables) and call.tables <= self.private

    @property
    def _runs_pipeline(self) -> bool:
        return any(a.spec.name.startswith(("time", "pipeline")) for a in self.actors)

    def _answers(self, call: Call) -> list[int]:
        """Return how far back each different answer of an index lies.

        The present answer comes first; the order of the others does not depend on their age.
        """
        index = call.request.get("IndexName", "")
        if call.operation != "query" or index not in self.lagging:
            return [0]
        table = self.database.tables[call.request["TableName"]]
        seen: dict[str, int] = {}
        for back in range(len(table.versions)):
            self._back = back
            answer = repr(self.database.query(**call.request)["Items"])
            seen.setdefault(answer, back)
        self._back = 0
        older = sorted(answer for answer, back in seen.items() if back)
        return [0, *(seen[answer] for answer in older)]

    # -- steps

    def step(self, choice: Choice) -> None:
        """Carry out one choice.

        Raises:
            Exception: whatever an actor let through, or a broken invariant that an observer saw.
        """
        actor = self.actors[choice.actor]
        call = actor.pending
        if call is None:
            msg = f"{actor.spec.name} has ended"
            raise LookupError(msg)
        self.trace.append(f"{actor.spec.name}: {call.describe()}" + _ending(choice))
        if choice.how != DO:
            self.faults -= 1
        answer = self.perform(Asked(actor.spec, call, actor.lookups), choice)
        if choice.dies:
            actor.crash()
        else:
            actor.tell(answer)

    def perform(self, asked: Asked, choice: Choice) -> Any:
        """Carry out a call and judge it; returns the answer, if the actor lives to hear it.

        Raises:
            AssertionError: an observer saw a broken invariant.
        """
        if choice.how == CRASH_BEFORE:
            return None
        before = self.contents()
        self._back = self._answers(asked.call)[choice.answer] if choice.answer else 0
        answer = self._carry_out(asked.call)
        self._back = 0
        for observer in self.observers:
            observer(asked, before)
        return ReadTimeoutError(endpoint_url="memory") if choice.how == TORN else answer

    def _carry_out(self, call: Call) -> Any:
        if call.operation == "begin":
            return None
        if call.operation == "invoke":
            invoke(self.database, **call.request)
            return {}
        if call.operation == "have_run":
            have_run(self.database, self.clock.now)
            return None
        if call.operation == "advance_clock":
            have_run(self.database, self.clock.now)
            self.clock.now += timedelta(seconds=call.request["seconds"])
            for table in self.database.tables.values():
                table.forget_history()
            return None
        try:
            return getattr(self.database, call.operation)(**call.request)
        except ClientError as error:
            return error

    def end(self) -> None:
        """Release all actors."""
        for actor in self.actors:
            actor.kill()

    # -- state

    def contents(self) -> Contents:
        """Return the contents of the tables; later writes do not change them."""
        return {name: table.items for name, table in self.database.tables.items()}

    def snapshot(self) -> Snapshot:
        """Return the contents and history of the tables, and the time."""
        tables = self.database.tables.items()
        return Snapshot({name: table.copy() for name, table in tables}, self.clock.now)

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot."""
        self.database.tables = {name: table.copy() for name, table in snapshot.tables.items()}
        self.clock.now = snapshot.now

    def state(self) -> tuple[Any, ...]:
        """Return everything that determines the rest of the execution.

        That is: the tables that are read, the answers that lagging indexes may still give, the
        clock, the faults left, and what each actor knows. An actor is deterministic, so its
        knowledge is its state.
        """
        return (
            self.shared(),
            self.faults,
            tuple(standing(i, actor) for i, actor in enumerate(self.actors)),
        )

    def shared(self) -> tuple[Any, ...]:
        """Return the part of the state that all actors share: the tables and the time."""
        return (
            tuple(t.digest for n, t in self.database.tables.items() if n not in self.private),
            self._possible_answers() if self.lagging else None,
            self.clock.now,
        )

    def _possible_answers(self) -> frozenset[Hashable]:
        """Return every content that each partition of each lagging index may still show.

        A query reads one partition, and its answer may be old whatever earlier answers were. So it
        does not matter which of two partitions changed first.
        """
        return frozenset(
            (name, partition, contents)
            for table in self.database.tables.values()
            for name in self.lagging & table.spec.indexes.keys()
            for partition, contents in table.history_of(name).items()
        )


def standing(i: int, actor: Actor) -> tuple[int, bytes, bool]:
    """Return the state of an actor, which alone determines what it does next.

    An ended actor does nothing more, whatever it was told.
    """
    ended = actor.pending is None
    return i, b"" if ended else actor.seen, ended


def _ending(choice: Choice) -> str:
    if choice.how != DO:
        return f" — {choice.how}"
    return f" — an older answer ({choice.answer})" if choice.answer else ""
