"""What a released task carries: told exactly what the live reconciler would have told it.

Everything is built as DynamoDB's typed JSON, ready to be written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, NoReturn

from reconciler.domain.identity import slug, task_id_for, valid_idempotency_key, valid_repo
from reconciler.domain.model import DEFAULT_CHANNEL, Child, Item, Orchestration, timestamp
from reconciler.domain.rows import decimal, text

WORKFLOW_ID = "coding/new-task-v1"
WORKFLOW_VERSION = "1.0.0"
MAX_DESCRIPTION_CHARACTERS = 10_000
MAX_ATTACHMENTS = 10
MAX_ATTACHMENT_BYTES = 50 * 1024 * 1024
DEFAULT_APPROVAL_GATE_CAP = 50
MAX_ITEM_BYTES = 384 * 1024
"""DynamoDB takes 400 KB. The rest is for the user's teams and for the platform's updates."""

_MOST_LEVELS = 30
"""DynamoDB nests 32 deep; the list of attachments and the record itself are two."""

_MOST_DIGITS = 38

INTEGRATION_INSTRUCTIONS = """\
Integration of all finished sub-issues of the parent issue.

Merge the branches of the predecessors into one branch and resolve any conflicts between them, \
keeping the intent of each. Then build the project and run its tests, and mend what the merge \
broke. Add no features and change nothing that the merge does not need. Open one pull request \
with the result."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A task that can never be made; ``reason`` says what a person should do next."""

    reason: str


@dataclass(frozen=True, slots=True)
class TaskDraft:
    """A task ready to be created. ``item`` is the whole row; ``warnings`` are for the log."""

    task_id: str
    branch_name: str
    idempotency_key: str
    description: str
    repo: str
    channel_source: str
    item: dict[str, Any]
    warnings: tuple[str, ...] = ()


_AS_EVERY_TASK: Item = {
    "status": {"S": "SUBMITTED"},
    "workflow_ref": {"S": WORKFLOW_ID},
    "resolved_workflow": {"M": {"id": {"S": WORKFLOW_ID}, "version": {"S": WORKFLOW_VERSION}}},
    "approval_gate_count": {"N": "0"},
    "approval_gate_cap": {"N": str(DEFAULT_APPROVAL_GATE_CAP)},
}


def draft_task(orchestration: Orchestration, child: Child, *, now: datetime) -> TaskDraft | Refusal:
    """Build the task of ``child``, whose predecessors all succeeded; its meta row must be sound.

    What only a table or a service knows (the repo, the budget, the guardrail) is asked elsewhere.
    """
    meta = orchestration.meta
    if meta is None or meta.user_id is None or meta.repo is None:
        return Refusal("The meta row is incomplete; seed the orchestration again.")
    own = own_text(child)
    channel = text(meta.item, "channel_source") or DEFAULT_CHANNEL
    metadata = channel_metadata(orchestration, child, channel)
    attachments, warnings = collect_attachments(meta.item, child)
    task_id = task_id_for(child.idempotency_key, child.created_at)
    strings = {
        "task_id": task_id,
        "user_id": meta.user_id,
        "repo": text(child.item, "repo") or meta.repo,
        "task_description": describe(meta.item, own),
        "branch_name": f"bgagent/{task_id}/{slug(own.partition(chr(10))[0])}",
        "idempotency_key": child.idempotency_key,
        "channel_source": channel,
        "status_created_at": f"SUBMITTED#{timestamp(now)}",
        "created_at": timestamp(now),
        "updated_at": timestamp(now),
    }
    item: dict[str, Any] = {
        **_AS_EVERY_TASK,
        **_typed_strings(strings),
        "channel_metadata": {"M": _typed_strings(metadata)},
        **_indexed_by_issue(channel, metadata),
    }
    if attachments:
        item["attachments"] = {"L": attachments}
    return _refuse_invalid(item) or TaskDraft(
        task_id=task_id,
        branch_name=strings["branch_name"],
        idempotency_key=child.idempotency_key,
        description=strings["task_description"],
        repo=strings["repo"],
        channel_source=channel,
        item=item,
        warnings=tuple(warnings),
    )


def _typed_strings(values: Mapping[str, str]) -> dict[str, Any]:
    return {name: {"S": value} for name, value in values.items()}


