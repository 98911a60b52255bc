"""The page of the docs: what came of the mutants of each module.

A run of some modules leaves what it says of the others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

HEAD = """\
# Mutation testing

Made by `make mutation ARGS=--write`. Each module that decides, reads or writes is
changed in one respect at a time; a mutant is killed when a test fails. Conditions of
writes have a test of their own: `tests/simulation/test_conditions.py`, in every build.
"""
QUICK = "Only the quickest tests were asked (`--quick`): what they kill is killed.\n"
_COLUMNS = """
| module | mutants | killed | survived |
|---|--:|--:|--:|
"""
_ROW = re.compile(r"^\| `(?P<module>[\w.]+)` \| (?P<mutants>\d+) \|", re.MULTILINE)
_SECTION = re.compile(
    r"^## Survivors in `(?P<module>[\w.]+)`\n\n(?P<lines>(?:- .*\n)+)", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Judged:
    """What came of a module's mutants; ``survivors``: of each, how it is listed, and why."""

    mutants: int
    survivors: tuple[str, ...] = ()

    @property
    def killed(self) -> int:
        """How many were noticed by a test."""
        return self.mutants - len(self.survivors)


def read_page(text: str) -> dict[str, Judged]:
    """Return what a page says, by module."""
    survivors = {
        found["module"]: tuple(line.removeprefix("- ") for line in found["lines"].splitlines())
        for found in _SECTION.finditer(text)
    }
    return {
        found["module"]: Judged(int(found["mutants"]), survivors.get(found["module"], ()))
        for found in _ROW.finditer(text)
    }


def write_page(judged: Mapping[str, Judged], modules: Sequence[str], *, quick: bool) -> str:
    """Return the page; ``modules`` are all that there are, in their order."""
    shown = {module: judged[module] for module in modules if module in judged}
    rows = [
        f"| `{module}` | {found.mutants} | {found.killed} | {len(found.survivors)} |\n"
        for module, found in shown.items()
    ]
    mutants = sum(found.mutants for found in shown.values())
    killed = sum(found.killed for found in shown.values())
    share = killed / mutants if mutants else 1.0
    rows.append(f"| all | {mutants} | {killed} ({share:.1%}) | {mutants - killed} |\n")
    unjudged = [f"`{module}`" for module in modules if module not in judged]
    rest = [f"\nNot judged yet: {', '.join(unjudged)}.\n"] if unjudged else []
    for module, found in shown.items():
        if found.survivors:
            lines = "".join(f"- {line}\n" for line in found.survivors)
            rest.append(f"\n## Survivors in `{module}`\n\n{lines}")
    return "".join([HEAD, QUICK if quick else "", _COLUMNS, *rows, *rest])
