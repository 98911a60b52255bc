"""Builders of small orchestrations and of the tasks drafted for their children."""

from __future__ import annotations

import json
from typing import Any

from reconciler.domain.model import META, Orchestration
from reconciler.domain.task import (
    Refusal,
    TaskDraft,
    draft_task,
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


def branch(name: str) -> dict[str, Any]:
    return {"child_branch_name": {"S": name}}


def passed(attachment_id: str, status: str = "passed") -> dict[str, Any]:
    return {"attachment_id": attachment_id, "screening": {"status": status}}


def typed(attachment_id: str, status: str = "passed") -> dict[str, Any]:
    screening = {"M": {"status": {"S": status}}}
    return {"M": {"attachment_id": {"S": attachment_id}, "screening": screening}}


def sized(attachment_id: str, size_bytes: int) -> dict[str, Any]:
    return {"M": {**typed(attachment_id)["M"], "size_bytes": {"N": str(size_bytes)}}}


def attachments(made: TaskDraft) -> list[str]:
    return [
        a["M"]["attachment_id"]["S"] for a in task_item(made).get("attachments", {"L": []})["L"]
    ]


def parents(raw: Any) -> TaskDraft:
    text = raw if isinstance(raw, str) else json.dumps(raw)
    return draft(orchestration(child("b"), pre_screened_attachments_json={"S": text}))
