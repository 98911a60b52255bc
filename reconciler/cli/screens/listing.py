"""The output of ``list``: a table for people, and formats for programs."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from reconciler.cli.console import QUIET, table_of
from reconciler.inspection import theme
from reconciler.inspection.advice import fix_of, runbook_of
from reconciler.inspection.explain import short_id
from reconciler.inspection.theme import SIGNS, Tone, marked
from reconciler.observability.printable import printable
from reconciler.sweeping.listing import Entry, Page

GROUPS = (
    (Tone.ALARM, "to act on"),
    (Tone.REPAIR, "being repaired"),
    (Tone.HELD, "waiting for a slot"),
)
"""The groups in a summary of stuck entries, the most urgent first."""

MAX_TO_ACT_ON = 5
"""How many entries are named; ``list`` shows all."""


def tone_of(entry: Entry) -> Tone:
    """Return how urgent an entry is."""
    if entry.needs_action:
        return Tone.ALARM
    return Tone.REPAIR if entry.alarming else Tone.HELD


def summed_up(entries: Iterable[Entry]) -> Text:
    """Return how many entries are stuck, by urgency."""
    counts = Counter(map(tone_of, entries))
    found = ((tone, f"{counts[tone]} {said}") for tone, said in GROUPS if counts[tone])
    return Text("   ").join(marked(tone, said) for tone, said in found)


def oldest(entries: Iterable[Entry]) -> dict[str, float]:
    """Return the age of the oldest by code, in seconds; 0 if no age is known."""
    ages: dict[str, float] = {}
    for entry in entries:
        ages[entry.code] = max(ages.get(entry.code, 0.0), entry.age_seconds or 0.0)
    return ages


def name_of(entry: Entry) -> str:
    """Return the display id, or else the beginning of the id."""
    if entry.sub_issue_id is None:
        return "(the parent)"
    return printable(entry.display_id or short_id(entry.sub_issue_id))


def to_json(entry: Entry, now: float) -> dict[str, Any]:
    """Return an entry as plain values, with its fix if it needs manual action."""
    fix = fix_of(entry) if entry.needs_action else None
    return {**entry.to_json(now), "fix": fix, "runbook": runbook_of(entry.code)}


def names(entries: Iterable[Entry]) -> Iterator[str]:
    """Yield the ids for other commands, quoted for ``xargs``; a child's has its orchestration's."""
    for entry in entries:
        ids = filter(None, (entry.orchestration_id, entry.sub_issue_id))
        yield shlex.quote(printable("/".join(ids)))


def yaml(values: Sequence[Mapping[str, Any]]) -> str:
    """Return a list of flat mappings as YAML, of which JSON values are a part.

    Unprintable characters become YAML escapes, because JSON's are surrogates.
    """
    if not values:
        return "[]\n"
    lines = []
    for value in values:
        for at, (name, part) in enumerate(value.items()):
            lead = "  " if at else "- "
            written = json.dumps(part, ensure_ascii=False)
            seen = (s if s.isprintable() else f"\\U{ord(s):08x}" for s in written)
            lines.append(f"{lead}{name}: {''.join(seen)}\n")
    return "".join(lines)


_WIDE = ("repo", "user", "sub-issue", "task")


def table(page: Page, *, wide: bool) -> RenderableType:
    """Return the table, one line per entry, in 80 columns unless it is ``wide``."""
    columns = ("age", "  code", "child", "orchestration", *((*_WIDE, "why") if wide else ()))
    grid = table_of(*columns, right=("age",), fold="child", wide=wide)
    for entry in page.entries:
        grid.add_row(
            theme.short_age(entry.age_seconds),
            *_cells(tone_of(entry), entry),
            *((*_more(entry), printable(entry.reason)) if wide else ()),
        )
    return grid


def as_entry(recovery: Mapping[str, Any]) -> Entry:
    """Return a recovery as the stuck entry that it was, so that the same query can filter it."""
    return Entry(
        orchestration_id=recovery["orchestration_id"],
        sub_issue_id=recovery["sub_issue_id"],
        display_id=recovery.get("display_id"),
        repo=recovery.get("repo"),
        user_id=recovery.get("user_id"),
        code=recovery["code"],
        reason="",
        age_seconds=recovery["latency"],
        task_id=recovery.get("task_id"),
        needs_action=False,
    )


def recoveries(found: Iterable[Mapping[str, Any]], now: float, *, wide: bool) -> RenderableType:
    """Return a table of what was repaired."""
    columns = ("ago", "  code", "for", "child", "orchestration", *(_WIDE if wide else ()))
    grid = table_of(*columns, right=("ago",), fold="child", wide=wide)
    for recovery in found:
        entry = as_entry(recovery)
        code, child, orchestration = _cells(Tone.DONE, entry)
        grid.add_row(
            theme.short_age(max(0.0, now - recovery["at"])),
            code,
            theme.short_age(entry.age_seconds),
            child,
            orchestration,
            *(_more(entry) if wide else ()),
        )
    return grid


def _cells(tone: Tone, entry: Entry) -> tuple[Text, str, str]:
    return marked(tone, entry.code), name_of(entry), printable(entry.orchestration_id)


def _more(entry: Entry) -> tuple[str, ...]:
    more = (entry.repo, entry.user_id, entry.sub_issue_id, entry.task_id)
    return tuple(printable(value or "-") for value in more)


def first_step(entry: Entry) -> list[Text]:
    """Return what to do about the first entry that needs manual action."""
    return [
        Text(f"begin: {printable(fix_of(entry))}", no_wrap=True, overflow="ignore"),
        Text(f"read:  {runbook_of(entry.code)}", QUIET),
    ]


def to_act_on(entries: Iterable[Entry], most: int = MAX_TO_ACT_ON) -> Iterator[RenderableType]:
    """Yield what needs manual action, oldest first, each with its fix and the runbook."""
    found = [entry for entry in entries if entry.needs_action]
    shown = found[:most]
    oldest_ = "" if len(found) == len(shown) else f": the {len(shown)} oldest of {len(found)}"
    yield Text(f"To act on{oldest_}", "bold")
    for entry in shown:
        yield Text.assemble(
            (f"{theme.short_age(entry.age_seconds):>5}  ", "bold"),
            (f"{entry.code}  ", SIGNS[Tone.ALARM].style),
            (name_of(entry), "bold"),
            (f"  {runbook_of(entry.code)}", QUIET),
        )
        # Not wrapped, so that it can be copied.
        yield Text(f"       {printable(fix_of(entry))}", no_wrap=True, overflow="ignore")
