"""What the demonstration shows: a board that is redrawn in place, and the verdict under it.

Colour carries meaning and never stands alone: every state has its own glyph as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from reconciler.demo.observer import ChildKey, Observer, Recovery, Snapshot
from reconciler.demo.platform import Seeded
from reconciler.demo.verdict import Verdict
from reconciler.domain.model import TERMINAL_CHILD, ChildStatus

_LABEL = "grey62"
_QUIET = "grey50"
_HEADER_LINES = 6
_FOOTER_LINES = 3
_NARROW = 96


@dataclass(frozen=True, slots=True)
class Mark:
    """A state of a child as it is shown: a glyph, its plain spelling, a style, and a word."""

    glyph: str
    plain: str
    style: str
    word: str


WAITING = Mark("○", ".", _QUIET, "waiting")
RUNNING = Mark("◐", "o", "cyan", "running")
DONE = Mark("●", "*", "green", "done")
REPAIRED = Mark("◆", "#", "bright_blue", "brought on by the backstop")
FAILED = Mark("✗", "x", "red", "failed")
SKIPPED = Mark("─", "-", _QUIET, "skipped")
STRANDED = Mark("!", "!", "bold yellow", "stranded")
LEGEND = (WAITING, RUNNING, DONE, FAILED, SKIPPED, STRANDED, REPAIRED)

_MARKS = {
    ChildStatus.BLOCKED: WAITING,
    ChildStatus.READY: WAITING,
    ChildStatus.RELEASING: WAITING,
    ChildStatus.RELEASED: RUNNING,
    ChildStatus.SUCCEEDED: DONE,
    ChildStatus.FAILED: FAILED,
    ChildStatus.SKIPPED: SKIPPED,
}


@dataclass(frozen=True, slots=True)
class Board:
    """Everything that one frame shows; times are seconds."""

    elapsed: float
    phase: str
    down_for: float | None
    events_lost: int
    sweeps: int
    sweep_age: float | None
    sweep_took: float | None
    interval: float
    restarts: int
    seeded: Sequence[Seeded]
    observer: Observer


@dataclass(frozen=True, slots=True)
class Line:
    """One orchestration of the board."""

    name: str
    shape: str
    marks: tuple[Mark, ...]
    state: str
    state_style: str
    repairs: str
    urgency: int


def lines(board: Board) -> list[Line]:
    """Return a line for every orchestration, in the order of seeding."""
    snapshot = board.observer.latest
    if snapshot is None:
        return []
    repairs: dict[str, list[Recovery]] = {}
    for recovery in snapshot.recoveries:
        repairs.setdefault(recovery.child[0], []).append(recovery)
    return [
        _line(seeded, snapshot, board.observer.stranded, repairs.get(seeded.orchestration_id, ()))
        for seeded in board.seeded
        if seeded.orchestration_id in snapshot.orchestrations
    ]


def _line(
    seeded: Seeded,
    snapshot: Snapshot,
    stranded: Mapping[ChildKey, datetime],
    repairs: Sequence[Recovery],
) -> Line:
    orchestration = snapshot.orchestrations[seeded.orchestration_id]
    repaired = {recovery.child[1] for recovery in repairs}
    marks: list[Mark] = []
    oldest = 0.0
    for spec in seeded.blueprint.children:
        key = seeded.ids[spec.key]
        row = orchestration.children.get(key)
        since = stranded.get((seeded.orchestration_id, key))
        if since is not None:
            oldest = max(oldest, (snapshot.at - since).total_seconds())
            marks.append(STRANDED)
        elif row is None or row.status is None:
            marks.append(WAITING)
        elif row.status is ChildStatus.SUCCEEDED and key in repaired:
            marks.append(REPAIRED)
        else:
            marks.append(_MARKS[row.status])
    ended = all(row.status in TERMINAL_CHILD for row in orchestration.children.values())
    settled = orchestration.meta is not None and orchestration.meta.settled
    if STRANDED in marks:
        state = (f"stranded {oldest:.0f} s", "yellow", 0)
    elif settled:
        state = ("settled", _QUIET, 3)
    elif ended:
        state = ("to be settled", "default", 1)
    else:
        state = ("in progress", "default", 2)
    return Line(
        name=seeded.orchestration_id[:11],
        shape=seeded.blueprint.shape,
        marks=tuple(marks),
        state=state[0],
        state_style=state[1],
        repairs=told(repairs),
        urgency=state[2],
    )


_REPAIRS = {
    "lost_release": "released",
    "lost_terminal": "advanced",
    "lost_skip": "skipped",
    "abandoned_claim": "claim mended",
    "missing_task_id": "adopted",
    "unstarted_task": "invoked",
    "unsettled_parent": "settled",
}


def told(repairs: Sequence[Recovery]) -> str:
    """Say what was repaired, in few words: ``released 2, advanced 3``."""
    counts: dict[str, int] = {}
    for recovery in repairs:
        word = _REPAIRS.get(recovery.code, recovery.code)
        counts[word] = counts.get(word, 0) + 1
    return ", ".join(f"{word} {count}" for word, count in counts.items())


# -- the board


def draw(board: Board, console: Console) -> RenderableType:
    """Return one frame that fits the console."""
    every = lines(board)
    room = max(3, console.height - _HEADER_LINES - _FOOTER_LINES)
    shown, hidden = every, 0
    if len(every) > room:
        # What needs to be looked at stays; what is settled goes first. The order stays.
        ranked = sorted(range(len(every)), key=lambda index: (every[index].urgency, index))
        keep = sorted(ranked[: room - 1])
        shown, hidden = [every[index] for index in keep], len(every) - len(keep)
    body: list[RenderableType] = [_header(board, console), Text(""), _table(shown, console)]
    if hidden:
        body.append(Text(f"  and {hidden} more", style=_QUIET))
    body.append(Text(""))
    body.append(_legend(console))
    return Padding(Group(*body), (0, 1))


def _header(board: Board, console: Console) -> Table:
    grid = Table.grid(padding=(0, 2), expand=True)
    grid.add_column(style=_LABEL, no_wrap=True, width=9)
    grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    grid.add_column(no_wrap=True, justify="right", style=_LABEL)
    grid.add_row("demo", Text(board.phase, style="bold"), clock_face(board.elapsed))
    snapshot = board.observer.latest
    running = 0
    total = 0
    if snapshot is not None:
        total = len(snapshot.tasks)
        running = sum(not task.terminal for task in snapshot.tasks.values())
    grid.add_row("platform", _live(board, console), f"tasks {total} · running {running}")
    grid.add_row("backstop", _backstop(board), _repaired(snapshot))
    return grid


def _live(board: Board, console: Console) -> Text:
    text = Text()
    mark = DONE if board.down_for is None else FAILED
    text.append(_glyph(mark, console), style=mark.style)
    if board.down_for is None:
        text.append(" live reconciler up")
    else:
        text.append(f" live reconciler down {board.down_for:.0f} s", style="red")
    if board.events_lost:
        text.append(f" · {board.events_lost} events lost", style="yellow")
    return text


def _backstop(board: Board) -> Text:
    if board.sweep_age is None:
        return Text(f"first sweep pending, one every {board.interval:.0f} s", style=_QUIET)
    overdue = board.sweep_age > 2 * board.interval
    text = Text(f"sweep {board.sweeps} · ")
    text.append(f"{board.sweep_age:.0f} s ago", style="yellow" if overdue else "default")
    if board.sweep_took is not None:
        text.append(f" · took {board.sweep_took:.1f} s")
    if board.restarts:
        text.append(f" · {board.restarts} restarted", style="yellow")
    return text


def _repaired(snapshot: Snapshot | None) -> str:
    return f"repairs {len(snapshot.recoveries) if snapshot is not None else 0}"


def _table(shown: Sequence[Line], console: Console) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), expand=True, header_style=_LABEL, pad_edge=False)
    table.add_column("orchestration", no_wrap=True, width=13)
    table.add_column("shape", no_wrap=True, width=12)
    table.add_column("children", no_wrap=True, width=19)
    table.add_column("state", no_wrap=True, width=14)
    table.add_column("what the backstop did", no_wrap=True, overflow="ellipsis", ratio=1)
    for line in shown:
        marks = Text(" ").join(Text(_glyph(mark, console), style=mark.style) for mark in line.marks)
        table.add_row(
            Text(line.name, style=_QUIET if line.urgency > 2 else "default"),  # noqa: PLR2004 - settled
            Text(line.shape, style=_LABEL),
            marks,
            Text(line.state, style=line.state_style),
            Text(line.repairs, style=REPAIRED.style),
        )
    return table


def _legend(console: Console) -> Text:
    text = Text(no_wrap=True, overflow="ellipsis")
    for mark in LEGEND:
        word = "by the backstop" if mark is REPAIRED and console.width < _NARROW else mark.word
        text.append(_glyph(mark, console), style=mark.style)
        text.append(f" {word}  ", style=_LABEL)
    return text


def _glyph(mark: Mark, console: Console) -> str:
    return mark.glyph if console.encoding.lower().startswith("utf") else mark.plain


def clock_face(seconds: float) -> str:
    """Return ``m:ss``."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


