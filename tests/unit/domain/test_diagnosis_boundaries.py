"""What a person reads of a diagnosis, and where each boundary lies."""

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


def test_how_long_it_has_been_so_is_never_negative_and_may_be_unknown() -> None:
    def since(age: float | None) -> float | None:
        at = None if age is None else moment(ago(age))
        return ChildDiagnosis("b", Code.RUNNING, "", at).age_seconds(NOW)

    assert [since(90), since(0.5), since(0), since(-5), since(None)] == [90, 0.5, 0, 0, None]


def test_healthy_is_whatever_needs_nobody() -> None:
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
def test_a_task_that_is_not_invoked_again_says_so(count: int, said: bool) -> None:  # noqa: FBT001
    found = look(running("b"), tasks=[task("b", "SUBMITTED", invoke_count=count)])
    diagnosis = found.children["b"]
    assert ("it is not invoked again" in diagnosis.reason) is said
    assert diagnosis.invoked_again is said


def test_a_task_that_was_never_invoked_has_the_grace_and_only_where_we_can_invoke() -> None:
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


def test_who_made_a_task_need_not_wait_to_invoke_it() -> None:
    """To anybody else it may be on its way to the pipeline."""
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


def test_by_default_tasks_are_touched_and_no_pipeline_is_invoked() -> None:
    second = timedelta(seconds=1)
    policy = Policy(second, second, second, second, second)
    assert (policy.settles, policy.can_invoke) == (True, False)
    assert not ChildDiagnosis("b", Code.RUNNING, "").invoked_again


def test_rows_without_a_meta_row_are_as_young_as_the_youngest_however_it_says_so() -> None:
    seeded = child("b", "blocked", updated_at={"NULL": True}, created_at={"S": ago(5)})
    whole = Orchestration(ORCHESTRATION_ID, None, {"a": child("a", "blocked"), "b": seeded})
    found = diagnose(whole, Evidence(), POLICY, NOW)
    assert {diagnosis.code for diagnosis in found.children.values()} == {Code.WITHIN_GRACE}
    assert (found.code, found.since) == (OrchestrationCode.IN_PROGRESS, moment(ago(5)))


def test_orphans_are_missing_their_meta_row_unless_all_of_them_have_ended() -> None:
    def orphans(status: str) -> Diagnosis:
        rows = {"a": child("a", "succeeded"), "b": child("b", status)}
        return diagnose(Orchestration(ORCHESTRATION_ID, None, rows), Evidence(), POLICY, NOW)

    assert orphans("failed").code is OrchestrationCode.SETTLED
    assert orphans("blocked").code is OrchestrationCode.ROWS_MISSING
    assert list(orphans("blocked").children) == ["b"]


def test_people_read_display_ids_where_there_are_any() -> None:
    named = child("a", "failed", display_id={"S": "ENG-7"})
    assert "ENG-7" in look(named, child("b", "blocked", "a")).children["b"].reason
    assert (
        "predecessor a did"
        in look(child("a", "failed"), child("b", "blocked", "a")).children["b"].reason
    )


def test_those_behind_what_has_just_failed_are_left_to_the_live_reconciler() -> None:
    found = look(child("a", "failed", age=5), child("b", "blocked", "a")).children["b"]
    assert (found.code, found.since) == (Code.WITHIN_GRACE, moment(ago(5)))


def test_what_an_earlier_failure_doomed_keeps_nobody_behind_a_later_one_alive() -> None:
    found = look(
        child("a", "failed", age=900),
        child("x", "failed", age=300),
        child("b", "blocked", "a", "x"),
        child("c", "blocked", "x"),
    )
    assert found.children["b"].blockers == ("a",)
    assert (code_of(found, "c"), found.children["c"].blockers) == (Code.LOST_SKIP, ("x",))


def test_one_that_waits_holds_up_none_that_is_due() -> None:
    found = look(
        running("a"), child("b", "blocked", "a"), child("c", "ready"), tasks=[task("a", "RUNNING")]
    )
    assert (code_of(found), code_of(found, "c")) == (Code.WAITING, Code.LOST_RELEASE)


def test_a_task_of_its_own_user_under_its_key_is_no_conflict() -> None:
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
def test_a_task_that_is_not_understood(attributes: dict[str, Any], expected: Code) -> None:
    odd = parse_task({"task_id": {"S": "T-b"}, **attributes})
    assert code_of(look(running("b"), tasks=[odd])) is expected


def test_one_is_due_since_the_lost_event_of_its_predecessor() -> None:
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
def test_how_long_it_runs_is_told_by_the_best_time_there_is(times: dict[str, str]) -> None:
    old = parse_task(
        {"task_id": {"S": "T-b"}, "status": {"S": "RUNNING"}}
        | {n: {"S": at} for n, at in times.items()}
    )
    found = look(running("b"), tasks=[old]).children["b"]
    assert (found.code, found.since) == (Code.LONG_RUNNING, moment(ago(90_000)))


def test_why_there_is_no_free_slot_is_said_where_it_is_known() -> None:
    full = look(child("b", "ready"), budget=Budget(0)).children["b"]
    unread = look(child("b", "ready"), budget=Budget(0, problem="it broke")).children["b"]
    assert full.reason.endswith("no free slot")
    assert unread.reason.endswith("slots cannot be read (it broke)")


def test_one_on_a_cycle_is_on_a_cycle_whatever_else_is_missing() -> None:
    found = look(child("a", "blocked", "b", "gone"), child("b", "blocked", "a"))
    assert {d.code for d in found.children.values()} == {Code.DEPENDENCY_CYCLE}


