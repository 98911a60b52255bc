"""The screen of ``status``: whether the backstop is alive, what is stuck, what to do."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from reconciler.cli.console import QUIET, facts, table_of
from reconciler.cli.screens.listing import GROUPS, summed_up, to_act_on, tone_of
from reconciler.cli.status import Status
from reconciler.inspection import theme
from reconciler.inspection.advice import runbook_of
from reconciler.inspection.theme import SIGNS, Tone, marked
from reconciler.observability.printable import printable
from reconciler.repair.counts import REPAIRS
from reconciler.sweeping.listing import Entry
from reconciler.sweeping.overview import Sweep
from reconciler.sweeping.segments import Scope

_STALE = runbook_of("sweep-stale")
_MAX_WORKERS = 4


def render(status: Status) -> RenderableType:
    """Return the screen, the most urgent first."""
    return Group(_headline(status), facts(_lines(status)), Text(), *_stuck(status))


def _headline(status: Status) -> Text:
    name = ("Backstop  ", "bold")
    if status.problem is None:
        return Text.assemble(name, (f"{SIGNS[Tone.MOVING].glyph} alive", "bold green"))
    said = marked(Tone.ALARM, f"NOT HEALTHY  {printable(status.problem)}")
    return Text.assemble(name, said, (f"\n  see {status.runbook}", QUIET))


# -- health


def _lines(status: Status) -> Iterator[tuple[str, Text]]:
    if status.in_table or status.broker_problem is None:
        yield "covered", _covered(status)
        yield "sweep", _sweep(status)
        for sweep in status.seen.at_work():
            yield "at work", _at_work(status, sweep)
        if status.awaiting_evaluation:
            yield "to evaluate", Text(theme.counted(status.awaiting_evaluation, "orchestration"))
    yield "mode", _mode(status)
    if status.in_table:
        yield from _of_cron(status)
    elif status.broker_problem is None:
        yield "beat", _beat(status)
        yield "workers", _workers(status.workers)
        yield "queues", Text(", ".join(f"{name} {count}" for name, count in status.queues.items()))
        yield "recovered", _recovered(status)


def _of_cron(status: Status) -> Iterator[tuple[str, Text]]:
    if status.broker_problem is None:
        yield "workers", Text("none: there is no broker, and sweeps run by themselves")
    else:
        yield "source", Text("the table, where `sweep --inline` (cron) recorded it", "yellow")
    last = status.seen.last()
    if last is not None:
        done = sum(last[name] for name in REPAIRS)
        yield "recovered", Text(f"{done} by the last sweep")


def _covered(status: Status) -> Text:
    said = _covered_scope(status, Scope.ACTIVE)
    if status.full_scan_interval_seconds is not None:
        said.append("; the whole table ")
        said.append_text(_covered_scope(status, Scope.TABLE))
    return said


def _covered_scope(status: Status, scope: Scope) -> Text:
    age = status.age_of(scope)
    if age is None:
        return Text("unknown: not all of it has been read yet", "bold red")
    return Text(f"as of {theme.age(age)} ago", "bold red" if age > status.limit_of(scope) else "")


def _sweep(status: Status) -> Text:
    last = status.seen.last()
    if last is None:
        return Text(f"none has ended; one every {theme.age(status.interval_seconds)}", "yellow")
    ago = theme.age(max(0.0, status.now - last["ended_at"]))
    said = Text(f"ended {ago} ago, one every {theme.age(status.interval_seconds)}")
    rows = theme.counted(last["rows_scanned"], "row")
    said.append(f"; {rows} in {theme.age(last['duration_seconds'])}", QUIET)
    if not last["complete"]:
        said.append("; it did NOT complete", "bold red")
    errors = last.get("errors", 0)
    if errors:
        # What is listed as being repaired may be what fails.
        said.append(f"; {theme.counted(errors, 'error')}", "bold red")
        said.append("; see `reconciler doctor` and the log")
    return said


def _at_work(status: Status, sweep: Sweep) -> Text:
    read = sweep.segments - status.seen.count_unread(sweep)
    took = theme.age(max(0.0, status.seen.now - sweep.started_at))
    return Text(f"{sweep.sweep_id} for {took}, {read} of {sweep.segments} segments read")


def _mode(status: Status) -> Text:
    if status.table_problem is not None and status.paused is None:
        return Text("unknown: the tables cannot be read", "red")
    if status.paused is not None:
        held = status.paused
        said = printable(f"PAUSED since {held['since']} by {held['by']}: {held['reason']}")
        return Text(said, "bold yellow").append("; `reconciler resume` ends it", "default")
    # The mode of the workers, which may differ from this shell's settings.
    mode = (status.seen.last(complete=True) or {}).get("mode", status.repair_mode)
    if mode == "report":
        return Text("report: the last sweep found and reported, and changed nothing", "yellow")
    return Text(str(mode) if mode != "paused" else "repair, again since the last sweep")


def _beat(status: Status) -> Text:
    ago = status.asked_seconds_ago
    if status.beat_is_silent:
        since = "none has asked for a sweep" if ago is None else f"SILENT for {theme.age(ago)}"
        return Text(f"{since}; start it ({_STALE})", "bold red")
    if status.beat_is_late:
        return Text("unknown: what it asks for waits for a worker", "yellow")
    if ago is None:
        return Text("none has asked for a sweep yet", "yellow")
    return Text(f"asked for a sweep {theme.age(ago)} ago")


def _workers(workers: tuple[str, ...] | None) -> Text:
    if workers is None:
        return Text("nobody could be asked", "red")
    if not workers:
        return Text(f"none answers; start them ({_STALE})", "bold red")
    names = theme.listed([printable(name) for name in workers], _MAX_WORKERS)
    return Text(f"{len(workers)} answering: {names}")


def _recovered(status: Status) -> Text:
    found = status.recovered
    said = Text(f"{found['last_hour']} in the last hour, {found['last_day']} in the last day")
    middle, longest = found["median_latency_seconds"], found["max_latency_seconds"]
    if middle is not None:
        waited = f"; waited {theme.age(middle)} (median), {theme.age(longest)} at most"
        said.append(waited, QUIET)
    return said


# -- what is stuck


def _stuck(status: Status) -> Iterator[RenderableType]:
    entries = status.entries
    if not status.knows_stuck:
        yield Text("Nothing is known of what is stuck.", "yellow")
        if status.unreachable is not None or status.in_table:
            way = "`reconciler sweep --inline --report` reads the tables themselves"
            yield Text(f"{status.instead(way)}.")
        return
    if not entries:
        yield Text("Nothing is stuck.", "green")
        return
    yield Text("Stuck   ", "bold").append_text(summed_up(entries))
    yield _by_code(entries)
    if any(entry.needs_action for entry in entries):
        yield Text()
        yield from to_act_on(entries)
    yield Text()
    yield Text(f"reconciler list  shows all {len(entries)}")


def _by_code(entries: list[Entry]) -> RenderableType:
    kinds: dict[tuple[Tone, str], list[Entry]] = {}
    for entry in entries:  # the oldest of each comes first
        kinds.setdefault((tone_of(entry), entry.code), []).append(entry)
    order = [tone for tone, _ in GROUPS]
    columns = ("  code", "count", "oldest", "meaning")
    table = table_of(*columns, right=("count", "oldest"), fold="meaning")
    for tone, code in sorted(kinds, key=lambda kind: order.index(kind[0])):
        found = kinds[tone, code]
        table.add_row(
            marked(tone, code),
            str(len(found)),
            theme.short_age(found[0].age_seconds),
            Text(theme.MEANINGS.get(code, ""), QUIET),
        )
    return table
