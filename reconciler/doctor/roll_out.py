"""Checks of the settings: what is set, likely typos, and what repairs are allowed to do."""

from __future__ import annotations

import difflib
import re
import time
from collections.abc import Iterable, Iterator

from reconciler.doctor.findings import Finding, ok, warning
from reconciler.doctor.workers import judge_coverage
from reconciler.errors import ReconcilerError, RepoUnusableError
from reconciler.settings import Settings
from reconciler.stores.control import ControlStore
from reconciler.stores.repos import RepoStore
from reconciler.stores.sweeps import SweepStore
from reconciler.sweeping.cron import recorded_state

_ALIKE = 0.88
_FUNCTION_ARN = re.compile("[^:]*:[^:]*:lambda:[^:]*:[^:]*:[^:]*:")
_REPO = re.compile(r"[^/\s]+/[^/\s]+")


def examine_settings(settings: Settings, names: Iterable[str]) -> Iterator[Finding]:
    """Check the settings; ``names``: of environment variables, some of which may be misspelt."""
    known = {field.upper() for field in Settings.model_fields}
    given = len(settings.model_fields_set)
    yield ok("settings", "environment", f"{given} set, {len(known) - given} by default; all sound")
    yield from _slips(set(names) - known, known)
    arn = settings.orchestrator_function_arn
    if arn and not _FUNCTION_ARN.match(arn):
        said = f"ORCHESTRATOR_FUNCTION_ARN={arn} is not an ARN"
        advice = "a bare name is looked for in this account and region: give the whole ARN"
        yield warning("settings", "ORCHESTRATOR_FUNCTION_ARN", said, advice)
    for repo in sorted(settings.repair_only_repos):
        if not _REPO.fullmatch(repo):
            said = f"REPAIR_ONLY_REPOS names {repo!r}, which cannot be a repo"
            yield warning("settings", "REPAIR_ONLY_REPOS", said, "write it as owner/name")


def _slips(others: set[str], known: set[str]) -> Iterator[Finding]:
    for name in sorted(others):
        meant = difflib.get_close_matches(name, known, n=1, cutoff=_ALIKE)
        if meant:
            said = f"{name} is set, and no setting has that name"
            yield warning("settings", name, said, f"did you mean {meant[0]}?")


def examine_roll_out(
    settings: Settings, control: ControlStore, repos: RepoStore
) -> Iterator[Finding]:
    """Report what repairs are allowed to do; reads only the pause and the named repos."""
    yield ok("roll-out", "repairs", _extent(settings))
    try:
        pause = control.paused()
        problems = {repo: _problem(repos, repo) for repo in sorted(settings.repair_only_repos)}
    except ReconcilerError:
        return  # the findings about the tables report it
    for repo, problem in problems.items():
        if problem is not None:
            yield warning("roll-out", repo, problem, "see its row in the RepoTable")
    if pause is None:
        yield ok("roll-out", "pause", "not paused")
    else:
        said = f"paused since {pause.since} by {pause.by}: {pause.reason}"
        yield warning("roll-out", "pause", said, "reconciler resume")


def _problem(repos: RepoStore, repo: str) -> str | None:
    try:
        if repos.read(repo).onboarded:
            return None
    except RepoUnusableError as error:
        return f"{error} Until then its children wait."
    return f"{repo} of REPAIR_ONLY_REPOS is not onboarded: its children would be refused"


def _extent(settings: Settings) -> str:
    if settings.repair_mode == "report":
        return "REPAIR_MODE=report: finds and reports, changes nothing"
    only = {"repos": settings.repair_only_repos, "users": settings.repair_only_users}
    limits = [f"{what} {', '.join(sorted(names))}" for what, names in only.items() if names]
    if not limits:
        return "everything that is due is repaired"
    return f"repairs only {' of '.join(limits)}; the rest is reported"


def examine_cron(settings: Settings, sweeps: SweepStore) -> Iterator[Finding]:
    """Report when a sweep without a broker last completed; reads one row."""
    try:
        records = recorded_state(sweeps, time.time)
    except ReconcilerError:
        return
    advice = "have cron run `reconciler sweep --inline`"
    yield judge_coverage(settings, records, advice)
