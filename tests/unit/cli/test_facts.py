"""What ``status`` and ``health`` conclude, from facts alone."""

from __future__ import annotations

import io
import threading
from typing import Any

import pytest
import redis
from rich.console import Console

from reconciler.cli import facts as facts_module
from reconciler.cli.commands.status import to_json
from reconciler.cli.facts import DAY_SECONDS, HOUR_SECONDS, Facts, eviction_policy, read_facts
from reconciler.cli.screens.status import render
from reconciler.domain.codes import STUCK_CODES
from reconciler.inspection import theme
from reconciler.settings import load_settings

NOW = 1_780_000_000.0
SETTINGS = load_settings(
    {
        "ORCHESTRATION_TABLE_NAME": "orchestrations",
        "TASK_TABLE_NAME": "tasks",
        "TASK_EVENTS_TABLE_NAME": "events",
    }
)


def sweep(age: float = 10, **changes: Any) -> dict[str, Any]:
    return {
        "sweep_id": "sweep:5985243",
        "mode": "repair",
        "complete": True,
        "rows_scanned": 1200,
        "duration_seconds": 2.0,
        "ended_at": NOW - age,
        "started_at": NOW - age - 2,
        **changes,
    }


def facts(last: dict[str, Any] | None = None, **changes: Any) -> Facts:
    known: dict[str, Any] = {
        "now": NOW,
        "interval_seconds": 300,
        "repair_mode": "repair",
        "last": last or sweep(),
        "last_complete": last or sweep(),
        "workers": ("w1@a", "w2@b"),
        "queues": {"sweep": 0, "release": 7},
        "covered": {"active": NOW - 10, "table": NOW - 10},
    }
    return Facts(**{**known, **changes})


def covered(active: float, table: float | None = None) -> dict[str, float]:
    """Return how long ago each scope was covered."""
    return {"active": NOW - active, "table": NOW - (active if table is None else table)}


def text_of(found: Facts, width: int = 100) -> str:
    out = Console(file=io.StringIO(), width=width, highlight=False)
    with out.capture() as captured:
        out.print(render(found, out))
    return captured.get()


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (facts(), None),
        (facts(covered=covered(600)), None),
        (facts(covered=covered(601)), "active work is covered as of 601 s ago; it should be 600 s"),
        (facts(covered={}), "the coverage of active work is unknown"),
        (facts(covered=covered(-60)), "the coverage of active work is unknown"),
        (facts(covered=covered(10, 0)), None),
        (facts(covered={"active": NOW - 10, "table": 0.0}), "the coverage of the whole table is"),
        (facts(broker_problem="Connection refused"), "broker cannot be reached: Connection ref"),
        (facts(table_problem="it does not exist"), "the tables cannot be read: it does not exist"),
        (facts(eviction_policy="allkeys-lru"), "may drop queued messages"),
        (facts(eviction_policy="volatile-ttl"), "may drop the state of a sweep"),
        (facts(covered=covered(10, 7500), full_scan_interval_seconds=3600), None),
        (
            facts(covered=covered(10, 7501), full_scan_interval_seconds=3600),
            "the whole table is covered as of 7501 s ago; it should be 7500 s",
        ),
    ],
)
def test_health_has_one_reason_in_one_line(found: Facts, reason: str | None) -> None:
    if reason is None:
        assert found.problem is None
    else:
        assert found.problem is not None
        assert reason in found.problem
        assert "\n" not in found.problem
        assert f"NOT HEALTHY  {found.problem}" in text_of(found, 200)


def test_a_person_sees_how_far_coverage_reaches() -> None:
    found = facts(covered=covered(10, 7200), full_scan_interval_seconds=6 * 3600)
    assert "covered    as of 10 s ago; the whole table as of 2 h ago" in text_of(found, 120)
    assert to_json(found)["covered_seconds_ago"] == {"active": 10, "table": 7200}
    assert "whole table" not in text_of(facts())
    assert "unknown: not all of it has been read yet" in text_of(facts(covered={}))


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
def test_only_a_policy_that_can_lose_something_is_reported(
    answer: dict[str, Any] | Exception, expected: str | None
) -> None:
    client: Any = Broker(answer)
    assert eviction_policy(client) == expected


