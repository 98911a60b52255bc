"""Puts one bug after the other into the real code, and says which test caught it.

    python -m tests.simulation.seeded_bugs [--write] [NAME …]

Fails when a bug survives; with ``--write``, the list goes into ``docs/testing.md``. Each bug has a
process of its own, and the suite stops at the first test that catches it; one that fails without
any bug would prove nothing, so that is checked first.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.simulation.bugs import BUGS

SUITES = (
    "tests/simulation/test_field_failures.py",
    "tests/simulation/test_interleavings.py",
    "tests/simulation/test_convergence.py",
    "tests/simulation/test_random_schedules.py",
)
CHOSEN = "not every_small_graph"
"""Without the matrix: what is narrow finds a bug sooner."""
VARIABLE = "SEEDED_BUG"
ROOT = Path(__file__).parents[2]


def pytest_configure(config: pytest.Config) -> None:  # noqa: ARG001 - the hook's signature
    """As a plugin of pytest: put the bug in, before any test is collected."""
    name = os.environ.get(VARIABLE)
    if name:
        BUGS[name].seed()


def run(name: str | None) -> str | None:
    """Run the suites with one bug; returns the test that caught it, None when none did."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider"]
    command += ["-p", "tests.simulation.seeded_bugs", "-m", "not long", "-k", CHOSEN]
    command += ["--tb=no", *SUITES]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, VARIABLE: name or "", "COLUMNS": "320"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in {0, 1}:
        raise SystemExit(f"{name}: pytest ended with {done.returncode}\n{done.stdout}{done.stderr}")
    for line in done.stdout.splitlines():
        if line.startswith(("FAILED ", "ERROR ")):
            return line.partition(" ")[2]
    return None


PAGE = ROOT / "docs" / "testing.md"
_BEGIN = "<!-- seeded bugs: made by `make seeded-bugs ARGS=--write` -->"
_END = "<!-- end of seeded bugs -->"


def write(caught: Mapping[str, str]) -> None:
    """Put the list into the test plan, each bug with the test that caught it."""
    lines = [_BEGIN, "", "| bug | caught by |", "|---|---|"]
    for name, test in caught.items():
        short = test.removeprefix("tests/simulation/").partition(" - ")[0]
        lines.append(f"| {BUGS[name].says} | `{short}` |")
    head, _, rest = PAGE.read_text().partition(_BEGIN)
    tail = rest.partition(_END)[2]
    PAGE.write_text(head + "\n".join([*lines, "", _END]) + tail)


def main(arguments: list[str]) -> int:
    """Seed each bug and report; returns the number of survivors."""
    names = [name for name in arguments if name != "--write"]
    unknown = set(names) - BUGS.keys()
    if unknown:
        raise SystemExit(f"no such bug: {', '.join(sorted(unknown))}")
    if not names:
        fails = run(None)
        if fails is not None:
            raise SystemExit(f"fails without any bug: {fails}")
        say("without any bug: all pass")
    survivors = 0
    found: dict[str, str] = {}
    for name in names or BUGS:
        before = time.monotonic()
        caught = run(name)
        survivors += caught is None
        found[name] = caught or "nothing: it SURVIVED"
        verdict = f"caught by {caught}" if caught is not None else "SURVIVED"
        say(f"{name} ({BUGS[name].says}; {time.monotonic() - before:.0f} s): {verdict}")
    say(f"{len(names or BUGS)} bugs, {survivors} survived")
    if "--write" in arguments:
        write(found)
    return survivors


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1:]) else 0)
