"""docs/deploying.md: what it names exists."""

from __future__ import annotations

import re

import pytest

from tests.deploy.stack import PATH, everything
from tests.support.containers import ROOT, check_command

PAGE = ROOT / "docs" / "deploying.md"
TEXT = PAGE.read_text()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", TEXT))))
def test_links_lead_somewhere(target: str) -> None:
    assert (PAGE.parent / target).resolve().exists()


def test_headings_that_are_linked_to_exist() -> None:
    headings = {
        re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in TEXT.splitlines()
        if line.startswith("#")
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= headings


def test_the_stack_is_given_what_it_must_be_given() -> None:
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


def test_make_has_the_targets() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([a-z-]+)", TEXT, re.MULTILINE)) <= targets
