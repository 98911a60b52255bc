"""Actors that run real code: each makes one call at a time, and waits for the answer.

An actor is a greenlet around a plain function. Its client is a ``Port``: every call passes the
request to the scheduler and hands over to it. Between two calls an actor touches nothing but its
own memory, so the answers that it gets determine what it does.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from botocore.exceptions import ClientError
from greenlet import greenlet

from reconciler.clock import Clock

WRITES = frozenset({"put_item", "update_item", "delete_item", "transact_write_items", "invoke"})


class ProcessGoneError(BaseException):
    """Raised in an actor whose process has died: nothing that it tries has an effect any more.

    Not an ``Exception``: the code under test must not be able to survive it.
    """


class UnspeakableError(BaseException):
    """The knowledge that an actor declares cannot be pickled.

    Not an ``Exception``, for the same reason: it is a mistake in the test.
    """


@dataclass(frozen=True, slots=True)
class Call:
    """A request that an actor is about to make."""

    operation: str
    request: Mapping[str, Any] = field(repr=False)

    @property
    def writes(self) -> bool:
        """Whether the call may change anything."""
        return self.operation in WRITES

    @property
    def tables(self) -> frozenset[str]:
        """The tables that the call touches."""
        if "TransactItems" in self.request:
            actions = self.request["TransactItems"]
            return frozenset(next(iter(action.values()))["TableName"] for action in actions)
        if "RequestItems" in self.request:
            return frozenset(self.request["RequestItems"])
        return frozenset({self.request["TableName"]} if "TableName" in self.request else ())

    def describe(self) -> str:
        """Return a short description."""
        name = self.request.get("IndexName") or ", ".join(sorted(self.tables))
        return f"{self.operation} {name}".strip()


@dataclass(slots=True)
class ClockHand:
    """The time of the world, which moves only when an actor moves it."""

    now: datetime

    def __call__(self) -> datetime:
        """Return the time."""
        return self.now


Body = Callable[["Port"], None]


@dataclass(frozen=True, slots=True)
class ActorSpec:
    """An actor: its name, its code, whether its writes are ours, whether it may crash.

    ``unskips``: it runs our command that sets a skipped child back.
    """

    name: str
    body: Body
    ours: bool = False
    crashes: bool = True
    unskips: bool = False


class Port:
    """An actor's only way into the world: a DynamoDB client whose calls are scheduled."""

    def __init__(self, actor: Actor, clock: ClockHand) -> None:
        self._actor = actor
        self.clock = clock
        self.read_clock: Clock = self._read_clock

    def _read_clock(self) -> datetime:
        self._actor.observe(f"clock {self.clock.now.isoformat()}")
        return self.clock.now

    def remember(self, memory: object) -> None:
        """Declare what this actor still knows; it has forgotten everything else that it was told.

        ``memory`` holds everything that its next steps depend on, apart from later answers.
        """
        self._actor.remember(memory)

    def call(self, operation: str, **request: Any) -> Any:
        """Make a call, and wait until it is this actor's turn."""
        return self._actor.ask(Call(operation, request))

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        """Return an operation of the low-level client."""
        if operation.startswith("_"):
            raise AttributeError(operation)

        def call(**request: Any) -> Any:
            # The token is random: two calls that differ only in it are the same call.
            request.pop("ClientRequestToken", None)
            return self._actor.ask(Call(operation, request))

        return call

    def get_paginator(self, operation: str) -> Any:
        """Return a paginator in which each page is a call."""
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


Counts = Callable[[str, frozenset[str]], bool]
"""Whether a look-up of a key, which has shown some tasks, still counts against its actor."""


class Actor:
    """A running actor. ``pending`` is the call that it waits for; None once it has ended.

    ``seen`` is a digest of everything that it knows. ``lookups``, for the judge: idempotency key →
    the tasks that it was shown, as far as a look-up ``counts``. ``forgets`` False: it knows
    everything that it was told, whatever it declares.
    """

    def __init__(self, spec: ActorSpec, clock: ClockHand) -> None:
        self.spec = spec
        self.pending: Call | None = Call("begin", {})
        self.crashed = False
        self.gone = False
        self.error: BaseException | None = None
        self.seen = b""
        self.lookups: dict[str, frozenset[str]] = {}
        self.counts: Counts = any_task
        self.forgets = True
        self._clock = clock
        self._again = False
        self._greenlet = greenlet(self._run)

    def _run(self, _first: Any = None) -> None:
        try:
            self.spec.body(Port(self, self._clock))
        except ProcessGoneError:
            pass
        except Exception as error:  # noqa: BLE001 - reported by the scheduler as a finding
            self.error = error

    # -- in the actor

    def ask(self, call: Call) -> Any:
        """Hand over to the scheduler; returns the answer, or raises it."""
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
        """Add to the actor's knowledge, which alone determines its next step."""
        if not self._again:
            self.seen = _digest(self.seen + what.encode())

    def remember(self, memory: object) -> None:
        """Replace the actor's knowledge by ``memory``; the judge keeps the look-ups that count."""
        if self.forgets and not self._again:
            shown = sorted((k, sorted(t)) for k, t in self.lookups.items() if self.counts(k, t))
            self.seen = _digest(_pickled((memory, shown)))

    # -- in the scheduler

    def tell(self, answer: Any) -> None:
        """Give the actor an answer, and let it run until its next call."""
        call = self.pending
        if call is not None and call.request.get("IndexName") == "IdempotencyIndex":
            self._note_lookup(call, answer)
        self.observe(answer_text(answer))
        self._resume(answer)

    def tell_again(self, answers: Iterable[tuple[Any, datetime]]) -> None:
        """Replay answers that another actor of its kind has had, each at its time.

        The digest of its knowledge is not computed again.
        """
        self._again = True
        for answer, now in answers:
            self._clock.now = now
            self._resume(answer)
        self._again = False

    def _note_lookup(self, call: Call, answer: Any) -> None:
        if isinstance(answer, dict):
            key = next(iter(call.request["ExpressionAttributeValues"].values()))["S"]
            self.lookups[key] = frozenset(item["task_id"]["S"] for item in answer["Items"])

    def _resume(self, answer: Any) -> None:
        self.pending = None
        self._greenlet.switch(answer)
        if self.error is not None:
            raise self.error

    def crash(self) -> None:
        """End the actor's process in the middle of its work."""
        self.crashed = True
        self.kill()

    def kill(self) -> None:
        """End the actor's process: nothing that it still tries has an effect."""
        if self.gone:
            return
        self.gone = True
        self.pending = None
        if self._greenlet:
            self._greenlet.switch(ProcessGoneError())


def any_task(_key: str, tasks: frozenset[str]) -> bool:
    """Whether a look-up has shown any task at all."""
    return bool(tasks)


def answer_text(answer: Any) -> str:
    """Return an answer as text; equal answers give equal texts."""
    if isinstance(answer, ClientError):
        return repr(answer.response)
    if isinstance(answer, BaseException):
        return type(answer).__name__
    return repr(answer)


def _digest(what: bytes) -> bytes:
    return hashlib.blake2b(what, digest_size=16).digest()


def _pickled(memory: object) -> bytes:
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer)
    pickler.fast = True  # by value: it does not matter which parts are the same object
    try:
        pickler.dump(memory)
    except Exception as error:
        raise UnspeakableError(str(error)) from error
    return buffer.getvalue()
