"""The counts of what was explored, shown at the end of a run; ``--seed`` for random schedules."""

from __future__ import annotations

from collections.abc import Callable

import pytest

_COUNTS = pytest.StashKey[list[str]]()
Show = Callable[[str], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=None, help="replay one random schedule")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_COUNTS] = []


@pytest.fixture
def show(request: pytest.FixtureRequest) -> Show:
    return request.config.stash[_COUNTS].append


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    counts = config.stash[_COUNTS]
    if counts:
        terminalreporter.section("schedules explored")
        for line in counts:
            terminalreporter.write_line(line)
