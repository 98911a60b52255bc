"""Whatever a task raises, its work item is completed once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import redis
from billiard.exceptions import SoftTimeLimitExceeded
from celery import Celery

from reconciler.errors import (
    DEFECTS,
    AccessError,
    CredentialsError,
    DefectError,
    IndexUnavailableError,
    InvalidRequestError,
    PermanentError,
    ReconcilerError,
    SettingsError,
    StoreUnavailableError,
    ThrottledError,
    UnknownOrchestrationError,
    UnknownRefusalError,
)
from reconciler.sweeping.inline import new_state
from reconciler.sweeping.known_stuck import Finding
from reconciler.sweeping.sweeper import Sweeper
from tests.support.metrics import RecordingMetrics
from tests.support.world import World
from workers import running
from workers.enqueue import BrokerUnavailableError
from workers.messages import MAX_RETRIES
from workers.running import MalformedMessageError, OutOfTimeError, run

pytestmark = [pytest.mark.integration, pytest.mark.workers]


class TriedAgainError(Exception):
    """Stands for Celery's ``Retry``, which ends the task for now."""


class Given:
    """A task, the resources of its process, and its outcome."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, retries: int) -> None:
        self.completed: list[ReconcilerError] = []
        self.forgotten = self.ended = 0
        metrics: Any = RecordingMetrics()
        metrics.flush = lambda: None
        flusher = SimpleNamespace(soon=lambda: None)
        resources = SimpleNamespace(metrics=metrics, forget_clients=self._forget, flusher=flusher)
        monkeypatch.setattr(running, "process_resources", lambda: resources)
        request = SimpleNamespace(id="evaluate:x:1", retries=retries)
        self.task: Any = SimpleNamespace(request=request, retry=self._retry)

    def _forget(self) -> None:
        self.forgotten += 1

    def _retry(self, **_: Any) -> None:
        raise TriedAgainError

    def run(self, error: BaseException) -> None:
        def work(_: Any) -> None:
            raise error

        def end(_: Any) -> None:
            self.ended += 1

        run(self.task, work, lambda _, found: self.completed.append(found), end)


RAISED: list[tuple[Exception, type[ReconcilerError]]] = [
    *((defect("odd"), DefectError) for defect in DEFECTS),
    (AssertionError("odd"), DefectError),
    (MemoryError(), DefectError),
    (OSError("odd"), DefectError),
    (redis.ConnectionError("away"), BrokerUnavailableError),
    (redis.ResponseError("READONLY"), BrokerUnavailableError),
    (SoftTimeLimitExceeded(), OutOfTimeError),
    *(
        (kind("x"), kind)
        for kind in (
            AccessError,
            CredentialsError,
            IndexUnavailableError,
            InvalidRequestError,
            SettingsError,
            StoreUnavailableError,
            ThrottledError,
            UnknownRefusalError,
        )
    ),
]


@pytest.mark.parametrize(
    ("error", "kind"), RAISED, ids=lambda value: getattr(value, "__name__", "")
)
def test_any_exception_completes_the_work_item(
    monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[ReconcilerError]
) -> None:
    """It is completed once, with the kind of the error, when no retry is left."""
    given = Given(monkeypatch, MAX_RETRIES)
    with pytest.raises((type(error), kind)):
        given.run(error)
    assert [type(found) for found in given.completed] == [kind]
    assert given.forgotten == isinstance(error, CredentialsError)


def test_a_refused_message_completes_no_work_item(monkeypatch: pytest.MonkeyPatch) -> None:
    given = Given(monkeypatch, 0)
    for error in (UnknownOrchestrationError("x"), MalformedMessageError("x")):
        with pytest.raises(type(error)):
            given.run(error)
    assert given.completed == []
    assert given.ended == 2


def test_a_retry_leaves_the_work_item_open(monkeypatch: pytest.MonkeyPatch) -> None:
    given = Given(monkeypatch, 0)
    for error in (ThrottledError("x"), UnknownRefusalError("x"), redis.ConnectionError("x")):
        with pytest.raises(TriedAgainError):
            given.run(error)
    assert given.completed == []


def test_an_unsent_retry_completes_the_work_item(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker is away, so no retry can be queued."""
    given = Given(monkeypatch, 0)
    app = Celery(broker="redis://127.0.0.1:1/0", set_as_current=False)
    app.conf.task_publish_retry = False

    @app.task(bind=True, name="evaluate", max_retries=MAX_RETRIES)
    def evaluate(_: Any) -> None:
        """Never run."""

    given.task = evaluate
    given.task.push_request(id="evaluate:x:1", called_directly=False, retries=0)
    with pytest.raises(ThrottledError):
        given.run(ThrottledError("x"))
    assert [type(found) for found in given.completed] == [ThrottledError]


def test_a_failed_completion_hides_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = Given(monkeypatch, MAX_RETRIES)

    def work(_: Any) -> None:
        raise PermanentError("the first")

    def gave_up(*_: Any) -> None:
        raise CredentialsError("no client can be made")

    with pytest.raises(PermanentError, match="the first"):
        run(given.task, work, gave_up)


def test_a_release_of_a_missing_child_is_forgotten(world: World) -> None:
    """The state no longer shows it as handed on."""
    reconciler = world.reconciler()
    state = new_state(reconciler)
    nobody: Any = None
    sweeper = Sweeper(reconciler, state, nobody, nobody)
    state.evaluated("orch_x", Finding(state.now()), 60, handed_on={"a": None})
    assert state.known("orch_x").handed_on
    with pytest.raises(UnknownOrchestrationError):
        sweeper.release("orch_x", "a", sweep_id="sweep:1")
    assert state.known("orch_x").handed_on == {}
