"""``reconciler inspect``: one orchestration as a picture, and why it is stuck."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from reconciler.cli import theme
from reconciler.cli.console import console, print_json, progress, speaks_unicode, update
from reconciler.cli.explain import (
    ChildView,
    Circumstances,
    Repair,
    View,
    build_view,
    graph_of,
    to_json,
)
from reconciler.cli.find import Found, find
from reconciler.cli.main import EXIT_WRONG
from reconciler.cli.picture.draw import draw, shapes
from reconciler.cli.picture.layout import Layout, fit
from reconciler.cli.picture.mermaid import mermaid
from reconciler.cli.picture.svg import svg
from reconciler.cli.wiring import reconciler_for_cli, settings_for_cli
from reconciler.domain.rows import plain
from reconciler.errors import UnknownOrchestrationError

if TYPE_CHECKING:
    from reconciler.operations.reconciler import Reconciler

_PICTURE_ROWS = 60
_MOST_STUCK = 20
_MOST_TASKS_ASKED = 50
_SVG_COLUMNS = 160


@click.command()
@click.argument("name", metavar="ID")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "svg", "mermaid"]),
    default="text",
    help="`svg` and `mermaid` print the picture alone.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object.")
def inspect(name: str, *, form: str, as_json: bool) -> None:
    """Show one orchestration as a picture, and why it is stuck.

    ID is an orchestration id, a sub-issue id, a display id such as ENG-42, or a task id. A display
    id has no index: it is searched for in the whole table.
    """
    reconciler = reconciler_for_cli(settings_for_cli())
    with progress("Searching", quiet=as_json or form != "text") as shown:
        found = find(reconciler, name, lambda rows: update(shown, rows, None, f"{rows} rows"))
    view = look(reconciler, found)
    if as_json:
        print_json(to_json(view))
    elif form == "mermaid":
        click.echo(mermaid(graph_of(view)), nl=False)
    elif form == "svg":
        click.echo(_svg(view), nl=False)
    else:
        out = console()
        out.print(render(view, out, reconciler.clock()))
    click.get_current_context().exit(EXIT_WRONG if view.alarming else 0)


def look(reconciler: Reconciler, found: Found) -> View:
    """Read an orchestration, and say what a repair would do: nothing is changed."""
    name = found.orchestration_id
    before = reconciler.orchestrations.read(name)
    if before is None:
        raise UnknownOrchestrationError(f"no orchestration {name} exists")
    evaluation = reconciler.evaluate(name, sweep_id="inspect", report=True)
    withheld = reconciler.withhold(before)
    interval = reconciler.settings.sweep_interval_seconds
    now = reconciler.clock()
    at = datetime.fromtimestamp(math.ceil(now.timestamp() / interval) * interval, UTC)
    view = build_view(before, evaluation, Circumstances(reconciler.policy, now, at, withheld))
    repairs, partial = _repairs(reconciler, view)
    return replace(
        view,
        repairs=repairs,
        repairs_partial=partial,
        focus=found.sub_issue_id,
        notes=(found.note,) if found.note else (),
    )


def _repairs(reconciler: Reconciler, view: View) -> tuple[tuple[Repair, ...], str | None]:
    asked = [child.task_id for child in view.children if child.task_id is not None]
    repairs: list[Repair] = []
    for task_id in asked[:_MOST_TASKS_ASKED]:
        for event in reconciler.tasks.events(task_id, "orchestration_recovered"):
            said = plain({"M": event.get("metadata", {}).get("M", {})})
            stranded = said.get("stranded_seconds")
            repairs.append(
                Repair(
                    at=event["timestamp"]["S"],
                    sub_issue_id=str(said.get("sub_issue_id")),
                    task_id=task_id,
                    code=str(said.get("code")),
                    before=str(said.get("before")),
                    after=str(said.get("after")),
                    stranded_seconds=None if stranded is None else float(stranded),
                    sweep_id=str(said.get("sweep_id")),
                )
            )
    left = len(asked) - _MOST_TASKS_ASKED
    partial = f"the repairs of {left} more tasks were not asked for" if left > 0 else None
    return tuple(sorted(repairs, key=lambda repair: repair.at)), partial


# -- what is seen


def picture(view: View, columns: int, rows: int = _PICTURE_ROWS) -> Layout | None:
    """Lay the graph out within so many cells; None where there is nothing to draw, or no room."""
    graph = graph_of(view)
    if not graph.nodes:
        return None
    return fit(graph, shapes(list(graph.nodes.values())), columns, rows)


def _svg(view: View) -> str:
    layout = picture(view, _SVG_COLUMNS, rows=400)
    if layout is None:
        raise UnknownOrchestrationError("there is nothing to draw")
    return svg(layout, f"Orchestration {view.orchestration_id}")


def render(view: View, out: Console, now: datetime) -> RenderableType:
    """Return everything that a person reads, top to bottom in the order of urgency."""
    unicode = speaks_unicode(out)
    parts: list[RenderableType] = [_head(view, unicode=unicode), Text()]
    layout = picture(view, out.width - 2)
    if layout is not None:
        parts += [Padding(line, (0, 0, 0, 2)) for line in draw(layout, unicode=unicode)]
        parts += [Text(f"  {a} closes a cycle to {b}", "red") for a, b in layout.back]
    else:
        parts.append(Text("  too large to draw here; --format svg draws it", "bright_black"))
    parts.append(Text())
    parts += _stuck(view, now, unicode=unicode)
    parts += _repaired(view)
    if view.commands:
        parts.append(Text("You can run", "bold"))
        for command in view.commands:
            parts += [Text(f"  {command.line}"), Text(f"      {command.purpose}", "bright_black")]
    parts += [Text(note, "bright_black") for note in view.notes]
    return Group(*parts)


def _head(view: View, *, unicode: bool) -> Text:
    tone = theme.tone_of_code(view.code)
    head = Text.assemble(
        (view.orchestration_id, "bold"),
        "  ",
        (f"{theme.glyph(tone, unicode=unicode)} {view.code}", theme.SIGNS[tone].style),
    )
    facts = [part for part in (view.repo, view.parent, view.user_id) if part]
    statuses = ", ".join(f"{count} {name}" for name, count in sorted(view.statuses.items()))
    head.append(f"\n{'  '.join(facts)}\n{statuses}", "bright_black")
    if view.reason:
        head.append(f"\n{view.reason}")
    if view.withheld is not None:
        head.append(f"\nNothing is changed now: {view.withheld}", "bold yellow")
    if view.outlook is not None:
        head.append(f"\nThe reconciler will {view.outlook.does}")
    return head


def _stuck(view: View, now: datetime, *, unicode: bool) -> list[RenderableType]:
    wanted = list(view.stuck)
    focus = [c for c in view.children if c.sub_issue_id == view.focus and c not in wanted]
    if not wanted and not focus:
        return [Text("Nothing in it is stuck.", "green"), Text()]
    parts: list[RenderableType] = []
    for child in (*focus, *wanted[:_MOST_STUCK]):
        parts += _why(child, now, unicode=unicode)
    if len(wanted) > _MOST_STUCK:
        parts.append(Text(f"  … and {len(wanted) - _MOST_STUCK} more stuck", "bright_black"))
    return [*parts, Text()]


def _why(child: ChildView, now: datetime, *, unicode: bool) -> list[RenderableType]:
    sign = theme.SIGNS[child.tone]
    head = Text.assemble(
        (f"{theme.glyph(child.tone, unicode=unicode)} {child.label}", sign.style),
        (f"  {child.title}" if child.title else "", "bold"),
        (f"  {child.state}", sign.style),
        f" for {theme.age(child.age_seconds)}",
    )
    lines: list[RenderableType] = [head, Text(f"    why   {child.reason}")]
    if child.outlook is not None:
        when = f", {theme.until(child.outlook.at, now)}" if child.outlook.at is not None else ""
        lines.append(Text(f"    next  {child.outlook.does}{when}"))
    return lines


def _repaired(view: View) -> list[RenderableType]:
    if not view.repairs:
        return []
    parts: list[RenderableType] = [Text("Repairs already made", "bold")]
    labels = {child.sub_issue_id: child.label for child in view.children}
    for repair in view.repairs:
        stranded = ""
        if repair.stranded_seconds is not None:
            stranded = f", stranded for {theme.age(repair.stranded_seconds)}"
        label = labels.get(repair.sub_issue_id, repair.sub_issue_id)
        parts.append(
            Text.assemble(
                f"  {repair.at}  ",
                (label, "bold"),
                f"  {repair.code}: {repair.before} → {repair.after}{stranded}",
                (f"  {repair.sweep_id}", "bright_black"),
            )
        )
    return [*parts, Text()]
