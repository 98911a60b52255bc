"""Mutation testing: each decision and each condition changed in one respect; which tests notice?

    python -m tests.mutation [MODULE …] [--jobs N] [--quick] [--write]

A mutant lives in a process of its own, forked from one that has imported everything but the
project, so that hardly more is paid for than the tests themselves; nothing on disk is changed. The
quick tests come first; ``--quick`` asks a module's own unit tests alone. What is known of a mutant
is kept (``.cache/mutation.json``): what was killed stays killed, and a survivor is tried again.
``--write`` puts the result into ``docs/mutation.md``; a survivor needs a reason in
``survivors.toml``, and the run fails without one.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.abc
import importlib.util
import json
import os
import signal
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from tests.mutation.operators import CodeMutant, mutants

ROOT = Path(__file__).parents[2]
KNOWN = ROOT / ".cache" / "mutation.json"
PAGE = ROOT / "docs" / "mutation.md"
REASONS = Path(__file__).parent / "survivors.toml"

MODULES = (
    *(f"reconciler.domain.{n}" for n in ("budget", "codes", "diagnosis", "graph", "identity")),
    *(f"reconciler.domain.{n}" for n in ("model", "nomination", "planning", "rows", "task")),
    *(f"reconciler.stores.{n}" for n in ("conditions", "orchestrations", "tasks", "budget")),
    *(f"reconciler.stores.{n}" for n in ("control", "dynamodb", "guardrail", "pipeline", "repos")),
    *(f"reconciler.operations.{n}" for n in ("release", "repair", "repair_pass", "evaluate")),
    *(f"reconciler.operations.{n}" for n in ("reconciler", "scan", "sweep", "summary", "counts")),
)

STAGES: tuple[tuple[str, ...], ...] = (
    ("tests/unit/domain", "tests/unit/stores"),
    ("tests/simulation/test_field_failures.py", "tests/simulation/test_conditions.py"),
    (
        "tests/simulation/test_interleavings.py",
        "-k",
        "adversarial or keeps_the_invariants",
    ),
)
"""Tests that a mutant has to get past, the quickest first."""

TIMEOUTS_SECONDS = (120, 300, 600)
KILLED, SURVIVED = "killed", "survived"
_PRELOADED = (
    "pytest", "hypothesis", "boto3", "botocore.session", "pydantic", "structlog", "tenacity",
    "ulid", "greenlet", "redis", "limits", "xdist", "pytest_timeout",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verdict:
    """A mutant, and whether the tests noticed it."""

    module: str
    mutant: CodeMutant
    outcome: str


# -- one mutant


class _Mutated(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives one module another source."""

    def __init__(self, module: str, source: str) -> None:
        self._module = module
        self._source = source

    def find_spec(self, fullname: str, *_: object) -> ModuleSpec | None:
        """Claim the module."""
        if fullname != self._module:
            return None
        return importlib.util.spec_from_loader(fullname, self, origin=str(_path(fullname)))

    def exec_module(self, module: ModuleType) -> None:
        """Run the other source in its place."""
        exec(compile(self._source, str(_path(self._module)), "exec"), module.__dict__)  # noqa: S102


def _path(module: str) -> Path:
    return ROOT / (module.replace(".", "/") + ".py")


def _in_child(module: str, source: str, stage: Sequence[str], timeout: int) -> NoReturn:
    # The children of a process do not share its terminal, nor its examples.
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    signal.alarm(timeout)
    code = 1
    try:
        import hypothesis  # noqa: PLC0415 - imported by the parent already
        import pytest  # noqa: PLC0415

        hypothesis.settings.register_profile(
            "mutation", derandomize=True, max_examples=40, database=None, deadline=None
        )
        hypothesis.settings.load_profile("mutation")
        sys.meta_path.insert(0, _Mutated(module, source))
        flags = [
            "-x",
            "-q",
            "--assert=plain",
            "--no-header",
            "-p",
            "no:cacheprovider",
            "--tb=no",
            "-m",
            "not long",
        ]
        code = int(pytest.main([*flags, *stage]))
    finally:
        os._exit(code)


def _own_tests(module: str) -> tuple[str, ...]:
    """Return the module's own tests, which know it best."""
    _, package, name = module.split(".")
    return tuple(
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests" / "unit" / package).glob(f"test_{name}*.py")
    )


def passes(module: str, source: str, *, quick: bool) -> bool:
    """Whether all tests pass with this source of a module; a time-out is a failure."""
    own = _own_tests(module)
    stages = [(own, TIMEOUTS_SECONDS[0])] if own else []
    if not quick:
        stages.extend(zip(STAGES, TIMEOUTS_SECONDS, strict=True))
    for stage, timeout in stages:
        child = os.fork()
        if child == 0:
            _in_child(module, source, stage, timeout)
        _, status = os.waitpid(child, 0)
        if status != 0:
            return False
    return True


