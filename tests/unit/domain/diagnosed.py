"""Builders of small orchestrations and of their diagnoses."""

from __future__ import annotations

from typing import Any

from reconciler.domain.codes import Code
from reconciler.domain.diagnosis import (
    Diagnosis,
    Evidence,
    diagnose,
)
from reconciler.domain.model import Child, Meta, Orchestration, Task
from reconciler.stores.rows import parse_child
from tests.support.strategies import NOW, ORCHESTRATION_ID, POLICY, ago

LONG = 3600


def child(key: str, status: str, *after: str, age: float = LONG, **attributes: Any) -> Child:
    """Return a child, read from a row that changed ``age`` seconds ago."""
    row: dict[str, Any] = {
        "orchestration_id": {"S": ORCHESTRATION_ID},
        "sub_issue_id": {"S": key},
        "child_status": {"S": status},
        "depends_on": {"L": [{"S": name} for name in after]},
        "updated_at": {"S": ago(age)},
    }
    return parse_child(row | attributes)


def running(key: str, *, age: float = LONG) -> Child:
    return child(key, "released", age=age, child_task_id={"S": f"T-{key}"})


def task(key: str, status: str, *, age: float = LONG, **fields: Any) -> Task:
    return Task(f"T-{key}", status, user_id="user-1", status_since=ago(age), **fields)


def meta(count: int, *, settled: bool = False) -> Meta:
    at = ago(LONG)
    return Meta(ORCHESTRATION_ID, count, "user-1", "acme/shop", at, at, settled=settled)


def look(*children: Child, count: int | None = None, **evidence: Any) -> Diagnosis:
    tasks = {found.task_id: found for found in evidence.pop("tasks", ())}
    whole = Orchestration(
        ORCHESTRATION_ID,
        meta(len(children) if count is None else count),
        {c.sub_issue_id: c for c in children},
    )
    return diagnose(whole, Evidence(tasks=tasks, **evidence), POLICY, NOW)


def code_of(diagnosis: Diagnosis, key: str = "b") -> Code:
    return diagnosis.children[key].code
