"""What a person reads of the backstop as a whole: is it alive, what is stuck, what to do."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from reconciler.cli.console import speaks_unicode
from reconciler.cli.facts import DAY_SECONDS, HOUR_SECONDS, Facts
from reconciler.inspection import theme
from reconciler.inspection.theme import SIGNS, Tone
from reconciler.observability.printable import printable
from reconciler.repair.counts import REPAIRS

OLDEST_SHOWN = 10
_QUIET = "bright_black"
_MOST_WORKERS = 4


def render(facts: Facts, out: Console) -> RenderableType:
    """Return everything that a person reads, the most urgent first."""
    unicode = speaks_unicode(out)
    parts: list[RenderableType] = [_headline(facts, unicode=unicode), _grid(facts), Text()]
    parts += _stuck(facts, unicode=unicode)
    return Group(*parts)


def _headline(facts: Facts, *, unicode: bool) -> Text:
    if facts.problem is None:
        tone, said = Tone.MOVING, "alive"
        style = "bold green"
    else:
        tone, said = Tone.ALARM, f"NOT HEALTHY  {printable(facts.problem)}"
        style = "bold red"
    return Text.assemble(
        ("Backstop  ", "bold"), (f"{theme.glyph(tone, unicode=unicode)} {said}", style)
    )


# -- how it does


def _grid(facts: Facts) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style=_QUIET, no_wrap=True)
    grid.add_column(overflow="fold")
    for name, said in _facts(facts):
        grid.add_row(f"  {name}", said)
    return grid


def _facts(facts: Facts) -> Iterator[tuple[str, Text]]:
    if facts.broker_problem is None:
        yield "covered", _covered(facts)
        yield "sweep", _sweep(facts)
        for sweep in facts.at_work:
            yield "at work", _at_work(sweep)
        if facts.awaiting_evaluation:
            yield "to evaluate", Text(f"{facts.awaiting_evaluation} orchestrations")
    yield "mode", _mode(facts)
    if facts.without_broker:
        yield "workers", Text("none: there is no broker, and sweeps run by themselves")
        if facts.last is not None:
            done = sum(facts.last[name] for name in REPAIRS)
            yield "recovered", Text(f"{done} by the last sweep")
    elif facts.broker_problem is None:
        yield "workers", _workers(facts.workers)
        queued = ", ".join(f"{name} {count}" for name, count in facts.queues.items())
        yield "queues", Text(queued)
        yield "recovered", _recovered(facts)


def _covered(facts: Facts) -> Text:
    """Say how far coverage reaches: of active work, and with an index of the whole table."""
    said = _covered_scope(facts, "active", facts.limit_seconds)
    if facts.full_scan_interval_seconds is not None:
        said.append("; the whole table ")
        said.append_text(_covered_scope(facts, "table", facts.table_limit_seconds))
    return said


def _covered_scope(facts: Facts, scope: str, limit: float) -> Text:
    age = facts.age_of(scope)
    if age is None:
        return Text("unknown: not all of it has been read yet", "bold red")
    return Text(f"as of {theme.age(age)} ago", "bold red" if age > limit else "")


def _sweep(facts: Facts) -> Text:
    last = facts.last
    if last is None:
        return Text(f"none has ended; one every {theme.age(facts.interval_seconds)}", "yellow")
    ago = theme.age(max(0.0, facts.now - last["ended_at"]))
    said = Text(f"ended {ago} ago, one every {theme.age(facts.interval_seconds)}")
    said.append(f"; {last['rows_scanned']} rows in {theme.age(last['duration_seconds'])}", _QUIET)
    if not last["complete"]:
        said.append("; it did NOT complete", "bold red")
    return said


def _at_work(sweep: dict[str, Any]) -> Text:
    read = sweep["segments"] - sweep["segments_left"]
    return Text(
        f"{sweep['sweep_id']} for {theme.age(sweep['age_seconds'])}, "
        f"{read} of {sweep['segments']} segments read"
    )


def _mode(facts: Facts) -> Text:
    if facts.table_problem is not None and facts.paused is None:
        return Text("unknown: the tables cannot be read", "red")
    if facts.paused is not None:
        held = facts.paused
        said = printable(f"PAUSED since {held['since']} by {held['by']}: {held['reason']}")
        return Text(said, "bold yellow").append("; `reconciler resume` ends it", "default")
    # What the workers go by, which this shell's settings need not be.
    mode = (facts.last_complete or {}).get("mode", facts.repair_mode)
    if mode == "report":
        return Text("report: the last sweep found and reported, and changed nothing", "yellow")
    return Text(str(mode) if mode != "paused" else "repair, again since the last sweep")


def _workers(workers: tuple[str, ...] | None) -> Text:
    if workers is None:
        return Text("nobody could be asked", "red")
    if not workers:
        return Text("none answers", "bold red")
    names = ", ".join(printable(name) for name in workers[:_MOST_WORKERS])
    left = len(workers) - _MOST_WORKERS
    more = f" and {left} more" if left > 0 else ""
    return Text(f"{len(workers)} answering: {names}{more}")


def _recovered(facts: Facts) -> Text:
    hour, day = facts.recovered(HOUR_SECONDS), facts.recovered(DAY_SECONDS)
    said = Text(f"{hour} in the last hour, {day} in the last day")
    found = facts.latencies(DAY_SECONDS)
    if found:
        middle, longest = theme.age(median(found)), theme.age(max(found))
        said.append(f"; waited {middle} (median), {longest} at most", _QUIET)
    return said


# -- what is stuck

_GROUPS = (
    (Tone.ALARM, "for a person"),
    (Tone.REPAIR, "to be repaired"),
    (Tone.HELD, "waiting for a slot"),
)


def _stuck(facts: Facts, *, unicode: bool) -> Iterator[RenderableType]:
    counts = facts.stuck_counts
    if facts.last is None:
        yield Text("Nothing is known of what is stuck.", "yellow")
        return
    if not counts:
        yield Text("Nothing is stuck.", "green")
        return
    by_tone: dict[Tone, list[str]] = {}
    for code in counts:
        by_tone.setdefault(theme.tone_of_code(code), []).append(code)
    head = Text("Stuck", "bold")
    for tone, said in _GROUPS:
        total = sum(counts[code] for code in by_tone.get(tone, ()))
        if total:
            sign = theme.glyph(tone, unicode=unicode)
            head.append(f"   {sign} {total} {said}", SIGNS[tone].style)
    yield head
    yield _by_code(facts, by_tone, unicode=unicode)
    if facts.stuck:
        yield Text()
        yield from _oldest(facts, unicode=unicode)


def _by_code(facts: Facts, by_tone: dict[Tone, list[str]], *, unicode: bool) -> Table:
    counts, ages = facts.stuck_counts, facts.oldest_seconds
    table = Table(
        box=None, pad_edge=False, show_edge=False, header_style=_QUIET, padding=(0, 2, 0, 0)
    )
    table.add_column("  code", no_wrap=True)
    table.add_column("count", justify="right", no_wrap=True)
    table.add_column("oldest", justify="right", no_wrap=True)
    table.add_column("meaning", style=_QUIET, no_wrap=True, overflow="ellipsis")
    for tone, _ in _GROUPS:
        codes = by_tone.get(tone, [])
        for code in sorted(codes, key=lambda code: (-ages.get(code, 0.0), code)):
            sign = f"{theme.glyph(tone, unicode=unicode)} {code}"
            table.add_row(
                Text(sign, SIGNS[tone].style),
                str(counts[code]),
                theme.short_age(ages.get(code)),
                theme.MEANINGS.get(code, ""),
            )
    return table


def _oldest(facts: Facts, *, unicode: bool) -> Iterator[RenderableType]:
    shown = facts.stuck[:OLDEST_SHOWN]
    total = sum(facts.stuck_counts.values())
    yield Text("Oldest" if total <= len(shown) else f"The {len(shown)} oldest", "bold")
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(justify="right", no_wrap=True, style="bold", min_width=5)
    table.add_column(overflow="fold")
    for entry in shown:
        tone = theme.tone_of_code(entry["code"])
        where = Text.assemble(
            (f"{theme.glyph(tone, unicode=unicode)} {entry['code']}", SIGNS[tone].style),
            f"  {printable(entry['orchestration_id'])}",
        )
        if entry["sub_issue_id"]:
            where.append(f" {printable(entry['sub_issue_id'])}")
        why = Padding(Text(printable(entry["reason"]), _QUIET), (0, 0, 0, 2))
        table.add_row(theme.short_age(entry["age_seconds"]), Group(where, why))
    yield table
    yield Text()
    first = printable(facts.stuck[0]["orchestration_id"])
    yield Text.assemble((f"reconciler inspect {first}", "default"), ("  shows the oldest", _QUIET))
