"""What each actor does, learnt once: where it stands, what it asks for there, and what follows.

An actor is deterministic in what it is told. So where it stands, and what it is answered, say where
it will stand, whatever stands in the tables; and what it asks for is a function of where it stands.
An actor cannot be copied: to have one stand where another has been, it is told the same once more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError, ReadTimeoutError

from tests.simulation.actors import Actor, ActorSpec, Call, ClockHand, answer_text
from tests.simulation.scheduler import Asked, standing

MOST_ALIVE = 200
"""Actors that are kept where they stand, to be told what comes next: the latest."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an actor stands: who it is, and what it asks for next; None: it has ended.

    ``came``: from where, by which answer and at what time it was first seen to come to stand there.
    """

    spec: ActorSpec
    call: Call | None
    seen: bytes
    lookups: Mapping[str, frozenset[str]]
    came: tuple[int, Any, datetime] | None = None

    @property
    def asked(self) -> Asked | None:
        """What it asks for; None once it has ended."""
        return None if self.call is None else Asked(self.spec, self.call, self.lookups)


class Cast:
    """The actors of a scenario, wherever they have been seen to stand.

    ``standings`` has them by number; no two actors share one. ``forget`` False tells apart all that
    have been told anything else.
    """

    def __init__(self, actors: Sequence[Actor], *, forget: bool = True) -> None:
        self._forget = forget
        self._specs = [actor.spec for actor in actors]
        self._counts = [actor.counts for actor in actors]
        self._clock = ClockHand(datetime.min.replace(tzinfo=UTC))  # each is told at its own time
        self._numbers: dict[tuple[int, bytes, bool], int] = {}
        self._next: dict[tuple[int, str, datetime], int] = {}
        self._alive: dict[int, Actor] = {}
        self.standings: list[Standing] = []
        self.first = tuple(self._note(i, actor, None) for i, actor in enumerate(actors))

    def ended(self, i: int) -> int:
        """Return where the actor ``i`` stands once it has ended."""
        return self._number((i, b"", True), Standing(self._specs[i], None, b"", {}))

    def told(self, i: int, number: int, answer: Any, now: datetime) -> int:
        """Return where the actor ``i``, which stands at ``number``, comes to stand by an answer.

        Raises:
            Exception: whatever it let through.
        """
        key = number, answer_text(answer), now
        if key not in self._next:
            actor = self._actor(i, number)
            self._clock.now = now
            actor.tell(_fresh(answer))
            self._next[key] = self._note(i, actor, (number, answer, now))
        return self._next[key]

    def _note(self, i: int, actor: Actor, came: tuple[int, Any, datetime] | None) -> int:
        if actor.pending is None:
            return self.ended(i)
        here = Standing(actor.spec, actor.pending, actor.seen, dict(actor.lookups), came)
        number = self._number(standing(i, actor), here)
        known = self.standings[number].call
        if known is not None and known != actor.pending:
            msg = f"{actor.spec.name} knows more than it says: it asks for {known.describe()}"
            raise RuntimeError(f"{msg}, or else for {actor.pending.describe()}")
        if came is not None:
            self._keep(number, actor)
        return number

    def _number(self, key: tuple[int, bytes, bool], here: Standing) -> int:
        number = self._numbers.setdefault(key, len(self.standings))
        if number == len(self.standings):
            self.standings.append(here)
        return number

    def _actor(self, i: int, number: int) -> Actor:
        """Return an actor that stands there; it will not for long, and is not kept."""
        actor = self._alive.pop(number, None)
        if actor is None:
            actor = Actor(self._specs[i], self._clock)
            actor.forgets = self._forget
            actor.counts = self._counts[i]
            actor.tell_again(self._answers(number))
            here = self.standings[number]
            actor.seen, actor.lookups = here.seen, dict(here.lookups)
        return actor

    def _answers(self, number: int) -> Iterator[tuple[Any, datetime]]:
        """Yield what an actor has to be told to stand there."""
        told: list[tuple[Any, datetime]] = []
        came = self.standings[number].came
        while came is not None:
            number, answer, now = came
            told.append((_fresh(answer), now))
            came = self.standings[number].came
        yield from reversed(told)

    def _keep(self, number: int, actor: Actor) -> None:
        if number in self._alive:
            actor.kill()
            return
        self._alive[number] = actor
        if len(self._alive) > MOST_ALIVE:
            self._alive.pop(next(iter(self._alive))).kill()

    def end(self) -> None:
        """Let go of all actors."""
        for actor in self._alive.values():
            actor.kill()
        self._alive.clear()


def _fresh(answer: Any) -> Any:
    """Return an answer of which nobody else has a part that may be changed."""
    if isinstance(answer, ClientError):
        return ClientError(answer.response, answer.operation_name)
    if isinstance(answer, ReadTimeoutError):
        return ReadTimeoutError(endpoint_url="memory")
    if isinstance(answer, dict):
        return {name: list(v) if isinstance(v, list) else v for name, v in answer.items()}
    return answer
