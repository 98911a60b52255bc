"""The runbook: its commands, and the places in it that are linked to."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operating.md").read_text()
PROGRAMS = ("reconciler", "celery", "docker", "aws")


def commands() -> list[list[str]]:
    """Return every command of the page, in blocks and within sentences, as its arguments."""
    lines = [
        line
        for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
    ]
    prose = re.sub(r"^```.*?^```", "", PAGE, flags=re.MULTILINE | re.DOTALL)
    spans = (" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose))
    lines += [span for span in spans if span.partition(" ")[0] in PROGRAMS and " " in span]
    return [shlex.split(line.partition(" | ")[0]) for line in lines if line.strip()]


def anchors() -> list[str]:
    """Return the anchors of the page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return [heading.strip().replace(" ", "-") for heading in words]
