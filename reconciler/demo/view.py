"""The screen of the demo: a board that is redrawn in place, then the verdict, in 80 columns.

Colours only repeat what glyphs say.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from reconciler.demo.observer import ChildKey, Recovery, Snapshot
from reconciler.demo.platform import Seeded
from reconciler.demo.verdict import Sweep, Verdict
from reconciler.domain.model import TERMINAL_CHILD, Child, ChildStatus
from reconciler.inspection.theme import SIGNS, Tone, counted

_LABEL = "grey62"
_QUIET = "grey50"
_WIDE = 96
_OTHER_LINES = 9
"""Lines of a frame besides those of orchestrations."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The look of a child's state: a glyph, a style, and a word."""

    glyph: str
    style: str
    word: str

    @classmethod
    def of(cls, tone: Tone, word: str) -> Mark:
        """Return the mark of a state that other screens show too."""
        sign = SIGNS[tone]
        return cls(sign.glyph, sign.style, word)


WAITING = Mark.of(Tone.WAITING, "waiting")
RUNNING = Mark.of(Tone.MOVING, "running")
DONE = Mark.of(Tone.DONE, "done")
REPAIRED = Mark("◆", "bright_blue", "repaired")
FAILED = Mark.of(Tone.FAILED, "failed")
SKIPPED = Mark.of(Tone.SKIPPED, "skipped")
STRANDED = Mark.of(Tone.REPAIR, "stranded")
LEGEND = (WAITING, RUNNING, DONE, FAILED, SKIPPED, STRANDED, REPAIRED)

_MARKS: Mapping[ChildStatus | None, Mark] = {
    ChildStatus.RELEASED: RUNNING,
    ChildStatus.SUCCEEDED: DONE,
    ChildStatus.FAILED: FAILED,
    ChildStatus.SKIPPED: SKIPPED,
}

_REPAIRS = {
    "lost_release": "released",
    "lost_terminal": "advanced",
    "lost_skip": "skipped",
    "unsettled_parent": "settled",
}
"""Code → what its repair does, in one word."""


@dataclass(frozen=True, slots=True)
class Board:
    """The content of one frame; times in seconds."""

    elapsed: float
    phase: str
    down_for: float | None
    events_lost: int
    sweeps: Sequence[Sweep]
    interval: float
    restarts: int
    seeded: Sequence[Seeded]
    stranded: Mapping[ChildKey, datetime]
    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class Line:
    """One orchestration of the board; those with the lowest ``urgency`` are hidden first."""

    orchestration_id: str
    marks: tuple[Mark, ...]
    state: str
    style: str
    repairs: Sequence[Recovery]
    urgency: int


def _line(board: Board, seeded: Seeded) -> Line:
    key, snapshot = seeded.orchestration_id, board.snapshot
    rows = snapshot.orchestrations[key].children
    repairs = [recovery for recovery in snapshot.recoveries if recovery.child[0] == key]
    repaired = {recovery.child[1] for recovery in repairs}
    since = {child: at for (found, child), at in board.stranded.items() if found == key}
    marks = tuple(
        STRANDED if child in since else _mark(rows.get(child), repaired=child in repaired)
        for child in seeded.ids.values()
    )
    state, style, urgency = _state(snapshot, key, since)
    return Line(key, marks, state, style, repairs, urgency)


def _state(
    snapshot: Snapshot, orchestration_id: str, since: Mapping[str, datetime]
) -> tuple[str, str, int]:
    """Return the state of an orchestration in words, its style, and its urgency."""
    if since:
        oldest = (snapshot.at - min(since.values())).total_seconds()
        return f"stranded {oldest:.0f} s", STRANDED.style, 3
    if snapshot.is_settled(orchestration_id):
        return "settled", _QUIET, 0
    rows = snapshot.orchestrations[orchestration_id].children.values()
    ended = all(row.status in TERMINAL_CHILD for row in rows)
    return ("to be settled", "default", 2) if ended else ("in progress", "default", 1)


def _mark(row: Child | None, *, repaired: bool) -> Mark:
    mark = WAITING if row is None else _MARKS.get(row.status, WAITING)
    return REPAIRED if mark is DONE and repaired else mark


def one_line(board: Board) -> str:
    """Return a board in one line, for a pipe."""
    settled = sum(board.snapshot.is_settled(seeded.orchestration_id) for seeded in board.seeded)
    return (
        f"{board.elapsed:5.0f} s  {board.phase}: {settled} of {len(board.seeded)} settled, "
        f"{counted(board.events_lost, 'event')} lost, {len(board.stranded)} stranded, "
        f"{counted(len(board.snapshot.recoveries), 'repair')} by "
        f"{counted(len(board.sweeps), 'sweep')}"
    )


# -- the board


def draw(board: Board, console: Console) -> RenderableType:
    """Return one frame that fits the console; settled orchestrations are hidden first."""
    every = [_line(board, seeded) for seeded in board.seeded]
    room = max(3, console.height - _OTHER_LINES)
    first = sorted(range(len(every)), key=lambda index: (-every[index].urgency, index))
    shown = [every[index] for index in sorted(first[:room])]
    hidden = len(every) - len(shown)
    body: list[RenderableType] = [_header(board), Text(""), _table(shown, console)]
    body.append(Text(f"and {hidden} more" if hidden else "", style=_QUIET))
    body.append(_legend())
    return Padding(Group(*body), (0, 1))


