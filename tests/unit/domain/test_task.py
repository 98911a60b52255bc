"""The contents of a released task."""

from __future__ import annotations

import json
from typing import Any

import pytest

from reconciler.domain.task import (
    Refusal,
    TaskDraft,
)
from reconciler.stores.tasks import task_item
from tests.support.strategies import ORCHESTRATION_ID
from tests.unit.domain.drafted import (
    attachments,
    branch,
    child,
    draft,
    drafted_from,
    orchestration,
    passed,
    sized,
    typed,
)


def metadata(made: TaskDraft) -> dict[str, str]:
    texts = task_item(made)["channel_metadata"]["M"]
    return {name: value["S"] for name, value in texts.items()}


@pytest.mark.parametrize(
    ("branches", "base", "merge"),
    [
        ([], None, None),
        (["one"], "one", None),
        (["one", "one"], "one", None),
        (["two", "one"], "main", '["one","two"]'),
        (["größe", "one"], "main", '["größe","one"]'),
    ],
)
def test_one_predecessor_branch_becomes_the_base(
    branches: list[str], base: str | None, merge: str | None
) -> None:
    """With several branches, the base is main, and the task merges all of them."""
    before = [child(f"p{number}", **branch(name)) for number, name in enumerate(branches)]
    made = draft(orchestration(*before, child("b", *(f"p{n}" for n in range(len(branches))))))
    assert metadata(made).get("orchestration_base_branch") == base
    assert metadata(made).get("orchestration_merge_branches") == merge


def test_the_description_puts_the_parents_context_first() -> None:
    own = {"display_id": {"S": "ENG-7"}, "title": {"S": "Do it"}, "description": {"S": "Well."}}
    context = {
        "parent_context_title": {"S": "The trip"},
        "parent_context_description": {"S": "Names: kyoto."},
    }
    text = draft(orchestration(child("b", **own), **context)).description
    assert text.endswith("\n\nENG-7: Do it\n\nWell.")
    assert 0 <= text.index("The trip") < text.index("Names: kyoto.") < text.index("ENG-7")


def test_a_description_that_repeats_the_title_adds_nothing() -> None:
    own = {"title": {"S": "Do it"}, "description": {"S": " Do it "}}
    assert draft(orchestration(child("b", **own))).description == "Do it"


def test_legacy_spellings_are_read_as_a_fallback() -> None:
    made = draft(
        orchestration(
            child(
                "b",
                linear_identifier={"S": "ENG-9"},
                linear_workspace_id={"S": "WS"},
                parent_linear_issue_id={"S": "P"},
            )
        )
    )
    found = metadata(made)
    assert found["linear_issue_identifier"] == "ENG-9"
    assert (found["linear_workspace_id"], found["parent_linear_issue_id"]) == ("WS", "P")


def test_a_row_cannot_spoof_its_orchestration_id() -> None:
    """Its other metadata is passed on."""
    own = {"channel_metadata": {"M": {"orchestration_id": {"S": "spoofed"}, "x": {"S": "1"}}}}
    found = metadata(draft(orchestration(child("b", **own))))
    assert (found["orchestration_id"], found["x"]) == (ORCHESTRATION_ID, "1")


def test_the_integration_node_has_no_issue_or_attachments() -> None:
    key = f"{ORCHESTRATION_ID}__integration"
    attachment = {"pre_screened_attachments_json": {"S": json.dumps([passed("a1")])}}
    made = draft(orchestration(child(key), **attachment), key)
    assert "linear_issue_id" not in metadata(made)
    assert "linear_issue_id" not in task_item(made)
    assert "attachments" not in task_item(made)
    assert made.branch_name.startswith(f"bgagent/{made.task_id}/integration-")


def test_a_jira_task_has_its_jira_identity() -> None:
    own = {"jira_cloud_id": {"S": "cloud"}, "jira_issue_key": {"S": "ENG-1"}}
    whole = orchestration(child("b", channel_metadata={"M": own}), channel_source={"S": "jira"})
    made = draft(whole)
    assert task_item(made)["jira_issue_identity"] == {"S": "cloud#ENG-1"}
    assert "linear_issue_id" not in task_item(made)


def test_a_retrys_key_names_the_earlier_task() -> None:
    made = draft(orchestration(child("b", child_task_id={"S": "T1"})))
    assert made.idempotency_key == f"{ORCHESTRATION_ID}_b_T1"


@pytest.mark.parametrize(
    ("key", "attributes", "said"),
    [
        ("b c", {}, "idempotency key"),
        ("b" * 100, {}, "idempotency key"),
        ("b", {"description": {"S": "x" * 10_001}}, "10001 characters"),
        ("b", {"repo": {"S": "acme/shop/web"}}, "'acme/shop/web' is not the name of a repository"),
        ("b", {"pre_screened_attachments": {"L": [sized("a", 50 * 2**20 + 1)]}}, "52428801 bytes"),
    ],
)
def test_refusals_say_what_to_do(key: str, attributes: dict[str, Any], said: str) -> None:
    whole = orchestration(child(key, **attributes))
    refused = drafted_from(whole, key)
    assert isinstance(refused, Refusal)
    assert said in refused.reason
    assert refused.reason.endswith(("retry.", "then start the orchestration again."))


def test_a_childs_own_attachments_go_first() -> None:
    """Each attachment is passed on once, and at most ten in all."""
    own = {"pre_screened_attachments": {"L": [typed("c1"), typed("a0")]}}
    parents = [passed(f"a{number}") for number in range(12)]
    meta = {"pre_screened_attachments_json": {"S": json.dumps(parents)}}
    made = draft(orchestration(child("b", **own), **meta))
    assert attachments(made) == ["c1", "a0", *(f"a{number}" for number in range(1, 9))]
    assert any(
        "over the limit" in warning and "a9, a10, a11" in warning for warning in made.warnings
    )


def test_a_blocked_attachment_is_never_passed_on() -> None:
    own = {"pre_screened_attachments": {"L": [typed("c1", "blocked"), typed("c2")]}}
    made = draft(orchestration(child("b", **own)))
    assert attachments(made) == ["c2"]
    assert "c1" in made.warnings[0]


@pytest.mark.parametrize("raw", ["not json", "{}", "[NaN]", "[" * 100_000, "[1]"])
def test_unreadable_parent_attachments_are_only_a_warning(raw: str) -> None:
    meta = {"pre_screened_attachments_json": {"S": raw}}
    made = draft(orchestration(child("b"), **meta))
    assert attachments(made) == []
    assert made.warnings
