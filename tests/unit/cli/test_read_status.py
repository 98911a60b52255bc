"""How ``status`` reads broker, tables and workers, and what it does not wait for."""

from __future__ import annotations

import sys
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest
import redis

from reconciler.cli import status as status_module
from reconciler.cli.status import read_status
from tests.unit.cli.test_status import NOW, SETTINGS


def test_status_does_not_wait_for_silent_services(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_module, "PATIENCE_SECONDS", 0.05)
    never = threading.Event()

    class Silent:
        def __getattr__(self, _name: str) -> Any:
            never.wait()
            raise AssertionError

    silent: Any = Silent()
    found = read_status(SETTINGS, silent, silent, details=False)
    never.set()
    assert found.broker_problem == found.table_problem == "no answer within 0 s"


def test_silent_workers_do_not_mean_no_broker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A slow host may not hear them in time; status shows what was read by then."""
    never_set = threading.Event()
    application: Any = SimpleNamespace(app=None)
    monkeypatch.setitem(sys.modules, "workers.application", application)
    monkeypatch.setattr(status_module, "_workers", lambda *_: never_set.wait())
    monkeypatch.setattr(status_module, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(status_module, "_read_broker", lambda *_, **__: {"queues": {"sweep": 3}})
    monkeypatch.setattr(status_module, "_read_tables", lambda _: {})
    nobody: Any = None
    read = read_status(SETTINGS, nobody, nobody, details=True)
    assert read.unreachable is None
    assert (read.workers, read.queues) == (None, {"sweep": 3})


def test_loading_celery_takes_no_time_from_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy host it takes seconds, in which no worker could answer."""
    clock, caller = [0.0], threading.current_thread()

    class Application:
        control = SimpleNamespace(broadcast=lambda *_, **__: [{"w1@host": {}}])

        @property
        def app(self) -> Application:
            assert threading.current_thread() is caller
            clock[0] += 2 * status_module.PATIENCE_SECONDS
            return self

    clocks = SimpleNamespace(monotonic=lambda: clock[0], time=lambda: NOW)
    monkeypatch.setattr(status_module, "time", clocks)
    monkeypatch.setitem(sys.modules, "workers.application", cast("Any", Application()))
    monkeypatch.setattr(status_module, "_read_broker", lambda *_, **__: {})
    monkeypatch.setattr(status_module, "_read_tables", lambda _: {})
    nobody: Any = None
    assert read_status(SETTINGS, nobody, nobody, details=True).workers == ("w1@host",)


def test_only_workers_of_these_tables_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of other tables on the same broker drop what is asked here."""
    answers = [
        {"ours@a": {"tables": SETTINGS.main_tables}},
        {"theirs@b": {"tables": ["others"]}},
        {"old@c": {"error": "unknown command"}},
    ]
    control = SimpleNamespace(broadcast=lambda *_, **__: answers)
    application: Any = SimpleNamespace(app=SimpleNamespace(control=control))
    monkeypatch.setitem(sys.modules, "workers.application", application)
    monkeypatch.setattr(status_module, "_read_broker", lambda *_, **__: {})
    monkeypatch.setattr(status_module, "_read_tables", lambda _: {})
    nobody: Any = None
    read = read_status(SETTINGS, nobody, nobody, details=True)
    assert read.workers == ("old@c", "ours@a")


def test_a_problem_has_no_full_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows it would read ``refused.;`` or ``refused..``."""

    def away(*_: Any, **__: Any) -> dict[str, Any]:
        raise redis.ConnectionError("Connection refused.")

    monkeypatch.setattr(status_module, "_read_broker", away)
    monkeypatch.setattr(status_module, "_read_tables", lambda _: {})
    nobody: Any = None
    settings = SETTINGS.model_copy(update={"celery_broker_url": "redis://broker"})
    read = read_status(settings, nobody, nobody, details=False)
    assert read.unreachable == "the broker cannot be reached: Connection refused"
