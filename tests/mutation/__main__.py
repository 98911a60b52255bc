"""Mutation testing: each decision and each condition changed in one respect; which tests notice?

    python -m tests.mutation [MODULE …] [--jobs N] [--quick] [--write]

A mutant lives in a process of its own, forked from one that has imported the project and its tests,
and gives the functions that it changes another code; one that changes what happens on import is
imported afresh. So hardly more is paid for than the tests themselves, and nothing on disk is
changed. A module's own tests come first; ``--quick`` asks those and the quickest of the others.
What is known of a mutant is kept (``.cache/mutation.json``): what was killed stays killed, and a
survivor is tried again. ``--write`` puts the result into ``docs/mutation.md``, which keeps what it
says of other modules; a survivor needs a reason in ``survivors.toml``, and the run fails without
one, or with one that fits no mutant any more.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import importlib.abc
import importlib.util
import inspect
import json
import math
import os
import resource
import signal
import sys
import time
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import NoReturn

import hypothesis
import pytest

from tests.mutation.operators import CodeMutant, mutants
from tests.mutation.page import QUICK, Judged, read_page, write_page

ROOT = Path(__file__).parents[2]
KNOWN = ROOT / ".cache" / "mutation.json"
PAGE = ROOT / "docs" / "mutation.md"
REASONS = Path(__file__).parent / "survivors.toml"

PACKAGES = ("domain", "stores", "services", "repair", "sweeping")
MODULES = tuple(
    f"reconciler.{package}.{path.stem}"
    for package in PACKAGES
    for path in sorted((ROOT / "reconciler" / package).glob("*.py"))
    if path.stem != "__init__"
)
"""Whatever decides, reads or writes."""

Stage = tuple[str, ...]
"""Arguments of pytest: a stage is passed or not."""

_TABLES: Stage = (
    *(f"tests/integration/test_{n}.py" for n in ("sweep_repairs", "release", "control", "audit")),
    *(f"tests/integration/test_{n}.py" for n in ("held_slots", "created_task", "hostile_rows")),
    *(f"tests/integration/test_{n}.py" for n in ("beside_others", "scan", "shapes", "index_scan")),
    "tests/integration/test_cron.py",
    "-k",
    "not processes and not thousand and not killed_process and not its_clients and not is_gone",
)
_TABLES_AT_LENGTH: Stage = (
    *(f"tests/integration/test_{n}.py" for n in ("guardrail_and_pipeline", "plan_and_deed")),
    "tests/integration/test_platform_cases.py",
)
_SCHEDULES: Stage = (
    "tests/simulation/test_field_failures.py",
    "tests/simulation/test_conditions.py",
)
STAGES: dict[str, tuple[Stage, ...]] = {
    "domain": (("tests/unit/domain",), ("tests/unit/cli",), _TABLES, _SCHEDULES),
    "services": (("tests/unit/services",), _TABLES, _TABLES_AT_LENGTH),
    "stores": (("tests/unit/stores",), _TABLES, _TABLES_AT_LENGTH, _SCHEDULES),
    "repair": (("tests/unit/repair",), _TABLES, _TABLES_AT_LENGTH, _SCHEDULES),
    "sweeping": (("tests/unit/sweeping",), _TABLES, _SCHEDULES),
}
"""Tests that a mutant has to get past after its module's own, by package, the quickest first.

