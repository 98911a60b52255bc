"""Explores the matrix, and counts its schedules.

    python -m tests.simulation.count [--write]

With ``--write`` the table goes into ``docs/testing.md``. Counts are exact and the same each time.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.simulation.explorer import Explored, explore
from tests.simulation.matrix import GRAPHS, cells, sets
from tests.simulation.recovery import Convergence, watched

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"
BEGIN = "<!-- schedules: made by `make simulation-counts` -->"
END = "<!-- end of schedules -->"


def count(index: int) -> tuple[str, int, Explored]:
    """Explore one cell; returns its name, its faults, and what was explored."""
    scenario = cells()[index]
    explored = explore(watched(scenario), Convergence(scenario))
    return scenario.name, scenario.faults, explored


def table(found: Mapping[str, tuple[int, Explored]]) -> str:
    """Return the table: a row for each set of actors, a column for each graph."""
    lines = [
        f"| beside a sweep | {' | '.join(GRAPHS)} |",
        f"|---|{'--:|' * len(GRAPHS)}",
    ]
    for beside in sets():
        shown = []
        for graph in GRAPHS:
            at = found.get(f"{graph}: sweep, {', '.join(beside)}")
            mark = "" if at is None or at[0] else " ¹"
            shown.append("²" if at is None else f"{at[1].schedules:,}{mark}")
        lines.append(f"| {', '.join(beside)} | {' | '.join(shown)} |")
    schedules = sum(explored.schedules for _, explored in found.values())
    states = sum(explored.states for _, explored in found.values())
    steps = sum(explored.steps for _, explored in found.values())
    total = (
        f"{schedules:,} schedules over {states:,} states, from {steps:,} different steps of real "
        f"code, in {len(found)} cells. ¹ without a crash. ² `make simulation-long`."
    )
    return "\n".join([*lines, "", total])


def main(arguments: list[str]) -> None:
    """Count, and print or write the table."""
    found: dict[str, tuple[int, Explored]] = {}
    with ProcessPoolExecutor(2) as processes:
        for name, faults, explored in processes.map(count, range(len(cells()))):
            found[name] = faults, explored
            sys.stderr.write(f"{name}: {explored}\n")
    text = table(found)
    if "--write" not in arguments:
        sys.stdout.write(text + "\n")
        return
    head, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{head}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main(sys.argv[1:])
