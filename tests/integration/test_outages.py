"""Temporary errors change nothing and are counted; lasting ones stop the sweep."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from reconciler.errors import AccessError, StoreUnavailableError, TableMissingError
from reconciler.stores.control import ControlStore
from reconciler.stores.dynamodb import DynamoDB
from reconciler.sweeping.inline import run_inline_sweep
from reconciler.sweeping.summary import SweepSummary
from tests.support.aws_stub import AwsStub, aws_stub
from tests.support.faulty_endpoint import (
    BROKEN,
    DENIED,
    EXPIRED_CREDENTIALS,
    THROTTLED,
    WRONG_CREDENTIALS,
    FaultyEndpoint,
    faulty_endpoint,
)
from tests.support.world import REPO, USER, World

pytestmark = pytest.mark.integration
MakeWorld = Callable[..., World]
ARN = "arn:aws:lambda:us-east-1:123456789012:function:orchestrator:live"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less, and retry less often, when a service does not answer."""
    monkeypatch.setattr("reconciler.composition._ATTEMPTS", 1)
    monkeypatch.setattr("reconciler.composition._ATTEMPTS_ELSEWHERE", 1)
    monkeypatch.setattr("reconciler.stores.dynamodb._MAX_PAUSE_SECONDS", 0.01)


@pytest.fixture
def service(world: World) -> Iterator[FaultyEndpoint]:
    """A proxy before the world's endpoint that can fail; its reconcilers use it."""
    with faulty_endpoint(world.endpoint) as found:
        world.endpoint = found.url
        yield found


def sweep(world: World, **changes: Any) -> SweepSummary:
    reconciler = world.reconciler(**changes)
    return run_inline_sweep(reconciler, segments=1)


@pytest.mark.parametrize(
    ("answer", "kind"), [(THROTTLED, "throttled"), (BROKEN, "store_unavailable")]
)
def test_a_failed_release_changes_nothing(
    world: World, service: FaultyEndpoint, answer: tuple[int, str], kind: str
) -> None:
    """The next sweep tries it again."""
    found = world.seed({"a": []})
    before = world.everything()
    service.fail(answer, "TransactWriteItems")
    summary = sweep(world)
    assert world.everything() == before
    assert (summary.counts.errors, summary.counts.stuck) == (1, {"lost_release": 1})
    assert world.metrics.count("reconciler_errors_total", kind=kind) == 1
    assert world.metrics.count("reconciler_releases_total", outcome="failed") == 1
    if answer == THROTTLED:
        table = world.settings.task_table_name
        assert world.metrics.count("reconciler_dynamodb_throttles_total", table=table) > 0
    service.mend()
    assert sweep(world).counts.released == 1
    assert len(world.tasks(found)) == 1


def test_a_passing_conflict_is_no_error(world: World, service: FaultyEndpoint) -> None:
    world.seed({"a": []})
    service.fail((400, "TransactionConflictException"), "TransactWriteItems", times=3)
    summary = sweep(world)
    assert (summary.counts.released, summary.counts.errors) == (1, 0)


def test_an_unreadable_orchestration_stops_no_other(world: World, service: FaultyEndpoint) -> None:
    away, *others = (world.seed({"a": []}) for _ in range(4))
    service.fail(BROKEN, "Query", away)
    summary = sweep(world)
    assert summary.complete
    assert (summary.counts.released, summary.counts.errors) == (3, 1)
    assert summary.counts.stuck == {"check_failed": 1}
    assert world.statuses(away) == {"a": "blocked"}
    assert {world.statuses(found)["a"] for found in others} == {"released"}
    assert world.metrics.count("reconciler_errors_total", kind="store_unavailable") == 1


@pytest.mark.parametrize("operation", ["Scan", "BatchGetItem"])
def test_an_unreadable_segment_makes_the_sweep_incomplete(
    world: World, service: FaultyEndpoint, operation: str
) -> None:
    """I6: what was not checked is not repaired, and the sweep does not claim to be complete."""
    world.seed({"a": [], "b": ["a"]}, {"a": "released"}, tasks={"a": "COMPLETED"})
    before = world.everything()
    service.fail(BROKEN, operation)
    summary = sweep(world)
    assert world.everything() == before
    assert (summary.complete, summary.counts.errors, summary.alarming) == (False, 1, True)
    assert "reconciler_covered_as_of_timestamp_seconds" not in {n for n, _ in world.metrics.gauges}
    assert world.metrics.count("reconciler_sweeps_total", outcome="incomplete") == 1
    service.mend()
    assert sweep(world).counts.released == 1


