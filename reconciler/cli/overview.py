"""What a person reads of the backstop as a whole: is it alive, what is stuck, what to do."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from reconciler.cli import theme
from reconciler.cli.console import speaks_unicode
from reconciler.cli.facts import DAY_SECONDS, HOUR_SECONDS, Facts
from reconciler.cli.theme import SIGNS, Tone
from reconciler.observability.printable import printable
from reconciler.operations.counts import REPAIRS

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
        yield "sweep", _sweep(facts)
        if facts.full_scan_interval_seconds is not None:
            yield "full scan", _full_scan(facts, facts.full_scan_interval_seconds)
        if facts.at_work is not None:
            yield "at work", _at_work(facts.at_work)
        if facts.beside is not None:
            yield "beside it", _at_work(facts.beside)
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


def _sweep(facts: Facts) -> Text:
    if facts.last_complete is None or facts.age_seconds is None:
        return Text("none has ever completed", "bold red")
    late = facts.age_seconds > 2 * facts.interval_seconds
    said = Text.assemble(
        (f"complete {theme.age(facts.age_seconds)} ago", "bold red" if late else ""),
        f", one every {theme.age(facts.interval_seconds)}",
    )
    done = facts.last_complete
    took = theme.age(done["duration_seconds"])
    active = "active " if done.get("coverage") == "active" else ""
    said.append(f"; {done['rows_scanned']} {active}rows in {took}", _QUIET)
    if facts.last is not None and not facts.last["complete"]:
        said.append("; the last one did NOT complete", "bold red")
    return said


def _full_scan(facts: Facts, every: int) -> Text:
    if facts.last_full is None or facts.full_scan_age_seconds is None:
        return Text("none has ever completed; the next sweep is one", "yellow")
    return Text.assemble(
        (
            f"complete {theme.age(facts.full_scan_age_seconds)} ago",
            "bold red" if facts.full_scan_late else "",
        ),
        f", one every {theme.age(every)}",
        (f"; {facts.last_full['rows_scanned']} rows", _QUIET),
        ("; the sweeps between go by the index", _QUIET),
    )


def _at_work(current: dict[str, Any]) -> Text:
    said = Text(
        f"{current['sweep_id']} for {theme.age(current['age_seconds'])}, "
        f"{current['open_units']} parts of it open"
    )
    if current["idle_seconds"] > theme.MINUTE:
        idle = theme.age(current["idle_seconds"])
        said.append(f"; nothing heard of it for {idle}", "bold red")
    return said


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
    if facts.last_complete is None:
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
