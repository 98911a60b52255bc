"""The facade: withheld repairs, single releases, and what follows from them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from reconciler.domain.model import LONG_AGO
from reconciler.domain.outcomes import Outcome
from reconciler.errors import (
    DefectError,
    ReconcilerError,
    StoreUnavailableError,
    ThrottledError,
    UnknownChildError,
    UnknownOrchestrationError,
)
from reconciler.repair import drafter as drafting
from reconciler.repair import releaser as release_module
from reconciler.repair.context import MAX_PREDECESSORS_AT_ONCE, Pacer, RepairResult
from reconciler.repair.evaluator import Evaluator
from reconciler.repair.reconciler import Reconciler, due_moment
from reconciler.repair.withholding import Withholding
from reconciler.stores.control import Pause
from reconciler.stores.dynamodb import measured
from reconciler.stores.orchestrations import OrchestrationStore
from tests.support.world import REPO, USER, World
from tests.unit.repair.test_releaser import context, whole
from tests.unit.repair.test_repair_pass import break_on

MIB = 1024 * 1024
SWEEP: dict[str, Any] = {"sweep_id": "sweep-1"}


# -- withheld repairs


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({}, None),
        ({"repair_mode": "report"}, "REPAIR_MODE is report"),
        ({"repair_only_repos": frozenset({REPO})}, None),
        (
            {"repair_only_repos": frozenset({"other"})},
            f"repo {REPO} is not among REPAIR_ONLY_REPOS",
        ),
        ({"repair_only_users": frozenset({USER})}, None),
        (
            {"repair_only_users": frozenset({"other"})},
            f"user {USER} is not among REPAIR_ONLY_USERS",
        ),
    ],
)
def test_a_withheld_repair_names_the_setting(
    world: World, limits: dict[str, Any], says: str | None
) -> None:
    read = whole(world, world.seed({"a": []}))
    settings = world.settings.model_copy(update=limits)
    assert Withholding(settings, unpaused)(read) == says
    pause = Pause("2026-06-09", "a deployment", "me")
    paused = "paused since 2026-06-09 by me: a deployment"
    assert Withholding(settings, paused_by(pause))(read) == (says or paused)


def test_a_missing_meta_row_matches_no_filter(world: World) -> None:
    """The repo and the user are then unknown."""
    read = replace(whole(world, world.seed({"a": []})), meta=None)
    assert Withholding(world.settings, unpaused)(read) is None
    for name in ("repair_only_repos", "repair_only_users"):
        settings = world.settings.model_copy(update={name: frozenset({"x"})})
        said = Withholding(settings, unpaused)(read)
        assert said == f"{name[12:-1]} None is not among {name.upper()}"


def paused_by(pause: Pause | None) -> Any:
    return SimpleNamespace(paused=lambda: pause)


unpaused = paused_by(None)


# -- due since


def test_a_child_is_due_since_its_last_predecessor(world: World) -> None:
    rows = {
        "a": {"updated_at": {"S": world.ago(600)}},
        "b": {"updated_at": {"S": world.ago(60)}},
        "c": {"updated_at": {"S": "yesterday"}},
    }
    graph = {"a": [], "b": [], "c": [], "d": ["a", "b", "c", "gone"], "e": ["c", "gone"]}
    read = whole(world, world.seed(graph, rows=rows, age=1200))
    due = {key: due_moment(read, child, world.clock()) for key, child in read.children.items()}
    seeded, ten, one = (world.clock() - timedelta(minutes=minutes) for minutes in (20, 10, 1))
    assert due == {"a": ten, "b": one, "c": seeded, "d": one, "e": seeded}


@pytest.mark.parametrize(
    ("hint", "stranded"), [(None, 3600.0), (timedelta(minutes=5), 300.0), (LONG_AGO, None)]
)
def test_latency_counts_from_the_evaluations_time(
    world: World, hint: Any, stranded: float | None
) -> None:
    """Without such a time, it counts from the one that the rows give."""
    found = world.seed({"a": []})
    since = world.clock() - hint if isinstance(hint, timedelta) else hint
    assert world.reconciler().release(found, "a", **SWEEP, due_since=since).outcome == "released"
    latencies = world.metrics.observations.get("reconciler_recovery_latency_seconds", [])
    assert latencies == ([] if stranded is None else [stranded])


def test_an_unknown_due_time_gives_no_latency(world: World) -> None:
    unknown = {"updated_at": {"NULL": True}}
    found = world.seed({"a": []}, rows={"a": unknown}, meta=unknown)
    assert world.reconciler().release(found, "a", **SWEEP).outcome == "released"
    assert "reconciler_recovery_latency_seconds" not in world.metrics.observations


# -- single releases


NO_TURN = Pacer(lambda: False)


def failures(world: World, orchestration_id: str) -> int:
    attempts = whole(world, orchestration_id).attempts
    return sum(held.failures for held in attempts.values())


@pytest.mark.parametrize(
    ("error", "report", "held"),
    [
        (ValueError("x"), False, 1),
        (ValueError("x"), True, 0),
        (ThrottledError("x"), False, 0),
    ],
    ids=["a defect", "in a report", "an outage"],
)
def test_only_a_childs_own_failure_is_recorded(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    held: int,
    *,
    report: bool,
) -> None:
    """A report records no failure."""
    found = world.seed({"a": []})
    break_on(monkeypatch, drafting, "draft_task", error)
    raised = ThrottledError if isinstance(error, ThrottledError) else DefectError
    with pytest.raises(raised, match="x"):
        world.reconciler().release(found, "a", **SWEEP, report=report)
    assert failures(world, found) == held
    assert len(whole(world, found).attempts) == held


def test_a_missing_child_is_nobodys_failure(world: World) -> None:
    """A missing orchestration is nobody's failure either."""
    found = world.seed({"a": []})
    for hint in (None, (), ("a",)):
        with pytest.raises(UnknownChildError, match=f"{found} has no child z"):
            world.reconciler().release(found, "z", depends_on=hint)
    assert failures(world, found) == 0
    with pytest.raises(UnknownOrchestrationError, match="no orchestration orch_x exists"):
        world.reconciler().release("orch_x", "a", depends_on=())


