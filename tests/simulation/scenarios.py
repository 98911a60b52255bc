"""Scenarios outside the matrix: the adversarial schedules, and scenarios for single conditions."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from reconciler.domain.identity import task_id_for
from reconciler.domain.model import timestamp
from reconciler.settings import Settings
from tests.simulation import reopened
from tests.simulation.matrix import DONE, ENDED, FAILED, LAGGING, RUNNING
from tests.simulation.others import (
    admission,
    cancellation,
    claims_again,
    late_retry,
    live,
    pipeline_runs,
    removal,
    retry,
    rewires,
    seeds_again,
    task_ends,
    task_removal,
    time_passes,
    whole_attempt,
)
from tests.simulation.reopenings import iteration, iteration_id, whole_retry
from tests.simulation.world import (
    LONG_BEFORE,
    START,
    UNQUALIFIED,
    Node,
    Scenario,
    delivery,
    idempotency_key,
    sim_settings,
    sweep,
    unskip,
)

FELL = Node("released", task="FAILED")


def pair(first: Node = ENDED, second: str = "blocked") -> dict[str, Node]:
    """A, then B."""
    return {"a": first, "b": Node(second, "a")}


def diamond(left: Node = ENDED, right: Node = ENDED) -> dict[str, Node]:
    """A, then B and C, then D, which waits for both."""
    return {
        "a": DONE,
        "b": replace(left, after="a"),
        "c": replace(right, after="a"),
        "d": Node("blocked", "bc"),
    }


def _small() -> list[Scenario]:
    failing, skipped = Node("failed", task="FAILED"), Node("skipped", "a")
    retried = {"a": failing, "b": skipped}
    running = pair(RUNNING)
    claim = pair(DONE, "releasing") | {
        "b": Node("releasing", "a", updated_at=START - timedelta(seconds=60))
    }
    return [
        Scenario(
            "retry, sweep, live", retried, [sweep(1), retry("a", "b"), live()], 0, retries=True
        ),
        Scenario(
            "retry, two sweeps", retried, [sweep(1), retry("a", "b"), sweep(2)], 1, retries=True
        ),
        Scenario(
            "late verdict on a retry",
            pair(FELL),
            [sweep(1), live("a"), retry("a", "b")],
            0,
            LAGGING,
            retries=True,
        ),
        Scenario("cancellation, sweep, live", running, [sweep(1), cancellation("a"), live("a")], 0),
        Scenario("task ends, two sweeps", running, [task_ends("a"), sweep(1), sweep(2)], 1),
        Scenario(
            "time to live, sweep",
            pair(),
            [sweep(1), removal("b", "a", "#meta")],
            1,
            converges=False,
        ),
        Scenario(
            "time to live, sweep, live",
            pair(),
            [sweep(1), live("a"), removal("#meta", "b")],
            0,
            converges=False,
        ),
        Scenario(
            "an abandoned claim, two sweeps",
            pair(DONE) | {"b": Node("releasing", "a")},
            [sweep(1), sweep(2)],
            1,
            LAGGING,
        ),
        Scenario(
            "an abandoned claim with its task, two sweeps",
            pair(DONE) | {"b": Node("releasing", "a", left_task="RUNNING")},
            [sweep(1), sweep(2)],
            1,
        ),
        Scenario("a claim that grows old", claim, [sweep(1), time_passes(850), sweep(2)], 0),
        Scenario(
            "a live reconciler that wakes up too late",
            pair(DONE),
            [live(), time_passes(1000), sweep(1)],
            0,
            one_task=False,
        ),
        Scenario(
            "two deliveries and a sweep",
            pair(DONE),
            [delivery("b", 1), delivery("b", 2), sweep(1)],
            0,
            LAGGING,
        ),
        Scenario("pair: two sweeps, live", pair(), [sweep(1), sweep(2), live("a")], 0, LAGGING),
    ]


def _narrow() -> list[Scenario]:
    """Scenarios for one condition each: they fail without it."""
    capped = sim_settings(
        user_concurrency_table_name="UserConcurrencyTable", max_concurrent_tasks_per_user=1
    )
    roots = {name: Node("ready") for name in "ab"}
    broken = Node("released", task="COMPLETED", build_passed=False)
    failed = Node("failed", task="FAILED")
    left = pair(DONE) | {"b": Node("blocked", "a", left_task="RUNNING")}
    foreign = pair(DONE) | {"b": Node("blocked", "a", left_task="RUNNING", left_by="user-2")}
    claimed = pair(DONE) | {"b": Node("releasing", "a")}
    edited = {"a": DONE, "b": Node("blocked", "a"), "c": RUNNING}
    return [
        Scenario(
            "a verdict on a row that runs its retry",
            {"a": FELL},
            [sweep(1), late_retry("a")],
            0,
            retries=True,
        ),
        Scenario("a broken build", pair(broken), [sweep(1), live("a")], 1),
        Scenario(
            "a retry races a skip", pair(failed), [sweep(1), retry("a"), live()], 1, retries=True
        ),
        Scenario(
            "a skip races a retry's release",
            pair(failed),
            [sweep(1), retry("a"), delivery("a")],
            0,
            retries=True,
        ),
        Scenario(
            "a predecessor is removed",
            pair(DONE),
            [sweep(1), removal("a"), delivery("b", 1, ("a",))],
            0,
            converges=False,
        ),
        Scenario("dependencies are edited", edited, [sweep(1), rewires("b", "a", "c")], 1),
        Scenario("a claim is made anew", claimed, [sweep(1), claims_again("b")], 1),
        Scenario(
            "a claim with its task is made anew",
            pair(DONE) | {"b": Node("releasing", "a", left_task="RUNNING")},
            [sweep(1), claims_again("b")],
            1,
        ),
        Scenario(
            "a row is seeded again",
            pair(DONE),
            [delivery("b", 1), seeds_again("b"), sweep(2)],
            0,
            LAGGING,
        ),
        Scenario("a release races a claim", pair(DONE), [sweep(1), claims_again("b")], 1),
        Scenario(
            "a whole attempt goes by during a release",
            {"a": Node("ready")},
            [sweep(1), whole_attempt("a")],
            0,
            retries=True,
        ),
        Scenario(
            "a whole attempt goes by during an adoption",
            {"a": Node("ready", left_task="RUNNING")},
            [sweep(1), whole_attempt("a")],
            0,
            retries=True,
        ),
        Scenario("a lost failure, two sweeps", pair(FELL), [sweep(1), sweep(2)], 0),
        Scenario(
            "a skip, and dependencies are edited",
            {"a": failed, "b": Node("blocked", "a"), "c": RUNNING},
            [sweep(1), rewires("b", "c")],
            1,
            converges=False,
        ),
        Scenario("a task was left behind", left, [sweep(1), sweep(2)], 1),
        Scenario("a task was left behind, live", left, [sweep(1), live()], 1),
        Scenario("another user's task", foreign, [sweep(1), sweep(2)], 0, converges=False),
        Scenario(
            "a retry is released",
            {"a": replace(failed, status="ready")},
            [sweep(1), live()],
            1,
            LAGGING,
        ),
        Scenario(
            "the cap of a user",
            roots,
            [sweep(1, capped), sweep(2, capped)],
            0,
            settings=capped,
            cap=1,
            converges=False,
        ),
    ]


def _counted() -> list[Scenario]:
    """Scenarios about counts (slots of a user, repeated invocations, nudges) and refusals."""

    def capped(cap: int) -> Settings:
        return sim_settings(
            user_concurrency_table_name="UserConcurrencyTable", max_concurrent_tasks_per_user=cap
        )

    both = LAGGING | {"UserStatusIndex"}
    roots = {name: Node("ready") for name in "ab"}
    slow = Node("released", task="SUBMITTED")
    over = pair(DONE) | {"b": Node("blocked", "a", description="long " * 3000)}
    settled = {"a": DONE, "b": Node("succeeded", "a", task="COMPLETED")}
    unsettled = sim_settings(settle_mode="nudge")
    one, two = capped(1), capped(2)
    return [
        Scenario(
            "two deliveries and one slot",
            roots,
            [delivery("a", 1, settings=one), delivery("b", 2, settings=one)],
            1,
            both,
            settings=one,
            cap=1,
            converges=False,
        ),
        Scenario(
            "a slot is taken while another comes free",
            {"x": slow, **roots},
            [admission("x"), delivery("a", 1, settings=two), delivery("b", 2, settings=two)],
            0,
            settings=two,
            cap=2,
            reserved="x",
            converges=False,
        ),
        Scenario("a task that never starts, two sweeps", {"a": slow}, [sweep(1), sweep(2)], 1),
        Scenario(
            "a task goes while it is invoked",
            {"a": Node("ready")},
            [sweep(1), task_removal(task_id_for(idempotency_key("a"), timestamp(LONG_BEFORE)))],
            1,
            converges=False,
        ),
        Scenario(
            "an unsettled parent, two sweeps",
            settled,
            [sweep(1, unsettled), sweep(2, unsettled)],
            1,
            settings=unsettled,
        ),
        Scenario("a refusal, two sweeps", over, [sweep(1), sweep(2)], 1, converges=False),
        Scenario(
            "a refusal races a claim", over, [sweep(1), claims_again("b")], 1, converges=False
        ),
        Scenario(
            "a refusal, and dependencies are edited",
            {**over, "c": RUNNING},
            [sweep(1), rewires("b", "a", "c")],
            1,
            converges=False,
        ),
        Scenario(
            "a refusal of a retry",
            {"a": replace(FAILED, status="ready", description="long " * 3000)},
            [sweep(1), sweep(2)],
            1,
            converges=False,
        ),
    ]


def _reopened() -> list[Scenario]:
    """Scenarios of a reopened orchestration a moment later, and of a lost recovery."""
    failed = {"a": FAILED, "b": Node("skipped", "a")}
    mended = [iteration("a", START - timedelta(hours=1))]
    graced = sim_settings(stranded_grace_seconds=120)
    added = Node("blocked", "a", updated_at=START - timedelta(seconds=150))
    return [
        Scenario(
            "an extension that is about to release",
            {"a": DONE, "x": added},
            [sweep(1, graced), live()],
            1,
            settings=graced,
            reopened_at=START - timedelta(seconds=1),
            left_alone=True,
        ),
        Scenario(
            "a person's fix is under way, two sweeps",
            {"a": FAILED},
            [sweep(1), sweep(2), task_ends("a", own_id=iteration_id("a"))],
            1,
            tasks=[iteration("a")],
        ),
        Scenario(
            "a child that a person has fixed, two sweeps",
            {"a": Node("succeeded", task="FAILED")},
            [sweep(1), sweep(2)],
            1,
            tasks=mended,
        ),
        Scenario("a lost recovery, two sweeps", failed, [sweep(1), sweep(2)], 1, tasks=mended),
        Scenario(
            "a lost recovery, and a retry of all",
            failed,
            [sweep(1), whole_retry()],
            1,
            tasks=mended,
            retries=True,
        ),
    ]


def _unskipped() -> list[Scenario]:
    """Scenarios in which a person takes back a skip that a half-done retry has left."""
    left = {"a": replace(FAILED, status="ready"), "b": Node("skipped", "a")}
    edited = {**left, "c": FAILED}
    return [
        Scenario("an un-skip, and a sweep", left, [unskip("b"), sweep(1)], 1, retries=True),
        Scenario(
            "an un-skip, and its predecessor fails",
            {**left, "a": FELL},
            [unskip("b"), live("a")],
            1,
            retries=True,
        ),
        Scenario(
            "an un-skip, and dependencies are edited",
            edited,
            [unskip("b"), rewires("b", "c")],
            1,
            converges=False,
        ),
        Scenario(
            "an un-skip, and the time to live",
            left,
            [unskip("b"), removal("#meta", "a")],
            1,
            converges=False,
        ),
    ]


def _run_once() -> list[Scenario]:
    """Scenarios in which a task runs once, however often it is released, delivered or unstarted."""
    slow = Node("released", task="SUBMITTED")
    nameless = sim_settings(orchestrator_function_arn=UNQUALIFIED)
    return [
        Scenario(
            "two deliveries, and the pipeline",
            pair(DONE),
            [delivery("b", 1), delivery("b", 2), pipeline_runs()],
            1,
        ),
        Scenario(
            "a task that never starts, and the pipeline",
            {"a": slow},
            [sweep(1), sweep(2), pipeline_runs()],
            1,
        ),
        Scenario(
            "a task whose first run left no record",
            {"a": Node("released", task="RUNNING", ours=True, run=True)},
            [delivery("a", 1), sweep(2)],
            1,
        ),
        Scenario(
            "a pipeline that takes no names, two deliveries",
            pair(DONE),
            [
                delivery("b", 1, settings=nameless),
                delivery("b", 2, settings=nameless),
                pipeline_runs(),
            ],
            1,
            settings=nameless,
        ),
        Scenario(
            "a pipeline that takes no names, two sweeps",
            {"a": slow},
            [sweep(1, nameless), sweep(2, nameless), pipeline_runs()],
            1,
            settings=nameless,
        ),
    ]


def _adversarial() -> list[Scenario]:
    """The five schedules of the platform's own analysis."""
    both = diamond(RUNNING, RUNNING)
    return [
        Scenario(
            "1 two predecessors finish at once and neither sees the other",
            both,
            [task_ends("b"), task_ends("c"), sweep(1)],
            1,
        ),
        Scenario(
            "2 both see it and both release",
            diamond(),
            [live("b", number=1), live("c", number=2), sweep(1)],
            0,
        ),
        Scenario(
            "3 redelivery during a release",
            pair(DONE),
            [delivery("b", 1, ("a",)), delivery("b", 2, ("a",))],
            2,
            LAGGING,
        ),
        Scenario(
            "4 a failed leg beside a succeeding one",
            diamond(FELL, ENDED),
            [live("b", number=1), live("c", number=2), sweep(1)],
            0,
        ),
        Scenario(
            "5 a skip racing a release",
            {"a": FELL, "b": Node("blocked", "a"), "c": DONE, "d": Node("ready", "bc")},
            [sweep(1), live("a"), delivery("d", 1)],
            0,
        ),
    ]


ADVERSARIAL = _adversarial()
SCENARIOS = [*_small(), *_narrow(), *_counted(), *_reopened(), *_unskipped(), *_run_once()]
BY_NAME = {scenario.name: scenario for scenario in [*ADVERSARIAL, *SCENARIOS, *reopened.cells()]}
