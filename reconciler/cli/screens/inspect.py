"""The screen of ``inspect``, the most urgent first."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from datetime import datetime

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from reconciler.cli.console import QUIET, width_of_picture
from reconciler.cli.screens.tree import draw
from reconciler.domain.codes import SURFACED, Code
from reconciler.inspection import theme
from reconciler.inspection.advice import commands_for, fixes_of, parent_fixes_of, runbook_of
from reconciler.inspection.explain import graph_of
from reconciler.inspection.graph import put_in_layers
from reconciler.inspection.theme import Tone, cut, listed, marked
from reconciler.inspection.views import ChildView, Command, Outlook, View, shown

_MAX_PICTURE_ROWS = 40
_MAX_GROUPS = 20
_MAX_NAMES = 8
_MAX_REPAIRS = 20
_MAX_FAILED = 5
_MAX_TITLE = 60
_MAX_LABEL = 24


def render(view: View, out: Console, now: datetime) -> RenderableType:
    """Return the screen of an orchestration."""
    view = shown(view)
    parts: list[RenderableType] = [*_head(view), Text()]
    parts += [*_picture(view, width_of_picture(out) - 2), Text()]
    parts += _parent(view, now)
    parts += _stuck(view, now)
    parts += _failed(view)
    parts += _repaired(view)
    commands = commands_for(view)
    if commands:
        parts.append(Text("You can run", "bold"))
        parts += _commands(commands, 2)
    parts += [Text(note, QUIET) for note in view.notes]
    return Group(*parts)


def _commands(commands: Sequence[Command], indent: int) -> Iterator[Text]:
    for command in commands:
        # Not wrapped, so that both can be copied: the rest of a comment would be a command.
        for line, style in ((f"# {command.purpose}", QUIET), (command.line, "")):
            yield Text(f"{' ' * indent}{line}", style, no_wrap=True, overflow="ignore")


# -- the head


def _head(view: View) -> Iterator[Text]:
    parts = [Text(view.orchestration_id, "bold"), marked(_parent_tone(view), view.code)]
    if view.stuck:
        oldest = theme.age(view.stuck[0].age_seconds)
        parts.append(marked(_loudest(view.stuck), f"{len(view.stuck)} stuck, for {oldest}"))
    yield Text("  ").join(parts)
    facts = [part for part in (view.repo, view.parent, view.user_id) if part]
    if facts:
        yield Text("  ".join(facts), QUIET)
    statuses = ", ".join(f"{count} {name}" for name, count in sorted(view.statuses.items()))
    yield Text(f"{view.reason} ({statuses})" if view.reason else statuses, QUIET)
    if view.given.withheld is not None:
        yield Text(f"Nothing is changed now: {view.given.withheld}", "bold yellow")


def _parent_tone(view: View) -> Tone:
    return Tone.ALARM if view.needs_action else theme.tone_of_code(view.code)


def _loudest(children: Sequence[ChildView]) -> Tone:
    return Tone.ALARM if any(child.tone is Tone.ALARM for child in children) else Tone.REPAIR


# -- the picture


def _picture(view: View, columns: int) -> Iterator[RenderableType]:
    graph = graph_of(view)
    for line in draw(graph, columns, _MAX_PICTURE_ROWS):
        yield Padding(line, (0, 0, 0, 2))
    labels = {child.sub_issue_id: child.label for child in view.children}
    for before, after in put_in_layers(graph).back:
        one, other = labels.get(before, before), labels.get(after, after)
        yield Text(f"  {other} waits for {one}: that closes a cycle, and is not drawn", "red")


# -- what is stuck, and why


def _parent(view: View, now: datetime) -> Iterator[RenderableType]:
    if view.code not in SURFACED:
        return
    sign = theme.SIGNS[_parent_tone(view)]
    yield Text.assemble(
        (f"{sign.glyph} the parent {view.parent or ''}".rstrip(), "bold"),
        (f"  {view.code}", sign.style),
        f" for {theme.age(view.age_seconds)}",
    )
    yield from _why(view.reason, view.outlook, now)
    yield from _fix(parent_fixes_of(view), view.code, needs_action=view.needs_action)
    if not view.stuck:
        yield Text()


def _stuck(view: View, now: datetime) -> Iterator[RenderableType]:
    wanted = [*view.stuck, *view.waiting_for_slot]
    focus = [c for c in view.children if c.sub_issue_id == view.focus and c not in wanted]
    groups = [*([child] for child in focus), *_alike(wanted)]
    for group in groups[:_MAX_GROUPS]:
        yield from _group(view, group, now)
    left = sum(map(len, groups[_MAX_GROUPS:]))
    if left:
        yield Text(f"  and {left} more", QUIET)
    if groups:
        yield Text()
    elif not view.alarming:
        yield Text("Nothing in it is stuck.\n", "green")


def _group(view: View, group: Sequence[ChildView], now: datetime) -> Iterator[RenderableType]:
    yield _named(group)
    if len(group) > 1:
        yield _line("which", listed([child.label for child in group], _MAX_NAMES))
    first = group[0]
    yield from _why(first.reason, first.outlook, now)
    if first.code == Code.OVER_BUDGET:
        yield from (_line("by", holder) for holder in view.slot_holders)
    if first.code is not None:
        yield from _fix(fixes_of(view, first), first.code, needs_action=first.needs_action)


def _alike(children: Sequence[ChildView]) -> list[list[ChildView]]:
    """Group children with the same code, reason and outlook, in order of the first of each."""
    groups: dict[Hashable, list[ChildView]] = {}
    for child in children:
        groups.setdefault((child.code, child.reason, child.outlook), []).append(child)
    return list(groups.values())


def _named(group: Sequence[ChildView]) -> Text:
    first = group[0]
    one = len(group) == 1
    title = cut(first.title, _MAX_TITLE) if one else ""
    return Text.assemble(
        marked(first.tone, first.label if one else f"{len(group)} children"),
        (f"  {title}" if title else "", "bold"),
        (f"  {first.state}", theme.SIGNS[first.tone].style),
        f"{'' if one else ', the oldest'} for {theme.age(first.age_seconds)}",
    )


def _why(reason: str, outlook: Outlook | None, now: datetime) -> Iterator[RenderableType]:
    yield _line("why", reason)
    if outlook is not None:
        when = f", {theme.until(outlook.at, now)}" if outlook.at is not None else ""
        yield _line("next", f"{outlook.does}{when}")


def _fix(commands: Sequence[Command], code: str, *, needs_action: bool) -> Iterator[RenderableType]:
    """Yield what a person can do, and the runbook's section."""
    yield from _commands(commands if needs_action else commands[:1], 10)
    if needs_action:
        yield _line("read", runbook_of(code))