def _header(board: Board) -> Table:
    tasks = board.snapshot.tasks.values()
    running = sum(not task.terminal for task in tasks)
    minutes, seconds = divmod(int(board.elapsed), 60)
    grid = Table.grid(padding=(0, 2), expand=True)
    grid.add_column(style=_LABEL, no_wrap=True, width=9)
    grid.add_column(no_wrap=True, ratio=1)
    grid.add_column(no_wrap=True, justify="right", style=_LABEL)
    grid.add_row("demo", Text(board.phase, style="bold"), f"{minutes}:{seconds:02d}")
    grid.add_row("platform", _live(board), f"tasks {len(tasks)}, running {running}")
    grid.add_row("backstop", _backstop(board), f"repairs {len(board.snapshot.recoveries)}")
    return grid


def _live(board: Board) -> Text:
    mark = DONE if board.down_for is None else FAILED
    text = Text(mark.glyph, style=mark.style)
    if board.down_for is None:
        text.append(" live reconciler up", style="default")
    else:
        text.append(f" live reconciler down {board.down_for:.0f} s")
    if board.events_lost:
        text.append(f", {counted(board.events_lost, 'event')} lost", style="yellow")
    return text


def _backstop(board: Board) -> Text:
    if not board.sweeps:
        return Text(f"first sweep pending, one every {board.interval:.0f} s", style=_QUIET)
    last = board.sweeps[-1]
    age = max(0.0, time.time() - last["ended_at"])
    text = Text(f"sweep {len(board.sweeps)}, ")
    text.append(f"{age:.0f} s ago", style="yellow" if age > 2 * board.interval else "default")
    text.append(f", took {last['duration_seconds']:.1f} s")
    if board.restarts:
        text.append(f", {board.restarts} restarted", style="yellow")
    return text


def _table(shown: Sequence[Line], console: Console) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), expand=True, header_style=_LABEL, pad_edge=False)
    table.add_column("orchestration", no_wrap=True, width=37)
    table.add_column("children", no_wrap=True, width=10)
    table.add_column("state", no_wrap=True, width=13)
    table.add_column("repairs", no_wrap=True, ratio=1)
    wide = console.width >= _WIDE
    for line in shown:
        counts = Counter(_REPAIRS.get(repair.code, repair.code) for repair in line.repairs)
        repairs = ", ".join(f"{word} {count}" for word, count in counts.items())
        table.add_row(
            Text(line.orchestration_id, style="default" if line.urgency else _QUIET),
            Text("").join(Text(mark.glyph, style=mark.style) for mark in line.marks),
            Text(line.state, style=line.style),
            Text(repairs if wide else str(len(line.repairs) or ""), style=REPAIRED.style),
        )
    return table


def _legend() -> Text:
    text = Text(no_wrap=True, overflow="ellipsis")
    for mark in LEGEND:
        text.append(mark.glyph, style=mark.style)
        text.append(f" {mark.word}  ", style=_LABEL)
    text.rstrip()
    return text


# -- the verdict


def draw_verdict(verdict: Verdict) -> RenderableType:
    """Return the verdict: one headline, then the counts."""
    if verdict.ok:
        headline = Text(f"{DONE.glyph} every orchestration came to its end", style="bold green")
    else:
        count = len(verdict.problems)
        headline = Text(
            f"{FAILED.glyph} {count} problem{'s' if count > 1 else ''}", style="bold red"
        )
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style=_LABEL, no_wrap=True)
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(style=_QUIET)
    for name, value, note, wrong in verdict_rows(verdict):
        grid.add_row(name, Text(value, style="bold red" if wrong else "bold"), note)
    problems = [Text(f"{FAILED.glyph} {problem}", style="red") for problem in verdict.problems]
    return Padding(Group(headline, Text(""), grid, *problems), (1, 1))


def verdict_rows(verdict: Verdict) -> list[tuple[str, str, str, bool]]:
    """Return (name, value, note, whether it is wrong) for every count."""
    v = verdict
    by = ", ".join(f"{code} {count}" for code, count in v.recovered_by.items())
    bound = f"bound {v.bound_seconds:.1f} s: grace + wait + sweep"
    settled = f"{v.settled} of {v.orchestrations}"
    longest = f"longest {v.sweep_longest_seconds:.1f} s"
    made = f"{v.children} children, {v.tasks} tasks"
    return [
        ("orchestrations settled", settled, made, v.settled < v.orchestrations),
        ("events lost", str(v.events_lost), "while the live reconciler was down", False),
        ("children stranded", str(v.stranded), "", False),
        ("children recovered", str(v.recovered), "", v.recovered < v.stranded),
        ("repairs", str(sum(v.recovered_by.values())), by, False),
        ("duplicate tasks", str(v.duplicates), "by idempotency key", v.duplicates > 0),
        ("regressions", str(v.regressions), "every row, sampled", v.regressions > 0),
        (
            "early releases",
            str(v.early_releases),
            "before every predecessor succeeded",
            v.early_releases > 0,
        ),
        ("recovery, longest", _seconds(v.latency_max_seconds), bound, v.over_bound > 0),
        ("recovery, median", _seconds(v.latency_median_seconds), "", False),
        ("sweeps", str(v.sweeps), longest, not v.sweeps),
    ]


def _seconds(value: float | None) -> str:
    return "none" if value is None else f"{value:.1f} s"
