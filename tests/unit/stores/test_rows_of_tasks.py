"""What the rows say about a task to create: its texts, metadata and attachments."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from reconciler.domain.model import Orchestration
from reconciler.domain.task import Attachment, TaskSource
from reconciler.stores.rows import parse_orchestration, parse_source, with_written


def source(child: dict[str, Any], meta: dict[str, Any] | None = None) -> TaskSource:
    """Return what a child's row and the meta row say. Without ``meta`` there is no meta row."""
    key = {"orchestration_id": {"S": "o"}}
    rows = [{**key, "sub_issue_id": {"S": "a"}, **child}]
    if meta is not None:
        rows.append({**key, "sub_issue_id": {"S": "#meta"}, **meta})
    whole = parse_orchestration("o", rows)
    assert isinstance(whole, Orchestration)
    return parse_source(whole, whole.children["a"])


def record(name: str, status: str = "passed", **more: Any) -> dict[str, Any]:
    screening = {"M": {"status": {"S": status}}}
    return {"M": {"attachment_id": {"S": name}, "screening": screening, **more}}


def test_a_tasks_texts_come_from_both_rows() -> None:
    """These are the child's row and the meta row."""
    found = source({"title": {"S": "Do it"}, "n": {"N": "1"}}, {"parent_context_title": {"S": "T"}})
    assert (found.own["title"], found.parent["parent_context_title"]) == ("Do it", "T")
    assert "n" not in found.own
    assert source({}).parent == {}


@pytest.mark.parametrize(
    ("raw", "expected"),
    [({"M": {"x": {"S": "1"}, "y": {"N": "2"}}}, {"x": "1"}), ({"M": "x"}, {}), ({"S": "x"}, {})],
)
def test_metadata_is_the_text_of_a_map(raw: dict[str, Any], expected: dict[str, str]) -> None:
    assert source({"channel_metadata": raw}).metadata == expected


def test_own_attachments_come_before_the_parents() -> None:
    own = record("c", size_bytes={"N": "7"})
    parents = [{"attachment_id": "p", "screening": {"status": "passed"}}]
    found = source(
        {"pre_screened_attachments": {"L": [own]}},
        {"pre_screened_attachments_json": {"S": json.dumps(parents)}},
    )
    assert found.attachments == (
        Attachment("c", passed=True, size_bytes=Decimal(7), stored=own),
        Attachment("p", passed=True, size_bytes=None, stored=record("p")),
    )
    assert found.warnings == []


@pytest.mark.parametrize(
    ("odd", "passed"),
    [
        (record("x", "blocked"), False),
        ({"M": {"attachment_id": {"S": "x"}}}, False),
        ({"M": {"attachment_id": {"S": "x"}, "screening": {"M": "passed"}}}, False),
        ({"M": {"attachment_id": {"S": "x"}, "screening": {"S": "passed"}}}, False),
        (record("x"), True),
    ],
)
def test_only_screened_attachments_are_passed(odd: dict[str, Any], *, passed: bool) -> None:
    (found,) = source({"pre_screened_attachments": {"L": [odd]}}).attachments
    assert (found.attachment_id, found.passed) == ("x", passed)


@pytest.mark.parametrize("odd", [{"S": "x"}, {"M": "x"}, {"NULL": True}])
def test_an_attachment_that_is_no_map_is_dropped(odd: dict[str, Any]) -> None:
    """A warning says so."""
    found = source({"pre_screened_attachments": {"L": [odd, record("a")]}})
    assert [attachment.attachment_id for attachment in found.attachments] == ["a"]
    assert found.warnings == ["an attachment record that is not a map was left out"]


@pytest.mark.parametrize("raw", [{"L": "x"}, {"S": "x"}, {"L": []}])
def test_attachments_that_are_no_list_are_ignored(raw: dict[str, Any]) -> None:
    """They cause no warning."""
    found = source({"pre_screened_attachments": raw})
    assert (found.attachments, found.warnings) == ((), [])


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ("not json", "cannot be read"),
        ("[NaN]", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("{}", "is not a list"),
        ('"x"', "is not a list"),
    ],
)
def test_unreadable_parent_attachments_cause_one_warning(raw: str, said: str) -> None:
    found = source({}, {"pre_screened_attachments_json": {"S": raw}})
    assert found.attachments == ()
    assert len(found.warnings) == 1
    assert said in found.warnings[0]


@pytest.mark.parametrize(("levels", "fits"), [(28, True), (29, False)])
def test_a_too_deeply_nested_attachment_is_dropped(levels: int, *, fits: bool) -> None:
    """A parent's attachment may be nested only as deeply as a row can hold it."""
    deep: Any = "x"
    for _ in range(levels):
        deep = [deep]
    parents = [{"attachment_id": "p", "deep": deep}, {"attachment_id": "q"}]
    found = source({}, {"pre_screened_attachments_json": {"S": json.dumps(parents)}})
    names = [attachment.attachment_id for attachment in found.attachments]
    assert names == (["p", "q"] if fits else ["q"])
    assert len(found.warnings) == (not fits)


def test_a_write_updates_the_childs_item() -> None:
    """The next write expects the row as this one has left it."""
    whole = parse_orchestration(
        "o", [{"orchestration_id": {"S": "o"}, "sub_issue_id": {"S": "a"}, "n": {"N": "1"}}]
    )
    assert whole is not None
    written = with_written(whole.children["a"], child_status="ready")
    assert (written.item["child_status"], written.item["n"]) == ({"S": "ready"}, {"N": "1"})
