"""The texts of a diagnosis, and the boundaries between its codes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from reconciler.domain.backoff import Attempts
from reconciler.domain.budget import Budget
from reconciler.domain.codes import Code, OrchestrationCode
from reconciler.domain.diagnosis import (
    ChildDiagnosis,
    Diagnosis,
    Evidence,
    Policy,
    diagnose,
    invocation_due,
)
from reconciler.domain.model import WHOLE, Child, Orchestration, Task, moment, timestamp
from reconciler.stores.rows import parse_task
from tests.support.strategies import NOW, ORCHESTRATION_ID, POLICY, ago
from tests.unit.domain.diagnosed import LONG, child, code_of, look, meta, running, task


def test_an_age_is_unknown_or_at_least_zero() -> None:
    def since(age: float | None) -> float | None:
        at = None if age is None else moment(ago(age))
        return ChildDiagnosis("b", Code.RUNNING, "", at).age_seconds(NOW)

    assert [since(90), since(0.5), since(0), since(-5), since(None)] == [90, 0.5, 0, 0, None]


def test_a_diagnosis_is_healthy_if_nothing_needs_doing() -> None:
    busy = look(running("a"), child("b", "blocked", "a"), tasks=[task("a", "RUNNING")])
    assert busy.healthy is True
    assert look(child("b", "succeeded", age=5)).healthy is True
    assert look(child("b", "ready")).healthy is False, "a child is stuck"
    assert look(child("b", "succeeded")).healthy is False, "the parent is not settled"
    assert look(running("b"), tasks=[task("b", "RUNNING")], count=2).healthy is False, (
        "rows missing"
    )


def test_a_time_five_minutes_ahead_is_believed() -> None:
    assert code_of(look(child("b", "ready", age=-300))) is Code.WITHIN_GRACE
    assert code_of(look(child("b", "ready", age=-301))) is Code.LOST_RELEASE


@pytest.mark.parametrize(("count", "said"), [(0, False), (1, True), (3, True)])
def test_the_reason_rules_out_a_second_reinvocation(count: int, said: bool) -> None:  # noqa: FBT001
    found = look(running("b"), tasks=[task("b", "SUBMITTED", invoke_count=count)])
    diagnosis = found.children["b"]
    assert ("it is not invoked again" in diagnosis.reason) is said
    assert diagnosis.invoked_again is said


def test_an_uninvoked_task_is_running_within_its_grace() -> None:
    """The same holds if another function created the task, or if there is no pipeline to invoke."""
    never = task("b", "SUBMITTED", age=200, sweep_id="s")
    assert code_of(look(running("b"), tasks=[replace(never, status_since=ago(60))])) is Code.RUNNING
    assert code_of(look(running("b"), tasks=[replace(never, sweep_id=None)])) is Code.RUNNING
    whole = Orchestration(ORCHESTRATION_ID, meta(1), {"b": running("b")})
    patient = Policy(
        grace=timedelta(seconds=120),
        claim_timeout=timedelta(seconds=900),
        start_timeout=timedelta(hours=1),
        long_running=timedelta(hours=2),
        interval=timedelta(seconds=300),
    )
    found = diagnose(whole, Evidence(tasks={"T-b": never}), patient, NOW)
    assert code_of(found) is Code.RUNNING


def test_a_tasks_creator_invokes_it_without_grace() -> None:
    """For anybody else, the task may be on its way to the pipeline."""
    made = task("b", "SUBMITTED", age=119, sweep_id="s")
    assert not invocation_due(made, POLICY, NOW)
    assert invocation_due(made, POLICY, NOW, made_it=True)
    assert invocation_due(replace(made, status_since=ago(120)), POLICY, NOW)
    invoked = replace(made, status_since=ago(900), invoked_at=ago(899))
    assert not invocation_due(invoked, POLICY, NOW, made_it=True)
    assert invocation_due(replace(invoked, invoked_at=ago(900)), POLICY, NOW)
    for changes in ({"status": "RUNNING"}, {"invoke_count": 1}):
        assert not invocation_due(replace(invoked, invoked_at=ago(900), **changes), POLICY, NOW)
    unable = replace(POLICY, can_invoke=False)
    assert not invocation_due(made, unable, NOW, made_it=True)


def test_the_default_policy_touches_but_never_invokes() -> None:
    second = timedelta(seconds=1)
    policy = Policy(second, second, second, second, second)
    assert (policy.settles, policy.can_invoke) == (True, False)
    assert not ChildDiagnosis("b", Code.RUNNING, "").invoked_again


def test_the_youngest_orphan_gives_all_orphans_their_grace() -> None:
    """The age of a row without an update time is that of its creation."""
    seeded = child("b", "blocked", updated_at={"NULL": True}, created_at={"S": ago(5)})
    whole = Orchestration(ORCHESTRATION_ID, None, {"a": child("a", "blocked"), "b": seeded})
    found = diagnose(whole, Evidence(), POLICY, NOW)
    assert {diagnosis.code for diagnosis in found.children.values()} == {Code.WITHIN_GRACE}
    assert (found.code, found.since) == (OrchestrationCode.IN_PROGRESS, moment(ago(5)))


def test_unfinished_orphans_are_missing_their_meta_row() -> None:
    """If all of them have ended, the orchestration counts as settled."""

    def orphans(status: str) -> Diagnosis:
        rows = {"a": child("a", "succeeded"), "b": child("b", status)}
        return diagnose(Orchestration(ORCHESTRATION_ID, None, rows), Evidence(), POLICY, NOW)

    assert orphans("failed").code is OrchestrationCode.SETTLED
    assert orphans("blocked").code is OrchestrationCode.ROWS_MISSING
    assert list(orphans("blocked").children) == ["b"]


def test_reasons_name_display_ids_if_there_are_any() -> None:
    named = child("a", "failed", display_id={"S": "ENG-7"})
    assert "ENG-7" in look(named, child("b", "blocked", "a")).children["b"].reason
    assert (
        "predecessor a did"
        in look(child("a", "failed"), child("b", "blocked", "a")).children["b"].reason
    )


def test_dependents_of_a_recent_failure_have_their_grace() -> None:
    found = look(child("a", "failed", age=5), child("b", "blocked", "a")).children["b"]
    assert (found.code, found.since) == (Code.WITHIN_GRACE, moment(ago(5)))


def test_a_later_failure_dooms_its_other_dependents() -> None:
    """A child that depends on both failures names the earlier one."""
    found = look(
        child("a", "failed", age=900),
        child("x", "failed", age=300),
        child("b", "blocked", "a", "x"),
        child("c", "blocked", "x"),
    )
    assert found.children["b"].blockers == ("a",)
    assert (code_of(found, "c"), found.children["c"].blockers) == (Code.LOST_SKIP, ("x",))


def test_a_waiting_child_delays_no_due_child() -> None:
    found = look(
        running("a"), child("b", "blocked", "a"), child("c", "ready"), tasks=[task("a", "RUNNING")]
    )
    assert (code_of(found), code_of(found, "c")) == (Code.WAITING, Code.LOST_RELEASE)


def test_the_users_own_task_is_no_conflict() -> None:
    """The task has the child's idempotency key."""
    due = child("b", "ready")
    own = Task("T-x", "RUNNING", user_id="user-1")
    assert code_of(look(due, found={due.idempotency_key: own})) is Code.LOST_RELEASE


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"status": {"S": "COMPLETED"}, "build_passed": {"S": "yes"}}, Code.MALFORMED_ROW),
        ({"status": {"N": "1"}}, Code.MALFORMED_ROW),
        ({"status": {"S": "PONDERING"}}, Code.UNKNOWN_STATUS),
    ],
)
def test_an_invalid_task_is_diagnosed_as_such(attributes: dict[str, Any], expected: Code) -> None:
    odd = parse_task({"task_id": {"S": "T-b"}, **attributes})
    assert code_of(look(running("b"), tasks=[odd])) is expected


