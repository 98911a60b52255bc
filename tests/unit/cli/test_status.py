"""What ``status`` and ``health`` conclude from what was read, and how they show it."""

from __future__ import annotations

import io
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from rich.console import Console

from reconciler.cli.commands.status import to_json
from reconciler.cli.main import root
from reconciler.cli.screens.status import render
from reconciler.cli.status import (
    HOUR_SECONDS,
    Status,
    eviction_policy,
)
from reconciler.domain.codes import NEEDS_ACTION, STUCK_CODES
from reconciler.errors import TemporaryError
from reconciler.inspection import theme
from reconciler.repair.context import Stuck
from reconciler.settings import load_settings
from reconciler.sweeping.known_stuck import Finding, Known
from reconciler.sweeping.overview import Overview, Sweep
from reconciler.sweeping.segments import Scope, SegmentState

list_module = import_module("reconciler.cli.commands.list")
ROOT = Path(__file__).parents[3]
NOW = 1_780_000_000.0
SETTINGS = load_settings(
    {
        "ORCHESTRATION_TABLE_NAME": "orchestrations",
        "TASK_TABLE_NAME": "tasks",
        "TASK_EVENTS_TABLE_NAME": "events",
    }
)


def sweep(age: float = 10, name: str = "sweep:5985243", **changes: Any) -> Sweep:
    summary: Any = {
        "sweep_id": name,
        "mode": "repair",
        "complete": True,
        "rows_scanned": 1200,
        "released": 3,
        "duration_seconds": 2.0,
        "ended_at": NOW - age,
        "started_at": NOW - age - 2,
        **dict.fromkeys(("adopted", "advanced", "skipped", "claims_reset", "nudged"), 0),
        **dict.fromkeys(("refused", "reinvoked"), 0),
        **changes,
    }
    return Sweep(name, "repair", NOW - age - 2, ended_at=NOW - age, summary=summary)


def overview(
    *stuck: Stuck, covered: dict[str, float] | None = None, sweeps: tuple[Sweep, ...] | None = None
) -> Overview:
    known: dict[str, Known] = {}
    for name in dict.fromkeys(entry.orchestration_id for entry in stuck):
        mine = tuple(entry for entry in stuck if entry.orchestration_id == name)
        ids = {e.sub_issue_id: f"ENG-{e.sub_issue_id}" for e in mine if e.sub_issue_id}
        found = Finding(NOW, mine, "rows", display_ids=ids)
        known[name] = Known().evaluated(found, 300.0, NOW)
    floors = {"active": NOW - 10, "table": NOW - 10} if covered is None else covered
    return Overview(NOW, {}, known, floors, (sweep(),) if sweeps is None else sweeps)


def stuck(code: str, age: float | None = 900.0, child: str | None = "1", name: str = "") -> Stuck:
    return Stuck(
        name or f"orch_{code}",
        child,
        code,
        "because",
        age,
        needs_action=code in NEEDS_ACTION,
    )


def state(**changes: Any) -> Status:
    known: dict[str, Any] = {
        "now": NOW,
        "interval_seconds": 300,
        "repair_mode": "repair",
        "seen": overview(),
        "workers": ("w1@a", "w2@b"),
        "queues": {"sweep": 0, "release": 7},
    }
    return Status(**{**known, **changes})


def covered(active: float, table: float | None = None) -> Overview:
    """Return an overview in which each scope was covered that many seconds ago."""
    age = active if table is None else table
    return overview(covered={"active": NOW - active, "table": NOW - age})


def text_of(found: Status, width: int = 100) -> str:
    out = Console(file=io.StringIO(), width=width, highlight=False)
    with out.capture() as captured:
        out.print(render(found))
    return captured.get()


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (state(), None),
        (state(seen=covered(600)), None),
        (state(seen=covered(601)), "active work is covered as of 601 s ago; it should be 600 s"),
        (state(seen=overview(covered={})), "the coverage of active work is unknown"),
        (state(seen=covered(-60)), "the coverage of active work is unknown"),
        (state(seen=covered(10, 0)), None),
        (state(seen=overview(covered={"active": NOW - 10})), "the coverage of the whole table is"),
        (state(broker_problem="Connection refused"), "broker cannot be reached: Connection ref"),
        (state(table_problem="it does not exist"), "the tables cannot be read: it does not exist"),
        (state(workers=()), "no worker answers"),
        (state(workers=(), seen=covered(601)), "no worker answers"),
        (state(workers=(), in_table=True), None),
        (state(workers=None), None),
        (state(seen=overview(sweeps=())), "no beat asks for sweeps"),
        (state(eviction_policy="allkeys-lru"), "may drop queued messages"),
        (state(eviction_policy="volatile-ttl"), "may drop the state of a sweep"),
        (state(seen=covered(10, 7500), full_scan_interval_seconds=3600), None),
        (
            state(seen=covered(10, 7501), full_scan_interval_seconds=3600),
            "the whole table is covered as of 7501 s ago; it should be 7500 s",
        ),
    ],
)
def test_health_gives_one_reason_in_one_line(found: Status, reason: str | None) -> None:
    if reason is None:
        assert found.problem is None
    else:
        assert found.problem is not None
        assert reason in found.problem
        assert "\n" not in found.problem
        assert f"NOT HEALTHY  {found.problem}" in text_of(found, 200)
        page, _, anchor = found.runbook.partition("#")
        assert f"\n  see {page}#{anchor}\n" in text_of(found, 200)
        assert f"## {anchor.replace('-', ' ').capitalize()}\n" in (ROOT / page).read_text()


