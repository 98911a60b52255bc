"""What is known of one orchestration: each edge case, by the events that lead to it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.domain.codes import Code, OrchestrationCode
from reconciler.domain.diagnosis import ChildDiagnosis, Diagnosis
from reconciler.domain.model import Child, ChildStatus, Meta, Orchestration
from reconciler.domain.outcomes import Outcome
from reconciler.repair.context import ActionOutcome, Evaluation, Stuck
from reconciler.repair.counts import Counts
from reconciler.sweeping.known_stuck import (
    KEEP_CLEAN_SECONDS,
    MAX_AHEAD_SECONDS,
    MAX_PAUSE_SECONDS,
    Finding,
    Known,
    age_at,
)
from reconciler.sweeping.segments import NEVER, Scope

INTERVAL = 60.0
NOTHING = Known()
CYCLE = Stuck("o", "a", "dependency_cycle", "on a cycle", 50.0)
QUEUED = ActionOutcome("release", "b", "lost_release", Outcome.QUEUED, applied=True)


def nominated(
    known: Known = NOTHING, *, mark: float = 100.0, began: float = 110.0, now: float = 112.0
) -> Known:
    return known.nominated(Scope.TABLE, mark, began, "rows", now)


def evaluated(known: Known, finding: Finding, now: float) -> Known:
    return known.evaluated(finding, INTERVAL, now)


def test_a_nomination_counts_from_the_mark_before_it() -> None:
    """A read begins at 100, a child is due at 103, and the next read, at 110, nominates."""
    known = nominated()
    assert known.waiting == {"table": 100.0}
    assert nominated(known, mark=110.0, began=120.0, now=121.0).waiting == {"table": 100.0}


def test_a_nomination_during_an_evaluation_survives_it() -> None:
    known = nominated(nominated(now=112.0), began=120.0, now=123.0)
    assert evaluated(known, Finding(read_at=122.0), now=124.0).waiting == {"table": 100.0}
    assert evaluated(known, Finding(read_at=124.0), now=125.0).waiting == {}


def test_an_older_evaluation_changes_nothing() -> None:
    """It does not matter whether the later one found something or nothing."""
    stuck = evaluated(Known(), Finding(200.0, (CYCLE,)), now=201.0)
    assert evaluated(stuck, Finding(150.0), now=202.0) is stuck
    clean = evaluated(Known(), Finding(200.0), now=201.0)
    assert evaluated(clean, Finding(150.0, (CYCLE,)), now=202.0) is clean
    assert not clean.is_forgettable(200.0 + KEEP_CLEAN_SECONDS)
    assert clean.is_forgettable(200.1 + KEEP_CLEAN_SECONDS)


def test_a_scan_before_the_evaluation_nominates_nothing() -> None:
    known = evaluated(nominated(), Finding(130.0, (CYCLE,)), now=131.0)
    assert nominated(known, began=129.0, now=132.0) is known
    assert nominated(known, began=131.0, now=132.0).waiting


def test_a_release_stays_known_until_its_result() -> None:
    known = nominated().with_releases({"a": 60.0}, now=115.0)
    known = evaluated(known, Finding(113.0), now=116.0)
    assert known.waiting == {}, "it does not hold back the watermark"
    (stuck,) = known.list_stuck("o", now=160.0)
    assert (stuck.sub_issue_id, stuck.code, stuck.age_seconds) == ("a", "lost_release", 100.0)
    assert known.is_due(since=120.0, now=121.0)
    assert known.was_released_after(115.0)
    assert not known.released("a", (), now=130.0, settled=True).needs_evaluation


def test_the_next_evaluation_drops_a_lost_release() -> None:
    known = Known().with_releases({"a": 60.0}, now=115.0)
    assert not evaluated(known, Finding(180.0), now=181.0).needs_evaluation


def test_a_failed_release_is_listed_with_its_age() -> None:
    failed = Stuck("o", "a", "lost_release", "throttled", 70.0)
    handed_on = Known().with_releases({"a": 60.0}, 115.0)
    known = handed_on.released("a", [failed], now=130.0, settled=False)
    (stuck,) = known.list_stuck("o", now=140.0)
    assert (stuck.reason, stuck.age_seconds) == ("throttled", 80.0)


DUE = Stuck("o", "a", "lost_release", "throttled", 70.0)
FULL = Stuck("o", "a", "over_budget", "its user has no free slot", 70.0)


@pytest.mark.parametrize(
    ("before", "found", "settled", "after"),
    [
        (CYCLE, [], False, ["dependency_cycle"]),
        (CYCLE, [DUE], False, ["dependency_cycle"]),
        (CYCLE, [], True, []),
        (DUE, [], False, []),
        (DUE, [FULL], False, ["over_budget"]),
        (FULL, [DUE], False, ["lost_release"]),
        (FULL, [], False, []),
    ],
)
def test_an_unsuccessful_release_leaves_other_reasons(
    before: Stuck, found: list[Stuck], after: list[str], *, settled: bool
) -> None:
    """It finds out only whether the child is due, and the child still has one reason."""
    other = Stuck("o", "b", "missing_task", "no such task", 50.0)
    known = evaluated(Known(), Finding(100.0, (other, before)), now=101.0)
    known = known.with_releases({"a": 60.0}, 102.0).released("a", found, 130.0, settled=settled)
    assert [left.code for left in known.list_stuck("o", now=130.0)] == ["missing_task", *after]
    assert known.handed_on == {}


def test_pauses_grow_while_a_person_is_needed() -> None:
    known, now, pauses = Known(), 1000.0, []
    for _ in range(9):
        now = max(now + 1, known.evaluate_at)
        assert known.is_due(since=now, now=now) or not known.needs_evaluation
        known = evaluated(known, Finding(now, (CYCLE,), "same rows", needs_person=True), now)
        pauses.append(max(0.0, known.evaluate_at - now))
    assert pauses[:4] == [0.0, 240.0, 480.0, 960.0]
    assert pauses[-1] == MAX_PAUSE_SECONDS


def test_changed_rows_end_a_pause_at_once() -> None:
    known = nominated()
    for at in (120.0, 130.0):
        known = evaluated(known, Finding(at, (CYCLE,), "rows", needs_person=True), at)
    assert known.evaluate_at > 140.0
    assert not known.nominated(Scope.TABLE, 130.0, 140.0, "rows", 141.0).waiting
    assert known.nominated(Scope.TABLE, 130.0, 140.0, "others", 141.0).waiting
    assert known.nominated(Scope.ACTIVE, 130.0, 140.0, "rows", 141.0).waiting
    again = evaluated(known, Finding(150.0, (CYCLE,), "others", needs_person=True), 150.0)
    assert again.is_due(since=151.0, now=151.0), "a new situation has no pause yet"


def test_problems_that_time_may_change_get_no_pause() -> None:
    known = Known()
    for at in (120.0, 130.0, 140.0):
        known = evaluated(known, Finding(at, (CYCLE,), "rows"), at)
    assert known.evaluate_at == NEVER


@pytest.mark.parametrize("name", ["read_at", "nominated_at", "evaluate_at"])
def test_times_ahead_of_the_clock_count_as_absent(name: str) -> None:
    """The broker failed over, and its clock jumped back by an hour or two."""
    record = {**nominated().to_record(), name: 9999.0}
    found = Known.from_record(record, 200.0)
    assert getattr(found, name) in {NEVER, 200.0}
    cleared = evaluated(found, Finding(200.0), 201.0)
    assert not cleared.needs_evaluation


def test_a_release_from_the_future_is_not_awaited() -> None:
    """Otherwise no sweep could end until the clock reaches that time."""
    known = Known().with_releases({"a": 60.0}, now=9999.0)
    found = Known.from_record(known.to_record(), 200.0)
    assert not found.was_released_after(100.0)
    assert not evaluated(found, Finding(201.0), now=202.0).needs_evaluation


def test_an_age_from_the_future_is_unknown() -> None:
    known = evaluated(Known(), Finding(9998.0, (CYCLE,)), now=9999.0)
    (stuck,) = known.list_stuck("o", now=200.0)
    assert stuck.age_seconds is None
    (stuck,) = known.list_stuck("o", now=9949.0 - MAX_AHEAD_SECONDS)
    assert stuck.age_seconds == 0.0, "clocks may differ by this much"


def test_a_finding_from_the_future_is_dropped() -> None:
    """The clock has jumped back since."""
    known = nominated()
    assert evaluated(known, Finding(9999.0), now=200.0) is known


def test_an_unknown_age_counts_from_first_sight() -> None:
    """Otherwise the alert on the oldest would never fire if an evaluation keeps failing."""
    failed = Stuck("o", None, "check_failed", "throttled", None)
    known = Known()
    for at in (100.0, 200.0, 300.0):
        known = evaluated(known, Finding(at, (failed,)), now=at)
    (stuck,) = known.list_stuck("o", now=310.0)
    assert stuck.age_seconds == 210.0
    due = Stuck("o", "a", "lost_release", "x", None)
    released = known.released("a", [due], now=400.0, settled=False)
    again = released.released("a", [due], now=500.0, settled=False)
    assert again.list_stuck("o", now=500.0)[-1].age_seconds == 100.0


def test_a_mark_ahead_of_the_clock_is_unknown() -> None:
    found = Known.from_record(nominated(mark=9999.0).to_record(), 200.0)
    assert found.waiting == {"table": NEVER}


def test_a_finding_names_its_unrepaired_children() -> None:
    """It has the display ids of children that are stuck or handed on, and no others."""
    rows = {
        key: Child("o", key, ChildStatus.BLOCKED, "blocked", display_id=f"ENG-{key}")
        for key in "abc"
    }
    meta = Meta("o", 3, "ada", "acme/web", None, None, settled=False)
    evaluation = Evaluation(
        "o", None, None, (QUEUED,), Counts(), (CYCLE,), orchestration=Orchestration("o", meta, rows)
    )
    finding = Finding.of(evaluation, 1.0)
    assert (finding.repo, finding.user_id) == ("acme/web", "ada")
    assert finding.display_ids == {"a": "ENG-a", "b": "ENG-b"}


def test_a_paced_orchestration_waits_for_its_turn() -> None:
    """A scan that sees the same rows does not nominate it, and no sweep has evaluated it."""
    due = Stuck("o", "a", "lost_release", "it is due", 50.0)
    known = evaluated(nominated(), Finding(130.0, (due,), "rows", paced=True), now=131.0)
    assert nominated(known, began=140.0, now=141.0) is known
    assert known.nominated(Scope.TABLE, 110.0, 140.0, "other rows", 141.0).waiting
    assert not known.was_evaluated(120.0)
    assert known.due_since == 81.0
    assert not evaluated(known, Finding(150.0), now=151.0).paced


@pytest.mark.parametrize(("outcome", "paced"), [(Outcome.PACED, True), (Outcome.QUEUED, False)])
def test_a_finding_tells_whether_there_was_room(outcome: Outcome, paced: bool) -> None:  # noqa: FBT001 - a parameter of the cases
    action = ActionOutcome("release", "b", "lost_release", outcome, applied=True)
    assert Finding.of(Evaluation("o", None, None, (action,), Counts()), 1.0).paced == paced


def test_each_sweep_evaluates_known_stuck_once() -> None:
    """Not before its pause is over; what awaits evaluation is always evaluated."""
    left = replace(evaluated(Known(), Finding(100.0, (CYCLE,)), now=101.0), evaluate_at=200.0)
    assert left.is_due(since=150.0, now=200.0)
    assert not left.is_due(since=150.0, now=199.0), "its pause goes on"
    assert not left.is_due(since=100.0, now=200.0), "it was evaluated as that sweep began"
    assert nominated(left, began=105.0, now=201.0).is_due(since=100.0, now=120.0)
    assert not evaluated(Known(), Finding(100.0), now=101.0).is_due(since=150.0, now=200.0)


def test_an_evaluation_counts_only_for_earlier_sweeps() -> None:
    known = evaluated(nominated(), Finding(130.0), now=131.0)
    assert known.was_evaluated(130.0)
    assert not known.was_evaluated(131.0), "that sweep began later"
    assert not nominated(known, began=131.0, now=140.0).was_evaluated(130.0)


def test_a_pause_longer_than_possible_is_ignored() -> None:
    record = Known(evaluate_at=200.0 + MAX_PAUSE_SECONDS).to_record()
    assert Known.from_record(record, 200.0).evaluate_at == 200.0 + MAX_PAUSE_SECONDS
    assert Known.from_record(record, 199.0).evaluate_at == NEVER


def test_the_first_finding_starts_no_pause() -> None:
    """Even if no rows are left, so that the fingerprint is None before and after."""
    missing = Stuck("o", None, "rows_missing", "no rows", None)
    known = evaluated(Known(), Finding(100.0, (missing,), needs_person=True), now=101.0)
    assert (known.unchanged, known.evaluate_at) == (1, NEVER)


def test_equal_times_lose_and_repeat_nothing() -> None:
    """Two events may have the same time by the broker's clock."""
    known = evaluated(nominated(), Finding(130.0, (CYCLE,)), now=131.0)
    assert nominated(known, began=130.0, now=132.0) is known, "the evaluation saw the same rows"
    assert not evaluated(known, Finding(130.0), now=133.0).stuck
    released = known.with_releases({"b": 60.0}, now=140.0)
    assert evaluated(released, Finding(140.0), now=141.0).handed_on, "it may have come later"