# -- the verdict


def draw_verdict(verdict: Verdict, console: Console) -> RenderableType:
    """Return the verdict: one headline, then the counts that it rests on."""
    good, bad = _glyph(DONE, console), _glyph(FAILED, console)
    headline = Text(f"{good} every orchestration came to its end", style="bold green")
    if not verdict.ok:
        count = len(verdict.problems)
        noun = "problem" if count == 1 else "problems"
        headline = Text(f"{bad} {count} {noun}", style="bold red")
    grid = Table.grid(padding=(0, 3))
    grid.add_column(style=_LABEL, no_wrap=True)
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(style=_QUIET)
    for name, value, note, wrong in verdict_rows(verdict):
        grid.add_row(name, Text(value, style="bold red" if wrong else "bold"), note)
    body: list[RenderableType] = [headline, Text(""), grid]
    if verdict.problems:
        body.append(Text(""))
        body.extend(Text(f"{bad} {problem}", style="red") for problem in verdict.problems)
    return Padding(Group(*body), (1, 1))


def verdict_rows(verdict: Verdict) -> list[tuple[str, str, str, bool]]:
    """Return (name, value, note, whether it is wrong) for every count of the verdict."""
    by = ", ".join(f"{code} {count}" for code, count in verdict.recovered_by.items())
    bound = f"bound {verdict.bound_seconds:.1f} s = grace + wait for a sweep + longest sweep"
    longest, middle = verdict.latency_max_seconds, verdict.latency_median_seconds
    settled = f"{verdict.settled} of {verdict.orchestrations}"
    return [
        (
            "orchestrations settled",
            settled,
            f"{verdict.children} children, {verdict.tasks} tasks",
            verdict.settled < verdict.orchestrations,
        ),
        ("events lost", str(verdict.events_lost), "while the live reconciler was down", False),
        ("children stranded", str(verdict.stranded), "", False),
        ("children recovered", str(verdict.recovered), by, verdict.recovered < verdict.stranded),
        ("duplicate tasks", str(verdict.duplicates), "by idempotency key", verdict.duplicates > 0),
        ("regressions", str(verdict.regressions), "every row, sampled", verdict.regressions > 0),
        (
            "early releases",
            str(verdict.early_releases),
            "before every predecessor succeeded",
            verdict.early_releases > 0,
        ),
        ("recovery latency, longest", _seconds(longest), bound, verdict.over_bound > 0),
        ("recovery latency, median", _seconds(middle), "", False),
        (
            "sweeps",
            str(verdict.sweeps),
            f"longest {verdict.sweep_longest_seconds:.1f} s",
            not verdict.sweeps,
        ),
    ]


def _seconds(value: float | None) -> str:
    return "none" if value is None else f"{value:.1f} s"