@pytest.mark.parametrize(
    ("how", "paused", "left"),
    [
        ({}, False, 0),
        (SWEEP, False, 1),
        ({"report": True}, False, 1),
        ({}, True, 1),
    ],
    ids=["by hand", "of a sweep", "report", "paused"],
)
def test_a_release_by_hand_clears_earlier_failures(
    world: World, how: dict[str, Any], left: int, *, paused: bool
) -> None:
    """A release of a sweep, in a report or during a pause does not."""
    found = world.seed({"a": []}, {"a": "failed"})
    reconciler = world.reconciler()
    reconciler.evaluator.failures.hold_against(found, {"a": ValueError("x")}, context(world))
    if paused:
        reconciler.pause("a deployment", "me")
    reconciler.release(found, "a", **how)
    assert failures(world, found) == left


def test_a_release_survives_an_uncleared_failure_record(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = world.seed({"a": []})
    reconciler = world.reconciler()
    reconciler.evaluator.failures.hold_against(found, {"a": ValueError("x")}, context(world))
    break_on(monkeypatch, OrchestrationStore, "clear_attempts", ThrottledError("x"))
    assert reconciler.release(found, "a").outcome == "released"
    assert world.metrics.count("reconciler_errors_total", kind="throttled") == 1


def test_without_earlier_failures_nothing_is_cleared(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = world.seed({"a": []})
    store = "reconciler.stores.orchestrations.OrchestrationStore.clear_attempts"
    monkeypatch.setattr(store, lambda *_: pytest.fail("an unnecessary write"))
    assert world.reconciler().release(found, "a").outcome == "released"


@pytest.mark.parametrize(
    ("how", "sweep_id"), [(SWEEP, "sweep-1"), ({}, "by-hand:")], ids=["of a sweep", "by hand"]
)
def test_the_event_names_the_sweep(world: World, how: dict[str, Any], sweep_id: str) -> None:
    found = world.seed({"a": []})
    world.reconciler().release(found, "a", **how)
    (event,) = world.events("orchestration_recovered")
    assert event["metadata"]["M"]["sweep_id"]["S"].startswith(sweep_id)


@pytest.mark.parametrize(("hint", "locks"), [({}, 1), ({"alone": True}, 0)])
def test_only_a_hint_saves_the_lock(world: World, hint: dict[str, Any], locks: int) -> None:
    taken: list[str] = []

    def lock(name: str) -> AbstractContextManager[None]:
        taken.append(name)
        return nullcontext()

    found = world.seed({"a": []})
    world.reconciler(pacer=Pacer(lock=lock)).release(found, "a", **SWEEP, **hint)
    assert taken == [found] * locks


# -- counts


def test_a_report_counts_a_release_as_planned(world: World) -> None:
    """A real release counts as released, and a second one as no repair."""
    found = world.seed({"a": []})
    report = world.reconciler().release(found, "a", **SWEEP, report=True)
    assert (report.counts.released, report.counts.planned) == (0, {"released": 1})
    with measured() as consumed:
        done = world.reconciler().release(found, "a", **SWEEP)
    assert (done.counts.released, done.counts.planned, done.counts.stuck) == (1, {}, {})
    assert done.counts.requests == consumed.requests > 0
    again = world.reconciler().release(found, "a", **SWEEP)
    assert (again.outcome, again.counts.repairs) == ("already_released", 0)


@pytest.mark.parametrize("how", [SWEEP, {}], ids=["of a sweep", "by hand"])
def test_a_release_left_for_later_is_stuck(world: World, how: dict[str, Any]) -> None:
    found = world.seed({"a": []})
    left = world.reconciler(pacer=NO_TURN).release(found, "a", **how)
    assert (left.outcome, left.counts.stuck) == ("paced", {"lost_release": 1})
    world.reconciler().pause("a deployment", "me")
    paused = world.reconciler().release(found, "a", **how)
    assert (paused.outcome, paused.applied) == ("paused", False)
    (stuck,) = paused.stuck
    assert (stuck.sub_issue_id, stuck.code) == ("a", "lost_release")
    assert stuck.reason == paused.detail
    assert paused.detail.endswith("by me: a deployment")


def test_a_refused_child_is_not_itself_stuck(world: World) -> None:
    """The sweep has already reported the others that are stuck."""
    found = world.seed({"a": [], "b": [], "c": ["x"]}, rows=REFUSED)
    with capture_logs() as lines:
        result = world.reconciler(pacer=NO_TURN).release(found, "a", **SWEEP)
    assert (result.outcome, result.counts.stuck, result.stuck) == ("refused", {}, ())
    assert "orch.sweep.stuck" not in [line["event"] for line in lines]


def test_a_failed_evaluation_counts_as_an_error(
    world: World,
) -> None:
    """The orchestration also counts as evaluated and as stuck."""
    found = world.reconciler().could_not_check("orch_1", ThrottledError("x"), "sweep-1")
    counts = found.counts
    assert (counts.orchestrations_evaluated, counts.errors) == (1, 1)
    assert counts.stuck == {"check_failed": 1}


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ThrottledError("x"), ["orch.evaluation.failed", "orch.sweep.stuck"]),
        (StoreUnavailableError("x"), []),
    ],
    ids=["throttled", "an outage"],
)
def test_an_outage_is_not_logged_for_each_orchestration(
    world: World, error: ReconcilerError, told: list[str]
) -> None:
    with capture_logs() as lines:
        found = world.reconciler().could_not_check("orch_1", error, "sweep-1")
    assert [line["event"] for line in lines] == told
    assert [entry.code for entry in found.stuck] == ["check_failed"]


