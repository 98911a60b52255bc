"""The limits of a task."""

from __future__ import annotations

import json
from typing import Any

import pytest

from reconciler.domain.model import META
from reconciler.domain.task import (
    Refusal,
    TaskDraft,
    refuse_large_row,
)
from reconciler.stores.rows import parse_orchestration
from reconciler.stores.tasks import task_item
from tests.support.strategies import ORCHESTRATION_ID
from tests.unit.domain.drafted import (
    attachments,
    child,
    draft,
    drafted_from,
    orchestration,
    passed,
    row,
    sized,
    typed,
)


def drafted(child_row: dict[str, Any], **meta: Any) -> TaskDraft | Refusal:
    whole = orchestration(child_row, **meta)
    return drafted_from(whole, next(iter(whole.children)))


@pytest.mark.parametrize(("characters", "made"), [(10_000, True), (10_001, False)])
def test_a_description_has_at_most_10000_characters(characters: int, made: bool) -> None:  # noqa: FBT001
    found = drafted(child("b", description={"S": "x" * characters}))
    assert isinstance(found, TaskDraft) is made


def test_a_row_over_384_kib_is_refused() -> None:
    assert refuse_large_row(384 * 1024) is None
    refused = refuse_large_row(384 * 1024 + 1)
    assert refused is not None
    assert "would take 393217 bytes" in refused.reason
    assert refused.reason.endswith("then retry.")


@pytest.mark.parametrize(("count", "warned"), [(10, False), (11, True)])
def test_at_most_ten_attachments_are_passed_on(count: int, warned: bool) -> None:  # noqa: FBT001
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
    records = [sized("c", half + 1), typed("of no size")]
    one_more = {"pre_screened_attachments": {"L": records}}
    assert isinstance(drafted(child("b", **one_more), **meta), Refusal)


def test_a_blocked_attachments_size_does_not_count() -> None:
    left_out = {"M": {**sized("c", 2**40)["M"], **typed("c", "blocked")["M"]}}
    own = {"pre_screened_attachments": {"L": [left_out]}}
    assert attachments(draft(orchestration(child("b", **own)))) == []


@pytest.mark.parametrize("missing", ["platform_user_id", "repo"])
def test_a_bad_meta_row_makes_no_task(missing: str) -> None:
    """A missing meta row makes none either."""
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


def test_every_task_has_the_required_attributes() -> None:
    """A child's own repository overrides that of the meta row."""
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


def test_a_branch_is_named_after_the_childs_text() -> None:
    made = draft(orchestration(child("b", title={"S": "Do it"}, description={"S": "Well."})))
    assert made.branch_name == f"bgagent/{made.task_id}/do-it"
    silent = draft(orchestration(child("b"), parent_context_title={"S": "The trip"}))
    assert silent.branch_name == f"bgagent/{silent.task_id}/orchestration-child-b"
    foreign = draft(orchestration(child("b", title={"S": "旅行"})))
    assert foreign.branch_name == f"bgagent/{foreign.task_id}/task"


def test_a_refusal_shortens_an_overlong_key() -> None:
    refused = drafted(child("b" * 400))
    assert isinstance(refused, Refusal)
    shown = refused.reason.split("'")[1]
    assert shown == f"{ORCHESTRATION_ID}_{'b' * 400}"[:160]


def test_a_refusal_shortens_an_overlong_repository_name() -> None:
    refused = drafted(child("b", repo={"S": "acme/shop/" + "b" * 400}))
    assert isinstance(refused, Refusal)
    assert refused.reason.split("'")[1] == "acme/shop/" + "b" * 150
