"""Writes ``docs/licences.md``: what the image installs, and under which licence it may be.

``--check`` fails when the page is stale, or when a licence is none of those that are allowed.
"""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
PATH = ROOT / "docs" / "licences.md"
LOCK = ROOT / "requirements" / "runtime.txt"
HEAD = """\
# Licences

What the image installs (`requirements/runtime.txt`, on Python 3.11 and Linux), and the licence that
each package states of itself; made by `python -m docs.generate_licences`. The reconciler's own is
[Apache-2.0](../LICENSE).

| package | version | licence |
|---|---|---|
"""
ALLOWED = frozenset(
    {"Apache-2.0", "BSD", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT-0", "PSF-2.0"}
)
"""Licences that ask for no more than to be named."""

_SPDX = {
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd": "BSD",
    "bsd license": "BSD",
    "bsd 3-clause license": "BSD-3-Clause",
    "new bsd": "BSD-3-Clause",
    "isc license (iscl)": "ISC",
    "mit license": "MIT",
    "python software foundation license": "PSF-2.0",
}
"""What packages say that do not yet say it in SPDX."""

_NAME = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>\S+)", re.MULTILINE)


def installed() -> dict[str, tuple[str, str]]:
    """Return name → version and licence of each package of the lock that is for this machine."""
    found = {}
    for match in _NAME.finditer(LOCK.read_text(encoding="utf-8")):
        try:
            package = metadata.distribution(match["name"])
        except metadata.PackageNotFoundError:
            continue  # for another system, or another Python
        if package.version == match["version"]:
            found[match["name"]] = (package.version, licence_of(package))
    return found


def licence_of(package: metadata.Distribution) -> str:
    """Return a package's licence in SPDX, as far as it can be told."""
    said = package.metadata
    expression = said.get("License-Expression")
    if expression:
        return expression
    classifiers = [
        line.rpartition(" :: ")[2]
        for line in said.get_all("Classifier") or ()
        if line.startswith("License :: OSI Approved ::")
    ]
    stated = (said.get("License") or "").strip().splitlines()
    for name in [*stated[:1], *classifiers]:
        known = name if name in ALLOWED else _SPDX.get(name.lower())
        if known is not None:
            return known
    return " / ".join([*classifiers, *stated[:1]]) or "unknown"


def refused(packages: dict[str, tuple[str, str]]) -> dict[str, str]:
    """Return name → licence of what is not allowed; of several joined by OR, one is enough."""
    return {
        name: licence
        for name, (_, licence) in packages.items()
        if not any(
            set(re.split(r" AND ", part.strip("() "))) <= ALLOWED for part in licence.split(" OR ")
        )
    }


def render(packages: dict[str, tuple[str, str]]) -> str:
    """Return the page."""
    rows = (
        f"| {name} | {version} | {licence} |\n" for name, (version, licence) in packages.items()
    )
    return HEAD + "".join(rows)


if __name__ == "__main__":
    here = installed()
    wrong = refused(here)
    if wrong:
        sys.exit(f"not allowed: {wrong}")
    if "--check" in sys.argv:
        sys.exit(PATH.read_text(encoding="utf-8") != render(here) and "docs/licences.md is stale")
    PATH.write_text(render(here), encoding="utf-8")
