"""The demo's live reconciler, which crashes now and then."""

from __future__ import annotations

from random import Random
from typing import Any

from reconciler.demo.live import LiveReconciler
from reconciler.domain.model import Child, Item, Orchestration
from reconciler.stores.rows import parse_task

_CRASH_PROBABILITY = 0.03


class CrashError(Exception):
    """The live reconciler dies here; what it has written stays."""


class CrashingLive(LiveReconciler):
    """Crashes before any step of a release; ``crashed``: the children whose release crashed.

    A crash after the claim leaves ``releasing``, with or without a task.
    """

    def __init__(self, *args: Any, seed: int) -> None:
        super().__init__(*args, seed=seed)
        self.crashed: list[tuple[str, str]] = []
        self._crashes = Random(f"{seed}/crashes")

    def receive(self, record: Item) -> None:
        try:
            super().receive(record)
        except CrashError:
            self.lost.append(parse_task(record))

    def release(self, orchestration: Orchestration, child: Child) -> None:
        try:
            self._step()
            super().release(orchestration, child)
        except CrashError:
            self.crashed.append((child.orchestration_id, child.sub_issue_id))
            raise

    def _find_or_create(self, orchestration: Orchestration, child: Child) -> Item | None:
        self._step()
        return super()._find_or_create(orchestration, child)

    def _flip(self, child: Child, task: Item, *expected: str) -> bool:
        self._step()
        flipped = super()._flip(child, task, *expected)
        if flipped:
            self._step()
        return flipped

    def _step(self) -> None:
        if self._crashes.random() < _CRASH_PROBABILITY:
            raise CrashError