def test_status_shows_how_far_coverage_reaches() -> None:
    found = state(seen=covered(10, 7200), full_scan_interval_seconds=6 * 3600)
    assert "covered    as of 10 s ago; the whole table as of 2 h ago" in text_of(found, 120)
    assert to_json(found)["covered_seconds_ago"] == {"active": 10, "table": 7200}
    assert "whole table" not in text_of(state())
    assert "unknown: not all of it has been read yet" in text_of(state(seen=overview(covered={})))


class Broker:
    """Answers ``INFO memory``."""

    def __init__(self, answer: dict[str, Any] | Exception) -> None:
        self._answer = answer

    def info(self, _section: str) -> dict[str, Any]:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"maxmemory": 1_000_000, "maxmemory_policy": "allkeys-lru"}, "allkeys-lru"),
        ({"maxmemory": 1_000_000, "maxmemory_policy": "volatile-lru"}, "volatile-lru"),
        ({"maxmemory": 1_000_000, "maxmemory_policy": "noeviction"}, None),
        ({"maxmemory": 0, "maxmemory_policy": "allkeys-lru"}, None),
        ({}, None),
        (redis.ResponseError("unknown command"), None),
        (redis.exceptions.NoPermissionError("this user has no permissions"), None),
    ],
)
def test_only_a_lossy_eviction_policy_is_reported(
    answer: dict[str, Any] | Exception, expected: str | None
) -> None:
    client: Any = Broker(answer)
    assert eviction_policy(client) == expected


def test_one_row_is_counted_in_the_singular() -> None:
    assert "; 1 row in 2 s" in text_of(state(seen=overview(sweeps=(sweep(rows_scanned=1),))))


def test_status_counts_recoveries_and_their_latency() -> None:
    recoveries = [
        {"at": NOW - 60, "latency": 130.0, "code": "lost_release"},
        {"at": NOW - 2 * HOUR_SECONDS, "latency": 310.0, "code": "lost_release"},
        {"at": NOW - 3 * HOUR_SECONDS, "latency": None, "code": "lost_release"},
    ]
    found = state(recoveries=recoveries)
    assert "1 in the last hour, 3 in the last day; waited 3 min 40 s" in text_of(found)
    assert to_json(found)["recoveries"] == {
        "last_hour": 1,
        "last_day": 3,
        "median_latency_seconds": 220.0,
        "max_latency_seconds": 310.0,
    }


def test_stuck_codes_needing_action_come_first() -> None:
    """Among them, the oldest come first."""
    entries = [
        *(stuck("lost_release", 900.0, name=f"orch_{n}") for n in range(3)),
        *(stuck("over_budget", 90.0, name=f"orch_b{n}") for n in range(9)),
        stuck("missing_task", 60.0),
        *(stuck("long_running", 9e4, name=f"orch_l{n}") for n in range(2)),
    ]
    text = text_of(state(seen=overview(*entries)))
    assert "■ 3 to act on   ▲ 3 being repaired   ◌ 9 waiting for a slot" in text
    order = [
        text.index(code) for code in ("long_running", "missing_task", "lost_release", "over_budget")
    ]
    assert order == sorted(order)
    assert "its task has been running longer than the limit" in text
    assert "reconciler list  shows all 15" in text


def test_status_shows_fix_and_runbook_for_needed_actions() -> None:
    entry = stuck("lost_unskip", 7200.0, "42", "orch_x")
    hostile = replace(stuck("missing_task", 60.0, "\x1b[2J"), orchestration_id="orch_y")
    text = text_of(state(seen=overview(entry, hostile)))
    assert "   2h  lost_unskip  ENG-42  docs/operating.md#lost_unskip" in text
    assert "       reconciler unskip orch_x 42" in text
    assert "\x1b" not in text