@pytest.mark.parametrize("answer", [THROTTLED, BROKEN])
def test_an_unreadable_budget_stops_only_releases(
    make_world: MakeWorld, answer: tuple[int, str]
) -> None:
    """It counts as an error, and repairs that need no slot go on."""
    world = make_world(USER_CONCURRENCY_TABLE_NAME="{prefix}-Users")
    found = world.seed(
        {"a": [], "b": ["a"], "f": [], "g": ["f"]},
        {"a": "released", "f": "failed"},
        tasks={"a": "COMPLETED"},
    )
    with faulty_endpoint(world.endpoint) as service:
        world.endpoint = service.url
        service.fail(answer, "GetItem", world.settings.user_concurrency_table_name)
        summary = sweep(world)
    assert world.statuses(found) == {
        "a": "succeeded", "b": "blocked", "f": "failed", "g": "skipped"
    }  # fmt: skip
    assert (summary.counts.errors, summary.counts.stuck) == (1, {"over_budget": 1})
    assert summary.alarming


def test_repairs_before_an_outage_are_counted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pause switch is read before each write, and that read can be the one to fail."""
    found = world.seed(
        {"a": [], "b": []},
        {"a": "released", "b": "released"},
        tasks={"a": "COMPLETED", "b": "COMPLETED"},
    )
    asked = 0

    def paused(_: ControlStore) -> None:
        nonlocal asked
        asked += 1
        if asked > 2:
            raise StoreUnavailableError("gone")

    monkeypatch.setattr(ControlStore, "paused", paused)
    summary = sweep(world)
    assert world.statuses(found) == {"a": "succeeded", "b": "released"}
    assert (summary.counts.advanced, summary.counts.errors) == (1, 1)
    assert world.metrics.count("reconciler_recoveries_total", code="lost_terminal") == 1


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave every consistent read of tasks unanswered, as if their keys always came back."""
    whole = DynamoDB.batch_get

    def not_served(*args: Any, consistent: bool, attributes: Sequence[str] = ()) -> Any:
        if consistent and "task_id" in attributes:
            return None
        return whole(*args, consistent=consistent, attributes=attributes)

    monkeypatch.setattr(DynamoDB, "batch_get", not_served)


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("status", ["releasing", "blocked"])
def test_an_unreadable_task_counts_as_existing(world: World, status: str) -> None:
    """I2: the index names it, so that no second task may be created."""
    found = world.seed({"a": []}, {"a": status})
    world.task(found, "a", "RUNNING")
    before = world.everything()
    summary = sweep(world)
    assert world.everything() == before
    assert (summary.counts.errors, summary.counts.released) == (1, 0)


@pytest.mark.usefixtures("unread")
def test_an_unreadable_submitted_task_leaves_no_budget(make_world: MakeWorld) -> None:
    world = make_world(
        USER_CONCURRENCY_TABLE_NAME="{prefix}-Users", MAX_CONCURRENT_TASKS_PER_USER="1"
    )
    world.seed({"a": []}, {"a": "released"}, tasks={"a": "SUBMITTED"}, age=300)
    waits = world.seed({"a": []})
    summary = sweep(world)
    assert world.statuses(waits) == {"a": "blocked"}
    assert summary.counts.stuck["over_budget"] == 1


MISSING = ["TASK", "TASK_EVENTS", "USER_CONCURRENCY", "REPO", "BUDGET"]


@pytest.mark.parametrize("table", MISSING)
def test_a_missing_table_stops_the_sweep(make_world: MakeWorld, aws: AwsStub, table: str) -> None:
    world = make_world(
        USER_CONCURRENCY_TABLE_NAME="{prefix}-Users",
        REPO_TABLE_NAME="{prefix}-Repo",
        BUDGET_TABLE_NAME="{prefix}-Budget",
        USER_POOL_ID="us-east-1_pool",
    )
    aws.groups = {USER: []}
    world.others = {"cognito-idp": aws.url}
    world.put(str(world.settings.repo_table_name), {"repo": {"S": REPO}, "status": {"S": "active"}})
    world.seed({"a": []})
    before = world.everything()
    with pytest.raises(TableMissingError, match="nowhere"):
        sweep(world, **{f"{table.lower()}_table_name": "nowhere"})
    assert world.everything() == before