def test_a_dependent_dates_from_the_lost_event() -> None:
    """This holds for a success, which makes the child due, and for a failure, which dooms it."""
    found = look(running("a"), child("b", "blocked", "a"), tasks=[task("a", "COMPLETED", age=600)])
    assert found.children["b"].since == moment(ago(600))
    failed = look(running("a"), child("b", "blocked", "a"), tasks=[task("a", "FAILED", age=600)])
    assert failed.children["b"].since == moment(ago(600))


@pytest.mark.parametrize(
    "times",
    [
        {"status_created_at": f"RUNNING#{ago(90_000)}", "updated_at": ago(5)},
        {"updated_at": ago(90_000), "created_at": ago(5)},
        {"created_at": ago(90_000)},
    ],
)
def test_the_best_known_time_dates_a_long_run(times: dict[str, str]) -> None:
    old = parse_task(
        {"task_id": {"S": "T-b"}, "status": {"S": "RUNNING"}}
        | {n: {"S": at} for n, at in times.items()}
    )
    found = look(running("b"), tasks=[old]).children["b"]
    assert (found.code, found.since) == (Code.LONG_RUNNING, moment(ago(90_000)))


def test_the_reason_tells_full_from_unreadable_slots() -> None:
    full = look(child("b", "ready"), budget=Budget(0)).children["b"]
    unread = look(child("b", "ready"), budget=Budget(0, problem="it broke")).children["b"]
    assert full.reason.endswith("no free slot")
    assert unread.reason.endswith("slots cannot be read (it broke)")


