"""Strategies for everything that DynamoDB accepts: wrong types, odd text, deep nesting."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

Item = dict[str, Any]

ODD_TEXT = (
    "",
    " ",
    "\x00",
    "\u202eright to left",
    "e\u0301\u0301\u0301" * 20,
    "\U0001f469\u200d\U0001f4bb",
    "\ud800",  # a lone surrogate, which UTF-8 cannot encode
    "line\nline\r\n\u2028line",
    "\x1b[2J\x1b]0;title\x07",
    "{{7*7}} ' OR 1=1; --",
    "#meta",
    "null",
    "x" * 5000,
)
texts = st.one_of(st.sampled_from(ODD_TEXT), st.text(max_size=20))
storable_texts = texts.filter(lambda text: text.isprintable() or "\ud800" not in text)
numbers = st.one_of(
    st.integers(-(10**38), 10**38).map(str),
    st.sampled_from(["0", "-1", "1.5", "1E+125", "-1E-130", "3.0"]),
)
scalars = st.one_of(
    texts.map(lambda text: {"S": text}),
    numbers.map(lambda number: {"N": number}),
    st.booleans().map(lambda value: {"BOOL": value}),
    st.just({"NULL": True}),
    st.binary(max_size=8).map(lambda value: {"B": value}),
    st.lists(texts, min_size=1, max_size=3, unique=True).map(lambda found: {"SS": found}),
    st.lists(numbers, min_size=1, max_size=3, unique=True).map(lambda found: {"NS": found}),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda found: {"L": found}),
        st.dictionaries(texts, inner, max_size=3).map(lambda found: {"M": found}),
    ),
    max_leaves=8,
)


def nested(levels: int) -> dict[str, Any]:
    """Return a value with ``levels`` levels of nesting; DynamoDB accepts 32."""
    value: dict[str, Any] = {"S": "bottom"}
    for level in range(levels):
        value = {"M": {"next": value}} if level % 2 else {"L": [value]}
    return value


def either(sane: st.SearchStrategy[Any], weight: int = 6) -> st.SearchStrategy[Any]:
    """Return mostly a sane value; otherwise any value at all, or None for a missing one."""
    return st.integers(0, weight).flatmap(
        lambda dice: values if dice == 0 else st.none() if dice == 1 else sane
    )


def _text(*choices: str) -> st.SearchStrategy[dict[str, str]]:
    return st.sampled_from(choices).map(lambda text: {"S": text})


TIMES = _text("2026-06-09T09:00:00.000Z", "2026-06-09T11:59:59Z", "yesterday", "")
CHILD: dict[str, st.SearchStrategy[Any]] = {
    "child_status": _text(
        "blocked", "ready", "ready", "releasing", "released", "succeeded", "failed", "skipped"
    ),
    "created_at": TIMES,
    "updated_at": TIMES,
    "title": values,
    "description": values,
    "display_id": values,
    "channel_metadata": values,
    "pre_screened_attachments": values,
    "repo": _text("acme/widgets"),
    "ttl": values,
}
META: dict[str, st.SearchStrategy[Any]] = {
    "child_count": st.integers(0, 4).map(lambda count: {"N": str(count)}),
    "platform_user_id": _text("user-1"),
    "repo": _text("acme/widgets"),
    "created_at": TIMES,
    "updated_at": TIMES,
    "channel_source": _text("linear", "jira", "slack"),
    "parent_context_title": values,
    "pre_screened_attachments_json": _text(
        "[]", "{", "[[[[", '[{"attachment_id": 1e400}]', "[NaN]"
    ),
    "rollup_posted_at": TIMES,
}
TASK: dict[str, st.SearchStrategy[Any]] = {
    "status": _text("SUBMITTED", "RUNNING", "COMPLETED", "FAILED", "CANCELLED"),
    "user_id": _text("user-1"),
    "build_passed": st.booleans().map(lambda value: {"BOOL": value}),
    "status_created_at": _text("RUNNING#2026-06-09T09:00:00Z", "#", "RUNNING"),
    "created_at": TIMES,
    "updated_at": TIMES,
    "completed_at": TIMES,
    "branch_name": _text("bgagent/x/y"),
    "reconciler_invoke_count": st.integers(0, 5).map(lambda count: {"N": str(count)}),
    "reconciler_invoked_at": TIMES,
    "reconcile_nudge_count": st.integers(0, 5).map(lambda count: {"N": str(count)}),
    "reconciler_sweep_id": _text("sweep"),
}


@st.composite
def items(draw: st.DrawFn, shape: dict[str, st.SearchStrategy[Any]]) -> Item:
    """Return attributes of a shape, each of them sane, odd or missing."""
    drawn = {name: draw(either(sane)) for name, sane in shape.items()}
    return {name: value for name, value in drawn.items() if value is not None}


KEYS = ("a", "b", "c", "\u00fc #\U0001f600", "ack#1", "d" * 900)


@st.composite
def orchestrations(draw: st.DrawFn, orchestration_id: str) -> tuple[list[Item], list[Item]]:
    """Return the rows of an orchestration and their tasks, broken at random."""
    names = draw(st.lists(st.sampled_from(KEYS), max_size=4, unique=True))
    rows, tasks = [], []
    for name in names:
        after = st.lists(_text(*names, "gone"), max_size=3).map(lambda found: {"L": found})
        row = draw(items({**CHILD, "depends_on": after, "child_task_id": _text(f"T{name}")}))
        row |= {"orchestration_id": {"S": orchestration_id}, "sub_issue_id": {"S": name}}
        rows.append(row)
        if draw(st.booleans()):
            key = _text(f"{orchestration_id}_{name}")
            task = draw(items({**TASK, "idempotency_key": key}))
            # DynamoDB accepts only a non-empty string as the key of an index.
            for indexed in ("idempotency_key", "user_id", "status_created_at", "status"):
                if not task.get(indexed, {"S": "x"}).get("S"):
                    task.pop(indexed, None)
            tasks.append({**task, "task_id": {"S": f"T{name}"}})
    if draw(st.integers(0, 5)):
        meta = {"orchestration_id": {"S": orchestration_id}, "sub_issue_id": {"S": "#meta"}}
        rows.append({**draw(items(META)), **meta})
    return rows, tasks
