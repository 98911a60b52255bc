"""Actors that run real code, one at a time, each store call a point at which any may go next.

An actor is a greenlet around a plain function. Its client is a ``Port``: every call of it hands the
baton back to the scheduler, with what it is about to ask, and is carried out only when the actor
is chosen. Between two calls an actor touches nothing but its own memory; so an execution is
determined by the sequence of choices, and the same sequence gives the same execution.

A choice names the actor, and how its call ends: carried out; *crash before* (the process is gone,
nothing was written); *crash after* (it was written, and nobody heard of it); *torn* (it was
written, and the actor sees a broken connection and goes on). An eventually consistent read of an
index has one choice for each different answer that the index may still give.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from botocore.exceptions import ClientError, ReadTimeoutError
from greenlet import greenlet

from reconciler.clock import Clock
from tests.simulation.memory_dynamodb import MemoryDynamoDB

DO, CRASH_BEFORE, CRASH_AFTER, TORN = "do", "crash before", "crash after", "torn"
FAULTS = (CRASH_BEFORE, CRASH_AFTER, TORN)
_WRITES = frozenset({"put_item", "update_item", "delete_item", "transact_write_items", "invoke"})


class ProcessGoneError(BaseException):
    """Raised in an actor whose process has died: nothing that it still tries has an effect.

    Not an ``Exception``: the code under test must not be able to survive it.
    """


@dataclass(frozen=True, slots=True)
class Call:
    """What an actor is about to ask of the world."""

    operation: str
    request: Mapping[str, Any] = field(repr=False)

    @property
    def writes(self) -> bool:
        """Whether it may change anything."""
        return self.operation in _WRITES

    @property
    def tables(self) -> frozenset[str]:
        """The tables that it touches."""
        if "TransactItems" in self.request:
            actions = self.request["TransactItems"]
            return frozenset(next(iter(action.values()))["TableName"] for action in actions)
        if "RequestItems" in self.request:
            return frozenset(self.request["RequestItems"])
        return frozenset({self.request["TableName"]} if "TableName" in self.request else ())

    def describe(self) -> str:
        """Return it in a few words."""
        name = self.request.get("IndexName") or ", ".join(sorted(self.tables))
        return f"{self.operation} {name}".strip()


@dataclass(frozen=True, slots=True, order=True)
class Choice:
    """Which actor goes on, how its call ends, and which of an index's answers it gets."""

    actor: int
    how: str = DO
    answer: int = 0


@dataclass(frozen=True, slots=True)
class Turn:
    """What one actor can do next; nothing when it has ended.

    ``faulty``: only while a fault is left. ``alone``: nobody else can notice when it happens.
    """

    plain: tuple[Choice, ...] = ()
    faulty: tuple[Choice, ...] = ()
    alone: bool = False

    def choices(self, *, faulty: bool) -> list[Choice]:
        """Return all of them, the plainest first."""
        return [*self.plain, *(self.faulty if faulty else ())]


def joint(turns: Sequence[Turn], *, faulty: bool) -> list[Choice]:
    """Return what can happen next, the plainest first."""
    for turn in turns:
        if turn.alone:
            # Nobody else can notice when it happens; how it ends is all that matters.
            return turn.choices(faulty=faulty)
    return [choice for turn in turns for choice in turn.choices(faulty=faulty)]


@dataclass(slots=True)
class ClockHand:
    """The time of the world; it moves only when an actor moves it."""

    now: datetime

    def __call__(self) -> datetime:
        """Return the time."""
        return self.now


Body = Callable[["Port"], None]


@dataclass(frozen=True, slots=True)
class ActorSpec:
    """An actor: its name, what it runs, whether its writes are ours, whether it may crash."""

    name: str
    body: Body
    ours: bool = False
    crashes: bool = True


