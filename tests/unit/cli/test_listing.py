"""What ``list`` prints: for a terminal of 80 columns, and for programs."""

from __future__ import annotations

import io
import shlex
from dataclasses import replace
from typing import Any

import click
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from reconciler.cli.console import show
from reconciler.cli.options import Duration
from reconciler.cli.screens import listing
from reconciler.domain.codes import STUCK_CODES
from reconciler.observability.printable import printable
from reconciler.sweeping.listing import Entry, Page

NOW = 1_780_000_000.0
ENTRY = Entry(
    orchestration_id="orch_" + "0" * 32,
    sub_issue_id="3f0c2b8e-1111-4222-8333-444455556666",
    display_id="ENG-42",
    repo="acme/shop",
    user_id="ada",
    code="missing_task",
    reason="its task does not exist",
    age_seconds=7200.0,
    task_id="01ARZ3NDEKTSV4RRFFQ69G5FAV",
    needs_action=True,
)


def text_of(part: RenderableType, width: int = 80) -> str:
    out = Console(file=io.StringIO(), width=width, highlight=False, markup=False, emoji=False)
    with out.capture() as captured:
        out.print(part)
    return captured.get()


def page(*entries: Entry) -> Page:
    return Page(entries, 0, len(entries), len(entries))


def test_the_table_fits_a_terminal_for_every_code() -> None:
    entries = [replace(ENTRY, code=code, display_id=None) for code in STUCK_CODES]
    lines = text_of(listing.table(page(*entries), wide=False)).splitlines()
    assert len(lines) == len(STUCK_CODES) + 1
    assert all(ENTRY.orchestration_id in line for line in lines[1:])


def test_the_wide_table_shows_every_field() -> None:
    (line,) = text_of(listing.table(page(ENTRY), wide=True), 300).splitlines()[1:]
    shown = (ENTRY.repo, ENTRY.user_id, ENTRY.sub_issue_id, ENTRY.task_id, ENTRY.reason)
    assert all(value in line for value in shown if value)
    assert line.startswith(" 2h  ■ missing_task")


@pytest.mark.parametrize("width", [40, 80])
def test_long_names_and_narrow_terminals_lose_no_column(width: int) -> None:
    """Rich by itself would take as much from each column, and so all of the age."""
    long = replace(ENTRY, display_id="ENG-" + "4" * 70)
    for part in listing.table(page(long), wide=False), listing.table(page(long), wide=True):
        out = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
        with out.capture() as captured:
            show(out, part)
        first, *rest = captured.get().splitlines()[1:]
        assert first.split()[:3] == ["2h", "■", "missing_task"]
        assert ENTRY.orchestration_id in first
        assert "".join([first, *rest]).count("4") >= 70
    assert ENTRY.reason in captured.get()


@given(st.text(max_size=20))
def test_untrusted_text_survives_yaml_and_the_shell(text: str) -> None:
    """YAML keeps the value, and an id is one word in a shell."""
    entry = replace(ENTRY, sub_issue_id=text or "x", reason=text, display_id=text)
    document = listing.yaml([listing.to_json(entry, NOW)])
    (said,) = yaml.safe_load(document)
    assert said["reason"] == text
    assert all(sign.isprintable() or sign == "\n" for sign in document)
    (name,) = listing.names([entry])
    assert shlex.split(name) == [printable(f"{entry.orchestration_id}/{entry.sub_issue_id}")]


def test_an_empty_list_is_valid_yaml() -> None:
    assert yaml.safe_load(listing.yaml([])) == []


def test_the_first_step_names_fix_and_runbook() -> None:
    unskip = replace(ENTRY, code="lost_unskip")
    first, second = (line.plain for line in listing.first_step(unskip))
    assert first == f"begin: reconciler unskip {ENTRY.orchestration_id} {ENTRY.sub_issue_id}"
    assert second == "read:  docs/operating.md#lost_unskip"


@pytest.mark.parametrize("display_id", ["ENG-42", None])
def test_recoveries_fit_a_terminal(display_id: str | None) -> None:
    """They are named by display id; recoveries of an older version have none."""
    repaired: dict[str, Any] = {
        "orchestration_id": ENTRY.orchestration_id,
        "sub_issue_id": ENTRY.sub_issue_id,
        "code": "unsettled_parent",
        "latency": 130.0,
        "at": NOW - 60,
        **({"display_id": display_id, "repo": "acme/shop"} if display_id else {}),
    }
    found = [repaired]
    (line,) = text_of(listing.recoveries(found, NOW, wide=False)).splitlines()[1:]
    name = display_id or "3f0c2b8e…"
    assert line.rstrip() == f" 1m  ✓ unsettled_parent  2m   {name}  {ENTRY.orchestration_id}"
    wide = text_of(listing.recoveries(found, NOW, wide=True), 300)
    assert ("acme/shop" in wide) is (display_id is not None)
    assert str(ENTRY.sub_issue_id) in wide


@pytest.mark.parametrize(
    ("typed", "seconds"), [("90", 90), ("90s", 90), ("15m", 900), ("2h", 7200), ("1d", 86_400)]
)
def test_durations_are_parsed(typed: str, seconds: float) -> None:
    assert Duration().convert(typed, None, None) == seconds


@pytest.mark.parametrize("typed", ["", "soon", "-1h", "1w", "1.5h", "1h30m", "9" * 10])
def test_an_invalid_duration_is_rejected(typed: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a duration such as"):
        Duration().convert(typed, None, None)
