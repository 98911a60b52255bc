"""Operations on tables in memory: as in the integration tests, without any server."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

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