class Port:
    """An actor's only way into the world: a DynamoDB client whose calls are scheduled."""

    def __init__(self, actor: Actor, clock: ClockHand) -> None:
        self._actor = actor
        self.clock = clock
        self.read_clock: Clock = self._read_clock

    def _read_clock(self) -> datetime:
        self._actor.observe(f"clock {self.clock.now.isoformat()}")
        return self.clock.now

    def call(self, operation: str, **request: Any) -> Any:
        """Ask for something, and wait until it is this actor's turn."""
        return self._actor.ask(Call(operation, request))

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        """Return an operation of the low-level client."""
        if operation.startswith("_"):
            raise AttributeError(operation)
        return lambda **request: self._actor.ask(Call(operation, request))

    def get_paginator(self, operation: str) -> Any:
        """Return what goes through all pages, each of them a call."""
        port = self

        class Pages:
            def paginate(self, **request: Any) -> Any:
                while True:
                    page = port.call(operation, **request)
                    yield page
                    if "LastEvaluatedKey" not in page:
                        return
                    request["ExclusiveStartKey"] = page["LastEvaluatedKey"]

        return Pages()


class Actor:
    """A running actor. ``pending`` is what it waits to have done; None once it has ended."""

    def __init__(self, spec: ActorSpec, clock: ClockHand) -> None:
        self.spec = spec
        self.pending: Call | None = Call("begin", {})
        self.crashed = False
        self.gone = False
        self.error: BaseException | None = None
        self.seen = b""
        self.lookups: dict[str, frozenset[str]] = {}
        self._clock = clock
        self._greenlet = greenlet(self._run)

    def _run(self, _first: Any = None) -> None:
        try:
            self.spec.body(Port(self, self._clock))
        except ProcessGoneError:
            pass
        except Exception as error:  # noqa: BLE001 - reported by the scheduler as a finding
            self.error = error

    def ask(self, call: Call) -> Any:
        """In the actor: hand over the baton; comes back with the answer, or raises it."""
        if self.gone:
            raise ProcessGoneError
        self.pending = call
        parent = self._greenlet.parent
        if parent is None:
            raise ProcessGoneError
        answer = parent.switch()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def observe(self, what: str) -> None:
        """Add to what the actor knows: its next step is a function of nothing else."""
        self.seen = hashlib.blake2b(self.seen + what.encode(), digest_size=16).digest()

    def resume(self, answer: Any) -> None:
        """In the scheduler: let it go on with an answer until it asks for the next thing."""
        self.pending = None
        self._greenlet.switch(answer)
        if self.error is not None:
            raise self.error

    def kill(self) -> None:
        """End its process: whatever it still tries has no effect."""
        if self.gone:
            return
        self.gone = True
        self.pending = None
        if self._greenlet:
            self._greenlet.switch(ProcessGoneError())


Observer = Callable[[Actor, Call], None]
"""Is told of each call that may have changed something."""


