"""Chaos finds claims that go beyond what was looked at, and writes its pages."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from reconciler.demo.observer import Observer, Snapshot
from reconciler.domain.model import Meta, Orchestration
from reconciler.settings import load_settings
from reconciler.stores.rows import parse_child
from reconciler.sweeping.known_stuck import Known, StuckEntry
from reconciler.sweeping.overview import Overview, Sweep
from reconciler.sweeping.segments import Scope, SegmentState
from tests.chaos.claims import Claims
from tests.chaos.faults import DRILLS, Measured, failures, page, plain
from tests.chaos.record import write_record
from tests.chaos.summary import Run
from tests.support.strategies import NOW, ORCHESTRATION_ID, ago

SECOND = timedelta(seconds=1)
STUCK: StuckEntry = {
    "sub_issue_id": "a",
    "code": "over_budget",
    "reason": "no slot",
    "since": None,
}
OVERDUE = NOW.timestamp() - 60
"""When the child became overdue: it has been due for 70 s, with a grace of 10 s."""


TABLES = ("ORCHESTRATION_TABLE_NAME", "TASK_TABLE_NAME", "TASK_EVENTS_TABLE_NAME")
SETTINGS = load_settings({**dict.fromkeys(TABLES, "table"), "STRANDED_GRACE_SECONDS": "10"})


def claims() -> Claims:
    return Claims(SETTINGS, margin=5 * SECOND)


def stranded() -> Observer:
    """Return an observer of one child that should have been released."""
    row = {
        "orchestration_id": {"S": ORCHESTRATION_ID},
        "sub_issue_id": {"S": "a"},
        "child_status": {"S": "ready"},
        "created_at": {"S": ago(70)},
        "updated_at": {"S": ago(70)},
    }
    meta = Meta(ORCHESTRATION_ID, 1, "user-1", "acme/shop", ago(70), ago(70), settled=False)
    whole = Orchestration(ORCHESTRATION_ID, meta, {"a": parse_child(row)})
    observer = Observer(SETTINGS)
    observer.observe(Snapshot(NOW, {ORCHESTRATION_ID: whole}, {}))
    assert observer.stranded
    return observer


def overview(covered: float, known: dict[str, Known] | None = None) -> Overview:
    """Return an overview in which all is covered as of ``covered``, in epoch seconds."""
    return Overview(
        now=NOW.timestamp(),
        segments={Scope.TABLE.value: {0: SegmentState(mark=covered)}},
        known=known or {},
        floors={},
        sweeps=(),
    )


@pytest.mark.parametrize(("since_overdue", "false"), [(30, 1), (6, 1), (4, 0), (-1, 0)], ids=str)
def test_a_healthy_status_must_not_miss_a_child(since_overdue: int, false: int) -> None:
    """It claims that every child overdue before ``covered_as_of`` has been looked at."""
    found = claims()
    found.check(overview(OVERDUE + since_overdue), stranded())
    assert len(found.false_healthy) == false


@pytest.mark.parametrize(
    ("known", "false"),
    [
        (Known(waiting={"table": OVERDUE}), 0),
        (Known(stuck=(STUCK,)), 0),
        (Known(handed_on={"a": {"at": OVERDUE, "since": None}}), 0),
        (Known(read_at=OVERDUE), 1),
    ],
    ids=["awaits evaluation", "stuck", "handed on", "clean"],
)
def test_a_remembered_child_is_not_missed(known: Known, false: int) -> None:
    found = claims()
    found.check(overview(OVERDUE + 30, {ORCHESTRATION_ID: known}), stranded())
    assert len(found.false_healthy) == false


def test_an_unhealthy_status_claims_nothing() -> None:
    found = claims()
    late = replace(overview(OVERDUE + 30), now=NOW.timestamp() + 3600)
    found.check(late, stranded())
    assert not found.false_healthy


@pytest.mark.parametrize(
    ("began", "complete", "false"), [(30, True, 1), (30, False, 0), (-1, True, 0)]
)
def test_a_complete_sweep_must_not_miss_a_child(
    began: int,
    complete: bool,  # noqa: FBT001 - a parameter of the cases
    false: int,
) -> None:
    ended = OVERDUE + began + 3
    summary: Any = {"ended_at": ended, "duration_seconds": 3, "complete": complete}
    sweep = Sweep("sweep:1", "repair", OVERDUE + began, summary=summary)
    found = claims()
    found.check(replace(overview(0.0), sweeps=(sweep,)), stranded())
    assert len(found.false_complete) == false


def run_of(observer: Observer) -> Run:
    return Run(
        seed=1,
        seconds=60.0,
        observer=observer,
        expected={ORCHESTRATION_ID: {}},
        faults={"broker frozen": 2},
        sweeps=2,
        incomplete_sweeps=0,
        lost=(),
        shown_unsettled=frozenset(),
        never_started=frozenset(),
        exits=(),
        unrecovered=frozenset({(ORCHESTRATION_ID, "a")}),
        bound_seconds=1.0,
        recovered_in_seconds=1.0,
        false_healthy=("a of x",),
    )


def test_a_record_shows_what_must_be_zero(tmp_path: Path) -> None:
    path = tmp_path / "record.md"
    at = datetime(2026, 6, 9, tzinfo=UTC)
    write_record(path, {"scan": run_of(stranded()), "index": run_of(stranded())}, at, "make chaos")
    text = path.read_text()
    assert "| false healthy | 1 | 1 |" in text
    assert "| unrecovered | 1 | 1 |" in text
    assert "| duplicates | 0 | 0 |" in text
    assert "| broker frozen | 2 | 2 |" in text
    assert "- scan: said to be healthy: a of x" in text


def test_a_record_can_be_json(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_record(path, {"scan": run_of(stranded())}, datetime(2026, 6, 9, tzinfo=UTC), "make chaos")
    assert '"false healthy": 1' in path.read_text()


def test_the_page_of_faults_has_every_drill() -> None:
    measured = [
        Measured(drill, 0.5, 1, "unhealthy: no", ("✗ broker",), {"orch.broker.lost": 1})
        for drill in DRILLS
    ]
    rows = [line for line in page(measured).splitlines() if line.startswith("| ")]
    assert len(rows) == len(DRILLS) + 1
    assert all(row.count(" | ") == 3 for row in rows[1:])


def test_the_page_leaves_out_varying_values() -> None:
    assert plain("covered 12.5 s ago at 127.0.0.1:4711 | x") == (
        "covered N s ago at 127.0.0.1:PORT \\| x"
    )
    assert failures("✓ settings fine\n✗ broker   answers OOM\n! clock  off") == [
        "broker answers OOM",
        "clock off",
    ]
