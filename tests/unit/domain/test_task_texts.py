"""The texts of a task: its description and its channel metadata."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reconciler.domain.model import Orchestration
from reconciler.domain.task import (
    channel_metadata,
    describe,
    own_text,
)
from reconciler.stores.rows import parse_orchestration, parse_source
from reconciler.stores.tasks import task_item
from tests.support.strategies import ORCHESTRATION_ID
from tests.unit.domain.drafted import branch, child, draft, orchestration


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, "Orchestration child b"),
        ({"title": {"S": " "}, "description": {"S": "\n"}}, "Orchestration child b"),
        ({"display_id": {"S": "E-1"}, "title": {"S": " "}}, "E-1"),
        ({"title": {"S": "Do it"}}, "Do it"),
        ({"display_id": {"S": "E-1"}}, "E-1"),
        ({"description": {"S": "Well. "}}, "Well."),
        ({"title": {"S": "Do it"}, "description": {"S": " "}}, "Do it"),
        ({"display_id": {"S": "E-1"}, "description": {"S": "x"}}, "E-1\n\nx"),
    ],
)
def test_a_childs_text_has_id_title_and_description(
    attributes: dict[str, Any], expected: str
) -> None:
    whole = orchestration(child("b", **attributes))
    own = parse_source(whole, whole.children["b"]).own
    assert own_text(whole.children["b"], own) == expected


def test_the_parents_context_is_framed() -> None:
    """A blank context adds nothing."""
    title, body = "The trip", "Names: kyoto."
    first = "----- Context: the parent issue that this sub-issue is a part of -----"
    last = "----- End of context -----\n\nown"
    assert describe({}, "own") == "own"
    blank = {"parent_context_title": " ", "parent_context_description": "\n\t"}
    assert describe(blank, "own") == "own"
    only = describe({"parent_context_title": title}, "own")
    assert only == f"{first}\nTitle: The trip\n{last}"
    for blank_title in ({}, {"parent_context_title": " "}):
        only = describe({**blank_title, "parent_context_description": body}, "own")
        assert only == f"{first}\nNames: kyoto.\n{last}"


# -- metadata


def told(whole: Orchestration, channel: str, key: str = "b") -> dict[str, str]:
    if whole.meta is not None:
        whole = replace(whole, meta=replace(whole.meta, channel=channel))
    child_ = whole.children[key]
    return channel_metadata(whole, child_, parse_source(whole, child_))


def test_only_linear_tasks_have_linear_metadata() -> None:
    credentials = {
        "credentials_ref": {"S": "WS"},
        "parent_issue_ref": {"S": "P"},
        "linear_project_id": {"S": "PRJ"},
        "linear_oauth_secret_arn": {"S": "arn"},
        "linear_workspace_slug": {"S": "slug"},
    }
    whole = orchestration(child("b", display_id={"S": "E-1"}), **credentials)
    assert told(whole, "linear") == {
        "orchestration_id": ORCHESTRATION_ID,
        "orchestration_sub_issue_id": "b",
        "linear_workspace_id": "WS",
        "parent_linear_issue_id": "P",
        "linear_issue_id": "b",
        "linear_issue_identifier": "E-1",
        "linear_project_id": "PRJ",
        "linear_oauth_secret_arn": "arn",
        "linear_workspace_slug": "slug",
    }
    assert told(whole, "slack") == {
        "orchestration_id": ORCHESTRATION_ID,
        "orchestration_sub_issue_id": "b",
    }


def test_a_childs_linear_metadata_overrides_the_parents() -> None:
    own = {"credentials_ref": {"S": "own"}, "parent_issue_ref": {"S": "mine"}}
    meta = {"credentials_ref": {"S": "WS"}, "parent_issue_ref": {"S": "P"}}
    found = told(orchestration(child("b", **own), **meta), "linear")
    assert (found["linear_workspace_id"], found["parent_linear_issue_id"]) == ("own", "mine")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"M": {"x": {"S": "1"}, "y": {"N": "2"}, "z": {"NULL": True}}}, {"x": "1"}),
        ({"S": "x"}, {}),
        ({"M": "x"}, {}),
    ],
)
def test_only_text_metadata_is_passed_on(raw: dict[str, Any], expected: dict[str, str]) -> None:
    found = told(orchestration(child("b", channel_metadata=raw)), "slack")
    assert {n: v for n, v in found.items() if not n.startswith("orchestration_")} == expected


def test_metadata_needs_no_meta_row() -> None:
    whole = parse_orchestration(ORCHESTRATION_ID, [child("b")])
    assert whole is not None
    assert told(whole, "linear")["linear_issue_id"] == "b"


def test_a_predecessor_without_a_branch_is_no_base() -> None:
    """A predecessor without a row is no base either."""
    whole = orchestration(child("p0"), child("p1", **branch("one")), child("b", "p0", "p1", "gone"))
    assert told(whole, "slack")["orchestration_base_branch"] == "one"


JIRA = {"jira_cloud_id": "c", "jira_issue_key": "E-1"}


@pytest.mark.parametrize(
    ("channel", "own", "expected"),
    [
        ("linear", {}, {"linear_issue_id": {"S": "b"}}),
        (
            "jira",
            {"jira_cloud_id": "c", "jira_issue_key": "E-1"},
            {"jira_issue_identity": {"S": "c#E-1"}},
        ),
        ("jira", {"jira_cloud_id": "c"}, {}),
        ("jira", {"jira_issue_key": "E-1"}, {}),
        ("slack", {**JIRA, "linear_issue_id": "x"}, {}),
    ],
)
def test_a_task_has_its_channels_issue_key(
    channel: str, own: dict[str, str], expected: dict[str, Any]
) -> None:
    metadata_ = {"M": {name: {"S": value} for name, value in own.items()}}
    made = draft(
        orchestration(child("b", channel_metadata=metadata_), channel_source={"S": channel})
    )
    keys = ("linear_issue_id", "jira_issue_identity")
    assert {name: task_item(made)[name] for name in keys if name in task_item(made)} == expected
