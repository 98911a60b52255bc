"""A sweep's life in the broker: begun once, each part counted once, ended once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import redis

from reconciler.operations.context import Stuck
from reconciler.operations.counts import Counts
from tests.integration.workers.conftest import Time
from workers.ledger import CURRENT, KEEP_SECONDS, PREFIX, Ledger, Plan, Start, Unit

pytestmark = [pytest.mark.integration, pytest.mark.workers]

UNITS = ["segment:0:0", "segment:1:0"]


class CutOff:
    """A function that can be called so many times, and after that the broker is gone."""

    def __init__(self, whole: Callable[..., Any], times: int) -> None:
        self.whole = whole
        self.left = times

    def __call__(self, *args: Any, **options: Any) -> Any:
        if self.left == 0:
            raise redis.ConnectionError("gone")
        self.left -= 1
        return self.whole(*args, **options)


def begin(ledger: Ledger, sweep_id: str = "sweep:1") -> Start:
    return ledger.start(sweep_id, Plan("repair", 2), UNITS)


def test_two_at_once_overlap_and_a_redelivery_goes_on(ledger: Ledger) -> None:
    assert begin(ledger) is Start.STARTED
    assert begin(ledger, "sweep:2") is Start.OVERLAPS
    assert begin(ledger) is Start.BEGUN_BEFORE


def test_a_unit_is_counted_once_however_often_it_runs(ledger: Ledger, now: Time) -> None:
    begin(ledger)
    now.seconds += 5
    one = Counts(rows_scanned=10, stuck={"lost_release": 1})
    stuck = (Stuck("orch_1", "a", "lost_release", "why", 60.0),)
    assert not ledger.settle("sweep:1", UNITS[0], one, stuck=stuck)
    assert not ledger.settle("sweep:1", UNITS[0], one, stuck=stuck)
    assert ledger.settle("sweep:1", UNITS[1], one)
    summary = ledger.close("sweep:1")
    assert summary is not None
    assert summary.complete
    assert summary.counts.rows_scanned == 20
    assert summary.counts.stuck == {"lost_release": 2}
    assert summary.duration_seconds == 5
    assert ledger.close("sweep:1") is None, "whoever comes second does not end it again"
    assert [entry["sub_issue_id"] for entry in ledger.last_stuck()] == ["a"]


def test_a_unit_that_was_settled_is_not_opened_again(ledger: Ledger) -> None:
    begin(ledger)
    assert ledger.open_unit("sweep:1", "evaluate:orch_1") is Unit.NEW
    assert ledger.open_unit("sweep:1", "evaluate:orch_1") is Unit.OPEN
    ledger.settle("sweep:1", "evaluate:orch_1", Counts())
    assert ledger.open_unit("sweep:1", "evaluate:orch_1") is Unit.SETTLED
    ledger.drop_unit("sweep:1", "evaluate:orch_1")
    assert ledger.open_unit("sweep:1", "evaluate:orch_1") is Unit.NEW


def test_nothing_is_opened_in_a_sweep_that_is_over(ledger: Ledger) -> None:
    begin(ledger)
    ledger.close("sweep:1", abandoned=True)
    assert ledger.open_unit("sweep:1", "evaluate:orch_1") is Unit.SWEEP_OVER
    assert ledger.open_unit("sweep:never", "evaluate:orch_1") is Unit.SWEEP_OVER
    assert ledger.is_over("sweep:1")
    assert begin(ledger, "sweep:2") is Start.STARTED, "the next one may begin"


def test_an_incomplete_sweep_does_not_replace_what_is_known_to_be_stuck(ledger: Ledger) -> None:
    begin(ledger)
    stuck = (Stuck("orch_1", "a", "lost_release", "why", 60.0),)
    ledger.settle("sweep:1", UNITS[0], Counts(), stuck=stuck)
    ledger.settle("sweep:1", UNITS[1], Counts())
    ledger.close("sweep:1")
    begin(ledger, "sweep:2")
    ledger.settle("sweep:2", UNITS[0], Counts(errors=1), unread=True)
    summary = ledger.close("sweep:2")
    assert summary is not None
    assert not summary.complete
    assert (ledger.last() or {})["sweep_id"] == "sweep:2"
    assert (ledger.last(complete=True) or {})["sweep_id"] == "sweep:1"
    assert len(ledger.last_stuck()) == 1


def test_a_sweep_that_could_not_begin_has_a_summary(ledger: Ledger) -> None:
    assert not ledger.fail("sweep:1", mode="repair").complete
    said = ledger.wait("sweep:1", 1)
    assert said is not None
    assert said["errors"] == 1
    assert ledger.wait("sweep:1", 1) == said, "it is left there for others"


def test_the_late_end_of_a_lost_sweep_leaves_the_present_one_alone(ledger: Ledger) -> None:
    begin(ledger)
    ledger.close("sweep:1", abandoned=True)
    begin(ledger, "sweep:2")
    ledger.fail("sweep:3", mode="repair")
    current = ledger.current()
    assert current is not None
    assert current.sweep_id == "sweep:2"


def test_a_pause_that_one_segment_came_by_is_the_sweeps_mode(ledger: Ledger) -> None:
    begin(ledger)
    ledger.settle("sweep:1", UNITS[0], Counts(), paused_since="2026-06-09T12:00:00.000Z")
    ledger.settle("sweep:1", UNITS[1], Counts())
    summary = ledger.close("sweep:1")
    assert summary is not None
    assert (summary.mode, summary.paused_since) == ("paused", "2026-06-09T12:00:00.000Z")


def test_one_that_could_not_send_all_its_segments_is_not_complete_when_those_it_sent_end(
    ledger: Ledger,
) -> None:
    """I6: a segment was never read."""
    begin(ledger)
    ledger.fail("sweep:1", mode="repair")
    assert ledger.open_unit("sweep:1", "evaluate:orch_1") is Unit.SWEEP_OVER
    assert not ledger.settle("sweep:1", UNITS[0], Counts())
    assert ledger.close("sweep:1") is None
    assert ledger.last(complete=True) is None


def test_one_whose_end_was_cut_off_does_not_keep_others_from_beginning(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever ends a sweep may be killed, or lose the broker, between any two of its commands."""
    begin(ledger)
    for unit in UNITS:
        ledger.settle("sweep:1", unit, Counts())
    client = ledger._client
    for commands in range(8):
        with monkeypatch.context() as patch:
            patch.setattr(client, "execute_command", CutOff(client.execute_command, commands))
            patch.setattr(client, "pipeline", CutOff(client.pipeline, 0))
            with contextlib.suppress(redis.ConnectionError):
                ledger.close("sweep:1")
        ledger.close("sweep:1", abandoned=True)
        assert begin(ledger, f"sweep:after-{commands}") is Start.STARTED
        assert (ledger.last() or {})["sweep_id"] == "sweep:1"
        client.flushdb()
        begin(ledger)