def test_status_names_only_the_oldest_needed_actions() -> None:
    entries = [stuck("missing_task", 1000.0 - n, str(n), f"orch_{n:032x}") for n in range(12)]
    text = text_of(state(seen=overview(*entries)))
    assert "To act on: the 5 oldest of 12" in text
    named = [line for line in text.splitlines() if "ENG-" in line]
    assert ["ENG-0 " in named[0], len(named)] == [True, 5]
    assert len(to_json(state(seen=overview(*entries)))["oldest"]) == 10


def test_an_exceptional_parent_counts_as_needing_action() -> None:
    """A parent without a task to touch needs action, though most unsettled parents do not."""
    usual = stuck("unsettled_parent", 60.0, None, "orch_a")
    odd = replace(stuck("unsettled_parent", 90.0, None, "orch_b"), needs_action=True)
    text = text_of(state(seen=overview(usual, odd)))
    assert "■ 1 to act on   ▲ 1 being repaired" in text
    assert text.count("unsettled_parent") == 2 + 1 + 1  # two rows; the entry, and its runbook


def test_status_shows_errors_of_the_last_sweep() -> None:
    """Without the right to write, for example, all is covered but no repair succeeds."""
    failed = state(seen=overview(sweeps=(sweep(errors=3),)))
    assert "1200 rows in 2 s; 3 errors; see `reconciler doctor` and the log" in text_of(failed, 120)
    assert "; 1 error; see" in text_of(state(seen=overview(sweeps=(sweep(errors=1),))), 120)
    assert "error" not in text_of(state(), 120)


# -- beat and broker


def test_a_silent_beat_has_its_own_line() -> None:
    late = overview(sweeps=(sweep(age=900), sweep(age=5, name="sweep:by-hand-1")))
    silent = state(seen=late)
    assert silent.beat_is_silent
    assert "NOT HEALTHY  no beat asks for sweeps" in text_of(silent)
    assert "beat       SILENT for 15 min; start it (docs/operating.md#sweep-stale)" in text_of(
        silent
    )
    assert to_json(silent)["beat"] == {"asked_seconds_ago": 902.0, "silent": True}
    assert "asked for a sweep 12 s ago" in text_of(state())


def test_a_first_manual_sweep_gives_beat_time() -> None:
    """Beat leaves out its own first sweep while another has just begun."""
    first = state(seen=overview(sweeps=(sweep(age=5, name="sweep:by-hand-1"),)))
    assert first.problem is None
    assert "beat       none has asked for a sweep yet" in text_of(first)
    by_hand = (sweep(age=age, name=f"sweep:by-hand-{age}") for age in (900, 5))
    never = state(seen=overview(sweeps=tuple(by_hand)))
    assert "NOT HEALTHY  no beat asks for sweeps" in text_of(never)
    assert "beat       none has asked for a sweep; start it" in text_of(never)


@pytest.mark.parametrize(
    "changes",
    [{"workers": ()}, {"workers": None}, {"queues": {"sweep": 4, "release": 0}}],
)
def test_a_beat_waiting_for_workers_is_not_silent(changes: dict[str, Any]) -> None:
    found = state(seen=overview(sweeps=(sweep(age=900),)), **changes)
    assert not found.beat_is_silent
    assert "what it asks for waits for a worker" in text_of(found)


def test_without_the_broker_status_shows_the_table() -> None:
    found = state(
        seen=overview(stuck("missing_task")), in_table=True, broker_problem="Connection refused"
    )
    text = text_of(found)
    assert "NOT HEALTHY  the broker cannot be reached: Connection refused" in text
    assert "the table, where `sweep --inline` (cron) recorded it" in text
    assert "missing_task" in text
    assert not found.without_broker


def test_an_unknown_state_comes_with_a_command() -> None:
    found = Status(NOW, 300, "repair", broker_problem="Connection refused")
    text = text_of(found)
    assert "Nothing is known of what is stuck." in text
    assert "`reconciler sweep --inline --report` reads the tables themselves." in text


def test_no_command_is_named_that_fails_too() -> None:
    """A report of the tables is no way round tables that cannot be read."""
    away = Status(NOW, 300, "repair", broker_problem="it is away", table_problem="no such table")
    assert "`reconciler doctor` says what to do." in text_of(away)
    for check in list_module._check_known, list_module._check_recoveries_known:
        with pytest.raises(TemporaryError, match="it is away; `reconciler doctor` says what to do"):
            check(away)


def test_recoveries_need_only_the_broker() -> None:
    list_module._check_recoveries_known(state(table_problem="no such table"))


def test_a_pause_shows_reason_and_resume_command() -> None:
    pause = {"since": "2026-06-09T12:00:00.000Z", "by": "eva", "reason": "migration"}
    text = text_of(state(paused=pause))
    assert "PAUSED since 2026-06-09T12:00:00.000Z by eva: migration; `reconciler resume`" in text
    assert to_json(state(paused=pause))["mode"] == "paused"