def test_a_nomination_survives_every_earlier_evaluation() -> None:
    known = nominated(began=120.0, now=123.0)
    for read_at in (121.0, 122.0):
        known = evaluated(known, Finding(read_at), now=124.0)
        assert known.waiting
    assert evaluated(known, Finding(124.0), now=125.0).nominated_at == NEVER


def test_a_pause_ends_at_its_time() -> None:
    """It holds only for rows that a scan has seen."""
    known = replace(nominated(), waiting={}, stuck=(), read_at=115.0, evaluate_at=200.0)
    assert nominated(known, began=199.0, now=199.0) is known
    assert nominated(known, began=199.0, now=200.0).waiting
    unseen = replace(known, scanned={})
    assert unseen.nominated(Scope.TABLE, 100.0, 199.0, None, 199.0).waiting


def test_a_stuck_orchestration_is_never_forgotten() -> None:
    """A finding that needs no person resets the count of unchanged findings."""
    known = evaluated(Known(unchanged=3), Finding(100.0, (CYCLE,)), now=101.0)
    assert not known.is_forgettable(101.0 + 2 * KEEP_CLEAN_SECONDS)
    assert known.unchanged == 0


@pytest.mark.parametrize(
    ("code", "stuck", "actions", "needed"),
    [
        (Code.DEPENDENCY_CYCLE, (CYCLE,), (), True),
        (Code.LOST_RELEASE, (CYCLE,), (), False),
        (Code.DEPENDENCY_CYCLE, (), (), False),
        (Code.DEPENDENCY_CYCLE, (CYCLE,), (QUEUED,), False),
    ],
    ids=["a cycle", "beside what time changes", "nothing is stuck", "something was done"],
)
def test_a_person_is_needed_if_time_changes_nothing(
    code: Code,
    stuck: tuple[Stuck, ...],
    actions: tuple[ActionOutcome, ...],
    needed: bool,  # noqa: FBT001 - a parameter of the cases
) -> None:
    """Something must be stuck, and the evaluation must have done nothing."""
    children = {"a": ChildDiagnosis("a", code, "")}
    now = Diagnosis("o", OrchestrationCode.IN_PROGRESS, "", None, children)
    found = Finding.of(Evaluation("o", now, now, actions, Counts(), stuck), 1.0)
    assert found.needs_person == needed


@pytest.mark.parametrize(("since", "age"), [(None, None), (-0.5, None), (0.0, 10.0), (10.0, 0.0)])
def test_no_time_before_1970_is_believed(since: float | None, age: float | None) -> None:
    assert age_at(since, 10.0) == age
