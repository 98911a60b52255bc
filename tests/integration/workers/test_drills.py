"""The operator's drills: a command answers each question, and nobody has to guess."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Servers
from tests.support.drills import night, play

# Some forty commands run one after the other; each takes seconds on a busy machine.
pytestmark = [pytest.mark.integration, pytest.mark.workers, pytest.mark.timeout(900)]

MAX_COMMANDS = 3
MIN_DRILLS = 20
"""Eight things that break, and every code that no sweep repairs."""


def test_every_question_has_an_answer(servers: Servers, tmp_path: Path) -> None:
    """Three commands are enough, whatever is broken: status, list or doctor, inspect."""
    played = []
    with night(servers.endpoint("moto"), tmp_path) as held:
        for drill in play(held):
            played.append(drill.name)
            unanswered = [a.question for a in drill.answers if not a.line]
            assert not unanswered, (drill.name, unanswered, held.printed)
            assert drill.commands <= MAX_COMMANDS, drill.name
    assert len(played) >= MIN_DRILLS
