"""Parsing rows: every possible row can be parsed, and each problem in it is named."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.domain.model import WHOLE, ChildStatus
from reconciler.stores.rows import (
    is_marker,
    parse_attempts,
    parse_child,
    parse_meta,
    parse_orchestration,
    parse_task,
    plainly_settled,
)

KEYS = {"orchestration_id": {"S": "orch_1"}, "sub_issue_id": {"S": "b"}}
ROW: dict[str, Any] = {
    **KEYS,
    "child_status": {"S": "blocked"},
    "depends_on": {"L": [{"S": "a"}, {"S": "c"}, {"S": "a"}]},
}
Row = dict[str, Any]
TASK: Row = {"task_id": {"S": "T"}, "status": {"S": "COMPLETED"}}


@pytest.mark.parametrize(("key", "marker"), [("ack#1", True), ("#meta", False), ("b", False)])
def test_markers_are_known_by_their_key(key: str, marker: bool) -> None:  # noqa: FBT001
    assert is_marker(key) is marker


def test_a_valid_child_is_parsed() -> None:
    child = parse_child(
        {
            **ROW,
            "child_task_id": {"S": "T"},
            "child_branch_name": {"S": "br"},
            "linear_identifier": {"S": "ENG-1"},
            "created_at": {"S": "c"},
            "updated_at": {"S": "u"},
        }
    )
    assert child.problem is None
    assert (child.orchestration_id, child.sub_issue_id) == ("orch_1", "b")
    assert (child.status, child.raw_status) == (ChildStatus.BLOCKED, "blocked")
    assert child.depends_on == ("a", "c")
    assert (child.task_id, child.branch_name, child.display_id) == ("T", "br", "ENG-1")
    assert (child.created_at, child.updated_at) == ("c", "u")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"child_status": None}, "child_status"),
        ({"child_status": {"N": "1"}}, "child_status"),
        ({"child_status": {"S": ""}}, "child_status"),
        ({"child_status": {"NULL": True}}, "child_status"),
        ({"depends_on": None}, "depends_on is missing"),
        ({"depends_on": {"SS": ["a"]}}, "depends_on is missing"),
        ({"depends_on": {"S": "a"}}, "depends_on is missing"),
        ({"depends_on": {"L": [{"S": "a"}, {"N": "1"}]}}, "depends_on holds"),
        ({"depends_on": {"L": [{"S": ""}]}}, "depends_on holds"),
        ({"depends_on": {"L": [{"L": []}]}}, "depends_on holds"),
        ({"depends_on": {"L": [{"S": ["a"]}]}}, "depends_on holds"),
        ({"child_task_id": {"N": "1"}}, "child_task_id"),
        ({"child_task_id": {"BOOL": True}}, "child_task_id"),
    ],
)
def test_a_malformed_attribute_is_named(changes: dict[str, Any], named: str) -> None:
    item = {name: value for name, value in {**ROW, **changes}.items() if value is not None}
    child = parse_child(item)
    assert named in (child.problem or "")
    assert child.item is item


def test_the_first_problem_is_the_one_named() -> None:
    assert "child_status" in (parse_child(KEYS).problem or "")
    odd: dict[str, Any] = {**KEYS, "depends_on": {"L": [{"N": "1"}]}}
    assert "child_status" in (parse_child(odd).problem or "")
    odd = {**ROW, "depends_on": {"S": "a"}, "child_task_id": {"N": "1"}}
    assert "depends_on" in (parse_child(odd).problem or "")


@pytest.mark.parametrize("task", [{"NULL": True}, {"S": ""}])
def test_an_empty_task_id_counts_as_none(task: Any) -> None:
    child = parse_child({**ROW, "child_task_id": task, "depends_on": {"L": []}})
    assert (child.task_id, child.problem, child.depends_on) == (None, None, ())


def test_an_unknown_status_is_kept() -> None:
    child = parse_child({**ROW, "child_status": {"S": "paused"}})
    assert (child.status, child.raw_status, child.problem) == (None, "paused", None)


def test_a_missing_status_of_a_child_is_empty() -> None:
    child = parse_child(KEYS)
    assert (child.status, child.raw_status) == (None, "")


@pytest.mark.parametrize(
    ("written", "updated", "effective"),
    [
        ("u", "u", "e"),
        ("u", "later", None),
        ("u", None, None),
        (None, "u", None),
        (None, None, None),
    ],
)
def test_an_effective_time_counts_until_anybody_writes(
    written: str | None, updated: str | None, effective: str | None
) -> None:
    times = {"reconciler_written_at": written, "updated_at": updated}
    stored = {name: {"S": at} for name, at in times.items() if at is not None}
    child = parse_child({**ROW, **stored, "reconciler_effective_at": {"S": "e"}})
    assert child.effective_at == effective


@pytest.mark.parametrize(("stored", "channel"), [({"S": "jira"}, "jira"), ({"S": ""}, "linear")])
def test_the_channel_is_linear_unless_named(stored: Row, channel: str) -> None:
    assert parse_meta({**KEYS, "channel_source": stored}).channel == channel


def test_a_meta_row_is_parsed() -> None:
    meta = parse_meta(
        {
            **KEYS,
            "child_count": {"N": "3"},
            "platform_user_id": {"S": "u"},
            "repo": {"S": "r"},
            "created_at": {"S": "c"},
            "updated_at": {"S": "d"},
        }
    )
    assert (meta.child_count, meta.user_id, meta.repo) == (3, "u", "r")
    assert (meta.created_at, meta.updated_at, meta.settled) == ("c", "d", False)
    assert parse_meta({**KEYS, "rollup_posted_at": {"S": "x"}}).settled


def test_a_record_of_attempts_is_parsed() -> None:
    bare = parse_attempts({})
    assert (bare.failures, bare.last_error, bare.last_failed_at) == (0, "", "")
    assert (bare.retry_at, bare.fingerprint) == (None, "")
    found = parse_attempts(
        {
            "failures": {"N": "4"},
            "last_error": {"S": "e"},
            "last_failed_at": {"S": "l"},
            "retry_at": {"S": "r"},
            "fingerprint": {"S": "f"},
        }
    )
    assert (found.failures, found.last_error, found.last_failed_at) == (4, "e", "l")
    assert (found.retry_at, found.fingerprint) == ("r", "f")


def test_rows_of_a_partition_are_told_apart() -> None:
    def at(key: str, **more: Any) -> dict[str, Any]:
        return {**ROW, "sub_issue_id": {"S": key}, **more}

    rows = [at("ack#1"), at("b"), at("#meta"), at("reconciler#attempts", failures={"N": "2"})]
    rows.append(at("reconciler#attempts#b", failures={"N": "3"}))
    found = parse_orchestration("orch_1", rows)
    assert found is not None
    assert list(found.children) == ["b"]
    assert found.meta is not None
    assert {key: held.failures for key, held in found.attempts.items()} == {WHOLE: 2, "b": 3}
    assert parse_orchestration("orch_1", [at("ack#1"), at("reconciler#attempts")]) is None
    assert parse_orchestration("orch_1", []) is None
    only_meta = parse_orchestration("orch_1", [at("#meta")])
    assert only_meta is not None
    assert not only_meta.children
    orphan = parse_orchestration("orch_1", [at("b")])
    assert orphan is not None
    assert orphan.meta is None
    assert orphan.attempts == {}


def test_a_task_is_parsed() -> None:
    task = parse_task(
        {
            **TASK,
            "status_created_at": {"S": "COMPLETED#2026"},
            "build_passed": {"BOOL": False},
            "reconciler_sweep_id": {"S": "s"},
            "reconciler_invoke_count": {"N": "2"},
            "reconcile_nudge_count": {"N": "3"},
        }
    )
    assert (task.problem, task.status_since, task.build_passed) == (None, "2026", False)
    assert (task.ours, task.invoke_count, task.nudge_count) == (True, 2, 3)
    bare = parse_task(TASK)
    assert (bare.ours, bare.invoke_count, bare.nudge_count) == (False, 0, 0)
    assert (bare.status_since, bare.build_passed) == (None, None)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"status": None}, "status is missing"),
        ({"status": {"N": "1"}}, "status is missing"),
        ({"status": {"S": "DREAMING"}}, "'DREAMING' is not known"),
        ({"build_passed": {"S": "false"}}, "build_passed"),
        ({"build_passed": {"N": "0"}}, "build_passed"),
    ],
)
def test_a_malformed_attribute_of_a_task_is_named(changes: dict[str, Any], named: str) -> None:
    item = {name: value for name, value in {**TASK, **changes}.items() if value is not None}
    assert named in (parse_task(item).problem or "")


@pytest.mark.parametrize("status", ["RUNNING", "SUBMITTED", "FAILED"])
def test_known_states_of_a_task_are_no_problem(status: str) -> None:
    assert parse_task({**TASK, "status": {"S": status}}).problem is None
    null = {**TASK, "status": {"S": status}, "build_passed": {"NULL": True}}
    assert parse_task(null).problem is None


@pytest.mark.parametrize(
    ("entered", "since"),
    [
        ("COMPLETED#2026", "2026"),
        ("RUNNING#2026", None),  # the time of another status
        ("COMPLETED#", None),
        ("COMPLETED", None),
        ("#2026", None),
        ("", None),
    ],
)
def test_a_timestamp_of_another_status_is_ignored(entered: str, since: str | None) -> None:
    """``status_created_at`` counts only if it begins with the task's status."""
    task = parse_task({**TASK, "status": {"S": "COMPLETED"}, "status_created_at": {"S": entered}})
    assert task.status_since == since


