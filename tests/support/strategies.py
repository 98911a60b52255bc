"""Hypothesis strategies for orchestrations, tasks and evidence, healthy and broken alike."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from reconciler.domain.backoff import Attempts
from reconciler.domain.budget import Budget
from reconciler.domain.diagnosis import Evidence, Policy
from reconciler.domain.model import (
    ACTIVE_TASK,
    TERMINAL_TASK,
    WHOLE,
    Child,
    ChildStatus,
    Meta,
    Orchestration,
    Task,
    timestamp,
)

NOW = datetime(2026, 6, 9, 12, tzinfo=UTC)
ORCHESTRATION_ID = "orch_" + "0" * 32
POLICY = Policy(
    grace=timedelta(seconds=120),
    claim_timeout=timedelta(seconds=900),
    start_timeout=timedelta(seconds=900),
    long_running=timedelta(days=1),
    interval=timedelta(seconds=300),
    can_invoke=True,
)


def ago(seconds: float) -> str:
    """Return the time ``seconds`` before ``NOW`` in the platform's format."""
    return timestamp(NOW - timedelta(seconds=seconds))


times = st.one_of(
    st.sampled_from([0, 1, 119, 120, 121, 899, 900, 901, 90_000]).map(ago),
    st.none(),
    st.sampled_from(["", "yesterday", "2026-13-40T00:00:00Z", "9999-12-31T23:59:59.999Z"]),
)


@dataclass(frozen=True)
class Case:
    """An orchestration and the evidence read with it."""

    orchestration: Orchestration
    evidence: Evidence


@st.composite
def tasks(draw: st.DrawFn, task_id: str) -> Task:
    """A task in any state, sometimes malformed."""
    status = draw(st.sampled_from([*sorted(TERMINAL_TASK), *sorted(ACTIVE_TASK), "ODD", ""]))
    return Task(
        task_id=task_id,
        status=status,
        user_id=draw(st.sampled_from(["user-1", "user-2"])),
        status_since=draw(times),
        created_at=draw(times),
        updated_at=draw(times),
        completed_at=draw(st.one_of(st.none(), times)),
        build_passed=draw(st.sampled_from([None, True, False])),
        sweep_id=draw(st.sampled_from([None, "sweep-1"])),
        invoked_at=draw(times),
        invoke_count=draw(st.integers(0, 4)),
        problem=None if status in TERMINAL_TASK | ACTIVE_TASK else "its status is not known",
    )


@st.composite
def cases(draw: st.DrawFn, most: int = 8) -> Case:
    """Any orchestration at all: cycles, gaps, unknown states, missing tasks, no meta row."""
    keys = [f"s{number}" for number in range(draw(st.integers(0, most)))]
    children: dict[str, Child] = {}
    read: dict[str, Task | None] = {}
    found: dict[str, Task | None] = {}
    for key in draw(st.permutations(keys)):
        status = draw(st.sampled_from([*ChildStatus, *ChildStatus, None]))
        task_id = draw(st.sampled_from([None, f"T-{key}"]))
        child = Child(
            orchestration_id=ORCHESTRATION_ID,
            sub_issue_id=key,
            status=status,
            raw_status=status.value if status is not None else "odd",
            depends_on=tuple(draw(st.sets(st.sampled_from([*keys, "gone"]), max_size=3))),
            task_id=task_id,
            created_at=draw(times),
            updated_at=draw(times),
            problem=draw(st.sampled_from([None, None, None, None, "depends_on is not a list"])),
        )
        children[key] = child
        if task_id is not None and draw(st.integers(0, 4)):
            read[task_id] = draw(st.one_of(st.none(), tasks(task_id)))
        if draw(st.booleans()):
            found[child.idempotency_key] = draw(st.one_of(st.none(), tasks(f"F-{key}")))
    orchestration = Orchestration(
        ORCHESTRATION_ID, draw(metas(len(keys))), children, draw(attempts())
    )
    return Case(orchestration, Evidence(read, found, draw(budgets())))


@st.composite
def metas(draw: st.DrawFn, rows: int) -> Meta | None:
    """A meta row for about ``rows`` children, or none."""
    if draw(st.integers(0, 9)) == 0:
        return None
    return Meta(
        orchestration_id=ORCHESTRATION_ID,
        child_count=draw(st.sampled_from([rows, rows, rows, rows + 1, None])),
        user_id=draw(st.sampled_from(["user-1", "user-1", None])),
        repo="acme/shop",
        created_at=draw(times),
        updated_at=draw(times),
        settled=draw(st.booleans()),
    )


def budgets() -> st.SearchStrategy[Budget | None]:
    """A budget with some room and some children that wait elsewhere, or none."""
    moments = st.sampled_from([NOW - timedelta(hours=hours) for hours in range(4)])
    return st.one_of(
        st.none(),
        st.builds(Budget, room=st.integers(0, 3), ahead=st.lists(moments, max_size=3).map(tuple)),
    )


def attempts() -> st.SearchStrategy[dict[str, Attempts]]:
    """A record of failures, mostly none."""
    record = st.builds(
        Attempts,
        failures=st.integers(1, 9),
        last_error=st.just("it broke"),
        last_failed_at=st.just(ago(60)),
        retry_at=st.sampled_from([None, timestamp(NOW + timedelta(hours=1)), ago(1)]),
        fingerprint=st.just("elsewhere"),
    )
    none: dict[str, Attempts] = {}
    return st.one_of(
        st.just(none), st.just(none), st.dictionaries(st.sampled_from([WHOLE, "s0", "s1"]), record)
    )
