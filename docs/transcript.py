"""Records the first hour: ``make transcript`` writes ``docs/transcript.md``.

In a fresh clone in an empty directory, it runs the commands of ``README.md`` and
``docs/first-hour.md`` in one shell, as a newcomer would, and records the output. It replaces ids,
times and the names of this machine, so that two recordings of the same code hardly differ.

``--all`` runs ``make test`` instead of ``make unit``; ``--short`` leaves out demo and tests.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from docs.commands import ROOT, Shown, shown
from reconciler.embedded.process import signal_group

PATH = ROOT / "docs" / "transcript.md"
FIRST_HOUR = ROOT / "docs" / "first-hour.md"
END = "## On real tables"
STAYS = {"make local": ".cache/local.env"}
"""Command that stays in the foreground → the file that appears once it answers."""

MAY_END_WITH = {
    "reconciler sweep --inline --report": 1,
    "reconciler inspect ENG-101": 1,
    "REPAIR_ONLY_REPOS=acme/sandbox reconciler sweep --inline": 1,
}
"""Commands that find something stuck, and their exit codes."""

_PATIENCE_SECONDS = 600.0
_END_SECONDS = 60.0
_MOST_LINES = 60
_SUMMARY_LINES = 1
"""Lines kept of a test run: the result matters, and each new test would change the rest."""
_MARK = "--- ended with"


class TranscriptError(Exception):
    """A command did not do what the documents say."""


@dataclass
class Shell:
    """One bash in one directory, which runs one command after the other."""

    directory: Path
    environment: dict[str, str]
    _bash: subprocess.Popen[str] = field(init=False)
    _stays: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Start the shell in its own process group, so that all of it can be ended."""
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, command: str) -> tuple[list[str], int]:
        """Run a command, and return its output and exit code."""
        stdin, stdout = self._bash.stdin, self._bash.stdout
        if stdin is None or stdout is None:
            raise TranscriptError("the shell has no pipes")
        stdin.write(f"{{ {command}\n}} < /dev/null\necho '{_MARK}' $?\n")
        stdin.flush()
        printed: list[str] = []
        for line in stdout:
            said = line.rstrip("\n")
            before, mark, code = said.partition(_MARK)
            if mark:
                return [*printed, *([before] if before else [])], int(code)
            printed.append(said)
        raise TranscriptError(f"the shell ended with: {command}")

    def stay(self, command: str, until: Path) -> None:
        """Run a command in its own shell, and wait until a file shows that it answers."""
        process = subprocess.Popen(
            ["bash", "-c", command],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._stays.append(process)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not until.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise TranscriptError(f"{command} does not answer")
            time.sleep(0.1)

    def close(self) -> None:
        """End everything that was started, workers first."""
        for process in (self._bash, *self._stays):
            signal_group(process.pid, signal.SIGTERM)
            deadline = time.monotonic() + _END_SECONDS
            # Wait for the whole group: what the leader started has its own servers.
            while signal_group(process.pid, 0) and time.monotonic() < deadline:
                process.poll()
                time.sleep(0.1)
            signal_group(process.pid, signal.SIGKILL)
            process.wait()
        for pipe in (self._bash.stdin, self._bash.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


@contextlib.contextmanager
def shell(directory: Path, environment: dict[str, str]) -> Iterator[Shell]:
    """Provide a shell while the block runs."""
    held = Shell(directory, environment)
    try:
        yield held
    finally:
        held.close()


def first_hour(*, before: str = END) -> list[Shown]:
    """Return the commands of the first hour, up to a heading."""
    text = FIRST_HOUR.read_text(encoding="utf-8")
    last = text.count("\n", 0, text.index(before)) + 1
    return [each for each in shown(FIRST_HOUR) if each.kind == "sh" and each.line < last]


def perform(held: Shell, command: str) -> list[str]:
    """Run a command of the documents, and return its output.

    Raises:
        TranscriptError: it ended with an unexpected code.
    """
    if command in STAYS:
        held.stay(command, held.directory / STAYS[command])
        return []
    printed, code = held.run(command)
    if code and code != MAY_END_WITH.get(command, 0):
        raise TranscriptError("\n".join([f"{command} ended with {code}:", *printed]))
    return printed


# -- the record

_CLOCK = r"\d\d:\d\d:\d\d"
_DAY = r"\d{4}-\d\d-\d\d"
_ZONE = r"(\.\d+)?(Z|\+00:00)?"
_UUID = r"\b[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}\b"
_REPLACED = [
    (re.compile(r"orch_[0-9a-f]{32}"), "orch_{:032x}"),
    (re.compile(_UUID), "{:08x}-0000-4000-8000-000000000000"),
    (re.compile(r"\b01[0-9A-HJKMNP-TV-Z]{24}\b"), "01{:024d}"),
]
_FIXED = [
    (re.compile(rf"{_DAY}([ T]){_CLOCK}{_ZONE}"), r"2026-01-01\g<1>12:00:00"),
    (re.compile(_CLOCK), "12:00:00"),
    (re.compile(r"redis://127\.0\.0\.1:\d+"), "redis://127.0.0.1:6379"),
    (re.compile(r"127\.0\.0\.1:(?!5555|6379)\d{4,5}"), "127.0.0.1:8000"),
    (re.compile(r"\b(succeeded|running) \d+s\b"), r"\g<1> 9s"),
    (re.compile(r"\bfor \d+ s\b"), "for 9 s"),
    (re.compile(r"\bcommit [0-9a-f]{7,12}\b"), "commit 0123456789ab"),
    (re.compile(r"sweep:(by-hand-)?\d+"), "sweep:1"),
    (re.compile(r"parent-[0-9a-f]{8}"), "parent-00000000"),
    (re.compile(r"\bin \d+(\.\d+)? s\b"), "in 1 s"),
    (re.compile(r"\b\d+ s ago\b"), "1 s ago"),
    (re.compile(r"=+ (?P<said>.* in )[\d.]+s (\([\d:]+\) )?=+$"), r"\g<said>1.00s"),
]
_NOISE = re.compile(
    r'^\{.*"event": |^WARNING: |^\[notice\]|pip install|^make(\[\d+\])?: (Enter|Leav)|^\[\d+\]'
)


class Normaliser:
    """Replaces what differs between runs; equal values get equal replacements."""

    def __init__(self, directory: Path) -> None:
        """Take the directory of the clone, whose name must not be recorded."""
        self._names = {str(directory): "~/reconciler", socket.gethostname(): "host"}
        self._numbers: dict[str, str] = {}

    def lines(self, printed: list[str], most: int = _MOST_LINES) -> list[str]:
        """Return the lines to record: if there are too many, the last ones."""
        kept = [self._line(line) for line in printed if not _NOISE.search(line)]
        return kept if len(kept) <= most else ["…", *kept[-most:]]

    def _line(self, line: str) -> str:
        for name, instead in self._names.items():
            line = line.replace(name, instead)
        for pattern, form in _REPLACED:
            line = pattern.sub(lambda found, form=form: self._numbered(found[0], form), line)
        for pattern, instead in _FIXED:
            line = pattern.sub(instead, line)
        return line.rstrip()

    def _numbered(self, found: str, form: str) -> str:
        if found not in self._numbers:
            self._numbers[found] = form.format(len(self._numbers) + 1)
        return self._numbers[found]


HEAD = """\
# Transcript

The first hour as it was printed, recorded by `make transcript` in an empty directory, from a fresh
clone, by what README and [First hour](first-hour.md) show. Ids, times and the machine's name are
replaced; what is logged beside the output is left out.
"""


def heading_of(each: Shown) -> str:
    """Return the heading above a command of the first hour."""
    lines = FIRST_HOUR.read_text(encoding="utf-8").splitlines()[: each.line]
    return next(line.lstrip("# ") for line in reversed(lines) if line.startswith("#"))


def written(steps: list[tuple[str, str, list[str]]]) -> str:
    """Return the document; each step is heading, command and output."""
    lines = [HEAD]
    under, is_open = "", False
    for heading, command, printed in steps:
        if is_open and heading != under:
            lines.append("```\n")
            is_open = False
        if heading != under:
            lines.append(f"## {heading}\n")
            under = heading
        if not is_open:
            lines.append("```console")
            is_open = True
        lines += [f"$ {command}", *printed]
        if printed:
            # A command without output shares a block with the next one.
            lines.append("```\n")
            is_open = False
    if is_open:
        lines.append("```\n")
    return "\n".join(lines)


def record(directory: Path, before: list[tuple[str, str]]) -> str:
    """Run all commands in a fresh clone in ``directory``, and return the document.

    ``before``: headings and commands of the README to run before the first hour.
    """
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(directory)], check=True)
    normaliser = Normaliser(directory)
    kept = ("PATH", "HOME", "LANG", "TERM", "PIP_CONFIG_FILE", "PIP_INDEX_URL", "XDG_CACHE_HOME")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    steps = []
    with shell(directory, environment) as held:
        hour = [(heading_of(each), each.text) for each in first_hour()]
        for heading, command in [*before, *hour]:
            sys.stderr.write(f"$ {command}\n")
            most = _SUMMARY_LINES if command in {"make unit", "make test"} else _MOST_LINES
            steps.append((heading, command, normaliser.lines(perform(held, command), most)))
    return written(steps)


def main() -> None:
    """Record the transcript; the entry point."""
    parser = argparse.ArgumentParser(description="Record the first hour into docs/transcript.md")
    parser.add_argument("--all", action="store_true", help="make test instead of make unit")
    parser.add_argument("--short", action="store_true", help="without demo and tests")
    asked = parser.parse_args()
    tests = "make test" if asked.all else "make unit"
    before = [("Demo", "make demo ARGS=--quick"), ("Tests", tests)]
    parent = Path(tempfile.mkdtemp(prefix="reconciler-transcript-"))
    try:
        PATH.write_text(
            record(parent / "reconciler", [] if asked.short else before), encoding="utf-8"
        )
    except TranscriptError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1)
    finally:
        shutil.rmtree(parent, ignore_errors=True)


if __name__ == "__main__":
    main()
