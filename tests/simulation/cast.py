"""The behaviour of each actor, learnt once: its states, its call in each, and what follows.

An actor is deterministic in its answers. So its state and the next answer determine its next
state, whatever the tables hold, and its state determines its next call. An actor cannot be copied:
to bring one into a state that another has been in, the same answers are replayed to it.
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
"""How many actors are kept in their state for the next answer: the latest ones."""


@dataclass(frozen=True, slots=True)
class Standing:
    """An actor's state: who it is, and its next call; None if it has ended.

    ``came``: the state, the answer and the time from which it was first seen to get here.
    """

    spec: ActorSpec
    call: Call | None
    seen: bytes
    lookups: Mapping[str, frozenset[str]]
    came: tuple[int, Any, datetime] | None = None

    @property
    def asked(self) -> Asked | None:
        """The next call with its actor; None once the actor has ended."""
        return None if self.call is None else Asked(self.spec, self.call, self.lookups)


class Cast:
    """The actors of a scenario, in every state that they have been seen in.

    ``standings`` has the states by number; no two actors share one. With ``forget`` False, two
    states differ as soon as the actor was told anything different.
    """

    def __init__(self, actors: Sequence[Actor], *, forget: bool = True) -> None:
        self._forget = forget
        self._specs = [actor.spec for actor in actors]
        self._counts = [actor.counts for actor in actors]
        self._clock = ClockHand(datetime.min.replace(tzinfo=UTC))  # set before each answer
        self._numbers: dict[tuple[int, bytes, bool], int] = {}
        self._next: dict[tuple[int, str, datetime], int] = {}
        self._alive: dict[int, Actor] = {}
        self.standings: list[Standing] = []
        self.first = tuple(self._note(i, actor, None) for i, actor in enumerate(actors))

    def ended(self, i: int) -> int:
        """Return the number of the state in which the actor ``i`` has ended."""
        return self._number((i, b"", True), Standing(self._specs[i], None, b"", {}))

    def told(self, i: int, number: int, answer: Any, now: datetime) -> int:
        """Return the state that the actor ``i`` goes to from the state ``number`` with an answer.

        Raises:
            Exception: whatever the actor let through.
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
        """Return an actor in that state; it is about to leave the state, so it is not kept."""
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
        """Yield the answers that bring an actor into that state."""
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
        """Release all actors."""
        for actor in self._alive.values():
            actor.kill()
        self._alive.clear()


def _fresh(answer: Any) -> Any:
    """Return an answer that shares no mutable part with anything else."""
    if isinstance(answer, ClientError):
        return ClientError(answer.response, answer.operation_name)
    if isinstance(answer, ReadTimeoutError):
        return ReadTimeoutError(endpoint_url="memory")
    if isinstance(answer, dict):
        return {name: list(v) if isinstance(v, list) else v for name, v in answer.items()}
    return answer