def test_a_ladder_of_diamonds_is_gone_through_once() -> None:
    rungs = [child("l0", "blocked", "a"), child("r0", "blocked", "a")]
    for n in range(1, 40):
        rungs += [child(f"{s}{n}", "blocked", f"l{n - 1}", f"r{n - 1}") for s in "lr"]
    found = look(running("a"), *rungs, tasks=[task("a", "RUNNING")])
    assert {code_of(found, rung.sub_issue_id) for rung in rungs} == {Code.WAITING}


def test_of_two_lost_events_one_may_have_no_time() -> None:
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


def test_a_cycle_is_named_by_those_on_it_and_by_nobody_else() -> None:
    found = look(
        child("a", "blocked", "b", "z"), child("b", "blocked", "a"), child("z", "blocked", "q")
    )
    assert found.children["a"].reason == "it is on a dependency cycle, through b"


@pytest.mark.parametrize(
    ("count", "said"),
    [(1, "p0"), (3, "p0, p1, p2"), (4, "p0, p1, p2 and 1 more"), (5, "p0, p1, p2 and 2 more")],
)
def test_of_many_that_it_waits_for_three_are_named(count: int, said: str) -> None:
    before = [running(f"p{number}") for number in range(count)]
    tasks = [task(row.sub_issue_id, "RUNNING") for row in before]
    found = look(*before, child("b", "blocked", *(row.sub_issue_id for row in before)), tasks=tasks)
    assert found.children["b"].reason == f"waits for {said}"


@pytest.mark.parametrize(
    ("age", "count", "expected"),
    [
        (5, 1, Code.WITHIN_GRACE),  # an extension writes its rows before it counts them
        (5, 2, Code.WITHIN_GRACE),
        (LONG, 2, Code.DANGLING_DEPENDENCY),
        (LONG, 1, Code.DANGLING_DEPENDENCY),
    ],
)
def test_a_missing_row_is_waited_for_only_while_rows_may_still_come(
    age: float, count: int, expected: Code
) -> None:
    assert code_of(look(child("b", "blocked", "nowhere", age=age), count=count)) is expected


@pytest.mark.parametrize(
    ("count", "expected"), [(2, Code.DANGLING_DEPENDENCY), (3, Code.WITHIN_GRACE)]
)
def test_while_rows_are_missing_any_young_row_says_that_more_may_come(
    count: int, expected: Code
) -> None:
    rows = (child("b", "blocked", "nowhere"), child("c", "ready", age=5))
    assert code_of(look(*rows, count=count)) is expected


def test_what_has_no_row_is_named_and_so_is_what_waits_behind() -> None:
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
        ((child("b", "ready"), child("c", "failed")), {}, "in_progress", "1 of 2 children"),
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
def test_how_the_whole_stands(
    children: tuple[Child, ...], changes: dict[str, Any], code: str, said: str
) -> None:
    found = whole_of(*children, **changes)
    assert found.code.value == code
    assert said in found.reason


def test_since_when_the_parent_waits_to_be_settled() -> None:
    two = (child("a", "succeeded", age=900), child("b", "failed", age=600))
    assert whole_of(*two).since == moment(ago(600))
    timeless = child("c", "skipped", updated_at={"S": "yesterday"})
    assert whole_of(*two, timeless).since == moment(ago(600))
    assert whole_of(*two, updated_at=ago(300)).since == moment(ago(300))
    assert whole_of(timeless, created_at=None, updated_at=None).since is None


def test_only_what_would_be_repaired_is_quarantined_and_it_says_for_what() -> None:
    rows = {"a": child("a", "ready"), "b": child("b", "paused")}
    whole = Orchestration(ORCHESTRATION_ID, meta(2), rows)
    later = timestamp(NOW + timedelta(hours=1))
    attempts = Attempts(3, "it broke", ago(60), later, whole.fingerprint)
    found = diagnose(replace(whole, attempts={WHOLE: attempts}), Evidence(), POLICY, NOW)
    assert (code_of(found, "a"), code_of(found)) == (Code.QUARANTINED, Code.UNKNOWN_STATUS)
    assert found.children["a"].reason.startswith("lost_release; left alone until")
    assert found.children["a"].since == moment(ago(60))


def left_alone(key: str, how: str, *children: Child, **evidence: Any) -> Diagnosis:
    """Diagnose children of which one is passed over in this pass, or backed off."""
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
def test_what_is_left_alone_takes_no_slot(how: str) -> None:
    old, young = child("a", "ready", age=900), child("b", "ready", age=300)
    found = left_alone("a", how, old, young, budget=Budget(room=1))
    expected = Code.QUARANTINED if how == "backed off" else Code.LOST_RELEASE
    assert (code_of(found, "a"), code_of(found)) == (expected, Code.LOST_RELEASE)


@LEFT_ALONE
@pytest.mark.parametrize("status", ["COMPLETED", "FAILED"])
def test_behind_an_advance_that_is_left_alone_nothing_is_due(how: str, status: str) -> None:
    rows = (running("a"), child("b", "blocked", "a"))
    found = left_alone("a", how, *rows, tasks=[task("a", status)])
    assert code_of(found) is Code.WAITING


@LEFT_ALONE
def test_behind_a_skip_that_is_left_alone_nothing_is_skipped(how: str) -> None:
    rows = (child("a", "failed"), child("b", "blocked", "a"), child("c", "blocked", "b"))
    found = left_alone("b", how, *rows)
    expected = Code.QUARANTINED if how == "backed off" else Code.LOST_SKIP
    assert (code_of(found), code_of(found, "c")) == (expected, Code.WAITING)
