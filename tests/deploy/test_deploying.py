"""Everything that docs/deploying.md names exists."""

from __future__ import annotations

import re

import pytest

from tests.deploy.stack import PATH, everything
from tests.support.containers import ROOT, check_command

PAGE = ROOT / "docs" / "deploying.md"
TEXT = PAGE.read_text()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", TEXT))))
def test_link_targets_exist(target: str) -> None:
    assert (PAGE.parent / target).resolve().exists()


def test_linked_headings_exist() -> None:
    headings = {
        re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in TEXT.splitlines()
        if line.startswith("#")
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= headings


def test_the_page_passes_every_required_parameter() -> None:
    """It names no parameter that the template does not have."""
    given = set(re.findall(r"\b([A-Z][A-Za-z]+)=", TEXT[TEXT.index("--parameter-overrides") :]))
    parameters = everything().raw["Parameters"]
    required = {name for name, found in parameters.items() if "Default" not in found}
    assert required <= given
    named = {name for name in given if not name.isupper()} - {"KillSignal", "TimeoutStopSec"}
    assert named - {"Restart", "EnvironmentFile"} <= set(parameters)
    assert PATH.relative_to(ROOT).as_posix() in TEXT


@pytest.mark.parametrize(
    "command", sorted(set(re.findall(r"`((?:celery -A workers|reconciler) [a-z][^`]*)`", TEXT)))
)
def test_commands_exist(command: str) -> None:
    check_command(command.split())


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([a-z-]+)", TEXT, re.MULTILINE)) <= targets
