"""What a released task carries."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from reconciler.domain.identity import derived_ulid, slug, task_id_for
from reconciler.domain.model import META, Orchestration
from reconciler.domain.task import (
    Refusal,
    TaskDraft,
    channel_metadata,
    describe,
    draft_task,
    own_text,
    refuse_large_row,
)
from reconciler.stores.rows import parse_orchestration, parse_source
from reconciler.stores.tasks import task_item
from tests.support.strategies import NOW, ORCHESTRATION_ID


def row(key: str, **attributes: Any) -> dict[str, Any]:
    base = {
        "orchestration_id": {"S": ORCHESTRATION_ID},
        "sub_issue_id": {"S": key},
        "created_at": {"S": "2026-06-09T10:00:00.000Z"},
    }
    return base | attributes


def child(key: str, *after: str, **attributes: Any) -> dict[str, Any]:
    state = {
        "child_status": {"S": "succeeded" if key.startswith("p") else "blocked"},
        "depends_on": {"L": [{"S": name} for name in after]},
    }
    return row(key, **(state | attributes))


def orchestration(*children: dict[str, Any], **meta: Any) -> Orchestration:
    whole = parse_orchestration(
        ORCHESTRATION_ID,
        [
            row(
                META,
                child_count={"N": str(len(children))},
                platform_user_id={"S": "user-1"},
                repo={"S": "acme/shop"},
                **meta,
            ),
            *children,
        ],
    )
    assert whole is not None
    return whole


def draft(whole: Orchestration, key: str = "b") -> TaskDraft:
    made = drafted_from(whole, key)
    assert isinstance(made, TaskDraft)
    return made


def drafted_from(whole: Orchestration, key: str) -> TaskDraft | Refusal:
    child_ = whole.children[key]
    return draft_task(whole, child_, source=parse_source(whole, child_), now=NOW)


def metadata(made: TaskDraft) -> dict[str, str]:
    texts = task_item(made)["channel_metadata"]["M"]
    return {name: value["S"] for name, value in texts.items()}


def branch(name: str) -> dict[str, Any]:
    return {"child_branch_name": {"S": name}}


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
def test_base_branch(branches: list[str], base: str | None, merge: str | None) -> None:
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


def test_legacy_spellings_are_read_where_the_new_ones_are_absent() -> None:
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


def test_ours_goes_on_top_of_the_rows_own_metadata() -> None:
    own = {"channel_metadata": {"M": {"orchestration_id": {"S": "spoofed"}, "x": {"S": "1"}}}}
    found = metadata(draft(orchestration(child("b", **own))))
    assert (found["orchestration_id"], found["x"]) == (ORCHESTRATION_ID, "1")


def test_the_integration_node_has_no_issue_and_no_attachments() -> None:
    key = f"{ORCHESTRATION_ID}__integration"
    attachment = {"pre_screened_attachments_json": {"S": json.dumps([passed("a1")])}}
    made = draft(orchestration(child(key), **attachment), key)
    assert "linear_issue_id" not in metadata(made)
    assert "linear_issue_id" not in task_item(made)
    assert "attachments" not in task_item(made)
    assert made.branch_name.startswith(f"bgagent/{made.task_id}/integration-")


def test_jira_identity() -> None:
    own = {"jira_cloud_id": {"S": "cloud"}, "jira_issue_key": {"S": "ENG-1"}}
    whole = orchestration(child("b", channel_metadata={"M": own}), channel_source={"S": "jira"})
    made = draft(whole)
    assert task_item(made)["jira_issue_identity"] == {"S": "cloud#ENG-1"}
    assert "linear_issue_id" not in task_item(made)


def test_a_retrys_key_names_the_earlier_task() -> None:
    made = draft(orchestration(child("b", child_task_id={"S": "T1"})))
    assert made.idempotency_key == f"{ORCHESTRATION_ID}_b_T1"


def passed(attachment_id: str, status: str = "passed") -> dict[str, Any]:
    return {"attachment_id": attachment_id, "screening": {"status": status}}


def typed(attachment_id: str, status: str = "passed") -> dict[str, Any]:
    screening = {"M": {"status": {"S": status}}}
    return {"M": {"attachment_id": {"S": attachment_id}, "screening": screening}}


def sized(attachment_id: str, size_bytes: int) -> dict[str, Any]:
    return {"M": {**typed(attachment_id)["M"], "size_bytes": {"N": str(size_bytes)}}}


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


def attachments(made: TaskDraft) -> list[str]:
    return [
        a["M"]["attachment_id"]["S"] for a in task_item(made).get("attachments", {"L": []})["L"]
    ]


def test_attachments_own_first_each_once_at_most_ten() -> None:
    own = {"pre_screened_attachments": {"L": [typed("c1"), typed("a0")]}}
    parents = [passed(f"a{number}") for number in range(12)]
    meta = {"pre_screened_attachments_json": {"S": json.dumps(parents)}}
    made = draft(orchestration(child("b", **own), **meta))
    assert attachments(made) == ["c1", "a0", *(f"a{number}" for number in range(1, 9))]
    assert any(
        "over the limit" in warning and "a9, a10, a11" in warning for warning in made.warnings
    )


def test_an_attachment_that_is_not_screened_is_never_passed_on() -> None:
    own = {"pre_screened_attachments": {"L": [typed("c1", "blocked"), typed("c2")]}}
    made = draft(orchestration(child("b", **own)))
    assert attachments(made) == ["c2"]
    assert "c1" in made.warnings[0]


@pytest.mark.parametrize("raw", ["not json", "{}", "[NaN]", "[" * 100_000, "[1]"])
def test_unreadable_attachments_of_the_parent_are_a_warning_never_a_stop(raw: str) -> None:
    meta = {"pre_screened_attachments_json": {"S": raw}}
    made = draft(orchestration(child("b"), **meta))
    assert attachments(made) == []
    assert made.warnings


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ENG-1: Fix “it” — Ünïcode!", "eng-1-fix-it-n-code"),
        ("", "task"),
        ("日本語", "task"),
        ("a" * 80, "a" * 50),
        ("-- x --", "x"),
    ],
)
def test_slug(line: str, expected: str) -> None:
    assert slug(line) == expected


def test_the_same_attempt_has_the_same_task_id_and_another_has_another() -> None:
    at = "2026-06-09T10:00:00.000Z"
    assert task_id_for("k", at) == task_id_for("k", at) != task_id_for("k_T1", at)
    assert len(derived_ulid("x", None)) == 26


# -- at each limit


def drafted(child_row: dict[str, Any], **meta: Any) -> TaskDraft | Refusal:
    whole = orchestration(child_row, **meta)
    return drafted_from(whole, next(iter(whole.children)))


@pytest.mark.parametrize(("characters", "made"), [(10_000, True), (10_001, False)])
def test_the_longest_description(characters: int, made: bool) -> None:  # noqa: FBT001
    found = drafted(child("b", description={"S": "x" * characters}))
    assert isinstance(found, TaskDraft) is made


def test_a_row_is_as_large_as_dynamodb_takes_and_not_larger() -> None:
    assert refuse_large_row(384 * 1024) is None
    refused = refuse_large_row(384 * 1024 + 1)
    assert refused is not None
    assert "would take 393217 bytes" in refused.reason
    assert refused.reason.endswith("then retry.")


@pytest.mark.parametrize(("count", "warned"), [(10, False), (11, True)])
def test_ten_attachments_are_passed_on(count: int, warned: bool) -> None:  # noqa: FBT001
    own = {"pre_screened_attachments": {"L": [typed(f"a{number}") for number in range(count)]}}
    made = draft(orchestration(child("b", **own)))
    assert len(attachments(made)) == 10
    assert bool(made.warnings) is warned
    assert not warned or made.warnings[0].startswith("1 attachments over the limit of 10")


def test_attachments_may_hold_fifty_mebibytes_together() -> None:
    half = 25 * 1024 * 1024
    meta = {
        "pre_screened_attachments_json": {"S": json.dumps([{**passed("p"), "size_bytes": half}])}
    }
    fits = {"pre_screened_attachments": {"L": [sized("c", half), typed("of no size")]}}
    assert attachments(draft(orchestration(child("b", **fits), **meta))) == ["c", "of no size", "p"]
    one_more = {"pre_screened_attachments": {"L": [sized("c", half + 1)]}}
    assert isinstance(drafted(child("b", **one_more), **meta), Refusal)


def test_what_is_not_passed_on_has_no_size() -> None:
    left_out = {"M": {**sized("c", 2**40)["M"], **typed("c", "blocked")["M"]}}
    own = {"pre_screened_attachments": {"L": [left_out]}}
    assert attachments(draft(orchestration(child("b", **own)))) == []


@pytest.mark.parametrize("missing", ["platform_user_id", "repo"])
def test_without_a_sound_meta_row_no_task_is_made(missing: str) -> None:
    changes = {missing: {"NULL": True}}
    rows = [
        row(META, **({"platform_user_id": {"S": "u"}, "repo": {"S": "r"}} | changes)),
        child("b"),
    ]
    for given in (rows, rows[1:]):
        whole = parse_orchestration(ORCHESTRATION_ID, given)
        assert whole is not None
        refused = drafted_from(whole, "b")
        assert isinstance(refused, Refusal)
        assert "meta row" in refused.reason


def test_what_every_task_has() -> None:
    made = draft(orchestration(child("b")))
    at = "2026-06-09T12:00:00.000Z"
    assert task_item(made)["approval_gate_count"] == {"N": "0"}
    assert task_item(made)["approval_gate_cap"] == {"N": "50"}
    assert task_item(made)["status_created_at"] == {"S": f"SUBMITTED#{at}"}
    assert task_item(made)["created_at"] == task_item(made)["updated_at"] == {"S": at}
    assert (made.repo, made.channel_source, made.warnings) == ("acme/shop", "linear", ())
    whole = orchestration(child("b", repo={"S": "acme/own"}), channel_source={"S": "slack"})
    own = draft(whole)
    assert (own.repo, own.channel_source) == ("acme/own", "slack")


def test_a_branch_is_named_by_the_first_line_of_its_own_text() -> None:
    made = draft(orchestration(child("b", title={"S": "Do it"}, description={"S": "Well."})))
    assert made.branch_name == f"bgagent/{made.task_id}/do-it"
    silent = draft(orchestration(child("b"), parent_context_title={"S": "The trip"}))
    assert silent.branch_name == f"bgagent/{silent.task_id}/orchestration-child-b"
    foreign = draft(orchestration(child("b", title={"S": "旅行"})))
    assert foreign.branch_name == f"bgagent/{foreign.task_id}/task"


def test_a_key_that_is_far_too_long_is_not_repeated_whole() -> None:
    refused = drafted(child("b" * 400))
    assert isinstance(refused, Refusal)
    shown = refused.reason.split("'")[1]
    assert shown == f"{ORCHESTRATION_ID}_{'b' * 400}"[:160]


# -- the text


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
def test_what_a_child_says_of_itself(attributes: dict[str, Any], expected: str) -> None:
    whole = orchestration(child("b", **attributes))
    own = parse_source(whole, whole.children["b"]).own
    assert own_text(whole.children["b"], own) == expected


def test_the_parents_context_is_framed_where_there_is_any() -> None:
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


def test_only_linears_tasks_say_where_they_are_in_linear() -> None:
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


def test_a_childs_own_place_in_linear_goes_before_the_parents() -> None:
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
def test_only_text_is_passed_on_of_a_rows_own_metadata(
    raw: dict[str, Any], expected: dict[str, str]
) -> None:
    found = told(orchestration(child("b", channel_metadata=raw)), "slack")
    assert {n: v for n, v in found.items() if not n.startswith("orchestration_")} == expected


def test_metadata_without_a_meta_row_is_the_childs_own() -> None:
    whole = parse_orchestration(ORCHESTRATION_ID, [child("b")])
    assert whole is not None
    assert told(whole, "linear")["linear_issue_id"] == "b"


def test_a_predecessor_without_a_row_or_a_branch_is_no_base() -> None:
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
def test_a_task_is_found_by_its_issue_in_the_channel_that_it_is_of(
    channel: str, own: dict[str, str], expected: dict[str, Any]
) -> None:
    metadata_ = {"M": {name: {"S": value} for name, value in own.items()}}
    made = draft(
        orchestration(child("b", channel_metadata=metadata_), channel_source={"S": channel})
    )
    keys = ("linear_issue_id", "jira_issue_identity")
    assert {name: task_item(made)[name] for name in keys if name in task_item(made)} == expected


# -- attachments


@pytest.mark.parametrize(
    ("record", "warning"),
    [
        ({"S": "x"}, "not a map"),
        ({"M": {"screening": {"M": {"status": {"S": "passed"}}}}}, "attachment None was left out"),
        ({"M": {"attachment_id": {"S": "x"}, "screening": {"S": "passed"}}}, "not screened"),
        ({"M": {"attachment_id": {"S": "x"}}}, "not screened"),
    ],
)
def test_a_record_that_is_not_understood_is_left_out_and_the_others_are_passed_on(
    record: dict[str, Any], warning: str
) -> None:
    own = {"pre_screened_attachments": {"L": [record, typed("a1")]}}
    made = draft(orchestration(child("b", **own)))
    assert attachments(made) == ["a1"]
    assert warning in made.warnings[0]


def test_attachments_that_are_no_list_are_none() -> None:
    made = draft(orchestration(child("b", pre_screened_attachments={"L": "x"})))
    assert "attachments" not in task_item(made)


def parents(raw: Any) -> TaskDraft:
    text = raw if isinstance(raw, str) else json.dumps(raw)
    return draft(orchestration(child("b"), pre_screened_attachments_json={"S": text}))


def test_each_kind_of_value_is_passed_on_as_it_is() -> None:
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
def test_a_number_that_dynamodb_cannot_hold_leaves_its_attachment_out(
    number: str,
    fits: bool,  # noqa: FBT001
) -> None:
    raw = f'[{{"attachment_id": "a1", "screening": {{"status": "passed"}}, "n": {number}}}]'
    made = parents(raw)
    assert (attachments(made) == ["a1"]) is fits
    assert fits or "number" in made.warnings[0]


@pytest.mark.parametrize(("levels", "fits"), [(28, True), (29, False)])
def test_what_is_nested_too_deep_leaves_its_attachment_out(levels: int, fits: bool) -> None:  # noqa: FBT001
    deep: Any = "x"
    for _ in range(levels):
        deep = [deep]
    made = parents([{**passed("a1"), "deep": deep}, passed("a2")])
    assert attachments(made) == (["a1", "a2"] if fits else ["a2"])
    assert fits or "nested too deep" in made.warnings[0]


def test_half_a_character_leaves_its_attachment_out() -> None:
    half = '{"attachment_id": "a1", "screening": {"status": "passed"}, "x": "\\ud800"}'
    made = parents(f"[{half}, {json.dumps(passed('a2'))}]")
    assert attachments(made) == ["a2"]
    assert made.warnings[0].startswith("an attachment of the parent was left out")


@pytest.mark.parametrize(
    ("raw", "said"),
    [("{}", "is not a list"), ("[NaN]", "cannot be read"), ("not json", "cannot be read")],
)
def test_why_none_of_the_parents_attachments_is_passed_on_is_said_once(raw: str, said: str) -> None:
    made = parents(raw)
    assert len(made.warnings) == 1
    assert said in made.warnings[0]
    assert "attachments" not in task_item(made)
