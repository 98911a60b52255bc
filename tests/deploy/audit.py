"""Audit the packages of the image for known vulnerabilities.

A service that knows nothing answers like one that finds nothing. So the audit first asks about an
old release with well-known vulnerabilities, the canary. Only a service that reports those can vouch
for the image. Otherwise the result is "not audited".
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

LOCK = Path(__file__).parents[2] / "requirements" / "runtime.txt"
CANARY = "jinja2==2.10"
_SECONDS = 120

Answer = dict[str, Any] | None
"""What pip-audit printed; None if its output could not be parsed."""


def verdict(canary: Answer, ours: Answer) -> tuple[int, str]:
    """Return the exit code and a verdict of one line."""
    if not _holes(canary):
        return 0, "NOT AUDITED: no vulnerability service can be reached from here"
    if ours is None:
        return 1, "the audit itself failed, although the service answers"
    skipped = [found["name"] for found in ours["dependencies"] if "skip_reason" in found]
    if skipped:
        return 1, f"not audited: {', '.join(skipped)}"
    holes = _holes(ours)
    if holes:
        return 1, f"vulnerable: {', '.join(holes)}"
    return 0, f"audited: {len(ours['dependencies'])} packages, no known vulnerability"


def _holes(answer: Answer) -> list[str]:
    dependencies = answer["dependencies"] if answer is not None else []
    return [
        f"{found['name']} {found['version']} ({hole['id']})"
        for found in dependencies
        for hole in found.get("vulns", ())
    ]


def _ask(requirements: Path, *arguments: str) -> Answer:
    command = [
        str(Path(sys.executable).parent / "pip-audit"),
        *("--format", "json", "--progress-spinner", "off", "--disable-pip", *arguments),
        *("-r", str(requirements)),
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_SECONDS
        )
        found = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired, json.JSONDecodeError):
        return None
    return found if isinstance(found, dict) and "dependencies" in found else None


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        canary = Path(directory) / "canary.txt"
        canary.write_text(f"{CANARY}\n", encoding="utf-8")
        code, said = verdict(_ask(canary, "--no-deps"), _ask(LOCK, "--require-hashes"))
    sys.stderr.write(f"audit: {said}\n")
    if "--strict" in sys.argv and said.startswith("NOT AUDITED"):
        code = 2
    sys.exit(code)
