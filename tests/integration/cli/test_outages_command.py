"""Outages of AWS as an operator meets them: one line that explains, and never a traceback."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reconciler.aws_errors import EXPLANATIONS
from tests.integration.cli.test_command_line import Run, run
from tests.support.faulty_endpoint import FaultyEndpoint, faulty_endpoint
from tests.support.world import World

__all__ = ["run"]

pytestmark = pytest.mark.integration

REJECTED = (400, "ValidationException")
INDEX = "The table does not have the specified index: IdempotencyIndex"
FAULTS = [
    ("credentials", (400, "ExpiredTokenException"), "The security token is expired"),
    ("index_unavailable", REJECTED, INDEX),
    ("encryption_key", REJECTED, "KMS key access denied"),
    ("account_limit", (400, "LimitExceededException"), "no"),
    ("access", (400, "AccessDeniedException"), "no"),
    ("unknown_refusal", (400, "SomethingNewException"), "no"),
    ("store_unavailable", (503, "ServiceUnavailable"), "no"),
]
IDS = [kind for kind, _, _ in FAULTS]
ONE = "orch_" + "0" * 32


@pytest.fixture
def service(world: World) -> Iterator[FaultyEndpoint]:
    """A proxy before the world's endpoint that can fail; the commands use it."""
    world.seed({"a": []})
    with faulty_endpoint(world.endpoint) as found:
        world.endpoint = found.url
        yield found


@pytest.mark.parametrize(("kind", "answer", "message"), FAULTS, ids=IDS)
def test_an_outage_is_explained_in_one_line(
    service: FaultyEndpoint, run: Run, kind: str, answer: tuple[int, str], message: str
) -> None:
    service.fail(answer, message=message)
    for command in (("inspect", ONE), ("release", ONE, "a"), ("sweep", "--inline")):
        done = run(*command)
        assert done.returncode == 3, (command, done.stderr)
        *logged, last = done.stderr.splitlines()
        assert last.startswith("reconciler: ")
        if command[0] == "sweep":  # its log says it
            assert any("orch.aws.lost" in line for line in logged)
        else:
            assert EXPLANATIONS[kind].advice in last
            assert logged == []
        assert EXPLANATIONS[kind].meaning in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("status",),
        ("list",),
        ("health",),
        ("doctor", "--inline"),
        ("inspect", ONE),
        ("evaluate", ONE),
        ("unskip", ONE, "a"),
        ("pause", "--reason", "why"),
        ("resume",),
    ],
    ids=lambda command: command[0],
)
def test_commands_report_outages_and_log_nothing(
    service: FaultyEndpoint, run: Run, command: tuple[str, ...]
) -> None:
    """They print no line of JSON, not even if metrics go to the log."""
    service.fail((400, "AccessDeniedException"))
    done = run(*command, METRICS_EMF="true")
    said = done.stderr.splitlines()
    assert done.returncode in {1, 3}, done.stderr
    assert all(line.startswith("reconciler: ") for line in said), said
    assert len(said) <= 1
    assert done.stdout or said
