"""A broker that answers, and refuses: workers and beats stay, say so once, and go on after it.

One worker and one beat go through all of it, one refusal after the other.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from reconciler.embedded.process import free_port
from tests.conftest import Servers
from tests.integration.workers.conftest import Measured, RealClock
from tests.support.broker import Broker, broker_of_its_own
from tests.support.hosts import Fleet, Host, fleet_of
from tests.support.processes import A_BEAT, ROOT, Celery, a_worker, run_reconciler, until
from tests.support.world import build_world

pytestmark = [pytest.mark.integration, pytest.mark.workers]

SWEEP_INTERVAL_SECONDS = 2
QUIET_SECONDS = 3.0 * SWEEP_INTERVAL_SECONDS
LOGIN = "worker:first-password"
ACCOUNT = ("on", ">first-password", "~*", "&*", "+@all")


def execute(broker: Broker, *command: str) -> Any:
    return broker.client.execute_command(*command)  # type: ignore[no-untyped-call]


@contextmanager
def configured(broker: Broker, name: str, value: str) -> Iterator[None]:
    before = broker.client.config_get(name)[name] or ""
    broker.client.config_set(name, value)
    try:
        yield
    finally:
        broker.client.config_set(name, before)


@contextmanager
def replica(broker: Broker) -> Iterator[None]:
    """The primary is demoted, and the one that was promoted is elsewhere."""
    execute(broker, "REPLICAOF", "127.0.0.1", "1")
    try:
        yield
    finally:
        execute(broker, "REPLICAOF", "NO", "ONE")


def too_few_replicas(broker: Broker) -> Any:
    return configured(broker, "min-replicas-to-write", "1")


def full(broker: Broker) -> Any:
    return configured(broker, "maxmemory", "1")


def save(broker: Broker, status: str) -> None:
    with suppress(redis.ResponseError):  # one is under way
        broker.client.bgsave()
    until(status, lambda: broker.client.info("persistence")["rdb_last_bgsave_status"] == status)


@contextmanager
def unsaved(broker: Broker) -> Iterator[None]:
    """A snapshot could not be written: something is in its place."""
    (broker.directory / "dump.rdb").mkdir()
    with configured(broker, "save", "3600 1"):
        save(broker, "err")
        try:
            yield
        finally:
            (broker.directory / "dump.rdb").rmdir()
            save(broker, "ok")


@contextmanager
def account(broker: Broker, *rules: str) -> Iterator[None]:
    """The account of the worker and the beat is changed under them."""
    execute(broker, "ACL", "SETUSER", "worker", *rules)
    broker.drop_clients()
    try:
        yield
    finally:
        allow(broker)


def another_password(broker: Broker) -> Any:
    return account(broker, "resetpass", ">another")


def fewer_rights(broker: Broker) -> Any:
    return account(broker, "-@write")


def allow(broker: Broker) -> None:
    execute(broker, "ACL", "SETUSER", "worker", "reset", *ACCOUNT)


@contextmanager
def loading(broker: Broker) -> Iterator[None]:
    """It was restarted, and reads its data: at a snail's pace, until it is told to hurry."""
    with broker.client.pipeline() as pipe:
        for number in range(10_000):
            pipe.set(f"ballast:{number}", number)
        pipe.execute()
    broker.client.bgrewriteaof()
    until(
        "it to be on disk", lambda: not broker.client.info("persistence")["aof_rewrite_in_progress"]
    )
    broker.stop()
    slowly = ("--key-load-delay", "3000", "--loading-process-events-interval-bytes", "1024")
    # The account is told at the start: the access list is not among the data.
    broker.start(*slowly, "--user", "worker", *ACCOUNT, loaded=False)
    try:
        yield
    finally:
        broker.client.config_set("key-load-delay", "0")


REFUSALS: dict[str, Callable[[Broker], Any]] = {
    "READONLY": replica,
    "NOREPLICAS": too_few_replicas,
    "OOM": full,
    "MISCONF": unsaved,
    "WRONGPASS": another_password,
    "NOPERM": fewer_rights,
    "LOADING": loading,
}


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with broker_of_its_own(tmp_path_factory.mktemp("refusing") / "broker") as broker:
        allow(broker)
        yield broker


@pytest.fixture(scope="module")
def patient(
    servers: Servers, refusing: Broker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    """A worker and a beat, with a login of their own."""
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
    """Whether the last that it said of the broker is that it is back."""
    return host.log.rfind("orch.broker.restored") > host.log.rfind("orch.broker.lost")


def complaints(host: Host) -> list[str]:
    """Return the lines that it wrote because something is wrong."""
    return [line for line in host.log.splitlines() if '"level": "info"' not in line]


@pytest.mark.parametrize("code", REFUSALS)
def test_both_stay_say_it_once_and_recover(
    patient: Fleet, refusing: Broker, code: str, measured: Measured
) -> None:
    hosts = patient.hosts
    before = sweeps(patient)
    until("a sweep", lambda: sweeps(patient) > before)
    lost = {name: len(said(host, "orch.broker.lost")) for name, host in hosts.items()}

    def heard(name: str) -> bool:
        news = said(hosts[name], "orch.broker.lost")[lost[name] :]
        return code in {line["refusal"] for line in news}

    with REFUSALS[code](refusing):
        until("the beat to say so", lambda: heard("beat"))
        if code != "OOM":  # at which a worker with nothing to do meets no refusal
            until("the worker to say so", lambda: heard("w1"))
        so_far = {name: complaints(host) for name, host in hosts.items()}
        time.sleep(QUIET_SECONDS)
        # Not once a second, and not once an interval.
        assert {name: complaints(host) for name, host in hosts.items()} == so_far
        doctor = run_reconciler("doctor", environment=patient.celery.environment)
        assert doctor.returncode == 1
        assert f"answers {code}: " in " ".join(doctor.stdout.split())
        done = sweeps(patient)
    ended = time.monotonic()
    until("the next sweep", lambda: sweeps(patient) > done)
    measured(f"broker answered {code}: next sweep {time.monotonic() - ended:.1f} s after its end")
    for host in hosts.values():
        assert host.alive
        assert host.log.count(host.ready) == 1, "the same process, all along"
    for name in [name for name in hosts if heard(name)]:
        host = hosts[name]
        news = said(host, "orch.broker.lost")[lost[name] :]
        assert [line["refusal"] for line in news].count(code) == 1
        until("it to say that it is over", lambda h=host: over(h))  # type: ignore[misc]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path / "cluster")
    broker.directory.mkdir()
    broker.start("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    yield broker
    broker.stop()


@pytest.mark.parametrize("arguments", [a_worker("w1", 1), A_BEAT], ids=["worker", "beat"])
def test_cluster_mode_ends_it_with_one_line(
    patient: Fleet, cluster: Broker, arguments: tuple[str, ...]
) -> None:
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