def _refuse_invalid(item: Item) -> Refusal | None:
    """Return why the platform would never create a task like this one, or None."""
    key, repo = item["idempotency_key"]["S"], item["repo"]["S"]
    if not valid_idempotency_key(key):
        return Refusal(
            f"The idempotency key {key[:160]!r} is not of the form [A-Za-z0-9_-]{{1,128}}; "
            "the sub-issue's id cannot be used. Create the sub-issue anew and retry."
        )
    if not valid_repo(repo):
        return Refusal(
            f"{repo[:160]!r} is not the name of a repository (owner/name). Correct the project's "
            "repository, then start the orchestration again."
        )
    length = len(item["task_description"]["S"])
    if length > MAX_DESCRIPTION_CHARACTERS:
        return Refusal(
            f"The task's description has {length} characters, and at most "
            f"{MAX_DESCRIPTION_CHARACTERS} are allowed. Shorten the sub-issue or the parent "
            "issue, then retry."
        )
    return _refuse_large(item)


def _refuse_large(item: Item) -> Refusal | None:
    attachments = item.get("attachments", {"L": []})["L"]
    size = sum(decimal(record["M"], "size_bytes") or 0 for record in attachments)
    if size > MAX_ATTACHMENT_BYTES:
        return Refusal(
            f"The attachments have {size:f} bytes together, and at most {MAX_ATTACHMENT_BYTES} "
            "are allowed. Remove attachments from the sub-issue or the parent issue, then retry."
        )
    stored = size_of(item)
    if stored > MAX_ITEM_BYTES:
        return Refusal(
            f"The task would take {stored} bytes with its attachments, and at most "
            f"{MAX_ITEM_BYTES} can be stored. Remove attachments from the sub-issue or the parent "
            "issue, then retry."
        )
    return None


