"""A broker that answers but refuses: workers and beats stay, report it once, and then go on.

One worker and one beat go through all refusals, one after the other.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.embedded.process import free_port
from tests.conftest import Servers
from tests.integration.workers.conftest import Measured
from tests.support.broker import Broker, broker_of_its_own
from tests.support.faults import FaultProxy
from tests.support.hosts import Fleet, Host, fleet_of
from tests.support.processes import A_BEAT, ROOT, Celery, a_worker, run_reconciler, until
from tests.support.refusals import LOGIN, REFUSALS, WITH_ACCOUNT
from tests.support.world import RealClock, build_world

pytestmark = [pytest.mark.integration, pytest.mark.workers]

SWEEP_INTERVAL_SECONDS = 2
QUIET_SECONDS = 3.0 * SWEEP_INTERVAL_SECONDS


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    directory = tmp_path_factory.mktemp("refusing") / "broker"
    with broker_of_its_own(directory, *WITH_ACCOUNT) as broker:
        yield broker


@pytest.fixture(scope="module")
def patient(
    servers: Servers, refusing: Broker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    """A worker and a beat with their own login."""
    world = build_world(
        servers.endpoint("moto"),
        SWEEP_INTERVAL_SECONDS=str(SWEEP_INTERVAL_SECONDS),
        SWEEP_SEGMENTS="2",
    )
    world.clock = RealClock()
    url = refusing.url.replace("redis://", f"redis://{LOGIN}@")
    with fleet_of(Celery(world, url, tmp_path_factory.mktemp("patient"))) as fleet:
        fleet.worker()
        fleet.beat()
        yield fleet


def sweeps(fleet: Fleet) -> int:
    """Return how many sweeps have been completed."""
    return fleet.hosts["w1"].log.count('"orch.sweep.completed"')


def said(host: Host, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in host.log.splitlines() if f'"{event}"' in line]
    return [line for line in lines if line["event"] == event]


def over(host: Host) -> bool:
    """Whether the host's last line about the broker says that it is back."""
    return host.log.rfind("orch.broker.restored") > host.log.rfind("orch.broker.lost")


def complaints(host: Host) -> list[str]:
    """Return the lines in which the host reports a problem."""
    return [line for line in host.log.splitlines() if '"level": "info"' not in line]


class Quiet:
    """Whether no host has complained for a while; requests under way may still fail first."""

    def __init__(self, hosts: Iterable[Host]) -> None:
        self._hosts = list(hosts)
        self._said: list[list[str]] = []
        self._since = 0.0

    def __call__(self) -> bool:
        said = [complaints(host) for host in self._hosts]
        if said != self._said:
            self._said, self._since = said, time.monotonic()
        return time.monotonic() - self._since > QUIET_SECONDS


@pytest.mark.parametrize("code", REFUSALS)
def test_worker_and_beat_report_a_refusal_once(
    patient: Fleet, refusing: Broker, code: str, measured: Measured
) -> None:
    """They keep running, `doctor` names the refusal, and the next sweep needs no help."""
    hosts = patient.hosts
    before = sweeps(patient)
    until("a sweep", lambda: sweeps(patient) > before)
    lost = {name: len(said(host, "orch.broker.lost")) for name, host in hosts.items()}

    def heard(name: str) -> bool:
        news = said(hosts[name], "orch.broker.lost")[lost[name] :]
        return code in {line["refusal"] for line in news}

    with REFUSALS[code](refusing):
        until("the beat to say so", lambda: heard("beat"))
        if code != "OOM":  # an idle worker writes nothing, so it meets no refusal
            until("the worker to say so", lambda: heard("w1"))
        until("nobody to complain for three intervals", Quiet(hosts.values()))
        doctor = run_reconciler("doctor", environment=patient.celery.environment)
        assert doctor.returncode == 1
        assert f"answers {code}: " in " ".join(doctor.stdout.split())
        done = sweeps(patient)
    ended = time.monotonic()
    until("the next sweep", lambda: sweeps(patient) > done)
    measured(f"broker answered {code}: next sweep {time.monotonic() - ended:.1f} s after its end")
    for host in hosts.values():
        assert host.alive
        assert host.log.count(host.ready) == 1, "it is still the same process"
    for name in [name for name in hosts if heard(name)]:
        host = hosts[name]
        news = said(host, "orch.broker.lost")[lost[name] :]
        assert [line["refusal"] for line in news].count(code) == 1
        until("the host to say that it is over", lambda h=host: over(h))  # type: ignore[misc]


@pytest.mark.parametrize("code", ["READONLY", "NOREPLICAS"])
def test_a_refused_acknowledgement_does_not_block_the_worker(
    fleet: Fleet, own_broker: Broker, proxy: FaultProxy, code: str
) -> None:
    """The refusal begins while a task runs in the worker's only slot."""
    worker = fleet.worker("w1", concurrency=1)
    with proxy.holding("Scan") as held:
        fleet.beat()
        held.wait(1)
        with REFUSALS[code](own_broker):
            held.let_go()
            # "Couldn't ack", or "Couldn't reject" if the task itself met the refusal.
            until("a refused acknowledgement", lambda: "Couldn't " in worker.log)
    before = worker.log.count('"orch.sweep.completed"')
    until("the next sweep", lambda: worker.log.count('"orch.sweep.completed"') > before)
    assert worker.log.count(worker.ready) == 1, "it is still the same process"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path / "cluster")
    broker.directory.mkdir()
    broker.start("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    yield broker
    broker.stop()


@pytest.mark.parametrize("arguments", [a_worker("w1", 1), A_BEAT], ids=["worker", "beat"])
def test_worker_and_beat_refuse_cluster_mode(
    patient: Fleet, cluster: Broker, arguments: tuple[str, ...]
) -> None:
    """Each exits with code 2 and one line that names the setting."""
    celery = replace(patient.celery, broker=cluster.url)
    done = subprocess.run(
        celery.command(*arguments),
        env={**os.environ, **celery.environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    plain = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert len(plain) == 1
    assert plain[0].startswith("reconciler: CELERY_BROKER_URL: the broker is in cluster mode.")


def test_the_doctor_names_cluster_mode(patient: Fleet, cluster: Broker) -> None:
    celery = replace(patient.celery, broker=cluster.url)
    doctor = run_reconciler("doctor", environment=celery.environment)
    assert doctor.returncode == 1
    assert "the broker is in cluster mode" in " ".join(doctor.stdout.split())
