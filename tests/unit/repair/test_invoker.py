"""Each task runs once: who invokes the pipeline, when, and what is recorded first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reconciler.domain.model import Task
from reconciler.errors import (
    InvocationRefusedError,
    NameRefusedError,
    PipelineUnavailableError,
)
from reconciler.repair.context import Context
from reconciler.repair.invoker import Invoker
from tests.support.pipeline import LambdaClient, invoker_on
from tests.support.world import World

OURS = {"reconciler_sweep_id": {"S": "sweep:1"}}


def invoke(world: World, invoker: Invoker, task: Task) -> Task | None:
    return invoker.invoke(task, Context(world.clock(), "sweep:2"))


def read(world: World, task_id: str) -> Task:
    found = world.reconciler().tasks.read_all([task_id])[task_id]
    assert found is not None
    return found


def made(world: World, status: str = "SUBMITTED", **attributes: Any) -> Task:
    """Return a task that the reconciler created, as it is read."""
    return read(world, world.task("orch_1", "a", status, **{**OURS, **attributes}))


def recorded(world: World, task: Task) -> tuple[str | None, int]:
    stands = read(world, task.task_id)
    return stands.invoked_at, stands.invoke_count


def test_a_first_invocation_is_named(world: World) -> None:
    """A second invocation with the same name starts no run."""
    client = LambdaClient()
    task = made(world)
    first, second = (invoke(world, invoker_on(world, client), task) for _ in range(2))
    assert first == second == replace(task, invoked_at=world.ago(0))
    assert recorded(world, task) == (world.ago(0), 0)
    assert (client.runs, client.asked) == ([task.task_id], 2)


def test_a_first_invocation_that_failed_leaves_no_record(world: World) -> None:
    client = LambdaClient(down=True)
    task = made(world)
    with pytest.raises(PipelineUnavailableError, match="TooManyRequestsException: not now"):
        invoke(world, invoker_on(world, client), task)
    assert recorded(world, task) == (None, 0)


def repeatable(world: World, attributes: dict[str, Any]) -> Task:
    """Return a task that the reconciler or somebody else invoked long ago."""
    if attributes:
        attributes = {**attributes, "reconciler_invoked_at": {"S": world.ago(900)}}
    return read(world, world.task("orch_1", "a", "SUBMITTED", **attributes))


@pytest.mark.parametrize("attributes", [OURS, {}], ids=["ours", "of others"])
def test_a_reinvocation_is_recorded_beforehand(world: World, attributes: dict[str, Any]) -> None:
    """If the worker dies in between, nobody invokes the task again."""
    task = repeatable(world, attributes)
    with pytest.raises(PipelineUnavailableError, match="Read timeout"):
        invoke(world, invoker_on(world, LambdaClient(silent=True)), task)
    assert recorded(world, task) == (world.ago(0), 1)
    client = LambdaClient()
    assert invoke(world, invoker_on(world, client), task) is None, (
        "the task was read before the record was written"
    )
    assert not invoker_on(world, client).due(read(world, task.task_id), world.clock())
    assert client.asked == 0


@pytest.mark.parametrize("attributes", [OURS, {}], ids=["ours", "of others"])
def test_a_refused_named_reinvocation_does_not_count(
    world: World, attributes: dict[str, Any]
) -> None:
    """Lambda started no run, so a later sweep may still make the one reinvocation."""
    task = repeatable(world, attributes)
    with pytest.raises(InvocationRefusedError, match="not now"):
        invoke(world, invoker_on(world, LambdaClient(down=True)), task)
    assert read(world, task.task_id) == task
    client = LambdaClient()
    invoked = invoke(world, invoker_on(world, client), task)
    assert invoked == replace(task, invoked_at=world.ago(0), invoke_count=1)
    assert (client.runs, recorded(world, task)) == ([task.task_id], (world.ago(0), 1))


def test_a_refused_unnamed_reinvocation_counts(world: World) -> None:
    """If Lambda has started a run nevertheless, another invocation would start a second one."""
    client = LambdaClient(durable=False)
    invoker = invoker_on(world, client)
    invoke(world, invoker, made(world))  # learns that the pipeline takes no names
    client.down = True
    task = repeatable(world, {})
    with pytest.raises(InvocationRefusedError):
        invoke(world, invoker, task)
    assert recorded(world, task) == (world.ago(0), 1)


def test_a_reinvocations_event_is_written_with_its_record(world: World) -> None:
    task, client = repeatable(world, OURS), LambdaClient()
    event = world.reconciler().tasks.event(task.task_id, "again", {}, world.clock())
    given = Context(world.clock(), "sweep:2")
    invoked = [invoker_on(world, client).invoke(task, given, event) for _ in range(2)]
    assert invoked == [replace(task, invoked_at=world.ago(0), invoke_count=1), None]
    assert len(world.events("again")) == 1


def test_one_of_two_concurrent_reinvocations_is_made(world: World) -> None:
    client = LambdaClient()
    task = read(world, world.task("orch_1", "a", "SUBMITTED"))
    results = [invoke(world, invoker_on(world, client), task) for _ in range(2)]
    assert results == [replace(task, invoked_at=world.ago(0), invoke_count=1), None]
    assert (client.runs, client.asked) == ([task.task_id], 1)


@pytest.mark.parametrize("status", ["HYDRATING", "RUNNING", "FAILED"])
def test_a_started_task_is_not_invoked_again(world: World, status: str) -> None:
    task = read(world, world.task("orch_1", "a", "SUBMITTED"))
    world.finish(task.task_id, status, age=0)
    client = LambdaClient()
    assert invoke(world, invoker_on(world, client), task) is None
    assert (client.asked, recorded(world, task)) == (0, (None, 0))


def test_only_a_tasks_creator_invokes_without_grace(world: World) -> None:
    """Everybody else waits, because the creator may be about to invoke the task."""
    task = made(world, status_created_at={"S": f"SUBMITTED#{world.ago(0)}"})
    invoker = invoker_on(world, LambdaClient())
    assert not invoker.due(task, world.clock())
    assert invoker.due(task, world.clock(), made_it=True)
    world.clock.forward(120)
    assert invoker.due(task, world.clock())


# -- a pipeline that takes no names


def test_an_unnamed_invocation_is_recorded_first(world: World) -> None:
    """The invocation is made only once."""
    client = LambdaClient(durable=False)
    task = made(world)
    invoker = invoker_on(world, client)
    assert invoke(world, invoker, task) == replace(task, invoked_at=world.ago(0), invoke_count=1)
    assert recorded(world, task) == (world.ago(0), 1)
    assert invoke(world, invoker_on(world, client), task) is None
    assert client.runs == [task.task_id]


def test_a_lost_answer_stops_no_unnamed_invocation(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client sends the record again, and its condition fails on what the first try wrote."""
    client = LambdaClient(durable=False)
    task = made(world)
    invoker = invoker_on(world, client)
    tables = invoker.dynamodb._client
    update_item = tables.update_item

    def sent_twice(**request: Any) -> Any:
        update_item(**request)
        return update_item(**request)

    monkeypatch.setattr(tables, "update_item", sent_twice)
    assert invoke(world, invoker, task) == replace(task, invoked_at=world.ago(0), invoke_count=1)
    assert client.runs == [task.task_id]


