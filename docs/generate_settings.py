"""Writes ``docs/settings.md`` from the settings themselves; ``--check`` fails when it is stale."""

from __future__ import annotations

import sys
from pathlib import Path

from reconciler.settings import Settings

PATH = Path(__file__).parent / "settings.md"
HEAD = """\
# Settings

Environment variables; made from `reconciler/settings.py` by `python -m docs.generate_settings`.
AWS credentials, region and endpoint come the standard way (`AWS_REGION`, `AWS_ENDPOINT_URL`, a
profile, a role). A setting that makes no sense stops the program at start-up with one line naming
it.

| name | default | meaning |
|---|---|---|
"""


def render() -> str:
    """Return the page."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = "required" if field.is_required() else _default(field.get_default())
        rows.append(f"| `{name.upper()}` | {default} | {field.description} |\n")
    return HEAD + "".join(rows)


def _default(value: object) -> str:
    if value is None or value == frozenset():
        return "unset"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(PATH.read_text(encoding="utf-8") != render() and "docs/settings.md is stale")
    PATH.write_text(render(), encoding="utf-8")
