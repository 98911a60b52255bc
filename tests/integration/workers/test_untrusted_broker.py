"""A broker that is not trusted: verified TLS, least rights, and no secret in any output.

Everything speaks to the broker through a TLS front, as its user in ``deploy/valkey/users.acl``;
``test_broker_rights.py`` tests what these users may do.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import pickle
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from reconciler.embedded.process import answers_http, free_port, running
from reconciler.embedded.valkey import valkey_server
from reconciler.observability.redis_metrics import read_series
from reconciler.settings import Settings
from tests.conftest import Servers
from tests.support.broker_rights import USERS, read_users, user_of
from tests.support.processes import ROOT, Celery, run_python, run_reconciler, until
from tests.support.tls_proxy import TlsFront, tls_front
from tests.support.world import RealClock, build_world
from workers.names import EVALUATE, RELEASE, SEGMENT, SWEEP_QUEUE

pytestmark = [pytest.mark.integration, pytest.mark.workers]

SECRET = "s3cret/of:the@broker?"
PERCENTS = "s3cret%2Fof%3Athe%40broker%3F"
FLOWER_LOGIN = "operator:flower-login"
NO_AWS = {
    "AWS_ACCESS_KEY_ID": "",
    "AWS_SECRET_ACCESS_KEY": "",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
CLIENTS = ("transport", "result backend", "flower", "limits", "ours", "command line")
"""The clients in ``tests.support.every_client``."""


@dataclass
class Guarded:
    """A broker behind TLS with its access list, and a plain port that only the test uses."""

    admin: redis.Redis
    plain_port: int
    front: TlsFront


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    directory = tmp_path_factory.mktemp("guarded")
    with ExitStack() as stack:
        url = stack.enter_context(valkey_server(directory))
        port = int(url.rpartition(":")[2])
        redis.Redis(port=port).acl_setuser(
            "admin", enabled=True, passwords=["+admin"], keys=["*"], channels=["*"],
            categories=["+@all"],
        )  # fmt: skip
        admin = redis.Redis(port=port, username="admin", password="admin")
        for name, rules in read_users(USERS.read_text()).items():
            given = [f">{SECRET}" if rule.startswith(">") else rule for rule in rules]
            execute(admin, "ACL", "SETUSER", name, *given)
        front = stack.enter_context(tls_front(directory, port))
        yield Guarded(admin, port, front)


@pytest.fixture
def celery(guarded: Guarded, servers: Servers, tmp_path: Path) -> Celery:
    """Celery with the broker's address and password set apart, as in a deployment."""
    world = build_world(
        servers.endpoint("moto"),
        # So long that `health` finds no sweep late, however slow the machine is.
        SWEEP_INTERVAL_SECONDS="300",
        STRANDED_GRACE_SECONDS="1",
        SWEEP_SEGMENTS="2",
    )
    world.clock = RealClock()
    guarded.admin.flushall()
    execute(guarded.admin, "ACL", "LOG", "RESET")
    address = f"rediss://localhost:{guarded.front.port}"
    found = Celery(world, address, tmp_path)
    trusted = f"?ssl_ca_certs={guarded.front.authority}"
    found.extra = {
        "CELERY_BROKER_URL": f"{address}/0{trusted}",
        "CELERY_RESULT_BACKEND": f"{address}/1{trusted}",
        "BROKER_USERNAME": user_of("worker"),
        "BROKER_PASSWORD": SECRET,
        "FLOWER_BASIC_AUTH": FLOWER_LOGIN,
        "FLOWER_DB": str(tmp_path / "flower"),
        "LOG_LEVEL": "DEBUG",
    }
    return found


def execute(client: redis.Redis, *command: str) -> object:
    return client.execute_command(*command)  # type: ignore[no-untyped-call]


def apart(celery: Celery, role: str) -> Celery:
    """Return Celery as a role that uses no table, so it has no AWS role in a deployment."""
    return replace(celery, extra={**celery.extra, **NO_AWS, "BROKER_USERNAME": user_of(role)})