@pytest.mark.parametrize("operation", ["Scan", "Query", "TransactWriteItems"])
@pytest.mark.parametrize("answer", [WRONG_CREDENTIALS, EXPIRED_CREDENTIALS, DENIED])
def test_rejected_credentials_stop_the_sweep(
    world: World, service: FaultyEndpoint, answer: tuple[int, str], operation: str
) -> None:
    world.seed({"a": []})
    before = world.everything()
    service.fail(answer, operation)
    with pytest.raises(AccessError, match=answer[1]):
        sweep(world)
    assert world.everything() == before


# -- the guardrail and the pipeline


@pytest.fixture
def aws() -> Iterator[AwsStub]:
    with aws_stub() as stub:
        yield stub


@pytest.fixture
def screened(make_world: MakeWorld, aws: AwsStub) -> World:
    """A world with a guardrail and a pipeline."""
    world = make_world(GUARDRAIL_ID="g1", GUARDRAIL_VERSION="1", ORCHESTRATOR_FUNCTION_ARN=ARN)
    world.others = {"lambda": aws.url, "bedrock-runtime": aws.url}
    return world


@pytest.fixture
def slow(aws: AwsStub, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """An event: as long as it is not set, no answer comes."""
    monkeypatch.setattr("reconciler.composition._READ_SECONDS", 0.3)
    answers = threading.Event()
    aws.slow = answers
    yield answers
    answers.set()


@pytest.mark.usefixtures("slow")
def test_a_silent_guardrail_is_asked_only_once(screened: World, aws: AwsStub) -> None:
    """It is not asked again for each child."""
    found = [screened.seed({"a": [], "b": [], "c": []}) for _ in range(3)]
    before = screened.everything()
    summary = sweep(screened)
    assert screened.everything() == before
    assert aws.asked == 1
    assert summary.complete
    assert summary.counts.stuck == {"lost_release": 9}
    assert summary.counts.errors == 9
    assert screened.metrics.count("reconciler_errors_total", kind="guardrail_unavailable") == 9
    aws.slow = None
    assert sweep(screened).counts.released == 9
    assert all(len(screened.tasks(one)) == 3 for one in found)


def test_an_unscreenable_text_blocks_no_other_child(screened: World, aws: AwsStub) -> None:
    """Its own child is not released either; this is no outage."""
    aws.refuses = "odd"
    found = screened.seed({"a": [], "b": []}, rows={"a": {"title": {"S": "odd"}}})
    summary = sweep(screened)
    assert screened.statuses(found) == {"a": "blocked", "b": "released"}
    assert (summary.counts.released, summary.counts.errors) == (1, 1)


@pytest.mark.parametrize("how", ["answers 500", "throttles", "denies", "does not answer"])
def test_a_pipeline_outage_undoes_no_release(
    make_world: MakeWorld, aws: AwsStub, how: str, request: pytest.FixtureRequest
) -> None:
    """The failed invocation is counted, and made after the outage."""
    world = make_world(ORCHESTRATOR_FUNCTION_ARN=ARN)
    world.others = {"lambda": aws.url}
    if how == "does not answer":
        request.getfixturevalue("slow")
    aws.invoke_status = {"answers 500": 500, "throttles": 429, "denies": 403}.get(how, 202)
    found = world.seed({"a": []})
    summary = sweep(world)
    (task,) = world.tasks(found)
    assert "reconciler_invoked_at" not in task
    assert (summary.counts.released, summary.counts.errors) == (1, 1)
    assert world.metrics.count("reconciler_errors_total", kind="pipeline_unavailable") == 1
    # While the outage lasts, nothing changes, and it is counted again.
    world.clock.forward(130)
    before = world.everything()
    summary = sweep(world)
    assert world.everything() == before
    assert (summary.counts.errors, summary.counts.stuck) == (1, {"unstarted_task": 1})
    aws.slow, aws.invoke_status = None, 202
    aws.invoked.clear()
    assert sweep(world).counts.reinvoked == 1
    assert aws.invoked == [task["task_id"]["S"]]
