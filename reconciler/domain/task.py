"""Drafts tasks with exactly the content that the live reconciler would give them.

``reconciler.stores.rows`` extracts the source from rows, and ``reconciler.stores.tasks`` writes the
task.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from reconciler.domain.identity import slug, task_id_for, valid_idempotency_key, valid_repo
from reconciler.domain.model import Child, Orchestration, timestamp

MAX_DESCRIPTION_CHARACTERS = 10_000
MAX_ATTACHMENTS = 10
MAX_ATTACHMENT_BYTES = 50 * 1024 * 1024
DEFAULT_APPROVAL_GATE_CAP = 50
MAX_ROW_BYTES = 384 * 1024
"""DynamoDB takes 400 KB; the rest is reserved for team ids and the platform's updates."""

INTEGRATION_INSTRUCTIONS = """\
Integration of all finished sub-issues of the parent issue.

Merge the branches of the predecessors into one branch and resolve any conflicts between them, \
keeping the intent of each. Then build the project and run its tests, and mend what the merge \
broke. Add no features and change nothing that the merge does not need. Open one pull request \
with the result."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The reason why a task can never be created, and what to do about it."""

    reason: str


@dataclass(frozen=True, slots=True)
class Attachment:
    """An attachment record; ``stored`` is the whole record as in the row.

    ``passed``: it passed the screening.
    """

    attachment_id: str | None
    passed: bool
    size_bytes: Decimal | None
    stored: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TaskSource:
    """What the rows hold for a new task, besides the attributes of the model.

    ``own`` and ``parent``: the string attributes of the child's row and of the meta row.
    ``metadata``: the child's channel metadata. ``attachments``: the child's, then the parent's.
    ``warnings``: about attachments that cannot be read.
    """

    own: Mapping[str, str] = field(default_factory=dict)
    parent: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    attachments: Sequence[Attachment] = ()
    warnings: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class TaskDraft:
    """A task ready to be created. ``warnings`` are for the log.

    ``issue``: key attributes of the index by issue, if any.
    """

    task_id: str
    user_id: str
    branch_name: str
    idempotency_key: str
    description: str
    repo: str
    channel_source: str
    created_at: str
    metadata: Mapping[str, str]
    issue: Mapping[str, str]
    attachments: Sequence[Attachment] = ()
    team_ids: Sequence[str] = ()
    approval_gate_cap: int = DEFAULT_APPROVAL_GATE_CAP
    warnings: tuple[str, ...] = ()


def draft_task(
    orchestration: Orchestration, child: Child, *, source: TaskSource, now: datetime
) -> TaskDraft | Refusal:
    """Build the task of ``child``, whose predecessors all succeeded.

    ``reconciler.repair.drafter`` checks the repo, the budget and the guardrail.
    """
    meta = orchestration.meta
    if meta is None or meta.user_id is None or meta.repo is None:
        return Refusal("The meta row is incomplete; seed the orchestration again.")
    own = own_text(child, source.own)
    metadata = channel_metadata(orchestration, child, source)
    attachments, warnings = ((), ()) if child.is_integration else choose_attachments(source)
    task_id = task_id_for(child.idempotency_key, child.created_at)
    draft = TaskDraft(
        task_id=task_id,
        user_id=meta.user_id,
        branch_name=f"bgagent/{task_id}/{slug(own.partition(chr(10))[0])}",
        idempotency_key=child.idempotency_key,
        description=describe(source.parent, own),
        repo=source.own.get("repo") or meta.repo,
        channel_source=meta.channel,
        created_at=timestamp(now),
        metadata=metadata,
        issue=_indexed_by_issue(meta.channel, metadata),
        attachments=attachments,
        warnings=tuple(warnings),
    )
    return _refuse_invalid(draft) or draft


def _refuse_invalid(draft: TaskDraft) -> Refusal | None:
    """Return why the platform would never create a task like this one, or None."""
    # Quote only the beginning of an invalid value: it may be as long as a row.
    if not valid_idempotency_key(draft.idempotency_key):
        return Refusal(
            f"The idempotency key {draft.idempotency_key[:160]!r} is not of the form "
            "[A-Za-z0-9_-]{1,128}; the sub-issue's id cannot be used. Create the sub-issue anew "
            "and retry."
        )
    if not valid_repo(draft.repo):
        return Refusal(
            f"{draft.repo[:160]!r} is not the name of a repository (owner/name). Correct the "
            "project's repository, then start the orchestration again."
        )
    length = len(draft.description)
    if length > MAX_DESCRIPTION_CHARACTERS:
        return Refusal(
            f"The task's description has {length} characters, and at most "
            f"{MAX_DESCRIPTION_CHARACTERS} are allowed. Shorten the sub-issue or the parent "
            "issue, then retry."
        )
    size = sum(attachment.size_bytes or 0 for attachment in draft.attachments)
    if size > MAX_ATTACHMENT_BYTES:
        return Refusal(
            f"The attachments have {size:f} bytes together, and at most {MAX_ATTACHMENT_BYTES} "
            "are allowed. Remove attachments from the sub-issue or the parent issue, then retry."
        )
    return None


