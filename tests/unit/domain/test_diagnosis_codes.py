"""Every code of the table, by the smallest orchestration that has it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from reconciler.domain.backoff import Attempts
from reconciler.domain.budget import Budget
from reconciler.domain.codes import Code, OrchestrationCode
from reconciler.domain.diagnosis import (
    NEVER_AGAIN,
    ChildDiagnosis,
    Diagnosis,
    Evidence,
    Policy,
    diagnose,
)
from reconciler.domain.model import WHOLE, Child, Meta, Orchestration, Task, moment, timestamp
from reconciler.stores.rows import parse_child, parse_task
from tests.support.strategies import NOW, ORCHESTRATION_ID, POLICY, ago

LONG = 3600


def child(key: str, status: str, *after: str, age: float = LONG, **attributes: Any) -> Child:
    """A child row as it is read from the table, ``age`` seconds after its last change."""
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


def test_waiting() -> None:
    found = look(running("a"), child("b", "blocked", "a"), tasks=[task("a", "RUNNING")])
    assert (code_of(found, "a"), code_of(found)) == (Code.RUNNING, Code.WAITING)


@pytest.mark.parametrize(("age", "expected"), [(119, Code.WITHIN_GRACE), (120, Code.LOST_RELEASE)])
def test_lost_release_begins_where_the_grace_ends(age: float, expected: Code) -> None:
    found = look(child("a", "succeeded", age=age), child("b", "blocked", "a"))
    assert code_of(found) is expected


def test_it_is_due_since_the_last_predecessor_succeeded() -> None:
    found = look(
        child("a", "succeeded", age=900),
        child("c", "succeeded", age=300),
        child("b", "ready", "a", "c"),
    )
    assert found.children["b"].since == moment(ago(300))


def test_a_root_is_due_since_its_own_last_change() -> None:
    assert look(child("b", "ready", age=500)).children["b"].since == moment(ago(500))


def test_a_diamond_waits_for_both_legs() -> None:
    found = look(
        child("a", "succeeded"),
        running("l"),
        child("r", "succeeded", "a"),
        child("b", "blocked", "l", "r"),
        tasks=[task("l", "RUNNING")],
    )
    assert code_of(found) is Code.WAITING


@pytest.mark.parametrize(
    ("age", "expected"), [(899, Code.CLAIM_IN_PROGRESS), (900, Code.ABANDONED_CLAIM)]
)
def test_a_claim_is_abandoned_only_past_the_claim_timeout(age: float, expected: Code) -> None:
    assert code_of(look(child("b", "releasing", age=age))) is expected


def test_over_budget_lets_the_oldest_go_first() -> None:
    found = look(child("b", "ready", age=300), child("c", "ready", age=900), budget=Budget(room=1))
    assert (code_of(found, "c"), code_of(found)) == (Code.LOST_RELEASE, Code.OVER_BUDGET)


def test_an_older_child_of_another_orchestration_goes_before_ours() -> None:
    older = (NOW - timedelta(hours=2),)
    found = look(child("b", "ready", age=300), budget=Budget(room=1, ahead=older))
    assert code_of(found) is Code.OVER_BUDGET


def test_what_cannot_be_released_takes_no_slot_from_those_that_can() -> None:
    foreign = child("b", "ready", age=900)
    found = look(
        foreign,
        child("c", "ready", age=300),
        budget=Budget(room=1),
        found={foreign.idempotency_key: Task("T-x", "RUNNING", user_id="user-2")},
    )
    assert (code_of(found), code_of(found, "c")) == (Code.IDEMPOTENCY_CONFLICT, Code.LOST_RELEASE)


def test_a_time_far_ahead_holds_nothing_up() -> None:
    never = child("b", "ready", updated_at={"S": "2099-01-01T00:00:00.000Z"})
    assert code_of(look(never)) is Code.LOST_RELEASE
    ahead = child("a", "succeeded", updated_at={"S": "2099-01-01T00:00:00.000Z"})
    found = look(ahead, child("b", "ready", "a", age=200)).children["b"]
    assert (found.code, found.since) == (Code.LOST_RELEASE, moment(ago(200)))


@pytest.mark.parametrize("status", ["COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"])
def test_lost_terminal(status: str) -> None:
    assert code_of(look(running("b"), tasks=[task("b", status)])) is Code.LOST_TERMINAL


def test_a_terminal_within_grace_is_left_to_the_live_reconciler() -> None:
    found = look(running("b"), tasks=[task("b", "COMPLETED", age=10)])
    assert code_of(found) is Code.WITHIN_GRACE


def test_a_broken_build_dooms_its_dependents() -> None:
    broken = task("a", "COMPLETED", build_passed=False)
    found = look(running("a"), child("b", "blocked", "a"), tasks=[broken])
    assert (code_of(found, "a"), code_of(found)) == (Code.LOST_TERMINAL, Code.LOST_SKIP)


def test_one_lost_terminal_shows_its_whole_consequence_at_once() -> None:
    found = look(
        running("a"),
        child("b", "blocked", "a"),
        child("c", "blocked", "b"),
        tasks=[task("a", "COMPLETED")],
    )
    assert (code_of(found), code_of(found, "c")) == (Code.LOST_RELEASE, Code.WAITING)


def test_skips_are_transitive_and_beat_success_elsewhere() -> None:
    found = look(
        child("a", "failed"),
        child("s", "succeeded"),
        child("b", "blocked", "a", "s"),
        child("c", "blocked", "b"),
    )
    assert (code_of(found), code_of(found, "c")) == (Code.LOST_SKIP, Code.LOST_SKIP)
    assert found.children["c"].blockers == ("b",)


def test_what_is_doomed_by_two_ways_names_the_same_cause_however_rows_come() -> None:
    legs = (child("y", "blocked", "a"), child("x", "blocked", "a"))
    end = child("b", "blocked", "x", "y")
    forth = look(child("a", "failed"), *legs, end)
    back = look(child("a", "failed"), *reversed(legs), end)
    assert forth.children["b"].blockers == back.children["b"].blockers == ("x",)


def test_unstarted_task_past_the_start_timeout() -> None:
    late = look(running("b"), tasks=[task("b", "SUBMITTED", age=900)])
    early = look(running("b"), tasks=[task("b", "SUBMITTED", age=899)])
    assert (code_of(late), code_of(early)) == (Code.UNSTARTED_TASK, Code.RUNNING)


def test_a_task_of_ours_that_was_never_invoked_is_unstarted_after_the_grace() -> None:
    never = look(running("b"), tasks=[task("b", "SUBMITTED", age=200, sweep_id="s")])
    invoked = task("b", "SUBMITTED", age=200, sweep_id="s", invoked_at=ago(200))
    assert code_of(never) is Code.UNSTARTED_TASK
    assert code_of(look(running("b"), tasks=[invoked])) is Code.RUNNING


def test_long_running_is_age_in_the_status() -> None:
    old = look(running("b"), tasks=[task("b", "RUNNING", age=86_400)])
    assert code_of(old) is Code.LONG_RUNNING


def test_missing_task_and_a_task_that_was_not_read() -> None:
    gone = look(running("b"))
    assert code_of(gone) is Code.CHECK_FAILED
    whole = Orchestration(ORCHESTRATION_ID, meta(1), {"b": running("b")})
    found = diagnose(whole, Evidence(tasks={"T-b": None}), POLICY, NOW)
    assert code_of(found) is Code.MISSING_TASK


def test_missing_task_id() -> None:
    assert code_of(look(child("b", "released"))) is Code.MISSING_TASK_ID
    assert code_of(look(child("b", "released", age=5))) is Code.WITHIN_GRACE


def test_dangling_dependency_also_of_those_behind_it() -> None:
    found = look(child("b", "blocked", "nowhere"), child("c", "blocked", "b"))
    assert (code_of(found), code_of(found, "c")) == (Code.DANGLING_DEPENDENCY,) * 2


def test_rows_missing_is_not_yet_dangling() -> None:
    young = look(child("b", "blocked", "nowhere", age=5), count=2)
    assert code_of(young) is Code.WITHIN_GRACE
    old = look(child("b", "blocked", "nowhere"), count=2)
    assert old.code is OrchestrationCode.ROWS_MISSING


def test_dependency_cycle_also_of_those_behind_nothing_else() -> None:
    found = look(child("a", "blocked", "b"), child("b", "blocked", "a"), child("c", "blocked", "a"))
    assert {d.code for d in found.children.values()} == {Code.DEPENDENCY_CYCLE}


def test_orphan_row() -> None:
    for age, expected in ((LONG, Code.ORPHAN_ROW), (5, Code.WITHIN_GRACE)):
        whole = Orchestration(ORCHESTRATION_ID, None, {"b": child("b", "blocked", age=age)})
        assert code_of(diagnose(whole, Evidence(), POLICY, NOW)) is expected


def test_unknown_status_and_malformed_row_are_never_guessed_at() -> None:
    found = look(child("a", "paused"), child("b", "blocked", depends_on={"S": "a"}))
    assert (code_of(found, "a"), code_of(found)) == (Code.UNKNOWN_STATUS, Code.MALFORMED_ROW)


def test_idempotency_conflict() -> None:
    due = child("b", "ready")
    foreign = Task("T-x", "RUNNING", user_id="user-2")
    assert code_of(look(due, found={due.idempotency_key: foreign})) is Code.IDEMPOTENCY_CONFLICT


@pytest.mark.parametrize("key", ["b", WHOLE])
def test_quarantined_until_its_time_or_a_change_of_its_rows(key: str) -> None:
    whole = Orchestration(ORCHESTRATION_ID, meta(1), {"b": child("b", "ready")})
    later = timestamp(NOW + timedelta(hours=1))
    attempts = Attempts(3, "it broke", ago(60), later, whole.fingerprint_of(key))
    held = replace(whole, attempts={key: attempts})
    assert code_of(diagnose(held, Evidence(), POLICY, NOW)) is Code.QUARANTINED
    changed = held.with_child(child("b", "ready", age=1000))
    assert code_of(diagnose(changed, Evidence(), POLICY, NOW)) is Code.LOST_RELEASE
    over = replace(held, attempts={key: replace(attempts, retry_at=ago(0))})
    assert code_of(diagnose(over, Evidence(), POLICY, NOW)) is Code.LOST_RELEASE


def test_a_missing_or_unreadable_time_counts_as_long_ago() -> None:
    unknown: dict[str, Any] = {"updated_at": {"S": "yesterday"}}
    done = child("a", "succeeded", **unknown)
    rows = {"a": done, "b": child("b", "blocked", "a", **unknown)}
    whole = Orchestration(ORCHESTRATION_ID, replace(meta(2), updated_at=None), rows)
    found = diagnose(whole, Evidence(), POLICY, NOW).children["b"]
    assert (found.code, found.since) == (Code.LOST_RELEASE, None)
    found = look(done, child("b", "blocked", "a")).children["b"]
    assert (found.code, found.since) == (Code.LOST_RELEASE, moment(ago(LONG)))


def test_a_meta_row_from_which_no_task_can_be_made() -> None:
    whole = Orchestration(
        ORCHESTRATION_ID, replace(meta(1), user_id=None), {"b": child("b", "ready")}
    )
    found = diagnose(whole, Evidence(), POLICY, NOW).children["b"]
    assert found.code is Code.MALFORMED_ROW
    assert "platform_user_id" in found.reason


def test_orchestration_codes() -> None:
    done = child("b", "succeeded")
    just = child("b", "succeeded", age=5)
    assert look(done).code is OrchestrationCode.UNSETTLED_PARENT
    assert look(just).code is OrchestrationCode.IN_PROGRESS
    settled = Orchestration(ORCHESTRATION_ID, meta(1, settled=True), {"b": done})
    assert diagnose(settled, Evidence(), POLICY, NOW).code is OrchestrationCode.SETTLED


# -- what a person reads of it, and where each boundary lies


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
    assert (NEVER_AGAIN in found.children["b"].reason) is said


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


# -- what was just added, retried, un-skipped or cascaded is left alone for the grace


def reopened(age: float, *children: Child, **evidence: Any) -> Diagnosis:
    """Diagnose an orchestration whose meta row was touched ``age`` seconds ago."""
    tasks = {found.task_id: found for found in evidence.pop("tasks", ())}
    row = replace(meta(len(children)), updated_at=ago(age))
    rows = {c.sub_issue_id: c for c in children}
    whole = Orchestration(ORCHESTRATION_ID, row, rows)
    return diagnose(whole, Evidence(tasks=tasks, **evidence), POLICY, NOW)


@pytest.mark.parametrize(("age", "young"), [(119, True), (120, False)])
def test_a_new_child_behind_old_ones_has_its_grace(age: float, young: bool) -> None:  # noqa: FBT001
    due = look(child("a", "succeeded"), child("b", "blocked", "a", age=age))
    assert code_of(due) is (Code.WITHIN_GRACE if young else Code.LOST_RELEASE)
    doomed = look(child("a", "failed"), child("b", "blocked", "a", age=age))
    assert code_of(doomed) is (Code.WITHIN_GRACE if young else Code.LOST_SKIP)


@pytest.mark.parametrize(("age", "young"), [(119, True), (120, False)])
def test_a_reopened_orchestration_has_its_grace(age: float, young: bool) -> None:  # noqa: FBT001
    for before, expected in (("succeeded", Code.LOST_RELEASE), ("failed", Code.LOST_SKIP)):
        found = reopened(age, child("a", before), child("b", "blocked", "a"))
        assert code_of(found) is (Code.WITHIN_GRACE if young else expected)
    ended = reopened(age, running("b"), tasks=[task("b", "COMPLETED")])
    assert code_of(ended) is (Code.WITHIN_GRACE if young else Code.LOST_TERMINAL)


def test_nothing_is_skipped_before_its_cause() -> None:
    """A grace that a child still has is one for all behind it."""
    rows = (child("a", "failed"), child("b", "blocked", "a", age=60), child("c", "blocked", "b"))
    found = look(*rows)
    assert {code_of(found, "b"), code_of(found, "c")} == {Code.WITHIN_GRACE}
    assert found.children["c"].since == moment(ago(60))


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ({"a": "succeeded", "b": "succeeded"}, Code.LOST_UNSKIP),
        ({"a": "succeeded", "b": "blocked"}, Code.LOST_UNSKIP),
        ({"a": "succeeded", "b": "failed"}, None),
        ({"a": "skipped", "b": "failed"}, None),
        ({"a": "succeeded"}, None),
    ],
)
def test_a_child_skipped_for_nothing_is_surfaced(
    before: dict[str, str], expected: Code | None
) -> None:
    """A retry that broke off resets what failed, and not what was skipped for it."""
    rows = [child(key, status) for key, status in before.items()]
    found = look(*rows, child("x", "skipped", "a", "b")).children.get("x")
    assert (found.code if found is not None else None) is expected


def test_a_skip_is_doubted_only_past_the_grace() -> None:
    for young in ({"a": 60.0, "b": LONG}, {"a": LONG, "b": 60.0}):
        rows = (child("a", "ready", age=young["a"]), child("b", "skipped", "a", age=young["b"]))
        assert "b" not in look(*rows).children
    assert "b" not in reopened(60, child("a", "ready"), child("b", "skipped", "a")).children
    expired = child("b", "skipped", "a", ttl={"N": str(int(NOW.timestamp()))})
    assert "b" not in look(child("a", "ready"), expired).children


@pytest.mark.parametrize(
    ("finished", "failed", "expected"),
    [
        (600, LONG, Code.LOST_RECOVERY),
        (120, LONG, Code.LOST_RECOVERY),
        (119, LONG, None),
        (600, 600, None),
        (600, 300, None),
    ],
)
def test_a_fix_that_ended_after_the_failure_was_to_be_recovered(
    finished: float, failed: float, expected: Code | None
) -> None:
    fix = Task("I", "COMPLETED", status_since=ago(finished), iteration=True)
    found = look(child("b", "failed", age=failed), iterations={"b": fix}).children.get("b")
    assert (found.code if found is not None else None) is expected
    if found is not None:
        assert (found.task_id, found.since) == ("I", moment(ago(finished)))


def test_a_fix_says_nothing_of_a_child_that_is_not_failed() -> None:
    fix = Task("I", "COMPLETED", status_since=ago(600), iteration=True)
    assert look(child("b", "succeeded"), iterations={"b": fix}).children == {}
    assert reopened(60, child("b", "failed"), iterations={"b": fix}).children == {}


@pytest.mark.parametrize("of", ["child", "meta"])
def test_an_expired_row_gets_no_new_work(of: str) -> None:
    past = {"N": str(int(NOW.timestamp()))}
    own: dict[str, Any] = {"ttl": past} if of == "child" else {}
    row = child("b", "ready", **own)
    kept = child("c", "ready", ttl={"N": str(int(NOW.timestamp()) + 1)})
    of_meta = replace(meta(2), ttl=int(NOW.timestamp()) if of == "meta" else None)
    whole = Orchestration(ORCHESTRATION_ID, of_meta, {"b": row, "c": kept})
    found = diagnose(whole, Evidence(budget=Budget(room=1)), POLICY, NOW)
    assert code_of(found) is Code.WAITING
    assert "time to live" in found.children["b"].reason
    assert code_of(found, "c") is (Code.LOST_RELEASE if of == "child" else Code.WAITING)