Those on tables run on the in-memory DynamoDB.
"""

TIMEOUT_SECONDS = 900
TIMES_AS_LONG = 5
"""As long as the tests take without any mutant, in CPU time: more is an endless loop."""

KILLED, SURVIVED = "killed", "survived"
_PRELOADED = ("tests.conftest", "tests.simulation.conftest", "reconciler.composition")


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
        exec(_compiled(self._module, self._source), module.__dict__)  # noqa: S102


def _path(module: str) -> Path:
    return ROOT / (module.replace(".", "/") + ".py")


def _compiled(module: str, source: str) -> CodeType:
    code: CodeType = compile(source, str(_path(module)), "exec", dont_inherit=True)
    return code


def _become(module: str, source: str) -> None:
    """Be the mutant from now on, in this process."""
    changed = _changed_functions(
        _compiled(module, _path(module).read_text()), _compiled(module, source)
    )
    if changed is not None:
        for code, other in changed.items():
            for function in _functions[code]:
                function.__code__ = other
        return
    for name in [n for n in sys.modules if n.partition(".")[0] in {"reconciler", "tests"}]:
        if not name.startswith("tests.mutation"):
            del sys.modules[name]
    sys.meta_path.insert(0, _Mutated(module, source))


_functions: dict[CodeType, list[FunctionType]] = defaultdict(list)
"""The project's functions by their code, as it has been imported."""


def _changed_functions(old: CodeType, new: CodeType) -> dict[CodeType, CodeType] | None:
    """Return what code becomes what; None where more than the inside of functions is changed."""
    if _own_part(old) != _own_part(new):
        return None
    changed: dict[CodeType, CodeType] = {}
    for before, after in zip(_parts(old), _parts(new), strict=True):
        if before == after:
            continue
        if before.co_name.startswith("<") and before.co_name != "<lambda>":
            return None  # a comprehension: it has been run
        if before.co_flags & inspect.CO_NEWLOCALS:
            changed[before] = after
        else:
            within = _changed_functions(before, after)
            if within is None:
                return None
            changed |= within
    return changed


def _parts(code: CodeType) -> list[CodeType]:
    return [part for part in code.co_consts if isinstance(part, CodeType)]


def _own_part(code: CodeType) -> tuple[object, ...]:
    constants = [repr(part) for part in code.co_consts if not isinstance(part, CodeType)]
    return (code.co_code, constants, code.co_names, code.co_freevars, len(_parts(code)))


def _in_child(module: str, source: str, stage: Stage) -> NoReturn:
    # The children of a process do not share its terminal, nor its examples.
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    signal.alarm(TIMEOUT_SECONDS)
    resource.setrlimit(resource.RLIMIT_CPU, (_allowed_seconds.get(stage, TIMEOUT_SECONDS),) * 2)
    code = 1
    try:
        _become(module, source)
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
            "--hypothesis-profile=mutation",
        ]
        code = int(pytest.main([*flags, *stage]))
    finally:
        os._exit(code)


def _stages(module: str, *, quick: bool) -> list[Stage]:
    """Return what a mutant of a module has to get past: first the module's own tests."""
    _, package, name = module.split(".")
    paths = sorted((ROOT / "tests" / "unit" / package).glob(f"test_{name}*.py"))
    own = [(str(path.relative_to(ROOT)),) for path in paths]
    if quick:
        # Not all have tests of their own: those of the whole package are quick for pure functions.
        return [*own, *STAGES[package][: 1 if package == "domain" else 2]]
    return [*own, *STAGES[package]]


_allowed_seconds: dict[Stage, int] = {}


def _run(module: str, source: str, stage: Stage) -> tuple[bool, float]:
    """Return whether a stage is passed, and the CPU time that it took."""
    child = os.fork()
    if child == 0:
        _in_child(module, source, stage)
    _, status, used = os.wait4(child, 0)
    return status == 0, used.ru_utime + used.ru_stime


def passes(module: str, source: str, *, quick: bool) -> bool:
    """Whether all tests pass with this source of a module; a time-out is a failure."""
    return all(_run(module, source, stage)[0] for stage in _stages(module, quick=quick))


