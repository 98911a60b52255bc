"""The runbook: its commands, and the anchors for links to it."""

from __future__ import annotations

import re

from docs.commands import ROOT, shown, simple_commands

PATH = ROOT / "docs" / "operating.md"
PAGE = PATH.read_text(encoding="utf-8")


def commands() -> list[tuple[str, ...]]:
    """Return every command of the page as its arguments; of a pipe, the first command."""
    return [simple_commands(each)[0].words for each in shown(PATH)]


def anchors(page: str = PAGE) -> list[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    outside = re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", outside, re.MULTILINE)
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return [heading.strip().replace(" ", "-") for heading in words]
