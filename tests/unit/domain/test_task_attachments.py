"""Which attachments are passed on to a task."""

from __future__ import annotations

import json
from typing import Any

import pytest

from reconciler.stores.tasks import task_item
from tests.unit.domain.drafted import (
    attachments,
    child,
    draft,
    orchestration,
    parents,
    passed,
    typed,
)


@pytest.mark.parametrize(
    ("record", "warning"),
    [
        ({"S": "x"}, "not a map"),
        ({"M": {"screening": {"M": {"status": {"S": "passed"}}}}}, "attachment None was left out"),
        ({"M": {"attachment_id": {"S": "x"}, "screening": {"S": "passed"}}}, "not screened"),
        ({"M": {"attachment_id": {"S": "x"}}}, "not screened"),
    ],
)
def test_an_invalid_attachment_is_left_out(record: dict[str, Any], warning: str) -> None:
    """The others are passed on."""
    own = {"pre_screened_attachments": {"L": [record, typed("a1")]}}
    made = draft(orchestration(child("b", **own)))
    assert attachments(made) == ["a1"]
    assert warning in made.warnings[0]


def test_attachments_that_are_no_list_are_ignored() -> None:
    made = draft(orchestration(child("b", pre_screened_attachments={"L": "x"})))
    assert "attachments" not in task_item(made)


def test_every_kind_of_value_is_passed_on() -> None:
    more: dict[str, Any] = {
        "n": None,
        "t": True,
        "i": 3,
        "f": 1.5,
        "z": 0.0,
        "l": ["x", {"y": 1}],
        "e": {},
    }
    (found,) = task_item(parents([{**passed("a1"), **more}]))["attachments"]["L"]
    fields = found["M"]
    assert {name: fields[name] for name in more} == {
        "n": {"NULL": True},
        "t": {"BOOL": True},
        "i": {"N": "3"},
        "f": {"N": "1.5"},
        "z": {"N": "0"},
        "l": {"L": [{"S": "x"}, {"M": {"y": {"N": "1"}}}]},
        "e": {"M": {}},
    }


@pytest.mark.parametrize(
    ("number", "fits"),
    [
        ("9" * 38, True),
        ("9" * 39, False),
        ("1" + "0" * 60, True),
        ("-" + "9" * 38, True),
        ("1e125", True),
        ("1e126", False),
        ("1e-130", True),
        ("1e-131", False),
        ("0.5", True),
        ("0e500", True),
        ("1e400", False),
    ],
)
def test_an_oversized_number_leaves_its_attachment_out(
    number: str,
    fits: bool,  # noqa: FBT001
) -> None:
    """DynamoDB holds 38 digits and a limited range of exponents."""
    raw = f'[{{"attachment_id": "a1", "screening": {{"status": "passed"}}, "n": {number}}}]'
    made = parents(raw)
    assert (attachments(made) == ["a1"]) is fits
    assert fits or "number" in made.warnings[0]


@pytest.mark.parametrize(("levels", "fits"), [(28, True), (29, False)])
def test_deep_nesting_leaves_an_attachment_out(levels: int, fits: bool) -> None:  # noqa: FBT001
    deep: Any = "x"
    for _ in range(levels):
        deep = [deep]
    made = parents([{**passed("a1"), "deep": deep}, passed("a2")])
    assert attachments(made) == (["a1", "a2"] if fits else ["a2"])
    assert fits or "nested too deep" in made.warnings[0]


def test_a_lone_surrogate_leaves_its_attachment_out() -> None:
    half = '{"attachment_id": "a1", "screening": {"status": "passed"}, "x": "\\ud800"}'
    made = parents(f"[{half}, {json.dumps(passed('a2'))}]")
    assert attachments(made) == ["a2"]
    assert made.warnings[0].startswith("an attachment of the parent was left out")


@pytest.mark.parametrize(
    ("raw", "said"),
    [("{}", "is not a list"), ("[NaN]", "cannot be read"), ("not json", "cannot be read")],
)
def test_unreadable_parent_attachments_cause_one_warning(raw: str, said: str) -> None:
    made = parents(raw)
    assert len(made.warnings) == 1
    assert said in made.warnings[0]
    assert "attachments" not in task_item(made)
