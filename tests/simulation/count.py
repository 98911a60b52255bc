"""Explore the matrix and count its schedules.

    python -m tests.simulation.count [--write]

``--write`` puts the table into ``docs/testing.md``. Counts are exact and the same every time.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import structlog

from tests.simulation import reopened
from tests.simulation.explorer import Explored, explore
from tests.simulation.matrix import GRAPHS, cell, cells, large_cells, sets
from tests.simulation.recovery import Convergence, watched
from tests.simulation.world import Scenario

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"
BEGIN = "<!-- schedules: made by `make simulation-counts` -->"
END = "<!-- end of schedules -->"


def count(index: int) -> tuple[str, Explored]:
    """Explore one cell; returns its name and what was explored."""
    scenario = _all_cells()[index]
    found = explore(watched(scenario), Convergence(scenario), most_states=200_000_000)
    return scenario.name, found


def _all_cells() -> list[Scenario]:
    """Return all cells, the largest first, since they take the longest."""
    return [*large_cells(), *reopened.large_cells(), *cells(), *reopened.cells()]


def table(found: Mapping[str, Explored]) -> str:
    """Return the table: a row for each set of actors, a column for each graph."""
    lines = [
        f"| beside a sweep | {' | '.join(GRAPHS)} |",
        f"|---|{'--:|' * len(GRAPHS)}",
    ]
    large = {scenario.name for scenario in large_cells()}
    for beside in sets():
        shown = []
        for graph in GRAPHS:
            scenario = cell(graph, *beside)
            marks = " †" if scenario.faults == 1 else ""
            marks += " ‡" if scenario.name in large else ""
            shown.append(_figure(found[scenario.name].schedules) + marks)
        lines.append(f"| {', '.join(beside)} | {' | '.join(shown)} |")
    matrix = {scenario.name for scenario in (*large_cells(), *cells())}
    of_matrix = _total(explored for name, explored in found.items() if name in matrix)
    of_others = _total(explored for name, explored in found.items() if name not in matrix)
    said = (
        f"{of_matrix}. † with one fault, all others with two. ‡ not in every build: "
        "`make simulation-long`.\n\n"
        f"Where orchestrations are reopened (`tests/simulation/reopened.py`): {of_others}."
    )
    return "\n".join([*lines, "", said])


def _total(explored: Iterable[Explored]) -> str:
    cells_ = list(explored)
    schedules = sum(cell_.schedules for cell_ in cells_)
    states = sum(cell_.states for cell_ in cells_)
    steps = sum(cell_.steps for cell_ in cells_)
    return (
        f"{_figure(schedules)} schedules over {states:,} states, from {steps:,} different calls of "
        f"real code, in {len(cells_)} cells"
    )


_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def _figure(number: int) -> str:
    """Return a readable count, rounded if it has more than twelve digits."""
    if number < 10**12:
        return f"{number:,}"
    power = str(len(str(number)) - 1)
    return f"{number / 10 ** int(power):.2f} · 10{power.translate(_RAISED)}"


def main(arguments: list[str]) -> None:
    """Count, and print or write the table."""
    # Nobody reads the logs of the calls, and formatting them takes longer than the exploration.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    found: dict[str, Explored] = {}
    with ProcessPoolExecutor(2) as processes:
        for name, explored in processes.map(count, range(len(_all_cells()))):
            found[name] = explored
            sys.stderr.write(f"{name}: {explored}\n")
    text = table(found)
    if "--write" not in arguments:
        sys.stdout.write(text + "\n")
        return
    head, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{head}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main(sys.argv[1:])
