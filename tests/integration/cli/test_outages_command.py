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


@pytest.fixture
def service(world: World) -> Iterator[FaultyEndpoint]:
    """The world's endpoint, as the commands see it."""
    world.seed({"a": []})
    with faulty_endpoint(world.endpoint) as found:
        world.endpoint = found.url
        yield found


@pytest.mark.parametrize(("kind", "answer", "message"), FAULTS, ids=IDS)
def test_a_command_that_cannot_read_says_why_in_one_line(
    service: FaultyEndpoint, run: Run, kind: str, answer: tuple[int, str], message: str
) -> None:
    service.fail(answer, message=message)
    one = "orch_" + "0" * 32
    for command in (("inspect", one), ("release", one, "a"), ("sweep", "--inline")):
        done = run(*command)
        assert done.returncode == 3, (command, done.stderr)
        last = done.stderr.splitlines()[-1]
        assert last.startswith("reconciler: ")
        if command[0] != "sweep":  # whose log says it
            assert EXPLANATIONS[kind].advice in last
        assert EXPLANATIONS[kind].meaning in done.stderr
        assert "Traceback" not in done.stderr