class Execution:
    """One execution: a database, a clock and actors, moved on by choices.

    ``lagging``: names of indexes whose answers may be old. ``faults``: how many processes may die,
    or connections tear, over the whole execution. ``private``: tables that no actor reads, so that
    the order of their writes is of no account.
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
        self.invoked: list[str] = []
        self.trace: list[str] = []
        self.observers: list[Observer] = []
        self._back = 0
        database.lag = lambda _table, index, _request: self._back if index in lagging else 0

    # -- choices

    def choices(self) -> list[Choice]:
        """Return what can happen next, the plainest first; none when all have ended."""
        return joint([self.turn(i) for i in range(len(self.actors))], faulty=self.faults > 0)

    def turn(self, i: int) -> Turn:
        """Return what an actor can do next: a function of what it was told and of what stands."""
        actor = self.actors[i]
        call = actor.pending
        if call is None:
            return Turn()
        plain = tuple(Choice(i, DO, answer) for answer in range(len(self._answers(call))))
        faulty: tuple[Choice, ...] = ()
        if call.writes and actor.spec.crashes:
            faulty = tuple(Choice(i, how) for how in self.fault_kinds)
        return Turn(plain, faulty, alone=self._alone(actor))

    def _alone(self, actor: Actor) -> bool:
        call = actor.pending
        if call is None:
            return False
        if call.operation in {"begin", "invoke"}:
            return not self._moves_clock
        if (
            call.operation == "get_item"
            and call.request["Key"].get("orchestration_id", {}).get("S") == "reconciler#control"
        ):
            return True
        return bool(call.tables) and call.tables <= self.private

    @property
    def _moves_clock(self) -> bool:
        return any(a.spec.name.startswith("time") for a in self.actors)

    def _answers(self, call: Call) -> list[int]:
        """Return, for each different answer that an index may give, how far back it lies.

        The present one first, the others in an order that does not depend on when they were given.
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
            Exception: whatever an actor let through, or an invariant that an observer saw broken.
        """
        actor = self.actors[choice.actor]
        call = actor.pending
        if call is None:
            msg = f"{actor.spec.name} has ended"
            raise LookupError(msg)
        self.trace.append(f"{actor.spec.name}: {call.describe()}" + _ending(choice))
        if choice.how != DO:
            self.faults -= 1
        if choice.how == CRASH_BEFORE:
            self._crash(actor)
            return
        self._back = self._answers(call)[choice.answer] if choice.answer else 0
        answer = self._carry_out(call)
        self._back = 0
        for observer in self.observers:
            observer(actor, call)
        self._note_lookup(actor, call, answer)
        if choice.how == CRASH_AFTER:
            self._crash(actor)
            return
        if choice.how == TORN:
            answer = ReadTimeoutError(endpoint_url="memory")
        actor.observe(_text(answer))
        actor.resume(answer)

    def _carry_out(self, call: Call) -> Any:
        if call.operation == "begin":
            return None
        if call.operation == "invoke":
            self.invoked.append(call.request["task_id"])
            return {}
        if call.operation == "advance_clock":
            self.clock.now += timedelta(seconds=call.request["seconds"])
            for table in self.database.tables.values():
                table.forget_history()
            return None
        try:
            return getattr(self.database, call.operation)(**call.request)
        except ClientError as error:
            return error

    @staticmethod
    def _note_lookup(actor: Actor, call: Call, answer: Any) -> None:
        if call.request.get("IndexName") == "IdempotencyIndex" and isinstance(answer, dict):
            key = next(iter(call.request["ExpressionAttributeValues"].values()))["S"]
            actor.lookups[key] = frozenset(item["task_id"]["S"] for item in answer["Items"])

    def _crash(self, actor: Actor) -> None:
        actor.crashed = True
        actor.observe("gone")
        actor.kill()

    def end(self) -> None:
        """Let go of all actors."""
        for actor in self.actors:
            actor.kill()

    # -- state

    def state(self) -> tuple[Any, ...]:
        """Return what the rest of the execution is a function of.

        The tables that are read, the answers that lagging indexes may still give, the clock, the
        faults that are left, and what each actor has been told: an actor is deterministic, so what
        it was told is where it stands.
        """
        return (
            self.shared(),
            self.faults,
            tuple(self.local(i) for i in range(len(self.actors))),
        )

    def shared(self) -> tuple[Any, ...]:
        """Return the part of the state that all actors share: the tables and the time."""
        return (
            tuple(t.digest for n, t in self.database.tables.items() if n not in self.private),
            self._possible_answers() if self.lagging else None,
            self.clock.now,
        )

    def local(self, i: int) -> tuple[int, bytes, bool]:
        """Return where an actor stands: what it does next is a function of nothing else."""
        actor = self.actors[i]
        return i, actor.seen, actor.pending is None

    def _possible_answers(self) -> frozenset[frozenset[tuple[str, str]]]:
        versions = self.database.tables["TaskTable"].versions
        return frozenset(map(_index_contents, versions))


def _index_contents(version: Mapping[Any, Mapping[str, Any]]) -> frozenset[tuple[str, str]]:
    return frozenset(
        (item.get("idempotency_key", {}).get("S", ""), f"{item.get('status_created_at')}{key}")
        for key, item in version.items()
    )


def _ending(choice: Choice) -> str:
    if choice.how != DO:
        return f" — {choice.how}"
    return f" — an older answer ({choice.answer})" if choice.answer else ""


def _text(answer: Any) -> str:
    if isinstance(answer, ClientError):
        return repr(answer.response)
    if isinstance(answer, BaseException):
        return type(answer).__name__
    return repr(answer)