def test_a_missing_status_of_a_task_is_empty() -> None:
    assert parse_task({"task_id": {"S": "T"}}).status == ""
    assert parse_task({"task_id": {"S": "T"}}).status_since is None


# -- the shortcut for settled orchestrations


def row(key: str, **attributes: Any) -> Row:
    return {"sub_issue_id": {"S": key}, **attributes}


def done(key: str, status: str = "succeeded") -> Row:
    return row(key, child_status={"S": status})


META_ROW = row("#meta", rollup_posted_at={"S": "2026-06-09T12:00:00Z"}, child_count={"N": "2"})


@pytest.mark.parametrize("status", ["succeeded", "failed"])
def test_finished_children_and_a_settled_parent_suffice(status: str) -> None:
    assert plainly_settled([META_ROW, done("a", status), done("b")])
    assert plainly_settled([done("a", status), META_ROW, row("ack#1"), done("b")])


@pytest.mark.parametrize(
    "rows",
    [
        [META_ROW, done("a")],  # one is missing
        [META_ROW, done("a"), done("b"), done("c")],
        [done("a"), done("b")],
        [META_ROW, done("a"), done("b", "ready")],
        [META_ROW, done("a"), done("b", "skipped")],  # its predecessor may have been retried
        [META_ROW, done("a"), done("b", "released")],
        [META_ROW, done("a"), row("b")],
        [META_ROW, done("a"), row("b", child_status={"N": "1"})],
        [{**META_ROW, "rollup_posted_at": {"NULL": True}}, done("a"), done("b")],
        [row("#meta", child_count={"N": "2"}), done("a"), done("b")],
        [{**META_ROW, "child_count": {"S": "2"}}, done("a"), done("b")],
    ],
)
def test_anything_else_is_not_plainly_settled(rows: list[Row]) -> None:
    assert not plainly_settled(rows)
