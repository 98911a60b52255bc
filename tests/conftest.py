"""Servers for all suites: each is started once, when the first test asks for it.

A server that cannot be had skips its tests on a developer's machine and fails them in CI.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from reconciler.embedded.moto_server import moto_server
from reconciler.embedded.process import EmbeddedServerError
from reconciler.embedded.valkey import valkey_server
from tests.support.dynamodb_local import dynamodb_local
from tests.support.memory import memory_server
from tests.support.world import World, build_world, make_client

# How fast examples are made says how loaded the machine is, and nothing of what is tested. In CI
# they are the same each time, so that a change is judged by itself; elsewhere new ones are found.
settings.register_profile(
    "any machine",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("any machine")

Launcher = Callable[[Path], AbstractContextManager[str]]
_LAUNCHERS: dict[str, Launcher] = {"moto": moto_server, "dynamodb_local": dynamodb_local}
if os.environ.get("IN_MEMORY"):
    # Mutants are judged so: a suite takes seconds that takes minutes over HTTP.
    _LAUNCHERS = {"moto": memory_server}


class Servers:
    """The servers of a test run, by name."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stack = ExitStack()
        self._endpoints: dict[str, str] = {}

    def endpoint(self, name: str) -> str:
        """Return the endpoint of a server, started if need be."""
        if name not in self._endpoints:
            try:
                launcher = _LAUNCHERS[name](self._directory)
                self._endpoints[name] = self._stack.enter_context(launcher)
            except EmbeddedServerError as error:
                if os.environ.get("CI"):
                    raise
                pytest.skip(str(error))
        return self._endpoints[name]

    def close(self) -> None:
        """End all of them."""
        self._stack.close()


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """The servers of this run."""
    found = Servers(tmp_path_factory.mktemp("servers"))
    yield found
    found.close()


@pytest.fixture(params=sorted(_LAUNCHERS))
def endpoint(request: pytest.FixtureRequest, servers: Servers) -> str:
    """A DynamoDB endpoint: each test that asks for one runs on each of them."""
    return servers.endpoint(request.param)


@pytest.fixture
def make_world(endpoint: str) -> Iterator[Callable[..., World]]:
    """Fresh tables at an endpoint, with settings by their names in the environment."""
    made: list[tuple[World, str]] = []

    def make(**settings: str) -> World:
        made.append((build_world(endpoint, **settings), endpoint))
        return made[-1][0]

    yield make
    for found, at in made:
        # At the endpoint that it was made at: a test may have sent it elsewhere.
        replace(found, client=make_client(at)).remove()


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """Fresh tables at an endpoint, with no budget, no onboarding, and no pipeline."""
    return make_world()


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Valkey server; its URL without a database number."""
    with valkey_server(tmp_path_factory.mktemp("valkey")) as url:
        yield url