def refuse_large_row(row_bytes: int) -> Refusal | None:
    """Return why a task whose row takes so many bytes cannot be created, or None."""
    if row_bytes <= MAX_ROW_BYTES:
        return None
    return Refusal(
        f"The task would take {row_bytes} bytes with its attachments, and at most "
        f"{MAX_ROW_BYTES} can be stored. Remove attachments from the sub-issue or the parent "
        "issue, then retry."
    )


def _indexed_by_issue(channel: str, metadata: Mapping[str, str]) -> dict[str, str]:
    if channel == "linear" and metadata.get("linear_issue_id"):
        return {"linear_issue_id": metadata["linear_issue_id"]}
    cloud, issue = metadata.get("jira_cloud_id"), metadata.get("jira_issue_key")
    if channel == "jira" and cloud and issue:
        return {"jira_issue_identity": f"{cloud}#{issue}"}
    return {}


def own_text(child: Child, own: Mapping[str, str]) -> str:
    """Return the child's own text: ``display_id: title``, then its description."""
    if child.is_integration:
        return INTEGRATION_INSTRUCTIONS
    title, body = own.get("title", ""), own.get("description", "")
    # Many descriptions only repeat the title.
    if body.strip() == title.strip():
        body = ""
    heading = _join(": ", child.display_id or "", title)
    return _join("\n\n", heading, body).rstrip() or f"Orchestration child {child.sub_issue_id}"


def _join(separator: str, *parts: str) -> str:
    return separator.join(part for part in parts if part.strip())


def describe(parent: Mapping[str, str], own: str) -> str:
    """Return the whole description: the parent's context, then the child's own text.

    The context is only labelled, not introduced by instructions, which trip content filters.
    """
    title = parent.get("parent_context_title", "")
    body = parent.get("parent_context_description", "")
    if not title.strip() and not body.strip():
        return own
    lines = ["----- Context: the parent issue that this sub-issue is a part of -----"]
    if title.strip():
        lines.append(f"Title: {title}")
    if body.strip():
        lines.append(body)
    lines.append("----- End of context -----")
    return "\n".join(lines) + "\n\n" + own


def channel_metadata(
    orchestration: Orchestration, child: Child, source: TaskSource
) -> dict[str, str]:
    """Return the task's metadata: the row's own map, overridden by ours."""
    ours: dict[str, str | None] = {
        "orchestration_id": orchestration.orchestration_id,
        "orchestration_sub_issue_id": child.sub_issue_id,
        **_base_branch(orchestration, child),
    }
    if orchestration.channel == "linear":
        ours |= _linear_metadata(child, source)
    return {**source.metadata, **{name: value for name, value in ours.items() if value}}


def _linear_metadata(child: Child, source: TaskSource) -> dict[str, str | None]:
    rows = (source.own, source.parent)
    return {
        # Earlier versions of the platform wrote the second name of each pair.
        "linear_workspace_id": _first(rows, "credentials_ref", "linear_workspace_id"),
        "parent_linear_issue_id": _first(rows, "parent_issue_ref", "parent_linear_issue_id"),
        "linear_issue_id": None if child.is_integration else child.sub_issue_id,
        "linear_issue_identifier": child.display_id,
        "linear_project_id": source.parent.get("linear_project_id"),
        "linear_oauth_secret_arn": source.parent.get("linear_oauth_secret_arn"),
        "linear_workspace_slug": source.parent.get("linear_workspace_slug"),
    }


def _first(rows: Iterable[Mapping[str, str]], *names: str) -> str | None:
    return next((row[name] for row in rows for name in names if row.get(name)), None)


def _base_branch(orchestration: Orchestration, child: Child) -> dict[str, str]:
    rows = [row for _, row in orchestration.predecessors_of(child) if row is not None]
    branches = sorted({row.branch_name for row in rows if row.branch_name})
    if not branches:
        return {}
    if len(branches) == 1:
        return {"orchestration_base_branch": branches[0]}
    # The agent merges them into main before it begins.
    merge = json.dumps(branches, separators=(",", ":"), ensure_ascii=False)
    return {"orchestration_base_branch": "main", "orchestration_merge_branches": merge}


def choose_attachments(source: TaskSource) -> tuple[list[Attachment], list[str]]:
    """Return the attachments to pass on, without duplicates, and warnings about the others."""
    warnings = list(source.warnings)
    chosen: dict[str, Attachment] = {}
    for attachment in source.attachments:
        name = attachment.attachment_id
        if name is None or not attachment.passed:
            warnings.append(f"attachment {name} was left out: not screened as passed")
        else:
            chosen.setdefault(name, attachment)
    left_out = list(chosen)[MAX_ATTACHMENTS:]
    if left_out:
        warnings.append(
            f"{len(left_out)} attachments over the limit of {MAX_ATTACHMENTS} were left out: "
            + ", ".join(left_out)
        )
    return list(chosen.values())[:MAX_ATTACHMENTS], warnings