def test_after_a_crash_no_unnamed_invocation_follows(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a crash between record and invocation, nobody can tell whether it was made."""
    client = LambdaClient(durable=False)
    task = made(world)
    invoker = invoker_on(world, client)

    class GoneError(BaseException):
        pass

    def dies(_task_id: str, *, named: bool = True) -> None:
        raise NameRefusedError("no names") if named else GoneError

    monkeypatch.setattr(invoker.pipeline, "invoke", dies)
    with pytest.raises(GoneError):
        invoke(world, invoker, task)
    monkeypatch.undo()
    assert recorded(world, task) == (world.ago(0), 1)
    world.clock.forward(10_000)
    again = invoker_on(world, client)
    assert not again.due(read(world, task.task_id), world.clock())
    assert invoke(world, again, task) is None
    assert client.runs == []


def test_an_unanswered_unnamed_invocation_is_not_repeated(world: World) -> None:
    client = LambdaClient(durable=False, silent=True)
    task = made(world)
    with pytest.raises(PipelineUnavailableError):
        invoke(world, invoker_on(world, client), task)
    client.silent = False
    assert invoke(world, invoker_on(world, client), task) is None
    assert client.runs == [task.task_id]


def test_a_recorded_task_gets_no_unnamed_invocation(world: World) -> None:
    """It was invoked while the pipeline still took names, so it may be running."""
    client = LambdaClient(durable=False)
    task = made(world, reconciler_invoked_at={"S": world.ago(900)})
    with pytest.raises(NameRefusedError, match="may run task"):
        invoke(world, invoker_on(world, client), task)
    assert client.runs == []
    assert recorded(world, task) == (world.ago(0), 1), "from now on, the task is only surfaced"


def test_a_foreign_task_is_invoked_without_a_name(world: World) -> None:
    client = LambdaClient(durable=False)
    task = read(world, world.task("orch_1", "a", "SUBMITTED"))
    assert invoke(world, invoker_on(world, client), task) is not None
    assert client.runs == [task.task_id]


def test_a_refused_name_is_remembered(world: World) -> None:
    client = LambdaClient(durable=False)
    invoker = invoker_on(world, client)
    tasks = [made(world), made(world)]
    assert all(invoke(world, invoker, task) for task in tasks)
    assert (client.runs, client.asked) == ([task.task_id for task in tasks], 3)