# -- consequences


def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record which orchestrations are evaluated."""
    evaluate = Evaluator.evaluate
    seen: list[str] = []

    def noted(self: Evaluator, orchestration_id: str, *args: Any, **kwargs: Any) -> Any:
        seen.append(orchestration_id)
        return evaluate(self, orchestration_id, *args, **kwargs)

    monkeypatch.setattr(Evaluator, "evaluate", noted)
    return seen


REFUSED = {"a": {"description": {"S": "x" * 10_001}}}


def test_dependents_of_a_refused_child_are_skipped_immediately(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The capacity consumed for them is counted once."""
    found = world.seed({"a": [], "b": ["a"]}, rows=REFUSED)
    seen = evaluated(monkeypatch)
    report = world.reconciler().release(found, "a", **SWEEP, report=True)
    assert (report.counts.planned, seen) == ({"refused": 1}, [])
    with measured() as consumed:
        counts = world.reconciler().release(found, "a", **SWEEP).counts
    assert (counts.refused, counts.skipped, seen) == (1, 1, [found])
    assert (counts.read_units, counts.write_units, counts.requests) == (
        consumed.read_units,
        consumed.write_units,
        consumed.requests,
    )


@pytest.mark.parametrize(
    ("status", "released"), [("COMPLETED", 1), ("RUNNING", 0)], ids=["finished", "it still runs"]
)
def test_adopting_a_finished_task_releases_its_dependents(
    world: World, monkeypatch: pytest.MonkeyPatch, status: str, released: int
) -> None:
    """The dependents of a running task have to wait."""
    found = world.seed({"a": [], "b": ["a"]})
    world.task(found, "a", status)
    seen = evaluated(monkeypatch)
    result = world.reconciler().release(found, "a", **SWEEP)
    assert (result.outcome, result.counts.adopted) == ("adopted", 1)
    assert (result.counts.released, len(seen)) == (released, released)