def test_what_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts_module, "PATIENCE_SECONDS", 0.05)
    never = threading.Event()

    class Silent:
        def __getattr__(self, _name: str) -> Any:
            never.wait()
            raise AssertionError

    silent: Any = Silent()
    found = read_facts(SETTINGS, silent, silent, details=False)
    never.set()
    assert found.broker_problem == found.table_problem == "no answer within 0 s"


def test_recoveries_within_a_time_and_how_long_they_waited() -> None:
    recoveries = [
        {"at": NOW - 60, "latency": 130.0, "code": "lost_release"},
        {"at": NOW - 2 * HOUR_SECONDS, "latency": 310.0, "code": "lost_release"},
        {"at": NOW - 3 * HOUR_SECONDS, "latency": None, "code": "lost_release"},
    ]
    found = facts(recoveries=recoveries)
    assert (found.recovered(HOUR_SECONDS), found.recovered(DAY_SECONDS)) == (1, 3)
    assert found.latencies(DAY_SECONDS) == [130.0, 310.0]
    assert "1 in the last hour, 3 in the last day; waited 3 min 40 s" in text_of(found)
    assert to_json(found)["recoveries"] == {
        "last_hour": 1,
        "last_day": 3,
        "median_latency_seconds": 220.0,
        "max_latency_seconds": 310.0,
    }


def test_what_needs_a_person_stands_first_and_the_oldest_before_the_younger() -> None:
    stuck = {"lost_release": 3, "over_budget": 9, "missing_task": 1, "long_running": 2}
    ages = {"lost_release": 900.0, "over_budget": 90.0, "missing_task": 60.0, "long_running": 9e4}
    text = text_of(facts(stuck_counts=stuck, oldest_seconds=ages))
    assert "■ 3 for a person   ▲ 3 to be repaired   ◌ 9 waiting for a slot" in text
    order = [
        text.index(code) for code in ("long_running", "missing_task", "lost_release", "over_budget")
    ]
    assert order == sorted(order)
    assert "its task has run for very long" in text


def test_the_ten_oldest_with_their_ids() -> None:
    entries = [
        {
            "orchestration_id": f"orch_{number:032x}",
            "sub_issue_id": f"child-{number}",
            "code": "lost_release",
            "reason": "nobody\x1b[2J has released it",
            "age_seconds": 1000.0 - number,
        }
        for number in range(12)
    ]
    text = text_of(facts(stuck_counts={"lost_release": 12}, stuck=entries))
    shown = [line for line in text.splitlines() if "child-" in line]
    assert len(shown) == 10
    assert f"orch_{0:032x} child-0" in shown[0]
    assert "nobody␛[2J has released it" in text


def test_a_pause_says_why_and_how_it_ends() -> None:
    pause = {"since": "2026-06-09T12:00:00.000Z", "by": "eva", "reason": "migration"}
    text = text_of(facts(paused=pause))
    assert "PAUSED since 2026-06-09T12:00:00.000Z by eva: migration; `reconciler resume`" in text
    assert to_json(facts(paused=pause))["mode"] == "paused"


def test_sweeps_at_work_say_how_far_they_are() -> None:
    work = {"sweep_id": "sweep:7", "age_seconds": 400.0, "segments": 8, "segments_left": 3}
    text = text_of(facts(at_work=[work], awaiting_evaluation=4))
    assert "sweep:7 for 6 min 40 s, 5 of 8 segments read" in text
    assert "to evaluate  4 orchestrations" in text
    assert to_json(facts(at_work=[work]))["sweeps_at_work"] == [work]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_it_fits_any_terminal(width: int) -> None:
    entry = {
        "orchestration_id": f"orch_{1:032x}",
        "sub_issue_id": None,
        "code": "rows_missing",
        "reason": "a reason " * 12,
        "age_seconds": None,
    }
    found = facts(stuck_counts=dict.fromkeys(STUCK_CODES, 1), stuck=[entry])
    assert all(len(line) <= width for line in text_of(found, width).splitlines())


def test_every_code_of_something_stuck_has_a_meaning_and_a_sign() -> None:
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
def test_ages_as_a_person_says_them(seconds: float | None, long: str, short: str) -> None:
    assert theme.age(seconds) == long
    assert theme.short_age(seconds) == short
