"""Plays the operator's drills and writes ``docs/drills.md``: ``make drills``."""

from __future__ import annotations

import tempfile
from pathlib import Path

from reconciler.embedded.moto_server import moto_server
from tests.support.drills import Drill, night, play

PATH = Path(__file__).parent / "drills.md"
HEAD = """\
# Drills

What an operator sees when something is broken. `make drills` breaks it on real processes, runs the
commands and writes this page. Each row has the line that answers the question. A test plays the
same drills in every build.

"""


def render(drills: list[Drill]) -> str:
    """Return the page."""
    parts = [HEAD]
    for drill in drills:
        plural = "" if drill.commands == 1 else "s"
        parts.append(f"## {drill.name}\n\n{drill.commands} command{plural}.\n\n")
        parts.append("| question | command | answer |\n|---|---|---|\n")
        for answer in drill.answers:
            line = answer.line.replace("|", "\\\\|").replace("`", "")
            parts.append(f"| {answer.question} | `{answer.command}` | {line} |\n")
        parts.append("\n")
    return "".join(parts).rstrip("\n") + "\n"


def main() -> None:
    """Play all drills and write the page."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with moto_server(directory) as endpoint, night(endpoint, directory) as held:
            PATH.write_text(render(list(play(held))), encoding="utf-8")


if __name__ == "__main__":
    main()
