"""Tones, glyphs and ages that all screens share.

Colour only repeats what a glyph and a word say, so nothing is lost in a pipe, on a monochrome
terminal, or to a colour-blind reader.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from itertools import pairwise

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from reconciler.domain.codes import REPAIRABLE, Code, OrchestrationCode
from reconciler.domain.model import ChildStatus

MINUTE, HOUR, DAY = 60, 3_600, 86_400
_UNITS = ((DAY, "d"), (HOUR, "h"), (MINUTE, "min"), (1, "s"))


class Tone(StrEnum):
    """How urgent something is, or how far along."""

    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    MOVING = "moving"
    WAITING = "waiting"
    HELD = "held"
    REPAIR = "repair"
    ALARM = "alarm"
    GHOST = "ghost"


@dataclass(frozen=True, slots=True)
class Sign:
    """The look of a tone: a glyph one cell wide, and colours."""

    glyph: str
    style: str
    fill: str
    line: str


SIGNS: dict[Tone, Sign] = {
    Tone.DONE: Sign("✓", "green", "#e6f4ea", "#2e7d32"),
    Tone.FAILED: Sign("✗", "red", "#fdecea", "#c62828"),
    Tone.SKIPPED: Sign("⊘", "bright_black", "#f1f1f1", "#757575"),
    Tone.MOVING: Sign("●", "cyan", "#e3f2fd", "#1565c0"),
    Tone.WAITING: Sign("○", "bright_black", "#fafafa", "#9e9e9e"),
    Tone.HELD: Sign("◌", "blue", "#ede7f6", "#5e35b1"),
    Tone.REPAIR: Sign("▲", "bold yellow", "#fff8e1", "#ef6c00"),
    Tone.ALARM: Sign("■", "bold red", "#ffebee", "#b71c1c"),
    Tone.GHOST: Sign("?", "bright_black", "#ffffff", "#9e9e9e"),
}
"""``style`` is rich's; ``fill`` and ``line`` are the picture's colours in SVG and Mermaid."""

_BY_STATUS: Mapping[str | None, Tone] = {
    ChildStatus.SUCCEEDED: Tone.DONE,
    ChildStatus.FAILED: Tone.FAILED,
    ChildStatus.SKIPPED: Tone.SKIPPED,
}
_HEALTHY_TONES: Mapping[str, Tone] = {
    OrchestrationCode.SETTLED: Tone.DONE,
    OrchestrationCode.IN_PROGRESS: Tone.MOVING,
    Code.WAITING: Tone.WAITING,
    Code.RUNNING: Tone.MOVING,
    Code.WITHIN_GRACE: Tone.HELD,
    Code.CLAIM_IN_PROGRESS: Tone.HELD,
    Code.OVER_BUDGET: Tone.HELD,
}


def tone_of_code(code: Code | OrchestrationCode | str) -> Tone:
    """Return the tone of a child's or an orchestration's code."""
    if code in _HEALTHY_TONES:
        return _HEALTHY_TONES[code]
    return Tone.REPAIR if code in REPAIRABLE else Tone.ALARM


def tone_of_status(status: str | None) -> Tone:
    """Return the tone of a terminal child, which has no diagnosis; an unknown status alarms."""
    return _BY_STATUS.get(status, Tone.WAITING) if status in set(ChildStatus) else Tone.ALARM


MEANINGS: dict[str, str] = {
    Code.OVER_BUDGET: "due, and its user has no free slot",
    Code.LOST_RELEASE: "due, and nobody has released it",
    Code.LOST_TERMINAL: "its task ended, and nobody took note",
    Code.LOST_SKIP: "behind a failure, and not skipped",
    Code.ABANDONED_CLAIM: "a releaser claimed it and died",
    Code.UNSTARTED_TASK: "its task was never started",
    Code.LOST_RECOVERY: "a fix succeeded, and it was not recovered",
    Code.LOST_UNSKIP: "skipped, though no predecessor failed",
    Code.REFUSED: "its task was refused for good",
    Code.LONG_RUNNING: "its task has been running longer than the limit",
    Code.MISSING_TASK: "its task does not exist",
    Code.MISSING_TASK_ID: "released, and its row names no task",
    Code.DANGLING_DEPENDENCY: "waits for a row that does not exist",
    Code.DEPENDENCY_CYCLE: "waits in a circle",
    Code.ORPHAN_ROW: "its meta row is missing",
    Code.UNKNOWN_STATUS: "a status that is not known",
    Code.MALFORMED_ROW: "an attribute of its row is invalid",
    Code.IDEMPOTENCY_CONFLICT: "another user's task holds its key",
    Code.CHECK_FAILED: "could not be read this time",
    Code.QUARANTINED: "its repairs kept failing",
    OrchestrationCode.UNSETTLED_PARENT: "all done, and its roll-up was never posted",
    OrchestrationCode.ROWS_MISSING: "fewer rows than there should be",
}
"""A short meaning of each code of stuck entries."""


def marked(tone: Tone, said: str) -> Text:
    """Return a text with the tone's glyph, in its colour."""
    return Text(f"{SIGNS[tone].glyph} {said}", SIGNS[tone].style)


def age(seconds: float | None) -> str:
    """Return a duration in words, with at most two units; ``a long time`` if it is unknown."""
    if seconds is None:
        return "a long time"
    whole = int(seconds)
    for (size, unit), (part, part_unit) in pairwise(_UNITS):
        if whole >= size:
            rest = whole % size // part
            # From ten minutes on, omit the seconds.
            counts_rest = rest and not 10 * MINUTE <= whole < HOUR
            return f"{whole // size} {unit}" + (f" {rest} {part_unit}" if counts_rest else "")
    return f"{whole} s"


def short_age(seconds: float | None) -> str:
    """Return a duration in at most four cells: ``45s``, ``12m``, ``3d``."""
    if seconds is None:
        return "?"
    whole = int(seconds)
    for size, unit in ((DAY, "d"), (HOUR, "h"), (MINUTE, "m")):
        if whole >= size:
            return f"{whole // size}{unit}"
    return f"{whole}s"


def until(at: datetime, now: datetime) -> str:
    """Return when something will happen: ``in 4 min (12:05:00 UTC)``, or ``now``.

    The time has a date unless that is today. ``now`` is in UTC.
    """
    if at <= now:
        return "now"
    there = at.astimezone(UTC)
    when = f"{there:%H:%M:%S}" if there.date() == now.date() else f"{there:%Y-%m-%d %H:%M}"
    return f"in {age((at - now).total_seconds())} ({when} UTC)"


def counted(count: int, noun: str) -> str:
    """Return a number and its noun, in the plural unless the number is one."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def listed(names: Sequence[str], most: int) -> str:
    """Return the first ``most`` names, and how many more there are."""
    left = len(names) - most
    return ", ".join(names[:most]) + (f" and {left} more" if left > 0 else "")


def cut(text: str, cells: int) -> str:
    """Return ``text`` in at most ``cells`` cells, with an ellipsis if it was longer."""
    if cell_len(text) <= cells:
        return text
    return set_cell_size(text, max(0, cells - 1)).rstrip(" …") + "…" if cells > 0 else ""
