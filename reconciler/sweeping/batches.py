"""Batched reads: 100 keys per request for many consumers that each need a few."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Generic, TypeVar

from reconciler.stores.dynamodb import MAX_KEYS_PER_BATCH

Waiting = TypeVar("Waiting")
Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Batches(Generic[Waiting, Key, Value]):
    """Queues consumers, in order, until the values that they need have been read.

    ``read`` gets up to 100 keys and omits those that it could not read. ``ready`` gets a consumer
    and the values, possibly with those of others among them.
    """

    def __init__(
        self,
        read: Callable[[Sequence[Key]], Mapping[Key, Value]],
        ready: Callable[[Waiting, Mapping[Key, Value]], None],
    ) -> None:
        self._read = read
        self._ready = ready
        self._waiting: deque[tuple[Waiting, Sequence[Key]]] = deque()
        self._wanted: deque[Key] = deque()
        self._asked = 0  # keys read so far for queued consumers
        self._values: dict[Key, Value] = {}

    def add(self, waiting: Waiting, keys: Sequence[Key]) -> None:
        """Queue a consumer; without keys it is ready at once."""
        if not keys:
            self._ready(waiting, self._values)
            return
        self._waiting.append((waiting, keys))
        self._wanted.extend(keys)
        while len(self._wanted) >= MAX_KEYS_PER_BATCH:
            self._read_batch([self._wanted.popleft() for _ in range(MAX_KEYS_PER_BATCH)])

    def finish(self) -> None:
        """Read what is left."""
        rest = list(self._wanted)
        self._wanted.clear()
        if rest:
            self._read_batch(rest)

    def _read_batch(self, keys: Sequence[Key]) -> None:
        self._values.update(self._read(keys))
        self._asked += len(keys)
        # Keys are read in the order of their consumers, so the first consumers are complete.
        while self._waiting and self._asked >= len(self._waiting[0][1]):
            waiting, wanted = self._waiting.popleft()
            self._asked -= len(wanted)
            self._ready(waiting, self._values)
            for key in wanted:
                self._values.pop(key, None)