def test_an_over_budget_reason_counts_granted_siblings() -> None:
    """Otherwise it would say that no slot is free although none is taken."""
    found = look(child("b", "ready"), child("c", "ready"), budget=Budget(1, taken="of 1, 0 are"))
    assert found.children["c"].reason.endswith("of 1, 0 are; ahead of it in this orchestration: 1")


def test_a_cycle_matters_more_than_a_missing_row() -> None:
    found = look(child("a", "blocked", "b", "gone"), child("b", "blocked", "a"))
    assert {d.code for d in found.children.values()} == {Code.DEPENDENCY_CYCLE}


def test_a_ladder_of_diamonds_is_walked_once() -> None:
    """A walk along every path would never end."""
    rungs = [child("l0", "blocked", "a"), child("r0", "blocked", "a")]
    for n in range(1, 40):
        rungs += [child(f"{s}{n}", "blocked", f"l{n - 1}", f"r{n - 1}") for s in "lr"]
    found = look(running("a"), *rungs, tasks=[task("a", "RUNNING")])
    assert {code_of(found, rung.sub_issue_id) for rung in rungs} == {Code.WAITING}


def test_a_lost_event_may_have_no_time() -> None:
    """The child is then due since the other event."""
    timeless = Task("T-a", "COMPLETED", user_id="user-1", completed_at="soon")
    found = look(
        running("a"),
        running("c"),
        child("b", "ready", "a", "c"),
        tasks=[timeless, task("c", "COMPLETED")],
    )
    assert (code_of(found), found.children["b"].since) == (Code.LOST_RELEASE, moment(ago(LONG)))


def test_a_failure_of_unknown_time_came_first() -> None:
    timeless = Task("T-c", "FAILED", user_id="user-1", completed_at="soon")
    rows = (running("a"), running("c"), child("b", "blocked", "a", "c"))
    found = look(*rows, tasks=[task("a", "FAILED"), timeless]).children["b"]
    assert (found.code, found.blockers, found.since) == (
        Code.LOST_SKIP,
        ("c",),
        moment(ago(LONG)),
    )


