"""Printing: results go to standard output, everything else to standard error."""

from __future__ import annotations

import codecs
import io
import json
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any, Literal

import click
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from reconciler.observability.printable import printable, printable_json

_WIDTH_IN_A_PIPE = 100
"""Columns of a picture in a pipe."""

_MIN_WIDTH = 80
"""Columns that tables are laid out for, even if the terminal has fewer."""

_WATCH_SECONDS = 2.0

QUIET = "bright_black"
"""The style of less important text."""

_ENDLESS = 100_000
"""Columns of text in a pipe, where lines are not wrapped."""


STAND_IN = "stand-in"
"""Name of the error handler that replaces characters that the terminal's encoding lacks."""

_STAND_INS = dict(zip("✓✗⊘●○◌▲■◆│├└→…\u00d7", "+x-o.:!#*|++>~x", strict=True))


def _stand_in(error: UnicodeError) -> tuple[str, int]:
    """Replace each character that the encoding lacks by a similar one, or a question mark."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_STAND_INS.get(sign, "?") for sign in lacking), error.end


codecs.register_error(STAND_IN, _stand_in)


def console() -> Console:
    """Return a console on standard output: coloured on a terminal, plain in a pipe."""
    out = sys.stdout
    terminal = out.isatty()
    if isinstance(out, io.TextIOWrapper):
        out.reconfigure(errors=STAND_IN)
    return Console(
        file=out,
        width=None if terminal else _ENDLESS,
        highlight=False,
        soft_wrap=False,
        emoji=False,
        markup=False,
    )


def width_of_picture(target: Console) -> int:
    """Return how many columns a picture may take."""
    return _WIDTH_IN_A_PIPE if target.width == _ENDLESS else target.width


def show(target: Console, *parts: RenderableType) -> None:
    """Print parts one below the other; in a pipe, without trailing blanks."""
    # Rich joins bare texts, which forgets that some are not to be wrapped.
    whole = Group(*parts)
    if target.is_terminal:
        # Do not crop, so that a long command can still be copied.
        target.print(whole, crop=False)
        return
    with target.capture() as captured:
        target.print(whole)
    lines = captured.get().splitlines()
    target.file.write("".join(f"{line.rstrip()}\n" for line in lines))


class _Drawing(io.StringIO):
    """Buffers output for a terminal."""

    def isatty(self) -> bool:
        return True


def repeat(draw: Callable[[Console], int], *, watch: bool) -> int:
    """Call ``draw``, repeatedly with ``watch``, and return its exit code."""
    out = console()
    if not watch:
        return draw(out)
    while True:
        if out.is_terminal:
            # Draw before clearing the screen, so that it does not flicker.
            with redirect_stdout(_Drawing()) as drawn:
                draw(console())
            out.file.write(f"\x1b[H\x1b[2J\x1b[3J{drawn.getvalue()}")
            out.file.flush()
        else:
            draw(out)
        time.sleep(_WATCH_SECONDS)


class _Uncut(Table):
    """A table that keeps all its columns: on a terminal that is too narrow, its lines wrap."""

    least = _MIN_WIDTH

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = max(options.max_width, self.least)
        return super().__rich_console__(console, options.update_width(width))


def table_of(
    *columns: str, right: Collection[str] = (), fold: str = "", wide: bool = False
) -> Table:
    """Return an empty table without lines; the columns in ``right`` are right-aligned.

    It is laid out for 80 columns or more. What does not fit is folded in the column ``fold``; if
    the table is ``wide``, everything fits.
    """
    table = _Uncut(box=None, pad_edge=False, header_style=QUIET, padding=(0, 2, 0, 0))
    if wide:
        table.least = _ENDLESS
    for name in columns:
        justify: Literal["right", "left"] = "right" if name in right else "left"
        table.add_column(name, no_wrap=name != fold, overflow="fold", justify=justify)
    return table


def facts(lines: Iterable[tuple[str, Text]]) -> Table:
    """Return a table of names and texts."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style=QUIET, no_wrap=True)
    grid.add_column(overflow="fold")
    for name, said in lines:
        grid.add_row(f"  {name}", said)
    return grid


def print_json(value: Mapping[str, Any] | list[Any]) -> None:
    """Print a JSON object or array, indented on a terminal, on one line in a pipe."""
    out = sys.stdout
    indent = 2 if out.isatty() else None
    click.echo(printable_json(json.dumps(value, indent=indent, ensure_ascii=False)))


@contextmanager
def progress(what: str, *, quiet: bool = False) -> Iterator[Progress | None]:
    """Show progress during the block, on standard error, if that is a terminal.

    Yields None if nothing is shown.
    """
    err = sys.stderr
    if quiet or not err.isatty():
        yield None
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[said]}", style=QUIET),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(file=err), transient=True) as shown:
        shown.add_task(printable(what), total=None, said="")
        yield shown


def count_rows(shown: Progress | None) -> Callable[[int], None]:
    """Return a callback that shows how many rows have been searched."""
    return lambda rows: update(shown, rows, None, f"{rows} rows")


def update(shown: Progress | None, done: float, total: float | None, said: str) -> None:
    """Update the progress, if it is shown."""
    if shown is not None:
        shown.update(shown.task_ids[0], completed=done, total=total, said=said)
