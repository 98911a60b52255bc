"""The exact cost of each situation: an added request or unit makes a case fail.

Each case is a sweep over one situation on DynamoDB Local, counted from outside on the client.
Units are those of DynamoDB Local, which charges more for transactions than the service does.
If you change a number here on purpose, say in the commit what the request is for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from benchmarks.metering import Meter, MeteredSession
from reconciler.composition import build_reconciler
from reconciler.repair.reconciler import Reconciler
from reconciler.sweeping.inline import Hooks, evaluate_inline, new_state, run_inline_sweep
from reconciler.sweeping.segments import Scope, Segment
from reconciler.sweeping.state import SweepState
from tests.conftest import Servers
from tests.support.aws_stub import aws_stub
from tests.support.world import USER, World, build_world, make_session

pytestmark = pytest.mark.integration

LAMBDA = {
    "ORCHESTRATOR_FUNCTION_ARN": "arn:aws:lambda:us-east-1:123456789012:function:pipeline:live"
}
BUDGET = {"USER_CONCURRENCY_TABLE_NAME": "{prefix}-Users"}
MONTHLY = {"BUDGET_TABLE_NAME": "{prefix}-Budget", "USER_POOL_ID": "us-east-1_pool"}
INDEX = {"ACTIVE_INDEX_NAME": "Active"}
SETTLED = {"rollup_posted_at": {"S": "2026-01-01T00:00:00.000Z"}}


@dataclass(frozen=True)
class Case:
    """A situation, and what a sweep over it costs."""

    name: str
    seed: Callable[[World], object]
    requests: Mapping[str, int]
    read_units: float
    write_units: float
    repairs: int
    settings: Mapping[str, str] = field(default_factory=dict)
    report: bool = False
    group_requests: int = 0
    table_was_read: bool = False
    """Whether the table has just been read, so that only the index is due."""

    def state(self, reconciler: Reconciler) -> SweepState:
        state = new_state(reconciler)
        if self.table_was_read:
            whole = Segment(Scope.TABLE, 0, 1)
            state.set_total(Scope.TABLE, 1)
            state.take(whole, "reader", state.now())
            state.finish(whole, "reader")
        return state


def numbered(count: int, letter: str = "c") -> list[str]:
    return [f"{letter}{number:03}" for number in range(count)]


def chain(keys: list[str]) -> dict[str, list[str]]:
    return {key: keys[max(0, at - 1) : at] for at, key in enumerate(keys)}


# -- situations


def nothing_wrong(world: World) -> None:
    for _ in range(30):
        world.seed({"a": [], "b": ["a"]}, dict.fromkeys("ab", "succeeded"), meta=SETTLED)
    for _ in range(60):
        world.seed(
            {"a": [], "l": ["a"], "r": ["a"], "z": ["l", "r"]},
            {"a": "succeeded", "l": "released", "r": "released"},
            tasks={"l": "RUNNING", "r": "RUNNING"},
        )


def lost_release(world: World) -> None:
    world.seed({"a": [], "b": ["a"]}, {"a": "succeeded"})


def lost_terminal(world: World) -> None:
    world.seed({"a": [], "b": ["a"]}, {"a": "released"}, tasks={"a": "COMPLETED"})


def ten_lost_terminals(world: World) -> None:
    keys = numbered(11)
    done = keys[:-1]
    world.seed(chain(keys), dict.fromkeys(done, "released"), tasks=dict.fromkeys(done, "COMPLETED"))


def fan_out(world: World) -> None:
    world.seed({"a": [], **{key: ["a"] for key in numbered(50)}}, {"a": "succeeded"})


def fan_out_on_monthly_budgets(world: World) -> None:
    fan_out(world)
    world.budget(f"USER#{USER}", "100", "1")
    world.budget("TEAM#growth", "100", "1")


def skip_cascade(world: World) -> None:
    keys = numbered(10)
    world.seed(chain(keys), {keys[0]: "failed"})


def wide_skip(world: World) -> None:
    world.seed({"a": [], **{key: ["a"] for key in numbered(150)}}, {"a": "failed"})


def wide_join(world: World) -> None:
    keys = numbered(150)
    world.seed({**dict.fromkeys(keys, ()), "z": keys}, dict.fromkeys(keys, "succeeded"))


def unsettled_parent(world: World) -> None:
    world.seed({"a": []}, {"a": "succeeded"}, tasks={"a": "COMPLETED"})


def quarantined(world: World) -> None:
    found = world.seed({"a": [], "b": ["a"]}, {"a": "succeeded"})
    reconciler = world.reconciler()
    orchestration = reconciler.orchestrations.read(found)
    assert orchestration is not None
    world.put(
        world.settings.orchestration_table_name,
        {
            "orchestration_id": {"S": found},
            "sub_issue_id": {"S": "reconciler#attempts"},
            "failures": {"N": "3"},
            "last_error": {"S": "it fails"},
            "last_failed_at": {"S": world.ago(60)},
            "retry_at": {"S": world.ago(-600)},
            "fingerprint": {"S": orchestration.fingerprint},
        },
    )


def abandoned_claim(world: World) -> None:
    world.seed({"a": []}, {"a": "releasing"})


def claim_with_its_task(world: World) -> None:
    found = world.seed({"a": []}, {"a": "releasing"})
    world.task(found, "a", "RUNNING")


def unstarted_task(world: World) -> None:
    world.seed({"a": []}, {"a": "released"}, tasks={"a": "SUBMITTED"})


def no_slot(world: World) -> None:
    world.seed({"a": [], "b": []})
    world.put(
        str(world.settings.user_concurrency_table_name),
        {"user_id": {"S": USER}, "active_count": {"N": "10"}},
    )


def half_of_them_have_a_slot(world: World) -> None:
    world.seed({"a": [], **{key: ["a"] for key in numbered(20)}}, {"a": "succeeded"})


def a_join_waits(world: World) -> None:
    """All but one of its hundred and fifty predecessors have succeeded."""
    keys = numbered(150)
    statuses = {**dict.fromkeys(keys, "succeeded"), keys[0]: "released"}
    world.seed({**{key: [] for key in keys}, "z": keys}, statuses, tasks={keys[0]: "RUNNING"})


def missing_rows(world: World) -> None:
    world.seed(
        {"a": []}, {"a": "released"}, tasks={"a": "RUNNING"}, meta={"child_count": {"N": "2"}}
    )


CASES = (
    Case(
        "nothing wrong",
        nothing_wrong,
        {"Scan": 1, "BatchGetItem": 2, "GetItem": 1},
        74.0,
        0.0,
        0,
    ),
    Case(
        "nothing wrong, with monthly budgets",
        nothing_wrong,
        {"Scan": 1, "BatchGetItem": 2, "GetItem": 1},
        74.0,
        0.0,
        0,
        MONTHLY,
    ),
    Case(
        "a lost release",
        lost_release,
        {"Scan": 1, "Query": 2, "GetItem": 1, "TransactWriteItems": 1},
        2.5,
        40.0,
        1,
    ),
    Case(
        "a lost release, invoked",
        lost_release,
        {"Scan": 1, "Query": 2, "GetItem": 1, "TransactWriteItems": 1, "UpdateItem": 1},
        2.5,
        44.0,
        1,
        LAMBDA,
    ),
    Case(
        "a lost release, only reported",
        lost_release,
        {"Scan": 1, "Query": 2},
        1.5,
        0.0,
        0,
        report=True,
    ),
    Case(
        "a lost release, on a budget",
        lost_release,
        {"Scan": 1, "Query": 3, "GetItem": 3, "TransactWriteItems": 1},
        4.5,
        40.0,
        1,
        BUDGET,
    ),
    Case(
        "a lost terminal",
        lost_terminal,
        {"Scan": 1, "BatchGetItem": 2, "Query": 2, "GetItem": 1, "TransactWriteItems": 2},
        4.0,
        56.0,
        2,
    ),
    Case(
        "a chain of ten lost terminals",
        ten_lost_terminals,
        {"Scan": 1, "BatchGetItem": 2, "Query": 2, "GetItem": 1, "TransactWriteItems": 11},
        17.5,
        200.0,
        11,
    ),
    Case(
        "a fan-out of fifty",
        fan_out,
        {"Scan": 1, "Query": 51, "GetItem": 1, "TransactWriteItems": 50},
        7.0,
        2000.0,
        50,
    ),
    Case(
        "a fan-out of fifty, with monthly budgets",
        fan_out_on_monthly_budgets,
        {"Scan": 1, "Query": 51, "GetItem": 1, "BatchGetItem": 1, "TransactWriteItems": 50},
        11.0,
        2000.0,
        50,
        MONTHLY,
        group_requests=1,
    ),
    Case(
        "a cascade of skips",
        skip_cascade,
        {"Scan": 1, "Query": 2, "GetItem": 1, "TransactWriteItems": 9},
        2.5,
        72.0,
        9,
    ),
    Case(
        "a hundred and fifty skips of one cause",
        wide_skip,
        {"Scan": 1, "Query": 2, "GetItem": 1, "TransactWriteItems": 2},
        16.0,
        20.0,
        150,
    ),
    Case(
        "a join over a hundred and fifty",
        wide_join,
        {"Scan": 1, "Query": 2, "GetItem": 1, "TransactWriteItems": 1},
        16.0,
        52.0,
        1,
    ),
    Case(
        "an unsettled parent",
        unsettled_parent,
        {"Scan": 1, "Query": 7, "BatchGetItem": 1, "GetItem": 1, "TransactWriteItems": 1},
        3.5,
        20.0,
        1,
    ),
    Case("quarantined", quarantined, {"Scan": 1, "Query": 1, "GetItem": 1}, 2.5, 0.0, 0),
    Case(
        "an abandoned claim",
        abandoned_claim,
        {"Scan": 1, "Query": 3, "GetItem": 1, "TransactWriteItems": 2},
        2.5,
        44.0,
        2,
    ),
    Case(
        "an abandoned claim with its task",
        claim_with_its_task,
        {"Scan": 1, "Query": 2, "BatchGetItem": 1, "GetItem": 1, "TransactWriteItems": 1},
        4.0,
        20.0,
        1,
    ),
    Case(
        "a task never started",
        unstarted_task,
        {"Scan": 1, "BatchGetItem": 3, "Query": 1, "GetItem": 1, "TransactWriteItems": 1},
        5.0,
        16.0,
        1,
        LAMBDA,
    ),
    Case(
        "no slot in the budget",
        no_slot,
        {"Scan": 1, "Query": 2, "GetItem": 3, "UpdateItem": 1},
        4.5,
        1.0,
        0,
        BUDGET,
    ),
    Case(
        "twenty due, ten slots",
        half_of_them_have_a_slot,
        {"Scan": 1, "Query": 12, "GetItem": 3, "TransactWriteItems": 10, "UpdateItem": 1},
        6.0,
        402.0,
        10,
        BUDGET,
    ),
    Case(
        "nothing wrong, by the index",
        nothing_wrong,
        {"Query": 4, "GetItem": 1, "BatchGetItem": 2},
        65.0,
        0.0,
        0,
        INDEX,
        table_was_read=True,
    ),
    Case(
        "a lost terminal, by the index",
        lost_terminal,
        {"Query": 6, "BatchGetItem": 2, "GetItem": 1, "TransactWriteItems": 2},
        4.5,
        72.0,
        2,
        INDEX,
        table_was_read=True,
    ),
    Case(
        "a join that waits, by the index",
        a_join_waits,
        {"Query": 4, "GetItem": 1, "BatchGetItem": 3},
        77.0,
        0.0,
        0,
        INDEX,
        table_was_read=True,
    ),
    Case(
        "what a full scan alone sees, by the index",
        unsettled_parent,
        {"Query": 4, "GetItem": 1},
        1.0,
        0.0,
        0,
        INDEX,
        table_was_read=True,
    ),
    Case(
        "rows missing",
        missing_rows,
        {"Scan": 1, "BatchGetItem": 2, "Query": 1, "GetItem": 1},
        4.0,
        0.0,
        0,
    ),
)


def metered(world: World, meter: Meter) -> Reconciler:
    session = MeteredSession(make_session(world.endpoint, world.others), meter)
    made = build_reconciler(
        world.settings, clock=world.clock, metrics=world.metrics, session=session
    )
    # A sweep checks for a pause once a second: on a slow machine, more than once.
    made.control._monotonic = lambda: 0.0
    monthly_budgets = made.evaluator.parts.repairer.releaser.drafter.monthly_budgets
    if monthly_budgets is not None:
        monthly_budgets._monotonic = lambda: 0.0
    return made


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_each_case_has_its_exact_cost(servers: Servers, case: Case) -> None:
    world = build_world(servers.endpoint("dynamodb_local"), **case.settings)
    case.seed(world)
    meter = Meter()
    with aws_stub() as aws:
        aws.groups = {USER: ["growth"]}
        world.others = {"cognito-idp": aws.url}
        reconciler = metered(world, meter)
        summary = run_inline_sweep(
            reconciler, state=case.state(reconciler), report=case.report, segments=1
        )
    assert len(aws.groups_asked) == case.group_requests
    cost: dict[str, Any] = {
        "requests": dict(meter.operations),
        "read_units": meter.read_units,
        "write_units": meter.write_units,
        "repairs": summary.counts.repairs,
    }
    assert cost == {
        "requests": dict(case.requests),
        "read_units": case.read_units,
        "write_units": case.write_units,
        "repairs": case.repairs,
    }
    # The sweep's own account matches the count from outside.
    consumed = summary.to_json()["consumed"]
    assert consumed == {
        "requests": meter.requests,
        "read_units": meter.read_units,
        "write_units": meter.write_units,
    }


def test_evaluating_one_orchestration_takes_two_requests(servers: Servers) -> None:
    world = build_world(servers.endpoint("dynamodb_local"))
    found = world.seed(
        {"a": [], "b": ["a"]}, {"a": "succeeded", "b": "released"}, tasks={"b": "RUNNING"}
    )
    meter = Meter()
    evaluate_inline(metered(world, meter), found, report=True, hooks=Hooks())
    assert dict(meter.operations) == {"Query": 1, "BatchGetItem": 1}
