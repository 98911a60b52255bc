"""``reconciler inspect``: one orchestration as a picture, and why it is stuck."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from reconciler.cli.console import console, print_json, progress, show, update
from reconciler.cli.explain import build_view, graph_of, to_json
from reconciler.cli.find import Found, find
from reconciler.cli.inspection import picture, render
from reconciler.cli.main import EXIT_WRONG
from reconciler.cli.picture.mermaid import mermaid
from reconciler.cli.picture.svg import svg
from reconciler.cli.views import Circumstances, Repair, View, shown
from reconciler.cli.wiring import broker_for_cli, reconciler_for_cli, settings_for_cli
from reconciler.domain.rows import plain
from reconciler.errors import UnknownOrchestrationError

if TYPE_CHECKING:
    from reconciler.repair.reconciler import Reconciler
    from reconciler.settings import Settings

_MOST_TASKS_ASKED = 50
_SVG_COLUMNS, _SVG_MOST_COLUMNS, _SVG_ROWS = 160, 2_000, 400


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
    with progress("Searching", quiet=as_json) as bar:
        found = find(reconciler, name, lambda rows: update(bar, rows, None, f"{rows} rows"))
        update(bar, 0, None, f"reading {found.orchestration_id}")
        view = look(reconciler, found)
    if as_json:
        print_json(to_json(view))
    elif form == "mermaid":
        click.echo(mermaid(graph_of(shown(view))), nl=False)
    elif form == "svg":
        drawn = draw(shown(view))
        if drawn is None:
            raise UnknownOrchestrationError(f"{view.orchestration_id} has nothing to draw")
        click.echo(drawn, nl=False)
    else:
        out = console()
        show(out, render(view, out, reconciler.clock()))
    click.get_current_context().exit(EXIT_WRONG if view.alarming else 0)


def look(reconciler: Reconciler, found: Found) -> View:
    """Read an orchestration, and say what a repair would do: nothing is changed."""
    name = found.orchestration_id
    before = reconciler.orchestrations.read(name)
    if before is None:
        raise UnknownOrchestrationError(f"no orchestration {name} exists")
    evaluation = reconciler.evaluate(name, sweep_id="inspect", report=True)
    given = Circumstances(
        policy=reconciler.policy,
        now=reconciler.clock(),
        interval_seconds=reconciler.settings.sweep_interval_seconds,
        next_sweep_at=next_sweep(reconciler.settings, reconciler.clock()),
        withheld=reconciler.withhold(before),
    )
    view = build_view(before, evaluation, given)
    repairs, partial = _repairs(reconciler, view)
    return replace(
        view,
        repairs=repairs,
        repairs_partial=partial,
        focus=found.sub_issue_id,
        notes=(found.note,) if found.note else (),
    )


def next_sweep(settings: Settings, now: datetime) -> datetime | None:
    """Return when the next sweep is to start, from when the last one did; None if unknown.

    Asked of the broker, and only where one is set: there is none in cron mode.
    """
    if not os.environ.get("CELERY_BROKER_URL"):
        return None
    from redis.exceptions import RedisError  # noqa: PLC0415 - start-up time

    from reconciler.sweeping.state import SweepState  # noqa: PLC0415
    from workers.broker_records import BrokerRecords  # noqa: PLC0415

    try:
        last = SweepState(BrokerRecords(broker_for_cli(settings))).overview().last()
    except RedisError:
        return None
    if last is None or "by-hand" in last["sweep_id"]:
        return None
    at = datetime.fromtimestamp(last["started_at"], UTC) + timedelta(
        seconds=settings.sweep_interval_seconds
    )
    return at if at >= now else None


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


def draw(view: View) -> str | None:
    """Return the picture as SVG; None where nothing can be drawn."""
    layout = picture(view, _SVG_COLUMNS, _SVG_ROWS) or picture(view, _SVG_MOST_COLUMNS, _SVG_ROWS)
    return None if layout is None else svg(layout, f"Orchestration {view.orchestration_id}")