def _indexed_by_issue(channel: str, metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return the key attributes of the index that the task's issue is found by, if any."""
    if channel == "linear" and metadata.get("linear_issue_id"):
        return {"linear_issue_id": {"S": metadata["linear_issue_id"]}}
    cloud, issue = metadata.get("jira_cloud_id"), metadata.get("jira_issue_key")
    if channel == "jira" and cloud and issue:
        return {"jira_issue_identity": {"S": f"{cloud}#{issue}"}}
    return {}


def own_text(child: Child) -> str:
    """Return what the child itself says: ``display_id: title``, then its description."""
    if child.is_integration:
        return INTEGRATION_INSTRUCTIONS
    title = text(child.item, "title") or ""
    heading = ": ".join(part for part in (child.display_id or "", title) if part.strip())
    body = text(child.item, "description") or ""
    if body.strip() == title.strip():
        body = ""
    own = "\n\n".join(part for part in (heading, body) if part.strip()).rstrip()
    return own or f"Orchestration child {child.sub_issue_id}"


def describe(meta: Item, own: str) -> str:
    """Return the whole description: the parent's context as a statement, then the child's own.

    Orders in the context would trip content filters; so it only says what it is.
    """
    title = text(meta, "parent_context_title") or ""
    body = text(meta, "parent_context_description") or ""
    if not title.strip() and not body.strip():
        return own
    lines = ["----- Context: the parent issue that this sub-issue is a part of -----"]
    if title.strip():
        lines.append(f"Title: {title}")
    if body.strip():
        lines.append(body)
    lines.append("----- End of context -----")
    return "\n".join(lines) + "\n\n" + own


def channel_metadata(orchestration: Orchestration, child: Child, channel: str) -> dict[str, str]:
    """Return the task's metadata: the row's own map first, then ours on top."""
    meta = orchestration.meta.item if orchestration.meta is not None else {}
    own = child.item.get("channel_metadata", {}).get("M")
    metadata: dict[str, str] = {}
    if isinstance(own, Mapping):
        metadata = {
            name: value["S"] for name, value in own.items() if isinstance(value.get("S"), str)
        }
    ours: dict[str, str | None] = {
        "orchestration_id": orchestration.orchestration_id,
        "orchestration_sub_issue_id": child.sub_issue_id,
        **_base_branch(orchestration, child),
    }
    if channel == "linear":
        credentials = ("credentials_ref", "linear_workspace_id")
        parent = ("parent_issue_ref", "parent_linear_issue_id")
        ours |= {
            "linear_workspace_id": text(child.item, *credentials) or text(meta, *credentials),
            "parent_linear_issue_id": text(child.item, *parent) or text(meta, *parent),
            "linear_issue_id": None if child.is_integration else child.sub_issue_id,
            "linear_issue_identifier": child.display_id,
            "linear_project_id": text(meta, "linear_project_id"),
            "linear_oauth_secret_arn": text(meta, "linear_oauth_secret_arn"),
            "linear_workspace_slug": text(meta, "linear_workspace_slug"),
        }
    metadata.update({name: value for name, value in ours.items() if value})
    return metadata


def _base_branch(orchestration: Orchestration, child: Child) -> dict[str, str]:
    branches = sorted(
        {
            predecessor.branch_name
            for key in child.depends_on
            if (predecessor := orchestration.children.get(key)) is not None
            and predecessor.branch_name
        }
    )
    if not branches:
        return {}
    if len(branches) == 1:
        return {"orchestration_base_branch": branches[0]}
    merge = json.dumps(branches, separators=(",", ":"), ensure_ascii=False)
    return {"orchestration_base_branch": "main", "orchestration_merge_branches": merge}


def collect_attachments(meta: Item, child: Child) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the attachments as typed maps, and warnings about what was left out."""
    if child.is_integration:
        return [], []
    warnings: list[str] = []
    listed = child.item.get("pre_screened_attachments", {}).get("L")
    own = listed if isinstance(listed, list) else []
    chosen: dict[str, dict[str, Any]] = {}
    for record in [*own, *_parents_attachments(meta, warnings)]:
        fields = record.get("M")
        if not isinstance(fields, Mapping):
            warnings.append("an attachment record that is not a map was left out")
            continue
        attachment_id = text(fields, "attachment_id")
        screening = fields.get("screening", {}).get("M")
        passed = isinstance(screening, Mapping) and text(screening, "status") == "passed"
        if attachment_id is None or not passed:
            warnings.append(f"attachment {attachment_id} was left out: not screened as passed")
        elif attachment_id not in chosen:
            chosen[attachment_id] = {"M": dict(fields)}
    if len(chosen) > MAX_ATTACHMENTS:
        left_out = list(chosen)[MAX_ATTACHMENTS:]
        warnings.append(
            f"{len(left_out)} attachments over the limit of {MAX_ATTACHMENTS} were left out: "
            + ", ".join(left_out)
        )
    return list(chosen.values())[:MAX_ATTACHMENTS], warnings


def _parents_attachments(meta: Item, warnings: list[str]) -> Iterable[dict[str, Any]]:
    raw = text(meta, "pre_screened_attachments_json")
    if raw is None:
        return []
    try:
        records = json.loads(raw, parse_constant=_no_constant)
        if isinstance(records, list):
            return [found for record in records if (found := _held(record, warnings)) is not None]
    except (ValueError, RecursionError):
        warnings.append("the parent's pre_screened_attachments_json cannot be read; none passed on")
        return []
    warnings.append("the parent's pre_screened_attachments_json is not a list; none passed on")
    return []


def _held(record: object, warnings: list[str]) -> dict[str, Any] | None:
    """Return a parent's record as an item holds it; None, and a warning, if none can."""
    try:
        found = typed(record, _MOST_LEVELS)
        json.dumps(found, ensure_ascii=False).encode()  # half a character has no encoding
    except ValueError as error:
        warnings.append(f"an attachment of the parent was left out: {error}")
        return None
    return found


def _no_constant(name: str) -> NoReturn:
    msg = f"{name} is not JSON"
    raise ValueError(msg)


def typed(value: object, levels: int) -> dict[str, Any]:
    """Turn a JSON value into DynamoDB's typed JSON, nested ``levels`` deep at most.

    Raises:
        ValueError: DynamoDB has no place for it.
    """
    if levels == 0:
        raise ValueError("it is nested too deep")
    if value is None:
        return {"NULL": True}
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, int | float):
        return {"N": _number(value)}
    if isinstance(value, str):
        return {"S": value}
    if isinstance(value, Mapping):
        return {"M": {str(name): typed(part, levels - 1) for name, part in value.items()}}
    if isinstance(value, list | tuple):
        return {"L": [typed(part, levels - 1) for part in value]}
    raise ValueError(f"{type(value).__name__} has no place in an item")


def _number(value: float) -> str:
    """Return a number as an item holds it: 38 digits, from 1E-130 to below 1E+126."""
    exact = Decimal(str(value))
    if exact.is_zero():
        return "0"
    digits = len("".join(map(str, exact.as_tuple().digits)).strip("0"))
    if not exact.is_finite() or digits > _MOST_DIGITS or not -131 < exact.adjusted() < 126:  # noqa: PLR2004
        raise ValueError("it holds a number that is too large, too small or too long")
    return str(value)


def size_of(item: Mapping[str, Any]) -> int:
    """Return what an item takes of DynamoDB's 400 KB, rather more than less."""
    total = 0
    for name, value in item.items():
        total += len(name.encode()) + _size_of_value(value)
    return total


def _size_of_value(value: Mapping[str, Any]) -> int:
    ((kind, inner),) = value.items()
    if kind == "M":
        return 3 + len(inner) + size_of(inner)
    if kind == "L":
        return 3 + sum(1 + _size_of_value(part) for part in inner)
    if kind in {"NULL", "BOOL"}:
        return 1
    if kind in {"SS", "NS", "BS"}:
        return 3 + sum(1 + len(part) for part in inner)
    return len(inner if isinstance(inner, bytes) else str(inner).encode())
