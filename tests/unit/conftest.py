"""The fixtures of the integration tests, on tables in memory instead of a server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from reconciler.stores.tasks import TaskStore
from tests.support.memory import MEMORY
from tests.support.world import World, build_world


@pytest.fixture
def make_world() -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make(**settings: str) -> World:
        made.append(build_world(MEMORY, **settings))
        return made[-1]

    yield make
    for world in made:
        world.remove()


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()


@pytest.fixture
def tasks_read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], bool]]:
    """The ids of each read of tasks, and whether the read was strongly consistent."""
    read = TaskStore.read
    asked: list[tuple[list[str], bool]] = []

    def seen(self: TaskStore, task_ids: Iterable[str], *, consistent: bool) -> Any:
        asked.append((list(task_ids), consistent))
        return read(self, task_ids, consistent=consistent)

    monkeypatch.setattr(TaskStore, "read", seen)
    return asked
