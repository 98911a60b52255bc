"""Shows the number of explored schedules at the end of a run; ``--seed`` for random schedules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.simulation.conformance import db, server
from tests.simulation.explorer import Explored

__all__ = ["db", "server"]  # fixtures

_PROPERTY = "explored"
_EXPLORED = pytest.StashKey[list[tuple[str, int, str]]]()
Show = Callable[[str, Explored], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=None, help="replay one random schedule")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_EXPLORED] = []
    config.pluginmanager.register(_Collector(config), "explored")


@pytest.fixture
def show(request: pytest.FixtureRequest) -> Show:
    """Record what was explored; the test's report carries it between processes."""

    def tell(name: str, explored: Explored) -> None:
        request.node.user_properties.append((_PROPERTY, (name, explored.schedules, str(explored))))

    return tell


class _Collector:
    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        told: Any
        for name, told in report.user_properties if report.when == "call" else ():
            if name == _PROPERTY:
                self._config.stash[_EXPLORED].append(tuple(told))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    explored = config.stash[_EXPLORED]
    if explored:
        terminalreporter.section("schedules explored")
        for name, _, counts in explored:
            terminalreporter.write_line(f"{name}: {counts}")
        total = sum(schedules for _, schedules, _ in explored)
        terminalreporter.write_line(f"{total:,} schedules of {len(explored)} scenarios in all")
