"""Heartbeats of real processes: when they hang, and when the broker is away."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from reconciler.observability import heartbeat
from reconciler.observability.heartbeat import problem_of, read_silences
from tests.support.broker import Broker
from tests.support.hosts import Fleet
from tests.support.processes import until

pytestmark = [pytest.mark.integration, pytest.mark.workers]

SILENCE_SECONDS = 3 * heartbeat.BEAT_SECONDS


@pytest.fixture
def alone(fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """Hosts with their own heartbeat directory and a short limit on silence."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    fleet.environment = {**fleet.environment, "TMPDIR": str(temporary)}
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.setattr(heartbeat, "MAX_SILENCE_SECONDS", SILENCE_SECONDS)
    return fleet


def problem() -> str | None:
    return problem_of(read_silences())


def test_the_heartbeat_shows_a_hanging_process(alone: Fleet) -> None:
    worker, beat = alone.worker(), alone.beat()
    until("both to be at work", lambda: len(read_silences()) == 2 and problem() is None)
    for host in (worker, beat):
        host.signal(signal.SIGSTOP)
        said = until("the silence to be noticed", problem)
        assert f"process {host.pid} " in said
        host.signal(signal.SIGCONT)
        until("the process to be at work again", lambda: problem() is None)
    worker.stop()
    beat.stop()
    assert read_silences() == {}


def test_heartbeats_go_on_without_the_broker(alone: Fleet, own_broker: Broker) -> None:
    worker, beat = alone.worker(), alone.beat()
    until("both to be at work", lambda: len(read_silences()) == 2 and problem() is None)
    before = {pid: (heartbeat._directory() / str(pid)).read_text() for pid in read_silences()}
    own_broker.stop()
    until("both to notice", lambda: all("broker.lost" in host.log for host in (worker, beat)))
    noticed = {pid: (heartbeat._directory() / str(pid)).read_text() for pid in before}

    def beat_on() -> bool:
        assert problem() is None
        return all((heartbeat._directory() / str(p)).read_text() != t for p, t in noticed.items())

    until("both to beat on without it", beat_on)
    own_broker.start()