def _line(name: str, said: str) -> RenderableType:
    """Return a name and a text; a long text is indented as a block."""
    grid = Table.grid()
    grid.add_column(style=QUIET, width=6)
    grid.add_column(overflow="fold")
    grid.add_row(name, Text(said))
    return Padding(grid, (0, 0, 0, 4))


def _failed(view: View) -> Iterator[RenderableType]:
    """Yield failures with a reason, above all refusals."""
    told = [child for child in view.children if child.tone is Tone.FAILED and child.reason]
    for child in told[:_MAX_FAILED]:
        yield _named([child])
        yield _line("why", child.reason)
    if len(told) > _MAX_FAILED:
        yield Text(f"  and {len(told) - _MAX_FAILED} more that failed with a reason", QUIET)
    if told:
        yield Text()


# -- what has been repaired


def _repaired(view: View) -> Iterator[RenderableType]:
    if not view.repairs:
        return
    yield Text("Repairs already made", "bold")
    labels = {child.sub_issue_id: child.label for child in view.children}
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style=QUIET, no_wrap=True)
    grid.add_column(style="bold", no_wrap=True, overflow="ellipsis", max_width=_MAX_LABEL)
    grid.add_column(no_wrap=True, overflow="ellipsis")
    # On a narrow terminal, this column is cut.
    grid.add_column(style=QUIET, overflow="ellipsis")
    for repair in view.repairs[-_MAX_REPAIRS:]:
        seconds = repair.stranded_seconds
        stranded = "" if seconds is None else f", after {theme.age(seconds)}"
        grid.add_row(
            f"  {repair.at[:19].replace('T', ' ')}",
            labels.get(repair.sub_issue_id, repair.sub_issue_id),
            f"{repair.code}: {repair.before} → {repair.after}{stranded}",
            repair.sweep_id,
        )
    yield grid
    if len(view.repairs) > _MAX_REPAIRS:
        yield Text(f"  and {len(view.repairs) - _MAX_REPAIRS} earlier ones", QUIET)
    if view.repairs_partial:
        yield Text(f"  {view.repairs_partial}", QUIET)
    yield Text()