def test_a_reason_names_only_children_on_the_cycle() -> None:
    found = look(
        child("a", "blocked", "b", "z"), child("b", "blocked", "a"), child("z", "blocked", "q")
    )
    assert found.children["a"].reason == "it is on a dependency cycle, through b"


@pytest.mark.parametrize(
    ("count", "said"),
    [(1, "p0"), (3, "p0, p1, p2"), (4, "p0, p1, p2 and 1 more"), (5, "p0, p1, p2 and 2 more")],
)
def test_a_reason_names_at_most_three_predecessors(count: int, said: str) -> None:
    before = [running(f"p{number}") for number in range(count)]
    tasks = [task(row.sub_issue_id, "RUNNING") for row in before]
    found = look(*before, child("b", "blocked", *(row.sub_issue_id for row in before)), tasks=tasks)
    assert found.children["b"].reason == f"waits for {said}"


@pytest.mark.parametrize(
    ("age", "count", "expected"),
    [
        (5, 1, Code.WITHIN_GRACE),  # an extension writes rows before it raises the count
        (5, 2, Code.WITHIN_GRACE),
        (LONG, 2, Code.DANGLING_DEPENDENCY),
        (LONG, 1, Code.DANGLING_DEPENDENCY),
    ],
)
def test_a_missing_row_is_dangling_after_the_grace(age: float, count: int, expected: Code) -> None:
    assert code_of(look(child("b", "blocked", "nowhere", age=age), count=count)) is expected


@pytest.mark.parametrize(
    ("count", "expected"), [(2, Code.DANGLING_DEPENDENCY), (3, Code.WITHIN_GRACE)]
)
def test_a_young_row_delays_a_dangling_dependency(count: int, expected: Code) -> None:
    """While rows are missing, more of them may still be written."""
    rows = (child("b", "blocked", "nowhere"), child("c", "ready", age=5))
    assert code_of(look(*rows, count=count)) is expected


def test_a_dangling_dependency_names_the_missing_row() -> None:
    """A child further behind names the predecessor that it waits for."""
    found = look(child("b", "blocked", "nowhere"), child("c", "blocked", "b")).children
    assert found["b"].reason == "it depends on nowhere, which has no row"
    assert found["b"].blockers == ("nowhere",)
    assert found["c"].reason.startswith("everything that it waits for depends on an id")
    assert found["c"].blockers == ("b",)


def whole_of(*children: Child, **meta_changes: Any) -> Diagnosis:
    rows = {c.sub_issue_id: c for c in children}
    row = replace(meta(len(children)), **meta_changes)
    return diagnose(Orchestration(ORCHESTRATION_ID, row, rows), Evidence(), POLICY, NOW)


@pytest.mark.parametrize(
    ("children", "changes", "code", "said"),
    [
        ((), {"settled": True}, "settled", "the parent has been settled"),
        ((child("b", "ready", age=5),), {"settled": True}, "in_progress", "1 of 1 children"),
        ((child("b", "succeeded"),), {"child_count": 2}, "rows_missing", "1 of 2 child rows"),
        ((child("b", "failed", age=5),), {"child_count": 2}, "in_progress", "1 of 2 child rows"),
        ((child("b", "failed"),), {"child_count": None}, "unsettled_parent", "nobody has settled"),
        ((child("b", "skipped", age=119),), {}, "in_progress", "last change is still"),
        ((child("b", "skipped", age=120),), {}, "unsettled_parent", "nobody has settled"),
        ((child("b", "ready"), child("c", "failed")), {}, "in_progress", "1 of 2 children is"),
        ((), {}, "settled", "no children"),
        ((), {"child_count": None}, "settled", "no children"),
        ((child("b", "failed"),), {"channel": "api"}, "settled", "channel api"),
        ((child("b", "failed"),), {"ttl": int(NOW.timestamp())}, "settled", "time to live"),
        (
            (child("b", "failed"),),
            {"ttl": int(NOW.timestamp()) + 1},
            "unsettled_parent",
            "nobody has settled",
        ),
        ((child("b", "failed"),), {"updated_at": ago(119)}, "in_progress", "last change is still"),
        ((child("b", "ready"),), {"channel": "api"}, "in_progress", "1 of 1 children"),
    ],
)
def test_an_orchestration_has_its_code_and_reason(
    children: tuple[Child, ...], changes: dict[str, Any], code: str, said: str
) -> None:
    found = whole_of(*children, **changes)
    assert found.code.value == code
    assert said in found.reason


