"""Every code, shown by the smallest orchestration that has it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from reconciler.domain.backoff import Attempts
from reconciler.domain.budget import Budget
from reconciler.domain.codes import Code, OrchestrationCode
from reconciler.domain.diagnosis import (
    Evidence,
    diagnose,
)
from reconciler.domain.model import WHOLE, Orchestration, Task, moment, timestamp
from tests.support.strategies import NOW, ORCHESTRATION_ID, POLICY, ago
from tests.unit.domain.diagnosed import LONG, child, code_of, look, meta, running, task


def test_a_child_waits_for_a_running_predecessor() -> None:
    found = look(running("a"), child("b", "blocked", "a"), tasks=[task("a", "RUNNING")])
    assert (code_of(found, "a"), code_of(found)) == (Code.RUNNING, Code.WAITING)


@pytest.mark.parametrize(("age", "expected"), [(119, Code.WITHIN_GRACE), (120, Code.LOST_RELEASE)])
def test_a_release_is_lost_after_the_grace(age: float, expected: Code) -> None:
    found = look(child("a", "succeeded", age=age), child("b", "blocked", "a"))
    assert code_of(found) is expected


def test_a_child_is_due_since_its_last_predecessor() -> None:
    found = look(
        child("a", "succeeded", age=900),
        child("c", "succeeded", age=300),
        child("b", "ready", "a", "c"),
    )
    assert found.children["b"].since == moment(ago(300))


def test_a_root_is_due_since_its_last_change() -> None:
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
def test_a_claim_is_abandoned_after_its_timeout(age: float, expected: Code) -> None:
    assert code_of(look(child("b", "releasing", age=age))) is expected


def test_a_single_slot_goes_to_the_oldest_child() -> None:
    found = look(child("b", "ready", age=300), child("c", "ready", age=900), budget=Budget(room=1))
    assert (code_of(found, "c"), code_of(found)) == (Code.LOST_RELEASE, Code.OVER_BUDGET)


def test_an_older_child_elsewhere_goes_first() -> None:
    older = (NOW - timedelta(hours=2),)
    found = look(child("b", "ready", age=300), budget=Budget(room=1, ahead=older))
    assert code_of(found) is Code.OVER_BUDGET


def test_a_conflicting_child_takes_no_slot() -> None:
    foreign = child("b", "ready", age=900)
    found = look(
        foreign,
        child("c", "ready", age=300),
        budget=Budget(room=1),
        found={foreign.idempotency_key: Task("T-x", "RUNNING", user_id="user-2")},
    )
    assert (code_of(found), code_of(found, "c")) == (Code.IDEMPOTENCY_CONFLICT, Code.LOST_RELEASE)


def test_a_time_far_ahead_delays_no_release() -> None:
    never = child("b", "ready", updated_at={"S": "2099-01-01T00:00:00.000Z"})
    assert code_of(look(never)) is Code.LOST_RELEASE
    ahead = child("a", "succeeded", updated_at={"S": "2099-01-01T00:00:00.000Z"})
    found = look(ahead, child("b", "ready", "a", age=200)).children["b"]
    assert (found.code, found.since) == (Code.LOST_RELEASE, moment(ago(200)))


@pytest.mark.parametrize("status", ["COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"])
def test_an_ended_task_means_a_lost_terminal(status: str) -> None:
    assert code_of(look(running("b"), tasks=[task("b", status)])) is Code.LOST_TERMINAL


def test_a_recently_ended_task_has_its_grace() -> None:
    found = look(running("b"), tasks=[task("b", "COMPLETED", age=10)])
    assert code_of(found) is Code.WITHIN_GRACE


def test_a_broken_build_dooms_its_dependents() -> None:
    broken = task("a", "COMPLETED", build_passed=False)
    found = look(running("a"), child("b", "blocked", "a"), tasks=[broken])
    assert (code_of(found, "a"), code_of(found)) == (Code.LOST_TERMINAL, Code.LOST_SKIP)


def test_a_lost_terminal_shows_its_consequences_at_once() -> None:
    found = look(
        running("a"),
        child("b", "blocked", "a"),
        child("c", "blocked", "b"),
        tasks=[task("a", "COMPLETED")],
    )
    assert (code_of(found), code_of(found, "c")) == (Code.LOST_RELEASE, Code.WAITING)


def test_one_failure_dooms_all_children_behind_it() -> None:
    """Another predecessor that has succeeded does not change that."""
    found = look(
        child("a", "failed"),
        child("s", "succeeded"),
        child("b", "blocked", "a", "s"),
        child("c", "blocked", "b"),
    )
    assert (code_of(found), code_of(found, "c")) == (Code.LOST_SKIP, Code.LOST_SKIP)
    assert found.children["c"].blockers == ("b",)


def test_row_order_does_not_change_the_cause() -> None:
    """A child that is doomed along two paths always names the same predecessor."""
    legs = (child("y", "blocked", "a"), child("x", "blocked", "a"))
    end = child("b", "blocked", "x", "y")
    forth = look(child("a", "failed"), *legs, end)
    back = look(child("a", "failed"), *reversed(legs), end)
    assert forth.children["b"].blockers == back.children["b"].blockers == ("x",)


def test_a_task_is_unstarted_after_the_start_timeout() -> None:
    late = look(running("b"), tasks=[task("b", "SUBMITTED", age=900)])
    early = look(running("b"), tasks=[task("b", "SUBMITTED", age=899)])
    assert (code_of(late), code_of(early)) == (Code.UNSTARTED_TASK, Code.RUNNING)
    assert not late.children["b"].invoked_again
    assert not early.children["b"].invoked_again
    assert not late.has_due


def test_an_uninvoked_task_is_unstarted_after_the_grace() -> None:
    """The reconciler created it; once invoked, it has until the start timeout."""
    never = look(running("b"), tasks=[task("b", "SUBMITTED", age=200, sweep_id="s")])
    invoked = task("b", "SUBMITTED", age=200, sweep_id="s", invoked_at=ago(200))
    assert code_of(never) is Code.UNSTARTED_TASK
    assert code_of(look(running("b"), tasks=[invoked])) is Code.RUNNING


def test_a_day_in_one_status_is_long_running() -> None:
    old = look(running("b"), tasks=[task("b", "RUNNING", age=86_400)])
    assert code_of(old) is Code.LONG_RUNNING
    limit = "its task has been RUNNING for longer than 86,400 s (LONG_RUNNING_SECONDS)"
    assert old.children["b"].reason == limit


def test_an_unread_task_is_not_a_missing_task() -> None:
    gone = look(running("b"))
    assert code_of(gone) is Code.CHECK_FAILED
    whole = Orchestration(ORCHESTRATION_ID, meta(1), {"b": running("b")})
    found = diagnose(whole, Evidence(tasks={"T-b": None}), POLICY, NOW)
    assert code_of(found) is Code.MISSING_TASK


def test_a_code_names_the_task_of_its_child() -> None:
    assert look(running("b"), tasks=[task("b", "RUNNING")]).children["b"].task_id == "T-b"
    assert look(child("b", "ready")).children["b"].task_id is None


def test_a_task_id_is_missing_after_the_grace() -> None:
    assert code_of(look(child("b", "released"))) is Code.MISSING_TASK_ID
    assert code_of(look(child("b", "released", age=5))) is Code.WITHIN_GRACE


def test_dependents_share_a_dangling_dependency() -> None:
    found = look(child("b", "blocked", "nowhere"), child("c", "blocked", "b"))
    assert (code_of(found), code_of(found, "c")) == (Code.DANGLING_DEPENDENCY,) * 2


def test_missing_rows_have_their_grace_first() -> None:
    young = look(child("b", "blocked", "nowhere", age=5), count=2)
    assert code_of(young) is Code.WITHIN_GRACE
    old = look(child("b", "blocked", "nowhere"), count=2)
    assert old.code is OrchestrationCode.ROWS_MISSING


def test_dependents_share_a_dependency_cycle() -> None:
    found = look(child("a", "blocked", "b"), child("b", "blocked", "a"), child("c", "blocked", "a"))
    assert {d.code for d in found.children.values()} == {Code.DEPENDENCY_CYCLE}


def test_a_row_without_meta_is_orphaned_after_grace() -> None:
    for age, expected in ((LONG, Code.ORPHAN_ROW), (5, Code.WITHIN_GRACE)):
        whole = Orchestration(ORCHESTRATION_ID, None, {"b": child("b", "blocked", age=age)})
        assert code_of(diagnose(whole, Evidence(), POLICY, NOW)) is expected


def test_an_invalid_row_is_never_guessed_at() -> None:
    found = look(child("a", "paused"), child("b", "blocked", depends_on={"S": "a"}))
    assert (code_of(found, "a"), code_of(found)) == (Code.UNKNOWN_STATUS, Code.MALFORMED_ROW)


def test_another_users_task_is_an_idempotency_conflict() -> None:
    due = child("b", "ready")
    foreign = Task("T-x", "RUNNING", user_id="user-2")
    assert code_of(look(due, found={due.idempotency_key: foreign})) is Code.IDEMPOTENCY_CONFLICT


@pytest.mark.parametrize("key", ["b", WHOLE])
def test_quarantine_ends_with_its_pause_or_a_change(key: str) -> None:
    whole = Orchestration(ORCHESTRATION_ID, meta(1), {"b": child("b", "ready")})
    later = timestamp(NOW + timedelta(hours=1))
    attempts = Attempts(3, "it broke", ago(60), later, whole.fingerprint_of(key))
    held = replace(whole, attempts={key: attempts})
    assert code_of(diagnose(held, Evidence(), POLICY, NOW)) is Code.QUARANTINED
    changed = held.with_child(child("b", "ready", age=1000))
    assert code_of(diagnose(changed, Evidence(), POLICY, NOW)) is Code.LOST_RELEASE
    over = replace(held, attempts={key: replace(attempts, retry_at=ago(0))})
    assert code_of(diagnose(over, Evidence(), POLICY, NOW)) is Code.LOST_RELEASE


def test_an_unreadable_time_counts_as_long_ago() -> None:
    """A missing time counts as long ago, too."""
    unknown: dict[str, Any] = {"updated_at": {"S": "yesterday"}}
    done = child("a", "succeeded", **unknown)
    rows = {"a": done, "b": child("b", "blocked", "a", **unknown)}
    whole = Orchestration(ORCHESTRATION_ID, replace(meta(2), updated_at=None), rows)
    found = diagnose(whole, Evidence(), POLICY, NOW).children["b"]
    assert (found.code, found.since) == (Code.LOST_RELEASE, None)
    found = look(done, child("b", "blocked", "a")).children["b"]
    assert (found.code, found.since) == (Code.LOST_RELEASE, moment(ago(LONG)))


def test_a_bad_meta_row_makes_children_malformed() -> None:
    """The reason names the attribute at fault."""
    whole = Orchestration(
        ORCHESTRATION_ID, replace(meta(1), user_id=None), {"b": child("b", "ready")}
    )
    found = diagnose(whole, Evidence(), POLICY, NOW).children["b"]
    assert found.code is Code.MALFORMED_ROW
    assert "platform_user_id" in found.reason


def test_a_parent_is_unsettled_after_the_grace() -> None:
    done = child("b", "succeeded")
    just = child("b", "succeeded", age=5)
    assert look(done).code is OrchestrationCode.UNSETTLED_PARENT
    assert look(just).code is OrchestrationCode.IN_PROGRESS
    settled = Orchestration(ORCHESTRATION_ID, meta(1, settled=True), {"b": done})
    assert diagnose(settled, Evidence(), POLICY, NOW).code is OrchestrationCode.SETTLED


def test_a_quarantined_lost_release_is_still_due() -> None:
    lost = look(child("a", "succeeded"), child("b", "blocked", "a"))
    assert (code_of(lost), lost.has_due) == (Code.LOST_RELEASE, True)
    quarantined = replace(lost.children["b"], code=Code.QUARANTINED)
    assert replace(lost, children={"b": quarantined}).has_due
