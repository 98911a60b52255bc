"""Writes ``docs/licences.md``: the packages in the image, and their licences.

``--check`` fails if the page is stale. The program always fails if a licence is not allowed.
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

These packages are in the image (`requirements/runtime.txt`, on Python 3.11 and Linux), with the
licence that each one states. The reconciler's own licence is [Apache-2.0](../LICENSE).
`python -m docs.generate_licences` makes this page.

| package | version | licence |
|---|---|---|
"""
ALLOWED = frozenset(
    {"Apache-2.0", "BSD", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT-0", "PSF-2.0"}
)
"""Licences that only require attribution."""

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
"""Names that packages use instead of SPDX."""

_NAME = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>\S+)", re.MULTILINE)


def installed() -> dict[str, tuple[str, str]]:
    """Return name → version and licence of each package in the lock that is installed here."""
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
    """Return the licence of a package, in SPDX if known."""
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
    """Return name → licence of packages that are not allowed; of several with OR, one is enough."""
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
