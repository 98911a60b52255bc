"""The output of ``reconciler --version``: version, commit and build date."""

from __future__ import annotations

import os
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path

_GIT_SECONDS = 2
_ROOT = Path(__file__).resolve().parents[1]


def describe() -> str:
    """Return one line, without what is unknown.

    Commit and date come from ``RECONCILER_COMMIT`` and ``…_BUILT`` in an image, or from git.
    """
    commit = os.environ.get("RECONCILER_COMMIT") or _git("rev-parse", "--short=12", "HEAD")
    built = os.environ.get("RECONCILER_BUILT") or _git("show", "-s", "--format=%cI", "HEAD")
    known = (f"reconciler {_version()}", commit and f"commit {commit}", built and f"built {built}")
    return ", ".join(filter(None, known))


def _version() -> str:
    """Return the version in pyproject.toml, in a checkout or an image, or the package's."""
    project = _ROOT / "pyproject.toml"
    if project.exists():
        return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])
    return metadata.version("orchestration-reconciler")


def _git(*arguments: str) -> str | None:
    if not (_ROOT / ".git").exists():
        return None
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments
            ["git", "-C", str(_ROOT), *arguments],  # noqa: S607 - the git of the checkout's owner
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
