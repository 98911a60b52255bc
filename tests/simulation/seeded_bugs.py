"""Put one bug after the other into the real code, and report which test catches it.

    python -m tests.simulation.seeded_bugs [--write | --check] [NAME …]

It fails if a bug survives. Each bug gets its own process, and the suite stops at the first test
that catches it. ``--write`` puts the list into ``docs/testing.md``. ``--check`` runs only the tests
that this list names, each with its bug. A test that fails without any bug would prove nothing, so
the tests first run without bugs.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
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
"""All but the matrix: narrow scenarios find a bug sooner."""
VARIABLE = "SEEDED_BUG"
ROOT = Path(__file__).parents[2]
SURVIVED = "nothing: it SURVIVED"


def pytest_configure(config: pytest.Config) -> None:  # noqa: ARG001 - the hook's signature
    """As a plugin of pytest, put the bug in before any test is collected."""
    name = os.environ.get(VARIABLE)
    if name:
        BUGS[name].seed()


def run(name: str | None, tests: Iterable[str] = SUITES) -> str | None:
    """Run the tests with one bug; returns the test that caught it, or None."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider"]
    command += ["-p", "tests.simulation.seeded_bugs", "-m", "not long", "-k", CHOSEN]
    command += ["--tb=no", *tests]
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
_PLACE = "tests/simulation/"


def page(caught: Mapping[str, str]) -> str:
    """Return the test plan with the list of bugs, each with the test that caught it."""
    lines = [_BEGIN, "", "| bug | caught by |", "|---|---|"]
    for name, test in caught.items():
        short = test.removeprefix(_PLACE).partition(" - ")[0]
        lines.append(f"| {BUGS[name].says} | `{short}` |")
    head, _, rest = PAGE.read_text().partition(_BEGIN)
    tail = rest.partition(_END)[2]
    return head + "\n".join([*lines, "", _END]) + tail


def listed() -> dict[str, list[str]]:
    """Return bug → the test that the page names, in a list."""
    rows = PAGE.read_text().partition(_BEGIN)[2].partition(_END)[0]
    found = re.findall(r"^\| (.+) \| `(.+)` \|$", rows, re.MULTILINE)
    tests = {says: [_PLACE + test] for says, test in found}
    if list(tests) != [each.says for each in BUGS.values()]:
        raise SystemExit(f"{PAGE.name} lists other bugs: run make seeded-bugs ARGS=--write")
    return {name: tests[each.says] for name, each in BUGS.items()}


def main(arguments: Sequence[str]) -> int:
    """Seed each bug and report; returns how many survived."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.seeded_bugs")
    parser.add_argument("names", nargs="*", metavar="NAME", help="of a bug; all of them if none")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--write", action="store_true", help=f"put the list into {PAGE.name}")
    what.add_argument("--check", action="store_true", help="run only the tests that it names")
    given = parser.parse_args(arguments)
    if unknown := set(given.names) - BUGS.keys():
        parser.error(f"no such bug: {', '.join(sorted(unknown))}")
    if given.names and given.write:
        parser.error("the list has all bugs: do not name any")
    names = given.names or list(BUGS)
    tests: Mapping[str, Sequence[str]] = listed() if given.check else dict.fromkeys(names, SUITES)
    if given.check or not given.names:
        fails = run(None, sorted({test for name in names for test in tests[name]}))
        if fails is not None:
            raise SystemExit(f"fails without any bug: {fails}")
        say("without any bug: all pass")
    found: dict[str, str] = {}
    with ThreadPoolExecutor(os.cpu_count()) as processes:
        caught_by = processes.map(run, names, (tests[name] for name in names))
        for name, caught in zip(names, caught_by, strict=True):
            found[name] = caught or SURVIVED
            verdict = SURVIVED if caught is None else f"caught by {caught}"
            say(f"{name} ({BUGS[name].says}): {verdict}")
    survivors = sum(caught == SURVIVED for caught in found.values())
    say(f"{len(names)} bugs, {survivors} survived")
    if given.write:
        PAGE.write_text(page(found))
    return survivors


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1:]) else 0)
