"""The model: times, keys, outcomes, completeness and fingerprints."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from reconciler.domain.model import (
    ACTIVE_CHILD,
    DEFAULT_CHANNEL,
    LONG_AGO,
    WHOLE,
    Child,
    ChildStatus,
    Meta,
    Orchestration,
    Task,
    known_timestamp,
    moment,
    seconds_since,
    timestamp,
)
from tests.support.strategies import ORCHESTRATION_ID, ago

CHILD = Child(ORCHESTRATION_ID, "b", ChildStatus.BLOCKED, "blocked", updated_at=ago(60))
META = Meta(ORCHESTRATION_ID, 1, "user-1", "acme/shop", ago(60), ago(60), settled=False)


@pytest.mark.parametrize(
    "text",
    [
        "2026-06-09T12:00:00.000Z",
        "2026-06-09T12:00:00Z",
        "2026-06-09T12:00:00",
        "2026-06-09T14:00:00+02:00",
        "20260609T120000Z",
        "2026-06-09 12:00:00.000000+00:00",
    ],
)
def test_any_iso_time_is_read(text: str) -> None:
    assert moment(text) == datetime(2026, 6, 9, 12, tzinfo=UTC)


@pytest.mark.parametrize("text", [None, "", "yesterday", "2026-13-01", "0001-01-01T00:00:00+14:00"])
def test_an_unreadable_time_is_none(text: str | None) -> None:
    assert moment(text) is None


def test_times_are_written_in_the_platforms_format() -> None:
    at = datetime(2026, 6, 9, 14, 0, 0, 5_999, tzinfo=timezone(timedelta(hours=2)))
    assert timestamp(at) == "2026-06-09T12:00:00.005Z"


def test_an_unknown_time_is_not_written() -> None:
    at = datetime(2026, 6, 9, 12, tzinfo=UTC)
    assert known_timestamp(at) == "2026-06-09T12:00:00.000Z"
    assert known_timestamp(None) is None
    assert known_timestamp(LONG_AGO) is None


def test_an_age_is_never_negative() -> None:
    """A row may hold a time ahead of our clock."""
    now = datetime(2026, 6, 9, 12, tzinfo=UTC)
    ages = [seconds_since(now - timedelta(seconds=age), now) for age in (90, 0.5, 0, -0.5)]
    assert ages == [90.0, 0.5, 0.0, 0.0]
    assert seconds_since(None, now) is None
    assert seconds_since(LONG_AGO, now) is None


@pytest.mark.parametrize("status", [*ChildStatus, None])
def test_only_three_states_are_terminal(status: ChildStatus | None) -> None:
    final = {ChildStatus.SUCCEEDED, ChildStatus.FAILED, ChildStatus.SKIPPED}
    assert replace(CHILD, status=status).terminal is (status in final)
    assert status is None or (status in ACTIVE_CHILD) is (status not in final)


def test_a_retrys_key_names_the_earlier_task() -> None:
    assert CHILD.idempotency_key == f"{ORCHESTRATION_ID}_b"
    assert replace(CHILD, task_id="T").idempotency_key == f"{ORCHESTRATION_ID}_b_T"


def test_the_integration_node_is_known_by_its_name() -> None:
    name = f"{ORCHESTRATION_ID}__integration"
    assert replace(CHILD, sub_issue_id=name).is_integration
    assert not replace(CHILD, sub_issue_id=f"{name}s").is_integration


def test_a_moved_child_keeps_its_task() -> None:
    """The task changes only if the move sets another one."""
    child = replace(CHILD, task_id="T", branch_name="x")
    moved = child.moved(ChildStatus.SKIPPED, "later")
    assert (moved.status, moved.raw_status, moved.updated_at) == ("skipped", "skipped", "later")
    assert (moved.task_id, moved.branch_name) == ("T", "x")
    moved = child.moved(ChildStatus.RELEASED, None, "U", "y")
    assert (moved.task_id, moved.branch_name, moved.updated_at) == ("U", "y", None)


def test_our_own_repair_restarts_no_grace() -> None:
    repaired = replace(CHILD, effective_at=ago(600))
    assert (repaired.since, CHILD.since) == (ago(600), ago(60))
    assert repaired.moved(ChildStatus.READY, ago(5)).since == ago(5)


@pytest.mark.parametrize("row", [CHILD, META], ids=["child", "meta"])
def test_rows_are_compared_without_their_items(row: Child | Meta) -> None:
    """A scan reads only some attributes. Printing a row shows none of them."""
    whole_row = replace(row, item={"description": {"S": "confidential"}})
    assert whole_row == row
    assert "confidential" not in repr(whole_row)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"child_count": None}, "child_count"),
        ({"user_id": None}, "platform_user_id"),
        ({"user_id": ""}, "platform_user_id"),
        ({"repo": None}, "repo is"),
    ],
)
def test_a_bad_meta_row_names_its_problem(changes: dict[str, Any], named: str) -> None:
    assert named in (replace(META, **changes).problem or "")


def test_a_sound_meta_row_has_no_problem() -> None:
    assert META.problem is None
    assert replace(META, child_count=0).problem is None


STATUSES = ["COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT", "RUNNING", "SUBMITTED", "ODD"]


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("built", [None, True, False])
def test_only_a_completed_unbroken_task_succeeds(status: str, built: bool | None) -> None:  # noqa: FBT001
    """A task without a build result does not count as broken."""
    task = Task("T", status, build_passed=built)
    assert task.terminal is (status in STATUSES[:4])
    success = status == "COMPLETED" and built is not False
    assert task.outcome is (ChildStatus.SUCCEEDED if success else ChildStatus.FAILED)


def test_a_task_defaults_to_no_invocations_or_touches() -> None:
    task = Task("T", "RUNNING")
    assert (task.invoke_count, task.nudge_count, task.ours) == (0, 0, False)


def test_only_our_uninvoked_task_is_unrecorded() -> None:
    made = Task("T", "SUBMITTED", sweep_id="sweep-1")
    assert made.unrecorded
    assert not replace(made, invoked_at=ago(60)).unrecorded
    assert not replace(made, sweep_id=None).unrecorded


def test_the_best_known_time_is_the_finish() -> None:
    task = Task("T", "FAILED", updated_at="u", status_since="s", completed_at="c")
    assert task.finished_at == "c"
    assert replace(task, completed_at=None).finished_at == "s"
    assert replace(task, completed_at=None, status_since=None).finished_at == "u"
    assert replace(task, completed_at=None, status_since=None, updated_at=None).finished_at is None


def whole(*children: Child, meta: Meta | None = META) -> Orchestration:
    return Orchestration(ORCHESTRATION_ID, meta, {c.sub_issue_id: c for c in children})


def test_an_orchestration_is_complete_with_all_counted_rows() -> None:
    assert whole(CHILD).complete
    assert not whole().complete
    assert not whole(CHILD, meta=None).complete
    assert whole(CHILD, meta=replace(META, child_count=0)).complete
    assert whole(CHILD, meta=replace(META, child_count=None)).complete
    assert whole(meta=replace(META, child_count=None)).complete


def test_a_missing_meta_row_leaves_its_values_unknown() -> None:
    """Only the channel has a default."""
    told = whole(CHILD, meta=replace(META, channel="jira"))
    assert (told.user_id, told.repo, told.channel) == ("user-1", "acme/shop", "jira")
    silent = whole(CHILD, meta=None)
    assert (silent.user_id, silent.repo, silent.channel) == (None, None, DEFAULT_CHANNEL)
    assert not Meta(ORCHESTRATION_ID).settled


def test_replacing_one_child_leaves_the_others() -> None:
    other = replace(CHILD, sub_issue_id="c")
    changed = whole(CHILD, other).with_child(replace(CHILD, status=ChildStatus.READY))
    assert changed.children["b"].status is ChildStatus.READY
    assert changed.children["c"] is other


@pytest.mark.parametrize(
    "change",
    [
        {"raw_status": "ready"},
        {"task_id": "T"},
        {"updated_at": ago(59)},
        {"sub_issue_id": "c"},
    ],
)
def test_every_platform_write_changes_the_fingerprint(change: dict[str, Any]) -> None:
    assert whole(CHILD).fingerprint != whole(replace(CHILD, **change)).fingerprint


def test_the_fingerprint_tells_rows_and_their_fields_apart() -> None:
    other = replace(CHILD, sub_issue_id="c", task_id="T")
    moved = replace(CHILD, task_id="T"), replace(other, task_id=None)
    assert whole(CHILD, other).fingerprint != whole(*moved).fingerprint
    assert whole(CHILD, other).fingerprint == whole(other, CHILD).fingerprint
    assert whole(CHILD).fingerprint != whole(CHILD, other).fingerprint
    swapped = replace(CHILD, task_id=CHILD.updated_at, updated_at=None)
    assert whole(CHILD).fingerprint != whole(swapped).fingerprint


def test_the_fingerprint_changes_with_the_meta_row() -> None:
    before = whole(CHILD).fingerprint
    assert whole(CHILD, meta=None).fingerprint != before
    assert whole(CHILD, meta=replace(META, child_count=2)).fingerprint != before
    assert whole(CHILD, meta=replace(META, updated_at=ago(1))).fingerprint != before


def test_a_childs_fingerprint_ignores_other_children() -> None:
    """It covers the child's own row and the meta row."""
    other = replace(CHILD, sub_issue_id="c")
    before = whole(CHILD, other)
    moved = before.with_child(replace(other, raw_status="ready"))
    assert moved.fingerprint_of("b") == before.fingerprint_of("b")
    assert moved.fingerprint_of("c") != before.fingerprint_of("c")
    assert moved.fingerprint_of(WHOLE) == moved.fingerprint != before.fingerprint
    counted = replace(before, meta=replace(META, child_count=2))
    assert counted.fingerprint_of("b") != before.fingerprint_of("b")
    assert before.fingerprint_of("gone") == whole().fingerprint


def test_the_fingerprint_is_the_same_in_every_process() -> None:
    """A row stores it, and other hosts and later versions compare it."""
    child = Child("orch_1", "b", ChildStatus.BLOCKED, "blocked", updated_at="2026-06-09T12:00:00Z")
    meta = Meta("orch_1", 1, "u", "r", None, "2026-06-09T12:00:00Z", settled=False)
    assert Orchestration("orch_1", meta, {"b": child}).fingerprint == "1-fbedfca709c13e34"
    two = Orchestration("orch_1", replace(meta, child_count=2), {"b": child})
    assert two.fingerprint == "1-aac59fbc0a301ebf"