def test_a_parent_waits_since_the_last_change() -> None:
    two = (child("a", "succeeded", age=900), child("b", "failed", age=600))
    assert whole_of(*two).since == moment(ago(600))
    timeless = child("c", "skipped", updated_at={"S": "yesterday"})
    assert whole_of(*two, timeless).since == moment(ago(600))
    assert whole_of(*two, updated_at=ago(300)).since == moment(ago(300))
    assert whole_of(timeless, created_at=None, updated_at=None).since is None


def test_only_a_child_due_for_repair_is_quarantined() -> None:
    """Its reason names the code that it would have without the quarantine."""
    rows = {"a": child("a", "ready"), "b": child("b", "paused")}
    whole = Orchestration(ORCHESTRATION_ID, meta(2), rows)
    later = timestamp(NOW + timedelta(hours=1))
    attempts = Attempts(3, "it broke", ago(60), later, whole.fingerprint)
    found = diagnose(replace(whole, attempts={WHOLE: attempts}), Evidence(), POLICY, NOW)
    assert (code_of(found, "a"), code_of(found)) == (Code.QUARANTINED, Code.UNKNOWN_STATUS)
    assert found.children["a"].reason.startswith("lost_release; left alone until")
    assert found.children["a"].since == moment(ago(60))


def left_alone(key: str, how: str, *children: Child, **evidence: Any) -> Diagnosis:
    """Diagnose children, one of which is backing off or passed over in this pass."""
    tasks = {found.task_id: found for found in evidence.pop("tasks", ())}
    whole = Orchestration(
        ORCHESTRATION_ID, meta(len(children)), {c.sub_issue_id: c for c in children}
    )
    if how == "backed off":
        later = timestamp(NOW + timedelta(hours=1))
        attempts = Attempts(3, "it broke", ago(60), later, whole.fingerprint_of(key))
        whole = replace(whole, attempts={key: attempts})
    else:
        evidence["passed_over"] = {key}
    return diagnose(whole, Evidence(tasks=tasks, **evidence), POLICY, NOW)


LEFT_ALONE = pytest.mark.parametrize("how", ["backed off", "passed over"])


@LEFT_ALONE
def test_a_deferred_child_takes_no_slot(how: str) -> None:
    old, young = child("a", "ready", age=900), child("b", "ready", age=300)
    found = left_alone("a", how, old, young, budget=Budget(room=1))
    expected = Code.QUARANTINED if how == "backed off" else Code.LOST_RELEASE
    assert (code_of(found, "a"), code_of(found)) == (expected, Code.LOST_RELEASE)


@LEFT_ALONE
@pytest.mark.parametrize("status", ["COMPLETED", "FAILED"])
def test_a_deferred_advance_makes_no_dependent_due(how: str, status: str) -> None:
    rows = (running("a"), child("b", "blocked", "a"))
    found = left_alone("a", how, *rows, tasks=[task("a", status)])
    assert code_of(found) is Code.WAITING


@LEFT_ALONE
def test_a_deferred_skip_skips_no_dependent(how: str) -> None:
    rows = (child("a", "failed"), child("b", "blocked", "a"), child("c", "blocked", "b"))
    found = left_alone("b", how, *rows)
    expected = Code.QUARANTINED if how == "backed off" else Code.LOST_SKIP
    assert (code_of(found), code_of(found, "c")) == (expected, Code.WAITING)