def _prepare(modules: Sequence[str], *, quick: bool) -> None:
    """Import what all mutants need, and see that nothing fails without any."""
    os.environ["IN_MEMORY"] = "1"
    hypothesis.settings.register_profile(
        "mutation", derandomize=True, max_examples=20, database=None, deadline=None
    )
    stages = dict.fromkeys(s for module in modules for s in _stages(module, quick=quick))
    named = (path for stage in stages for path in stage if path.startswith("tests/"))
    files = [f for name in named for f in ([name] if name.endswith(".py") else _tests_of(name))]
    for name in (*_PRELOADED, *(f.removesuffix(".py").replace("/", ".") for f in files)):
        importlib.import_module(name)
    for function in gc.get_objects():
        if isinstance(function, FunctionType) and str(function.__module__).startswith("reconciler"):
            _functions[function.__code__].append(function)
    gc.freeze()
    for stage in stages:
        passed, seconds = _run(modules[0], _path(modules[0]).read_text(), stage)
        if not passed:
            raise SystemExit(f"without any mutant, these fail: {' '.join(stage)}")
        _say(f"{seconds:.1f} s for {' '.join(stage)}")
        _allowed_seconds[stage] = 2 + math.ceil(TIMES_AS_LONG * seconds)


def _tests_of(directory: str) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in sorted((ROOT / directory).rglob("test_*.py"))]


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


def judged(modules: Sequence[str], verdicts: Sequence[Verdict]) -> dict[str, Judged]:
    """Return what came of each module, as the page has it."""
    explained = reasons()
    found: dict[str, Judged] = {}
    for module in modules:
        own = [v for v in verdicts if v.module == module]
        left = sorted((v.mutant for v in own if v.outcome == SURVIVED), key=str)
        why = explained.get(module, {})
        survivors = (
            f"`{m.before}` → `{m.after}`: {why.get(str(m), 'no reason is known yet')}" for m in left
        )
        found[module] = Judged(len(own), tuple(survivors))
    return found


def write(modules: Sequence[str], verdicts: Sequence[Verdict], *, quick: bool) -> None:
    """Put a run into the page of the docs; what that says of other modules stays."""
    before = PAGE.read_text()
    kept = {m: found for m, found in read_page(before).items() if m not in modules}
    text = write_page(
        {**kept, **judged(modules, verdicts)},
        MODULES,
        quick=quick or (bool(kept) and QUICK in before),
    )
    PAGE.write_text(text)


def main(arguments: Sequence[str]) -> int:
    """Run; returns the number of survivors without a reason, and of reasons without a mutant."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation")
    parser.add_argument("modules", nargs="*", metavar="MODULE")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--quick", action="store_true", help="only the quickest tests")
    parser.add_argument("--write", action="store_true", help="put the result into docs/mutation.md")
    given = parser.parse_args(arguments)
    os.chdir(ROOT)
    modules = [m for m in MODULES if not given.modules or any(_means(g, m) for g in given.modules)]
    _prepare(modules, quick=given.quick)
    verdicts: list[Verdict] = []
    before = time.monotonic()
    explained = reasons()
    unexplained = 0
    unfit = {module: set(explained.get(module, ())) for module in modules}
    for verdict in judge(modules, given.jobs, quick=given.quick):
        verdicts.append(verdict)
        unfit[verdict.module].discard(str(verdict.mutant))
        if verdict.outcome == SURVIVED:
            reason = explained.get(verdict.module, {}).get(str(verdict.mutant))
            unexplained += reason is None
            mutant = verdict.mutant
            _say(f"SURVIVED {verdict.module}:{mutant.line} {mutant} ({reason or 'no reason yet'})")
    killed = sum(v.outcome == KILLED for v in verdicts)
    for module, mutants_gone in unfit.items():
        for gone in sorted(mutants_gone):
            _say(f"NO LONGER A MUTANT of {module}: {gone} (take it out of {REASONS.name})")
    seconds = time.monotonic() - before
    _say(f"{len(verdicts)} mutants, {killed} killed, {unexplained} unexplained, {seconds:.0f} s")
    if given.write:
        write(modules, verdicts, quick=given.quick)
    return unexplained + sum(map(len, unfit.values()))


def _means(given: str, module: str) -> bool:
    """Whether a name is a module's own, to its end, or, of no module's, a part of it."""
    whole = any(known.endswith(given) for known in MODULES)
    return module.endswith(given) if whole else given in module


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1:]) else 0)
