"""``reconciler list``: what is stuck, or what was repaired, from the state of sweeps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.text import Text

from reconciler.cli.console import QUIET, print_json, repeat, show
from reconciler.cli.main import EXIT_UNREACHABLE, EXIT_WRONG
from reconciler.cli.options import Duration, watch_option
from reconciler.cli.screens import listing as screen
from reconciler.cli.status import Status, read_status
from reconciler.cli.wiring import (
    asking_broker,
    broker_for_cli,
    reconciler_for_cli,
    settings_for_cli,
    sweep_state,
)
from reconciler.domain.codes import STUCK_CODES
from reconciler.errors import TemporaryError, UsageError
from reconciler.inspection.theme import age
from reconciler.observability.printable import printable
from reconciler.settings import DAY_SECONDS, Settings
from reconciler.sweeping.listing import DEFAULT_LIMIT, Page, Query, select
from reconciler.sweeping.overview import Overview
from workers.recoveries import Recoveries

if TYPE_CHECKING:
    import redis

_FORMS = ("table", "wide", "json", "yaml", "name")
_EXAMPLES = """\b
Examples:
  reconciler list --needs-action
  reconciler list --code lost_release --older-than 1h -o name | xargs reconciler inspect
  reconciler list --recovered --since 6h"""


@click.command(name="list", epilog=_EXAMPLES)
@click.argument("text", required=False, default="")
@click.option(
    "--code", "codes", multiple=True, metavar="CODE", help="Only this code; may be repeated."
)
@click.option("--repo", default="", metavar="OWNER/NAME", help="Only this repository.")
@click.option("--user", "user_id", metavar="TEXT", default="", help="Only this platform user.")
@click.option(
    "--older-than",
    "older_than_seconds",
    type=Duration(),
    default="0",
    help="Only what is (or was) stuck for longer.",
)
@click.option("--needs-action", is_flag=True, help="Only what needs manual action.")
@click.option("--recovered", is_flag=True, help="List what was repaired, newest first.")
@click.option("--since", type=Duration(), help="How far back (1d), with --recovered.")
@click.option("--report", "report_id", metavar="SWEEP", help="List what this report found.")
@click.option("--limit", type=click.IntRange(1), default=DEFAULT_LIMIT, show_default=True)
@click.option("--offset", type=click.IntRange(0), default=0, help="Skip the first entries.")
@click.option("-o", "--output", "form", type=click.Choice(_FORMS), default="table")
@click.option("--json", "as_json", is_flag=True, help="The same as `-o json`.")
@watch_option
def list_(
    *,
    codes: Sequence[str],
    recovered: bool,
    since: float | None,
    report_id: str | None,
    form: str,
    as_json: bool,
    watch: bool,
    **asked: Any,  # noqa: ANN401 - the other fields of `Query`
) -> int:
    """List what is stuck, waits for a slot or is backing off, oldest first.

    The list comes from the state of sweeps, without a scan. TEXT filters by id, display id,
    repository or user. `-o name` prints ids for `reconciler inspect`. --recovered takes the same
    filters; recoveries are kept for a day. Exits with 1 if anything that matches is stuck, on any
    page, not counting what only waits for a slot. Exits with 2 while nothing is known yet, and
    with 3 if the broker cannot be reached.
    """
    for code in codes:
        if code not in STUCK_CODES:
            raise UsageError(f"no such code: {code}; the codes are {', '.join(STUCK_CODES)}")
    query = Query(codes=frozenset(codes), **asked)
    _check_together(query, recovered=recovered, since=since, report_id=report_id)
    form = "json" if as_json else form
    settings = settings_for_cli()
    client, reconciler = broker_for_cli(settings), reconciler_for_cli(settings)

    def draw(out: Console) -> int:
        status = read_status(settings, client, reconciler, details=False)
        if recovered:
            _check_recoveries_known(status)
            with asking_broker():
                found = Recoveries(client, settings.deployment_id).list_last(DAY_SECONDS)
            status = replace(status, recoveries=found)
            return _show_recoveries(out, status, since or DAY_SECONDS, query, form)
        if report_id is not None:
            status = replace(status, seen=_reported(settings, client, report_id))
        _check_known(status)
        return _show(out, status, query, form)

    return repeat(draw, watch=watch)


def _check_together(
    query: Query, *, recovered: bool, since: float | None, report_id: str | None
) -> None:
    if not recovered:
        if since is not None:
            raise UsageError("--since goes with --recovered; --older-than is for what is stuck")
        return
    if query.needs_action:
        raise UsageError("what was repaired needs no action: leave out --needs-action")
    if report_id is not None:
        raise UsageError("a report repairs nothing: leave out --report or --recovered")
    if since is not None and since > DAY_SECONDS:
        raise UsageError("recoveries are kept for a day; the log has orch.sweep.recovered")


def _reported(settings: Settings, client: redis.Redis, report_id: str) -> Overview:
    with asking_broker():
        seen = sweep_state(settings, client, report_id).overview()
    if not seen.sweeps:
        raise UsageError(f"no report {report_id} is kept; each is kept for an hour")
    if seen.last() is None and not seen.list_stuck():
        raise UsageError(f"the report {report_id} has not ended yet, so nothing is known")
    return seen


def _check_known(status: Status) -> None:
    """Fail if it is unknown what is stuck, and say what to run."""
    if status.knows_stuck or status.entries:
        return
    if status.unreachable is not None:
        way = "`reconciler sweep --inline --report` reads the tables"
        raise TemporaryError(f"{status.unreachable}; {status.instead(way)}")
    if status.seen.last() is not None:
        raise UsageError(
            "more is stuck than the table can record, so it cannot be listed; "
            "`reconciler sweep --inline --report` reads the tables"
        )
    raise UsageError(
        "no sweep has ended yet, so nothing is known; `reconciler sweep --wait` makes one, or "
        "`reconciler sweep --inline` where there is no broker"
    )


def _show(out: Console, status: Status, query: Query, form: str) -> int:
    page = select(status.entries, query)
    wanted = [entry for entry in status.entries if query.accepts(entry)]
    shown = [screen.to_json(entry, status.seen.now) for entry in page.entries]
    about = {
        "total": page.total,
        "remembered": page.remembered,
        "next_offset": page.next_offset,
    }
    if not _print_data(form, about, shown, screen.names(page.entries)):
        if page.entries:
            show(out, screen.table(page, wide=form == "wide"), Text())
        summary = [screen.summed_up(wanted)] if wanted else []
        show(out, *summary, *_footer(page), *_caution(status))
    if any(entry.alarming for entry in wanted):
        return EXIT_WRONG
    # If the broker is away, the table shows only the last sweep without one.
    return EXIT_UNREACHABLE if status.in_table and status.unreachable is not None else 0


def _print_data(
    form: str,
    about: Mapping[str, Any],
    entries: Sequence[Mapping[str, Any]],
    names: Iterable[str],
) -> bool:
    """Print in a format for programs; False if the format is for people."""
    match form:
        case "json":
            print_json({**about, "entries": entries})
        case "yaml":
            click.echo(screen.yaml(entries), nl=False)
        case "name":
            click.echo("".join(f"{name}\n" for name in names), nl=False)
        case _:
            return False
    return True


def _footer(page: Page) -> Iterator[Text]:
    if not page.remembered:
        yield Text("Nothing is stuck.", "green")
    elif not page.total:
        yield Text(f"None of the {page.remembered} that are stuck match.", "green")
    yield from _which(page)
    first = next((entry for entry in page.entries if entry.needs_action), None)
    if first is not None:
        yield from screen.first_step(first)


def _which(page: Page) -> Iterator[Text]:
    """Say which entries are shown, unless all are."""
    if page.total and not page.entries:
        yield Text(f"There are {page.total}: --offset leaves out all of them.")
    elif len(page.entries) < page.total:
        last = page.offset + len(page.entries)
        more = f"; --offset {page.next_offset} shows more" if page.next_offset else ""
        yield Text(f"{page.offset + 1} to {last} of {page.total}{more}", QUIET)


def _caution(status: Status) -> list[Text]:
    """Warn if the list may be outdated or incomplete."""
    if status.problem is None:
        return []
    when = f" It is as of {age(status.now - status.seen.now)} ago." if status.in_table else ""
    return [Text(printable(f"Careful: {status.problem}.{when}"), "bold yellow")]


def _show_recoveries(out: Console, status: Status, since: float, query: Query, form: str) -> int:
    found = [entry for entry in reversed(status.recoveries) if entry["at"] >= status.now - since]
    wanted = [entry for entry in found if query.accepts(screen.as_entry(entry))]
    shown = wanted[query.offset :][: query.limit]
    page = Page(tuple(map(screen.as_entry, shown)), query.offset, len(wanted), len(found))
    about = {"total": page.total, "next_offset": page.next_offset}
    if not _print_data(form, about, shown, screen.names(page.entries)):
        if shown:
            show(out, screen.recoveries(shown, status.now, wide=form == "wide"), Text())
        said = f"{page.total} repaired within {age(since)}"
        others = f", of {page.remembered} in all" if page.total < page.remembered else ""
        show(out, Text(f"{said}{others}", "green" if page.total else ""), *_which(page))
    return 0


def _check_recoveries_known(status: Status) -> None:
    if status.broker_problem is not None:
        way = "`reconciler inspect ID` reads the repairs of one orchestration"
        raise TemporaryError(f"{status.unreachable}; {status.instead(way)}")
    if status.without_broker:
        raise UsageError(
            "recoveries are listed from the broker, and there is none; `reconciler inspect ID` "
            "reads those of one orchestration, and the log has orch.sweep.recovered"
        )