def test_status_shows_the_progress_of_sweeps() -> None:
    segments = {number: SegmentState(mark=NOW if number < 5 else 0.0) for number in range(8)}
    owed = {"table": tuple(range(8))}
    work = Sweep("sweep:7", "repair", NOW - 400, owed=owed, totals={"table": 8})
    waiting = {str(n): Known().nominated(Scope.TABLE, 0.0, NOW, "r", NOW) for n in range(4)}
    seen = Overview(NOW, {"table": segments}, waiting, {}, (sweep(), work))
    text = text_of(state(seen=seen))
    assert "sweep:7 for 6 min 40 s, 5 of 8 segments read" in text
    assert "to evaluate  4 orchestrations" in text
    assert to_json(state(seen=seen))["sweeps_at_work"] == [
        {"sweep_id": "sweep:7", "age_seconds": 400.0, "segments": 8, "segments_left": 3}
    ]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_status_fits_any_terminal(width: int) -> None:
    """Except commands, which are meant to be copied."""
    entries = [stuck(code, None, name=f"orch_{code}") for code in STUCK_CODES]
    lines = text_of(state(seen=overview(*entries)), width).splitlines()
    assert all(len(line) <= width for line in lines if "reconciler" not in line)


def test_every_stuck_code_has_meaning_and_sign() -> None:
    assert set(theme.MEANINGS) == set(STUCK_CODES)
    tones = {theme.tone_of_code(code) for code in STUCK_CODES}
    assert tones == {theme.Tone.ALARM, theme.Tone.REPAIR, theme.Tone.HELD}


@pytest.mark.parametrize(
    ("seconds", "long", "short"),
    [
        (None, "a long time", "?"),
        (0, "0 s", "0s"),
        (59.9, "59 s", "59s"),
        (60, "1 min", "1m"),
        (130, "2 min 10 s", "2m"),
        (3599, "59 min", "59m"),
        (3600, "1 h", "1h"),
        (7260, "2 h 1 min", "2h"),
        (90_000, "1 d 1 h", "1d"),
    ],
)
def test_ages_are_written_for_people(seconds: float | None, long: str, short: str) -> None:
    assert theme.age(seconds) == long
    assert theme.short_age(seconds) == short


# -- whether it is known what is stuck


UNDER_WAY = Sweep("sweep:5985244", "repair", NOW - 5)


@pytest.mark.parametrize(
    ("found", "known"),
    [
        (state(), True),
        (state(seen=overview(sweeps=())), False),
        (state(seen=overview(sweeps=(UNDER_WAY,))), False),
        (state(seen=overview(sweeps=(sweep(), UNDER_WAY))), True),
        (state(in_table=True), True),
        (state(in_table=True, seen=overview(sweeps=(sweep(stuck={"missing_task": 2}),))), False),
        # The workers may have resolved it since.
        (state(seen=overview(sweeps=(sweep(stuck={"missing_task": 2}),))), True),
    ],
)
def test_nothing_stuck_is_claimed_only_if_known(
    found: Status,
    *,
    known: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A first sweep may still run, and a state too large for the table's row is not kept."""
    assert ("Nothing is stuck." in text_of(found)) is known
    assert ("Nothing is known of what is stuck." in text_of(found)) is not known
    code = listed(found, monkeypatch)
    assert code == (0 if known else 2)
    assert ("Nothing is stuck." in capsys.readouterr().out) is known


def test_list_exits_3_without_the_broker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It exits 1 if the table knows of something stuck."""
    assert listed(state(in_table=True, broker_problem="refused"), monkeypatch) == 3
    left = overview(stuck("missing_task"))
    found = state(in_table=True, broker_problem="refused", seen=left)
    assert listed(found, monkeypatch) == 1


@pytest.mark.parametrize(
    ("seen", "code"),
    [
        (overview(sweeps=(UNDER_WAY,)), 2),
        (overview(stuck("missing_task"), sweeps=(UNDER_WAY,)), 1),
        (overview(), 0),
    ],
)
def test_list_exits_2_while_a_report_runs(
    seen: Overview, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It exits 1 once the report has found something, and 0 if it ends without a finding."""
    reports = SimpleNamespace(overview=lambda: seen)
    monkeypatch.setattr(list_module, "sweep_state", lambda *_: reports)
    assert listed(state(), monkeypatch, "--report", "sweep:by-hand-1") == code


def listed(found: Status, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Return the exit code of ``list``."""
    for name in ("settings_for_cli", "broker_for_cli", "reconciler_for_cli"):
        monkeypatch.setattr(list_module, name, lambda *_: SETTINGS)
    monkeypatch.setattr(list_module, "read_status", lambda *_, **__: found)
    with pytest.raises(SystemExit) as ended:
        root.main(["list", *arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code