# -- all of them


def judge(modules: Sequence[str], jobs: int, *, quick: bool) -> Iterator[Verdict]:
    """Judge the mutants of modules, ``jobs`` at a time; what is known already is not run again."""
    known: dict[str, str] = json.loads(KNOWN.read_text()) if KNOWN.exists() else {}
    running: dict[int, tuple[str, str, CodeMutant]] = {}

    def wait() -> Verdict:
        child, status = os.wait()
        key, module, mutant = running.pop(child)
        known[key] = KILLED if status else SURVIVED
        KNOWN.parent.mkdir(exist_ok=True)
        KNOWN.write_text(json.dumps(known))
        return Verdict(module, mutant, known[key])

    for module in modules:
        for mutant in mutants(_path(module).read_text()):
            key = hashlib.blake2b((module + mutant.source).encode(), digest_size=12).hexdigest()
            # What was killed stays killed, unless tests are taken away; a survivor is tried again.
            if known.get(key) == KILLED:
                yield Verdict(module, mutant, KILLED)
                continue
            child = os.fork()
            if child == 0:
                os._exit(0 if passes(module, mutant.source, quick=quick) else 1)
            running[child] = key, module, mutant
            if len(running) >= jobs:
                yield wait()
    while running:
        yield wait()


def reasons() -> dict[str, dict[str, str]]:
    """Return, by module, the reason for each survivor that has one."""
    return tomllib.loads(REASONS.read_text()) if REASONS.exists() else {}


def page(verdicts: Sequence[Verdict]) -> str:
    """Return the page of the docs."""
    explained = reasons()
    lines = [
        "# Mutation testing",
        "",
        "Made by `make mutation ARGS=--write`. Each module that decides, reads or writes is",
        "changed in one respect at a time; a mutant is killed when a test fails. Conditions of",
        "writes have a test of their own: `tests/simulation/test_conditions.py`, in every build.",
        "A module that is not listed has not been judged yet.",
        "",
        "| module | mutants | killed | survived |",
        "|---|--:|--:|--:|",
    ]
    counts = Counter((v.module, v.outcome) for v in verdicts)
    modules = list(dict.fromkeys(v.module for v in verdicts))
    for module in modules:
        killed, survived = counts[module, KILLED], counts[module, SURVIVED]
        lines.append(f"| `{module}` | {killed + survived} | {killed} | {survived} |")
    killed = sum(v.outcome == KILLED for v in verdicts)
    share = killed / len(verdicts) if verdicts else 1.0
    lines.append(f"| all | {len(verdicts)} | {killed} ({share:.1%}) | {len(verdicts) - killed} |")
    for module in modules:
        left = [v.mutant for v in verdicts if v.module == module and v.outcome == SURVIVED]
        if left:
            lines += ["", f"## Survivors in `{module}`", ""]
            for mutant in sorted(left, key=str):
                reason = explained.get(module, {}).get(str(mutant), "no reason is known yet")
                lines.append(f"- `{mutant.before}` → `{mutant.after}`: {reason}")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Run; returns the number of survivors without a reason."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation")
    parser.add_argument("modules", nargs="*", metavar="MODULE")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--quick", action="store_true", help="a module's own unit tests alone")
    parser.add_argument("--write", action="store_true", help="put the result into docs/mutation.md")
    given = parser.parse_args(arguments)
    for name in _PRELOADED:
        importlib.import_module(name)
    if any(name.split(".")[0] == "reconciler" for name in sys.modules):
        raise SystemExit("the project is imported already: its mutants would not be")
    os.chdir(ROOT)
    modules = [m for m in MODULES if not given.modules or any(g in m for g in given.modules)]
    unmutated = modules[0]
    if not passes(unmutated, _path(unmutated).read_text(), quick=given.quick):
        raise SystemExit("the tests fail without any mutant")
    verdicts: list[Verdict] = []
    before = time.monotonic()
    explained = reasons()
    unexplained = 0
    for verdict in judge(modules, given.jobs, quick=given.quick):
        verdicts.append(verdict)
        if verdict.outcome == SURVIVED:
            reason = explained.get(verdict.module, {}).get(str(verdict.mutant))
            unexplained += reason is None
            mutant = verdict.mutant
            _say(f"SURVIVED {verdict.module}:{mutant.line} {mutant} ({reason or 'no reason yet'})")
    killed = sum(v.outcome == KILLED for v in verdicts)
    seconds = time.monotonic() - before
    _say(f"{len(verdicts)} mutants, {killed} killed, {unexplained} unexplained, {seconds:.0f} s")
    if given.write:
        order = {module: i for i, module in enumerate(modules)}
        PAGE.write_text(page(sorted(verdicts, key=lambda v: (order[v.module], v.mutant.line))))
    return unexplained


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1:]) else 0)