def test_a_sweep_that_takes_longer_than_things_are_kept_is_not_forgotten(ledger: Ledger) -> None:
    """I6: what it had not read would be forgotten with it, and the rest be called complete."""
    begin(ledger)
    client = ledger._client
    ledger.settle("sweep:1", UNITS[0], Counts(), unread=True)
    kept = [CURRENT, f"{PREFIX}sweep:1", f"{PREFIX}sweep:1:units", f"{PREFIX}sweep:1:seen"]
    for hear in (
        lambda: ledger.open_unit("sweep:1", "evaluate:orch_1"),
        lambda: ledger.settle("sweep:1", "evaluate:orch_1", Counts()),
    ):
        for key in kept:
            client.expire(key, 60)
        hear()
        assert {client.ttl(key) for key in kept} == {KEEP_SECONDS}


def test_whoever_waits_hears_that_a_sweep_stepped_aside(ledger: Ledger) -> None:
    begin(ledger)
    assert ledger.step_aside("sweep:by-hand-1") == "sweep:1"
    assert (ledger.wait("sweep:by-hand-1", 1) or {})["stepped_aside_for"] == "sweep:1"


def test_recoveries_are_kept_for_a_day(ledger: Ledger, now: Time) -> None:
    ledger.record_recovery("lost_skip", {"orchestration_id": "orch_1"}, 7.0)
    now.seconds += 7200
    ledger.record_recovery("lost_release", {"orchestration_id": "orch_2"}, None)
    assert [entry["code"] for entry in ledger.recoveries(3600)] == ["lost_release"]
    assert len(ledger.recoveries(86_400)) == 2
    now.seconds += 86_400 - 3600
    ledger.record_recovery("lost_skip", {"orchestration_id": "orch_3"}, 1.0)
    assert len(ledger.recoveries(10**9)) == 2, "what is older than a day is forgotten"


def test_a_report_by_hand_where_others_repair_is_no_sign_of_life(ledger: Ledger) -> None:
    for number, (mode, kept) in enumerate(
        [("repair", False), ("report", True), ("repair", False)], start=1
    ):
        sweep_id = f"sweep:by-hand-{number}"
        ledger.start(sweep_id, Plan("report", 1), UNITS[:1])
        ledger.settle(sweep_id, UNITS[0], Counts())
        assert ledger.close(sweep_id, repair_mode=mode) is not None
        assert (ledger.last() or {})["sweep_id"] == sweep_id
        last = ledger.last(complete=True)
        assert (last is not None and last["sweep_id"] == sweep_id) is kept


def test_every_sweep_that_ended_is_told_in_its_order(ledger: Ledger, now: Time) -> None:
    """However quickly one comes behind another; who stepped aside is none of them."""
    for number in (3, 1, 2):
        now.seconds += 1
        ledger.start(f"sweep:{number}", Plan("repair", 1), UNITS[:1])
        ledger.step_aside("sweep:9")
        ledger.settle(f"sweep:{number}", UNITS[0], Counts())
        ledger.close(f"sweep:{number}", abandoned=number == 1)
    told = [(summary["sweep_id"], summary["complete"]) for summary in ledger.ended()]
    assert told == [("sweep:3", True), ("sweep:1", False), ("sweep:2", True)]
