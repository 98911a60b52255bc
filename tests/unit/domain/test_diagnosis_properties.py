"""Properties of every diagnosis, whatever rows the table holds."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from reconciler.domain.codes import ACTIONABLE, HEALTHY, Code
from reconciler.domain.diagnosis import Diagnosis, Evidence, diagnose
from reconciler.domain.model import ACTIVE_CHILD, FAILURE, Child, ChildStatus, Meta, Orchestration
from reconciler.domain.nomination import (
    active_part,
    suspicious,
    unseen_predecessors,
    with_predecessors,
)
from reconciler.domain.planning import Skip, plan
from tests.support.strategies import NOW, POLICY, Case, cases


def diagnosed(case: Case) -> Diagnosis:
    return diagnose(case.orchestration, case.evidence, POLICY, NOW)


@given(cases())
def test_every_non_terminal_child_has_exactly_one_code(case: Case) -> None:
    non_terminal = {k for k, c in case.orchestration.children.items() if not c.terminal}
    diagnosis = diagnosed(case)
    reopened = {k for k, found in diagnosis.children.items() if found.code is Code.LOST_UNSKIP}
    assert set(diagnosis.children) == non_terminal | reopened
    assert not non_terminal & reopened
    assert all(found.code in Code and found.reason for found in diagnosis.children.values())


@given(cases(), st.randoms(use_true_random=False))
def test_row_order_does_not_change_a_diagnosis(case: Case, random: Random) -> None:
    keys = list(case.orchestration.children)
    random.shuffle(keys)
    shuffled = replace(
        case.orchestration, children={key: case.orchestration.children[key] for key in keys}
    )
    assert diagnose(shuffled, case.evidence, POLICY, NOW) == diagnosed(case)
    assert shuffled.fingerprint == case.orchestration.fingerprint


def can_still_happen(orchestration: Orchestration, diagnosis: Diagnosis, key: str) -> bool:
    """Search the predecessors for one that is unfinished and does not wait; an oracle."""
    seen: set[str] = set()
    stack = [key]
    while stack:
        current = stack.pop()
        if current in seen:
            continue
        seen.add(current)
        found = diagnosis.children.get(current)
        if found is None or current not in orchestration.children:
            continue
        if current != key and found.code is not Code.WAITING:
            return True
        stack.extend(orchestration.children[current].depends_on)
    return False


@given(cases())
def test_no_child_waits_for_waiting_children_only(case: Case) -> None:
    """At least one predecessor, direct or not, is unfinished and does not wait itself."""
    diagnosis = diagnosed(case)
    for key, found in diagnosis.children.items():
        if found.code is Code.WAITING:
            assert can_still_happen(case.orchestration, diagnosis, key)
            assert found.blockers
            assert all(blocker in diagnosis.children for blocker in found.blockers)


@given(cases())
def test_no_release_is_planned_unless_every_predecessor_succeeded(case: Case) -> None:
    """I1: a lost terminal counts as ended, since it is advanced before any release."""
    orchestration, diagnosis = case.orchestration, diagnosed(case)
    planned = plan(orchestration, diagnosis, case.evidence, POLICY, NOW)
    for release in planned.releases:
        child = orchestration.children[release.sub_issue_id]
        assert child.status in {ChildStatus.BLOCKED, ChildStatus.READY}
        assert all(succeeded(orchestration, diagnosis, case, key) for key in child.depends_on)


def succeeded(orchestration: Orchestration, diagnosis: Diagnosis, case: Case, key: str) -> bool:
    child = orchestration.children[key]
    if child.status is ChildStatus.SUCCEEDED:
        return True
    task = case.evidence.tasks.get(child.task_id or "")
    lost = diagnosis.children[key].code in {Code.LOST_TERMINAL, Code.WITHIN_GRACE, Code.QUARANTINED}
    return lost and task is not None and task.terminal and task.outcome is ChildStatus.SUCCEEDED


@given(cases())
def test_a_skip_comes_after_its_cause(case: Case) -> None:
    """I5: the cause of a planned skip has failed, or is skipped earlier in the same plan."""
    orchestration, diagnosis = case.orchestration, diagnosed(case)
    planned = plan(orchestration, diagnosis, case.evidence, POLICY, NOW)
    done: set[str] = set()
    for action in planned.actions:
        if isinstance(action, Skip):
            cause = orchestration.children[action.because]
            assert cause.status in FAILURE or action.because in done
        done.add(action.sub_issue_id)


@given(cases())
def test_only_actionable_children_are_planned_and_only_once(case: Case) -> None:
    diagnosis = diagnosed(case)
    planned = plan(case.orchestration, diagnosis, case.evidence, POLICY, NOW)
    actions = [*planned.actions, *planned.releases]
    keys = [action.sub_issue_id for action in actions]
    assert len(keys) == len(set(keys))
    assert all(diagnosis.children[key].code in ACTIONABLE for key in keys)


@given(cases())
def test_releases_go_oldest_first_within_the_budget(case: Case) -> None:
    diagnosis = diagnosed(case)
    planned = plan(case.orchestration, diagnosis, case.evidence, POLICY, NOW)
    since = [release.since for release in planned.releases]
    known = [moment for moment in since if moment is not None]
    assert since[len(since) - len(known) :] == sorted(known)
    if case.evidence.budget is not None:
        assert len(planned.releases) <= case.evidence.budget.room


@given(cases())
def test_a_scan_nominates_every_unhealthy_orchestration(case: Case) -> None:
    seen = replace(case.evidence, found={}, budget=None)
    if not diagnose(case.orchestration, seen, POLICY, NOW).healthy:
        assert suspicious(case.orchestration, seen.tasks, POLICY, NOW)


@given(cases())
def test_an_index_scan_nominates_every_unhealthy_child(case: Case) -> None:
    """Only a full scan finds rows without a status and problems of the meta row."""
    whole = case.orchestration
    found = diagnose(whole, case.evidence, POLICY, NOW).children
    shown = {key for key, child in whole.children.items() if child.status in ACTIVE_CHILD}
    wrong = {
        key
        for key in shown & found.keys()
        if found[key].code not in HEALTHY and found[key].code is not Code.ORPHAN_ROW
    }
    part = active_part(replace(whole, children={key: whole.children[key] for key in shown}))
    unseen = unseen_predecessors(part)
    nominated = unseen is None
    if unseen is not None:
        read = [whole.children[key] for key in unseen if key in whole.children]
        nominated = suspicious(with_predecessors(part, read), case.evidence.tasks, POLICY, NOW)
    assert nominated or not wrong


@given(cases())
def test_healthy_children_are_never_acted_on(case: Case) -> None:
    diagnosis = diagnosed(case)
    planned = plan(case.orchestration, diagnosis, case.evidence, POLICY, NOW)
    acted = {action.sub_issue_id for action in (*planned.actions, *planned.releases)}
    healthy = {key for key, found in diagnosis.children.items() if found.code in HEALTHY}
    assert not acted & healthy


def test_a_cycle_of_thousands_needs_no_recursion() -> None:
    keys = [f"s{number}" for number in range(5000)]
    children = {
        key: Child("orch_x", key, ChildStatus.BLOCKED, "blocked", (keys[number - 1],))
        for number, key in enumerate(keys)
    }
    meta = Meta("orch_x", 5000, "user-1", "acme/shop", None, None, settled=False)
    diagnosis = diagnose(Orchestration("orch_x", meta, children), Evidence(), POLICY, NOW)
    assert {found.code for found in diagnosis.children.values()} == {Code.DEPENDENCY_CYCLE}
