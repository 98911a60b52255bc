"""``reconciler``: the group of sub-commands, and its exit codes.

Exit codes: 0 done; 1 work is stuck, the backstop is unhealthy, or a check failed; 2 the arguments
or the settings are wrong; 3 broker or AWS cannot be reached or denies access; 130 interrupted.
Every error is one line on standard error, with click's hint if the arguments are wrong.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from reconciler.errors import ReconcilerError, SettingsError, UsageError

EXIT_WRONG, EXIT_USAGE, EXIT_UNREACHABLE, EXIT_INTERRUPTED = 1, 2, 3, 130

COMMANDS = {
    "status": "Show whether the backstop is alive, and what is stuck.",
    "list": "List what is stuck, oldest first, or what was repaired.",
    "inspect": "Show one orchestration as a picture, and why it is stuck.",
    "sweep": "Find and repair what is stuck, with the workers or in this process.",
    "evaluate": "Repair one orchestration now, as the next sweep would.",
    "release": "Release one child now, if it is due.",
    "unskip": "Set a skipped child back to blocked.",
    "pause": "Stop all repairs at once; sweeps continue to report.",
    "resume": "End the pause.",
    "health": "Check that sweeps complete in time; if not, fail with the reason.",
    "doctor": "Check settings, permissions, tables and broker, without writing.",
    "metrics": "Serve the metrics for Prometheus to scrape.",
    "tables": "Create the tables on a local DynamoDB endpoint.",
    "demo": "Watch the reconciler work, with a whole platform on this machine.",
}
"""Name → help line, here so that the help needs no imports."""

_MODULES = {
    **dict.fromkeys(("evaluate", "release", "unskip"), "by_hand"),
    **dict.fromkeys(("pause", "resume"), "control"),
}
"""Modules of ``reconciler.cli.commands`` whose names differ from the command's."""


class LazyGroup(click.Group):
    """Imports sub-commands when they are called, and turns errors into one line and a code."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names, the most useful ones first."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a sub-command."""
        if cmd_name not in COMMANDS:
            return None
        name = _MODULES.get(cmd_name, cmd_name)
        found = vars(importlib.import_module(f"reconciler.cli.commands.{name}")).values()
        return next(c for c in found if isinstance(c, click.Command) and c.name == cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the sub-commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def main(  # type: ignore[override] # always exits: a mode that returns is not wanted
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        **extra: Any,  # noqa: ANN401
    ) -> NoReturn:
        """Run a command line and exit with its code."""
        extra["standalone_mode"] = False
        try:
            # The result is the command's exit code, also after ``ctx.exit``.
            code = super().main(args, prog_name or "reconciler", **extra)
        except click.ClickException as error:
            error.show()
            sys.exit(EXIT_USAGE)
        except (click.Abort, KeyboardInterrupt):
            fail("interrupted", EXIT_INTERRUPTED)
        except ReconcilerError as error:
            if isinstance(error, SettingsError | UsageError):
                fail(str(error), EXIT_USAGE)
            from reconciler.aws_errors import explain  # noqa: PLC0415 - start-up time

            fail(explain(error), EXIT_UNREACHABLE)
        except BrokenPipeError:
            # The reader (``| head``) has gone, and the flush at exit must not fail either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        except Exception as error:
            if isinstance(error.__cause__, KeyboardInterrupt):
                # Python 3.11 wraps one that comes while an import makes a class.
                fail("interrupted", EXIT_INTERRUPTED)
            if os.environ.get("RECONCILER_DEBUG"):
                raise
            said = f"unexpected {type(error).__name__}: {error}"
            fail(f"{said} (RECONCILER_DEBUG=1 shows where)", EXIT_UNREACHABLE)
        sys.exit(code if isinstance(code, int) else 0)


def fail(message: str, code: int) -> NoReturn:
    """Print one line on standard error, and exit."""
    from reconciler.observability.printable import printable  # noqa: PLC0415 - start-up time
    from reconciler.observability.secrets import Redactor  # noqa: PLC0415

    line = printable(Redactor().redact(" ".join(message.split())))
    click.echo(f"{click.style('reconciler:', fg='red')} {line}", err=True)
    sys.exit(code)


def _version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:  # noqa: FBT001
    if wanted and not ctx.resilient_parsing:
        from reconciler.version import describe  # noqa: PLC0415 - start-up time

        click.echo(describe())
        ctx.exit()


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=(
        "Exit codes: 0 done, 1 stuck work or unhealthy, 2 the arguments or the settings are wrong, "
        "3 the broker or AWS cannot be reached."
    ),
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show version, commit and build date, and exit.",
)
def root() -> None:
    """Backstop for stranded orchestrations: finds what is stuck, says why, and repairs it.

    Settings are environment variables; `reconciler doctor` checks them.
    """


def main() -> NoReturn:
    """Run the command line; the entry point ``reconciler``."""
    root.main()


if __name__ == "__main__":
    main()