def cli(celery: Celery, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return run_reconciler(*arguments, environment={**celery.environment, **changes})


class Flower:
    """A Flower on the broker, and its pages."""

    def __init__(self, celery: Celery, stack: ExitStack) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        stack.enter_context(
            running(
                celery.command("flower", f"--port={self.url.rpartition(':')[2]}"),
                ready=lambda: answers_http(self.url),
                log=celery.directory / "flower.log",
                env=celery.environment,
                cwd=ROOT,
            )
        )

    def page(self, path: str) -> str:
        login = base64.b64encode(FLOWER_LOGIN.encode()).decode()
        address = self.url.removeprefix("http://")
        connection = http.client.HTTPConnection(address, timeout=30)
        try:
            connection.request("GET", path, headers={"Authorization": f"Basic {login}"})
            answer = connection.getresponse()
            assert answer.status == 200, path
            return answer.read().decode()
        finally:
            connection.close()


def test_everything_works_without_revealing_the_password(celery: Celery, guarded: Guarded) -> None:
    """Workers, beat, Flower, commands and exporter use TLS and need no right beyond their own."""
    world = celery.world
    found = world.seed({"a": [], "b": ["a"]}, {"a": "released"}, tasks={"a": "COMPLETED"})
    said: dict[str, str] = {}
    with ExitStack() as stack:
        stack.enter_context(celery.worker())
        stack.enter_context(apart(celery, "beat").beat())
        flower = Flower(apart(celery, "flower"), stack)
        until("b to be released", lambda: world.statuses(found)["b"] == "released")
        until("the worker in Flower", lambda: "w1@" in flower.page("/workers"))
        name = f"w1@{os.uname().nodename}"
        until(
            "the worker's details", lambda: "visibility_timeout" in flower.page(f"/worker/{name}")
        )
        for path in (
            "/broker",
            "/workers",
            "/tasks",
            f"/worker/{name}",
            "/api/workers",
            "/metrics",
        ):
            said[path] = flower.page(path)
        for arguments in (["status"], ["health"], ["sweep", "--wait"]):
            changes = {"LOG_LEVEL": "DEBUG", "RECONCILER_DEBUG": "1"}
            done = cli(celery, *arguments, **changes, BROKER_USERNAME=user_of("operator"))
            assert done.returncode == 0, (arguments, done.stdout, done.stderr)
            said[" ".join(arguments)] = done.stdout + done.stderr
        metrics_port = free_port()
        exporter = [sys.executable, "-m", "reconciler.cli.main", "metrics"]
        with (
            running(
                [*exporter, "--port", str(metrics_port)],
                ready=lambda: answers_http(f"http://127.0.0.1:{metrics_port}"),
                log=celery.directory / "metrics.log",
                env=apart(celery, "exporter").environment,
                cwd=ROOT,
            ) as process,
            urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics") as answer,
        ):
            said["metrics"] = answer.read().decode()
            # As the first process of a container it must handle SIGTERM itself.
            process.terminate()
            assert process.wait(60) == 0
    # The exporter shows the counts from the broker.
    assert "reconciler_broker_up 1.0" in said["metrics"]
    assert 'reconciler_recoveries_total{code="lost_release"} 1.0' in said["metrics"]
    assert "rediss://reconciler-flower:**@localhost" in said["/broker"]
    assert ">release<" in said["/broker"].replace(" ", "").replace("\n", "")
    said |= {log.name: log.read_text() for log in celery.directory.glob("*.log")}
    assert set(said) >= {"w1.log", "beat.log", "flower.log", "metrics.log"}
    for where, text in said.items():
        assert SECRET not in text, where
        assert PERCENTS not in text, where
    # No right is missing; the log also shows refusals that a client swallows.
    assert guarded.admin.acl_log() == []


def fare(celery: Celery, **changes: str) -> dict[str, str]:
    """Return client → the result of its request to the broker."""
    done = run_python(
        "-m", "tests.support.every_client", environment={**celery.environment, **changes}
    )
    assert SECRET not in done.stdout + done.stderr
    assert PERCENTS not in done.stdout + done.stderr
    found = {}
    for line in done.stdout.splitlines():
        name = next(name for name in CLIENTS if line.startswith(f"{name} "))
        found[name] = line.removeprefix(f"{name} ")
    assert set(found) == set(CLIENTS), done.stderr
    return found


def test_every_client_verifies_the_certificate_by_default(
    celery: Celery, guarded: Guarded, tmp_path: Path
) -> None:

    def at(front: TlsFront, parameters: str = "") -> dict[str, str]:
        address = f"rediss://localhost:{front.port}"
        return {
            "CELERY_BROKER_URL": f"{address}/0{parameters}",
            "CELERY_RESULT_BACKEND": f"{address}/1{parameters}",
        }

    with (
        tls_front(tmp_path, guarded.plain_port, name="elsewhere.example") as elsewhere,
        ThreadPoolExecutor() as pool,
    ):
        # At the same time, since a refused client takes a while to give up.
        sound = pool.submit(fare, celery)
        unknown = pool.submit(fare, celery, **at(guarded.front))
        trusted = f"?ssl_ca_certs={elsewhere.authority}"
        another = pool.submit(fare, celery, **at(elsewhere, trusted))
    assert set(sound.result().values()) == {"ok"}
    for client, said in unknown.result().items():
        assert "CERTIFICATE_VERIFY_FAILED" in said, client
    for client, said in another.result().items():
        assert "Hostname mismatch" in said, client


def test_the_error_does_not_repeat_a_wrong_password(celery: Celery) -> None:
    wrong = {"BROKER_PASSWORD": "wr0ng-one"}
    with ThreadPoolExecutor() as pool:
        clients = pool.submit(fare, celery, **wrong)
        health = pool.submit(cli, celery, "health", **wrong)
        sweep = pool.submit(cli, celery, "sweep", RECONCILER_DEBUG="1", **wrong)
    said = [
        *clients.result().values(),
        health.result().stdout + health.result().stderr,
        sweep.result().stdout + sweep.result().stderr,
    ]
    assert (health.result().returncode, sweep.result().returncode) == (3, 3)
    for text in said:
        assert "invalid username-password" in text
        assert wrong["BROKER_PASSWORD"] not in text


def envelope(body: bytes, **changes: Any) -> dict[str, Any]:
    """Return a message as Celery puts it on the broker, with ``changes`` applied."""
    message_id = str(uuid.uuid4())
    headers = {
        "lang": "py", "task": EVALUATE, "id": message_id, "root_id": message_id,
        "parent_id": None, "group": None, "retries": 0, "eta": None, "expires": None,
        "timelimit": [None, None], "argsrepr": "()", "kwargsrepr": "{}", "origin": "test",
    }  # fmt: skip
    whole: dict[str, Any] = {
        "body": base64.b64encode(body).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers,
        "properties": {
            "correlation_id": message_id,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": SWEEP_QUEUE},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
    }
    whole["headers"] |= changes.pop("headers", {})
    return whole | changes


def call(*args: Any, **kwargs: Any) -> bytes:
    return json.dumps([args, kwargs, {}]).encode()


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def malformed(directory: Path) -> dict[str, str | bytes]:
    """Return messages that nobody should put on a broker, as they lie in the queue."""
    bomb = pickle.dumps(((), {}, Bomb(directory / "exploded")))
    good = call("orch_" + "0" * 32)
    messages: dict[str, Any] = {
        "pickle": envelope(bomb, **{"content-type": "application/x-python-serialize"}),
        "pickle that says it is json": envelope(bomb),
        "broken json": envelope(b'[["orch_'),
        "not a call": envelope(b'{"a": 1}'),
        "half a call": envelope(b'[["orch_x"]]'),
        "arguments that are none": envelope(b'["orch_x", {}, {}]'),
        "unknown task": envelope(good, headers={"task": "os.system"}),
        "no task": envelope(good, headers={"task": None}),
        "a map for a task": envelope(good, headers={"task": {}}),
        "a list for an id": envelope(good, headers={"id": []}),
        "no time": envelope(good, headers={"eta": "whenever"}),
        "a map for a time": envelope(good, headers={"eta": {}}),
        "limits that are none": envelope(good, headers={"timelimit": [1]}),
        "headers that are none": {**envelope(good), "headers": "x"},
        "no properties": {"body": "", "headers": {}},
        "properties that are none": {**envelope(good), "properties": ["x"]},
        "a list": [1, 2],
        "nothing": None,
        "too few arguments": envelope(call()),
        "too many arguments": envelope(call("a", "b", "c", "d", "e", "f")),
        "unknown argument": envelope(call("orch_x", run="rm")),
        "wrong type": envelope(call({"$ne": ""})),
        "endless id": envelope(call("x" * 10_000)),
        "a segment of nothing": envelope(call({"segment": -1}), headers={"task": SEGMENT}),
        "release of a list": envelope(call(["a"], "b"), headers={"task": RELEASE}),
    }
    raw: dict[str, str | bytes] = {"no json": "GET / HTTP/1.1", "no text": b"\xff\xfe\x00"}
    return raw | {name: json.dumps(message) for name, message in messages.items()}


def count_of_malformed(admin: redis.Redis, settings: Settings) -> float:
    series = read_series(admin, settings)
    return series["reconciler_errors_total", (("kind", "malformed_message"),), ""]


def test_a_worker_counts_and_survives_malformed_messages(
    celery: Celery, guarded: Guarded, tmp_path: Path
) -> None:
    world = celery.world
    found = world.seed({"a": []})
    before = world.everything()
    messages = malformed(tmp_path)

    def counted(at_least: int) -> bool:
        return count_of_malformed(guarded.admin, world.settings) >= at_least

    with celery.worker() as pid:
        for number, (name, message) in enumerate(messages.items(), start=1):
            guarded.admin.lpush(SWEEP_QUEUE, message)
            until(f"{name} to be counted", partial(counted, number))
        guarded.admin.publish("/0.celery.pidbox", "[1, 2]")
        until("the broadcast to be counted", partial(counted, len(messages) + 1))
        # The same worker process still runs.
        os.kill(pid, 0)
        until("nothing to be left", lambda: not guarded.admin.exists("unacked", SWEEP_QUEUE))
        assert world.everything() == before
        assert not (tmp_path / "exploded").exists()
        # The worker still works.
        guarded.admin.lpush(SWEEP_QUEUE, json.dumps(envelope(call(found))))
        until("a release", lambda: world.everything() != before)
    assert count_of_malformed(guarded.admin, world.settings) == len(messages) + 1
    assert SECRET not in (celery.directory / "w1.log").read_text()
