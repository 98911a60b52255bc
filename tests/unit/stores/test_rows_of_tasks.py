"""What the rows say of a task to be made: its texts, its metadata and its attachments."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from reconciler.domain.model import Orchestration
from reconciler.domain.task import Attachment, TaskSource
from reconciler.stores.rows import parse_orchestration, parse_source, with_written


def source(child: dict[str, Any], meta: dict[str, Any] | None = None) -> TaskSource:
    """Return what a child's row and the meta row say; None: there is no meta row."""
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


def test_texts_are_those_of_the_rows() -> None:
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
def test_only_what_was_screened_is_passed(odd: dict[str, Any], *, passed: bool) -> None:
    (found,) = source({"pre_screened_attachments": {"L": [odd]}}).attachments
    assert (found.attachment_id, found.passed) == ("x", passed)


@pytest.mark.parametrize("odd", [{"S": "x"}, {"M": "x"}, {"NULL": True}])
def test_a_record_that_is_no_map_is_left_out_with_a_warning(odd: dict[str, Any]) -> None:
    found = source({"pre_screened_attachments": {"L": [odd, record("a")]}})
    assert [attachment.attachment_id for attachment in found.attachments] == ["a"]
    assert found.warnings == ["an attachment record that is not a map was left out"]


@pytest.mark.parametrize("raw", [{"L": "x"}, {"S": "x"}, {"L": []}])
def test_attachments_that_are_no_list_are_none(raw: dict[str, Any]) -> None:
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
def test_why_the_parents_attachments_are_left_out_is_said_once(raw: str, said: str) -> None:
    found = source({}, {"pre_screened_attachments_json": {"S": raw}})
    assert found.attachments == ()
    assert len(found.warnings) == 1
    assert said in found.warnings[0]


@pytest.mark.parametrize(("levels", "fits"), [(28, True), (29, False)])
def test_a_record_of_the_parents_may_be_nested_as_deep_as_a_row_takes_it(
    levels: int, *, fits: bool
) -> None:
    deep: Any = "x"
    for _ in range(levels):
        deep = [deep]
    parents = [{"attachment_id": "p", "deep": deep}, {"attachment_id": "q"}]
    found = source({}, {"pre_screened_attachments_json": {"S": json.dumps(parents)}})
    names = [attachment.attachment_id for attachment in found.attachments]
    assert names == (["p", "q"] if fits else ["q"])
    assert len(found.warnings) == (not fits)


def test_what_our_write_has_left_is_what_the_next_one_expects() -> None:
    whole = parse_orchestration(
        "o", [{"orchestration_id": {"S": "o"}, "sub_issue_id": {"S": "a"}, "n": {"N": "1"}}]
    )
    assert whole is not None
    written = with_written(whole.children["a"], child_status="ready")
    assert (written.item["child_status"], written.item["n"]) == ({"S": "ready"}, {"N": "1"})
