"""The guardrail before a release and the pipeline after it, over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from reconciler.errors import GuardrailUnavailableError
from reconciler.sweeping.inline import run_inline_sweep
from reconciler.sweeping.summary import SweepSummary
from tests.support.aws_stub import AwsStub, aws_stub
from tests.support.world import World

pytestmark = pytest.mark.integration
ARN = "arn:aws:lambda:us-east-1:123456789012:function:orchestrator:live"


@pytest.fixture
def aws() -> Iterator[AwsStub]:
    with aws_stub() as stub:
        yield stub


@pytest.fixture
def screened(make_world: Callable[..., World], aws: AwsStub) -> World:
    """A world with a guardrail and a pipeline."""
    world = make_world(GUARDRAIL_ID="g1", GUARDRAIL_VERSION="1", ORCHESTRATOR_FUNCTION_ARN=ARN)
    world.others = {"lambda": aws.url, "bedrock-runtime": aws.url}
    return world


def sweep(world: World) -> SweepSummary:
    reconciler = world.reconciler()
    return run_inline_sweep(reconciler, segments=1)


def test_a_release_screens_and_invokes_once(screened: World, aws: AwsStub) -> None:
    found = screened.seed({"a": []})
    sweep(screened)
    (task,) = screened.tasks(found)
    assert aws.screened == [task["task_description"]["S"]]
    assert aws.invoked == [task["task_id"]["S"]]
    assert aws.names == {task["task_id"]["S"]}
    assert "reconciler_invoked_at" in task
    sweep(screened)
    assert len(aws.invoked) == 1


def test_a_blocked_description_is_refused(screened: World, aws: AwsStub) -> None:
    aws.guardrail_action = "GUARDRAIL_INTERVENED"
    found = screened.seed({"a": [], "b": ["a"]})
    summary = sweep(screened)
    assert screened.statuses(found) == {"a": "failed", "b": "skipped"}
    assert "content policy" in screened.rows(found)["a"]["failure_reason"]["S"]
    assert summary.counts.refused == 1
    assert aws.invoked == []


@pytest.mark.parametrize("status", [500, 429, 403])
def test_a_guardrail_outage_delays_releases(screened: World, aws: AwsStub, status: int) -> None:
    aws.guardrail_status = status
    found = screened.seed({"a": []})
    summary = sweep(screened)
    assert screened.statuses(found) == {"a": "blocked"}
    assert (summary.counts.errors, summary.counts.stuck) == (1, {"lost_release": 1})
    with pytest.raises(GuardrailUnavailableError):
        screened.reconciler().release(found, "a")
    aws.guardrail_status = 200
    assert sweep(screened).counts.released == 1


def test_an_unknown_answer_releases_nothing(screened: World, aws: AwsStub) -> None:
    aws.guardrail_action = "PERHAPS"
    found = screened.seed({"a": []})
    sweep(screened)
    assert screened.statuses(found) == {"a": "blocked"}


@pytest.mark.parametrize("by", ["the next sweep", "a redelivery"])
def test_an_interrupted_invocation_is_made_later(screened: World, aws: AwsStub, by: str) -> None:
    aws.invoke_status = 500
    found = screened.seed({"a": []})
    assert sweep(screened).counts.released == 1
    assert aws.invoked == []
    aws.invoke_status = 202
    assert screened.reconciler().release(found, "a").outcome == "already_released"
    assert sweep(screened).counts.reinvoked == 0
    assert aws.invoked == [], "within the grace, the call that created the task may still invoke it"
    screened.clock.forward(130)
    if by == "a redelivery":
        assert screened.reconciler().release(found, "a").outcome == "reinvoked"
    else:
        assert sweep(screened).counts.reinvoked == 1
    (task,) = screened.tasks(found)
    assert aws.invoked == [task["task_id"]["S"]]
    assert screened.reconciler().release(found, "a").outcome == "already_released"


@pytest.mark.parametrize("durable", [True, False], ids=["named", "unnamed"])
def test_a_foreign_task_is_invoked_once_more(
    screened: World, aws: AwsStub, *, durable: bool
) -> None:
    """This is after the start timeout; from then on the task is only reported."""
    aws.durable = durable
    screened.seed({"a": []}, {"a": "released"}, tasks={"a": "SUBMITTED"}, age=600)
    start = screened.clock()
    invoked_after: list[float] = []
    for _ in range(20):
        if sweep(screened).counts.reinvoked:
            invoked_after.append((screened.clock() - start).total_seconds())
        screened.clock.forward(150)
    assert invoked_after == [300]
    assert len(aws.invoked) == 1
    summary = sweep(screened)
    assert summary.counts.stuck == {"unstarted_task": 1}


def test_our_task_is_invoked_again_once(screened: World, aws: AwsStub) -> None:
    """The second invocation has the same name: it starts nothing if the first one arrived."""
    screened.seed({"a": []})
    reinvoked = []
    for _ in range(20):
        reinvoked.append(sweep(screened).counts.reinvoked)
        screened.clock.forward(150)
    assert (reinvoked.index(1), sum(reinvoked)) == (6, 1)
    assert len(aws.invoked) == 1


def test_without_names_our_task_is_invoked_once(screened: World, aws: AwsStub) -> None:
    aws.durable = False
    found = screened.seed({"a": []})
    for _ in range(20):
        summary = sweep(screened)
        screened.clock.forward(150)
    (task,) = screened.tasks(found)
    assert (aws.invoked, aws.names) == ([task["task_id"]["S"]], set())
    assert task["reconciler_invoke_count"] == {"N": "1"}
    assert (summary.counts.reinvoked, summary.counts.stuck) == (0, {"unstarted_task": 1})


def test_concurrent_sweeps_repeat_an_invocation_once(screened: World, aws: AwsStub) -> None:
    aws.durable = False
    screened.seed({"a": []}, {"a": "released"}, tasks={"a": "SUBMITTED"})
    with ThreadPoolExecutor(4) as threads:
        summaries = list(threads.map(lambda _: sweep(screened), range(4)))
    assert len(aws.invoked) == 1
    assert sum(summary.counts.reinvoked for summary in summaries) == 1