def test_an_ordinary_release_triggers_no_evaluation(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A released child whose task had already finished triggers none either."""
    found = world.seed({"a": [], "b": []}, {"b": "released"}, tasks={"b": "COMPLETED"})
    seen = evaluated(monkeypatch)
    outcomes = [world.reconciler().release(found, key, **SWEEP).outcome for key in "ab"]
    assert (outcomes, seen) == (["released", "already_released"], [])


@pytest.mark.parametrize("error", [ThrottledError("x"), ValueError("x")])
def test_a_failed_evaluation_does_not_hide_the_refusal(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    found = world.seed({"a": [], "b": ["a"]}, rows={"a": {"repo": {"S": "nonsense"}}})
    break_on(monkeypatch, Evaluator, "evaluate", error)
    result = world.reconciler().release(found, "a", **SWEEP)
    assert (result.outcome, result.counts.refused, result.counts.errors) == ("refused", 1, 1)
    assert whole(world, found).attempts == {}


def test_a_refusal_counts_even_if_the_rows_vanish(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = world.seed({"a": []}, rows=REFUSED)
    monkeypatch.setattr(Evaluator, "evaluate", lambda *_, **__: None)
    assert world.reconciler().release(found, "a", **SWEEP).counts.refused == 1


def test_a_reinvocation_recovers_an_unstarted_task(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its error is counted as well."""
    found = world.seed({"a": []})
    error = ThrottledError("not now")
    ended = RepairResult(Outcome.REINVOKED, error=error)
    monkeypatch.setattr(release_module.Releaser, "release", lambda *_: ended)
    counts = world.reconciler().release(found, "a", **SWEEP).counts
    assert (counts.reinvoked, counts.errors) == (1, 1)
    code = "unstarted_task"
    assert world.metrics.count("reconciler_recoveries_total", code=code) == 1
    assert world.metrics.count("reconciler_errors_total", kind="throttled") == 1


# -- reads


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record how orchestrations are read."""
    made: list[str] = []
    for name in ("read", "read_around"):
        sound = getattr(OrchestrationStore, name)

        def noted(*args: Any, _sound: Any = sound, _name: str = name) -> Any:
            made.append(_name)
            return _sound(*args)

        monkeypatch.setattr(OrchestrationStore, name, noted)
    return made


@pytest.mark.parametrize(("count", "around"), [(0, True), (98, True), (99, False)])
def test_a_hint_saves_reading_the_whole_orchestration(
    world: World, reads: list[str], count: int, *, around: bool
) -> None:
    """Only the child, the meta row and the predecessors are read, unless there are too many."""
    assert MAX_PREDECESSORS_AT_ONCE == 98
    before = tuple(f"p{number:02}" for number in range(count))
    graph = {**{key: [] for key in before}, "j": before}
    found = world.seed(graph, dict.fromkeys(before, "succeeded"))
    reads.clear()
    result = world.reconciler().release(found, "j", **SWEEP, depends_on=before)
    assert (result.outcome, reads) == ("released", ["read_around" if around else "read"])


def test_an_outdated_hint_causes_a_full_read(world: World, reads: list[str]) -> None:
    found = world.seed({"a": [], "b": ["a"]}, {"a": "succeeded"})
    result = world.reconciler().release(found, "b", **SWEEP, depends_on=())
    assert (result.outcome, reads) == ("released", ["read_around", "read"])


def test_a_missing_meta_row_needs_no_full_read(world: World, reads: list[str]) -> None:
    found = world.seed({"a": []})
    world.client.delete_item(
        TableName=world.settings.orchestration_table_name,
        Key={"orchestration_id": {"S": found}, "sub_issue_id": {"S": "#meta"}},
    )
    result = world.reconciler().release(found, "a", **SWEEP, depends_on=())
    assert (result.outcome, result.detail) == ("no_longer_due", "it has no meta row")
    assert reads == ["read_around"]


# -- evaluations and pauses


def test_a_defect_is_recorded_against_the_orchestration(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report, by hand or by the settings, records nothing."""
    found = world.seed({"a": []})
    break_on(monkeypatch, Evaluator, "evaluate", ValueError("x"))
    for mode, report, held in (("repair", True, 0), ("report", False, 0), ("repair", False, 1)):
        with pytest.raises(DefectError, match="ValueError: x"):
            world.reconciler(repair_mode=mode).evaluate(found, report=report)
        assert failures(world, found) == held


def test_the_error_names_a_missing_orchestration(world: World) -> None:
    with pytest.raises(UnknownOrchestrationError, match="no orchestration orch_x exists"):
        world.reconciler().evaluate("orch_x")


def test_a_pause_lasts_until_it_is_ended(world: World) -> None:
    reconciler: Reconciler = world.reconciler()
    assert reconciler.paused() is None
    assert reconciler.pause("a deployment", "me") == reconciler.paused()
    reconciler.resume()
    assert reconciler.paused() is None
