"""What ``reconciler --version`` says: version, commit and build date."""

from __future__ import annotations

import os
import subprocess
from importlib import metadata
from pathlib import Path

_GIT_SECONDS = 2
_ROOT = Path(__file__).resolve().parents[1]


def describe() -> str:
    """Return one line; an image carries commit and date in ``RECONCILER_COMMIT``/``…_BUILT``.

    A checkout is asked itself; what is not known is left out.
    """
    try:
        version = metadata.version("orchestration-reconciler")
    except metadata.PackageNotFoundError:
        version = "0 (not installed)"
    commit = os.environ.get("RECONCILER_COMMIT") or _git("rev-parse", "--short=12", "HEAD")
    built = os.environ.get("RECONCILER_BUILT") or _git("show", "-s", "--format=%cI", "HEAD")
    parts = [f"reconciler {version}"]
    if commit:
        parts.append(f"commit {commit}")
    if built:
        parts.append(f"built {built}")
    return ", ".join(parts)


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
