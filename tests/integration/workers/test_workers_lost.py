"""Every worker is killed in the midst of a sweep: who says so, when, and how it is whole again."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from workers.ledger import LEAST_STALE_SECONDS

from reconciler.observability.redis_metrics import read_series
from tests.integration.workers.conftest import Measured
from tests.support.broker import Broker
from tests.support.faults import FaultProxy
from tests.support.hosts import Fleet
from tests.support.processes import run_reconciler, until

pytestmark = [pytest.mark.integration, pytest.mark.workers]

Series = dict[tuple[str, tuple[tuple[str, str], ...], str], float]


def asked(fleet: Fleet, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Ask the command line."""
    return run_reconciler(*arguments, environment=fleet.celery.environment)


def series_of(fleet: Fleet) -> Series:
    """Return the metrics as they are served."""
    return read_series(fleet.celery.redis, fleet.celery.world.settings)


def gauge(fleet: Fleet, name: str) -> float:
    return series_of(fleet)[name, (), ""]


def swept(fleet: Fleet, *, complete: bool) -> dict[str, Any]:
    return fleet.celery.last(complete=complete) or {"ended_at": 0.0, "sweep_id": ""}


def test_it_is_said_within_two_intervals_and_is_whole_again_after_a_restart(
    fleet: Fleet, own_broker: Broker, proxy: FaultProxy, measured: Measured
) -> None:
    interval = fleet.celery.world.settings.sweep_interval_seconds
    fleet.celery.world.seed({"a": []}, {"a": "released"}, tasks={"a": "RUNNING"})
    workers = [fleet.worker("w1"), fleet.worker("w2")]
    fleet.beat()
    until("a complete sweep", lambda: swept(fleet, complete=True)["sweep_id"])
    with proxy.holding("Scan") as held:
        held.wait(2)
        for worker in workers:
            worker.kill()
        lost = fleet.celery.ledger.current()
        assert lost is not None
        assert lost.units == 2, "no segment had been read"
        last = swept(fleet, complete=True)
        stamp = gauge(fleet, "reconciler_last_complete_sweep_timestamp_seconds")
        assert stamp == pytest.approx(last["ended_at"], abs=1.0)

        health = until("it to be unhealthy", lambda: unhealthy(fleet))
        said = health.stdout.strip()
        assert said.startswith("unhealthy: the last complete sweep ended ")
        assert said.endswith(f"s ago, more than twice the interval of {interval} s")
        assert health.stderr == ""
        status = asked(fleet, "status", "--json")
        assert status.returncode == 1
        state = json.loads(status.stdout)
        assert state["healthy"] is False
        assert state["workers"] == []
        assert state["last_complete_sweep_age_seconds"] > 2 * interval
        # What the alert is computed from stands still; nobody makes it look younger.
        assert gauge(fleet, "reconciler_last_complete_sweep_timestamp_seconds") == stamp
    # The messages are lost with the workers: no redelivery makes up for them, only a later sweep.
    own_broker.client.delete("unacked", "unacked_index")
    for worker in workers:
        worker.start()
    until(
        f"a later sweep to close it as incomplete, after {LEAST_STALE_SECONDS} s",
        lambda: "its workers were lost" in workers[0].log + workers[1].log,
    )
    closed = until("a complete sweep again", lambda: later(fleet, last))
    assert closed["sweep_id"] != lost.sweep_id
    assert lost.sweep_id in workers[0].log + workers[1].log
    assert asked(fleet, "health").returncode == 0
    series = series_of(fleet)
    assert series["reconciler_sweeps_total", (("outcome", "incomplete"),), ""] == 1
    assert gauge(fleet, "reconciler_last_complete_sweep_timestamp_seconds") > stamp
    measured(f"all workers killed during a sweep; said: {said}")


def unhealthy(fleet: Fleet) -> subprocess.CompletedProcess[str] | None:
    found = asked(fleet, "health")
    return found if found.returncode == 1 else None


def later(fleet: Fleet, last: dict[str, Any]) -> dict[str, Any] | None:
    found = swept(fleet, complete=True)
    return found if found["ended_at"] > last["ended_at"] else None
