"""The users of ``deploy/valkey/users.acl`` have exactly the rights that each role uses.

Every role does everything that it can do, as its user in the file. None of its requests is
refused, and no right is unused. `make broker-users` writes the file from what this test records.
"""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from reconciler.embedded.process import answers_http, free_port, running
from reconciler.embedded.valkey import valkey_server
from reconciler.observability.redis_metrics import RedisMetrics
from reconciler.settings import Settings, load_settings
from tests.conftest import Servers
from tests.support.broker_rights import (
    ADMIN,
    ROLES,
    USERS,
    access_list,
    read_users,
    recording,
    user_of,
    write_users,
)
from tests.support.flower import Flower, flower, token_of
from tests.support.processes import ROOT, Celery, run_python, run_reconciler, until
from tests.support.world import RealClock, World, build_world
from workers.broker import broker_client
from workers.broker_records import BrokerRecords
from workers.dedup import DedupKeys
from workers.locks import Locks
from workers.names import EVALUATE, SWEEP, SWEEP_QUEUE
from workers.read_allowance import BrokerAllowance
from workers.recoveries import Recoveries
from workers.release_rate import ReleaseRate

pytestmark = [pytest.mark.integration, pytest.mark.workers, pytest.mark.timeout(600)]

WRITES = bool(os.environ.get("WRITE_BROKER_USERS"))
"""Record with all rights, and write the file."""

INTERVAL_SECONDS = 9


def password_of(user: str) -> str:
    return f"of the {user}"


def execute(client: redis.Redis, *command: str) -> Any:
    return client.execute_command(*command)  # type: ignore[no-untyped-call]


@dataclass
class Site:
    """A broker with its users, and the tables."""

    port: int
    admin: redis.Redis
    world: World
    directory: Path

    def give_rights(self) -> None:
        """Create the users of the file; while recording, each has all rights."""
        users = read_users(USERS.read_text())
        if WRITES:
            users |= {user_of(role): [">", "on", "~*", "&*", "+@all"] for role in ROLES}
        for name, rules in users.items():
            given = [f">{password_of(name)}" if r.startswith(">") else r for r in rules]
            execute(self.admin, "ACL", "SETUSER", name, "reset", *given)

    def login(self, user: str) -> redis.Redis:
        """Return a client that has logged in as a user."""
        return redis.Redis(port=self.port, username=user, password=password_of(user))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, servers: Servers) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("rights")
    world = build_world(
        servers.endpoint("moto"),
        SWEEP_INTERVAL_SECONDS=str(INTERVAL_SECONDS),
        STRANDED_GRACE_SECONDS="1",
        SWEEP_SEGMENTS="2",
        SCAN_READ_UNITS_PER_SECOND="100000",
    )
    world.clock = RealClock()
    with valkey_server(directory, durable=False) as url:
        port = int(url.rpartition(":")[2])
        everything = [f">{ADMIN}", "on", "~*", "&*", "+@all"]
        execute(redis.Redis(port=port), "ACL", "SETUSER", ADMIN, *everything)
        found = Site(port, redis.Redis(port=port, username=ADMIN, password=ADMIN), world, directory)
        found.give_rights()
        yield found


class Roles:
    """The processes of a deployment, each logged in as its role and recorded."""

    def __init__(self, site: Site, ports: dict[str, int]) -> None:
        self._site = site
        self._ports = ports

    def celery(self, role: str) -> Celery:
        """Return Celery on the broker, as a role."""
        broker = f"redis://127.0.0.1:{self._ports[role]}"
        user = user_of(role)
        login = {"BROKER_USERNAME": user, "BROKER_PASSWORD": password_of(user)}
        return Celery(self._site.world, broker, self._site.directory, login)

    def settings(self, role: str) -> Settings:
        """Return the settings of a role."""
        return load_settings(self.celery(role).environment)

    def cli(self, role: str, *arguments: str, code: int | None = 0) -> str:
        """Run a command of the command line as a role; returns what it printed."""
        done = run_reconciler(*arguments, environment=self.celery(role).environment)
        said = done.stdout + done.stderr
        assert code is None or done.returncode == code, (arguments, said)
        assert "NOPERM" not in said, arguments
        return done.stdout


ASKED_ANYWAY = {"config|get"}
"""`doctor` and `status` ask whether the broker evicts. They go on if the broker refuses to say."""


def test_each_role_has_exactly_the_rights_it_uses(site: Site) -> None:
    execute(site.admin, "ACL LOG", "RESET")
    with recording(site.admin, site.port) as recorded:
        use_everything(site, Roles(site, recorded.ports))
    found = access_list(recorded.rights())
    if WRITES:
        write_users(found)
    # Another server may describe differently how a command uses its keys.
    if "VALKEY_SERVER" not in os.environ:
        assert found == USERS.read_text()
    # The log also shows refusals that redis-py and kombu swallow.
    refused = {entry["object"] for entry in execute(site.admin, "ACL LOG")}
    assert refused <= ASKED_ANYWAY


DENIED_TO_ALL = (
    "FLUSHALL", "FLUSHDB", "KEYS *", "CONFIG GET *", "CONFIG SET maxmemory-policy allkeys-lru",
    "ACL LIST", "SHUTDOWN", "CLIENT LIST", "MONITOR", "SAVE", "SWAPDB 0 1",
    "FUNCTION LIST", "SCRIPT FLUSH", "REPLICAOF NO ONE", "GET another:application",
    "SET another:application x", "PUBLISH another:channel x", "PSUBSCRIBE *",
)  # fmt: skip
DENIED = {
    "worker": ("RENAME sweep another", "RESTORE sweep 0 x"),
    "beat": (
        "BRPOP sweep 1", "LPUSH release x", "HSET reconciler:state:x:known a b",
        "HGETALL reconciler:recoveries:x", "PUBLISH /0.celery.pidbox x",
    ),
    "flower": (
        "LPUSH sweep x", "LPUSH release x", "BRPOP sweep 1", "LRANGE sweep 0 -1",
        "BRPOP reconciler:by-hand 1", "SET reconciler:reply:x y",
        "GET celery-task-meta-x", "HGETALL unacked", "SET reconciler:dedup:x:y z",
        "HSET reconciler:state:x:known a b", "HSET reconciler:metrics:x a b",
    ),
    "exporter": (
        "HSET reconciler:metrics:x a b", "HGETALL reconciler:state:x:known", "LPUSH sweep x",
        "LRANGE sweep 0 -1", "PUBLISH /0.celery.pidbox x",
    ),
    "operator": (
        "BRPOP sweep 1", "LPUSH release x", "HSET reconciler:state:x:known a b",
        "SET reconciler:dedup:x:y z", "HSET reconciler:metrics:x a b",
    ),
    "scaler": ("LRANGE sweep 0 -1", "LPUSH sweep x", "DEL sweep", "HGETALL reconciler:metrics:x"),
}  # fmt: skip
"""What a role never needs, and what somebody with its password could misuse."""


@pytest.mark.parametrize("role", DENIED)
@pytest.mark.skipif(WRITES, reason="all rights are granted while recording")
def test_a_role_is_denied_what_it_never_needs(site: Site, role: str) -> None:
    client = site.login(user_of(role))
    for command in (*DENIED_TO_ALL, *DENIED[role]):
        with pytest.raises(redis.exceptions.NoPermissionError):
            execute(client, *command.split())
    client.close()


def test_nobody_gets_in_without_a_login(site: Site) -> None:
    with pytest.raises(redis.exceptions.AuthenticationError):
        redis.Redis(port=site.port).ping()


def test_the_scaler_can_read_queue_lengths(site: Site) -> None:
    """KEDA does it in a script that checks the type first."""
    client = site.login(user_of("scaler"))
    site.admin.lpush("release", "a message")
    asked = "redis.call('TYPE', KEYS[1]) return redis.call('LLEN', KEYS[1])"
    assert client.ping()
    assert execute(client, "EVAL", asked, "1", "release") == 1
    assert execute(client, "EVAL", asked, "1", "sweep") == site.admin.llen("sweep")
    client.close()


# -- everything that the roles do


def use_everything(site: Site, roles: Roles) -> None:
    """Have every role do everything that it can do, with and without failures."""
    with ExitStack() as stack:
        start_badly(site, roles, stack)
        work(site, roles)
        lose_connections(site)
        leave_listeners(site)
        seen = stack.enter_context(flower(roles.celery("flower")))
        look_at_flower(site, seen)
        leave_listeners(site)
        ask_by_hand(site, roles)
        scrape(roles, stack)
    use_directly(roles)
    ask_twice(broker_client(roles.settings("beat")))


def start_badly(site: Site, roles: Roles, stack: ExitStack) -> None:
    """Start on a broker that somebody has written to.

    The queue has the wrong type, so the beat's message fails, and the worker deletes it. Of two
    unacknowledged messages, one is given back to its queue and one is malformed.
    """
    leave_listeners(site)
    site.admin.set(SWEEP_QUEUE, "not a queue")
    stack.enter_context(roles.celery("beat").beat())
    log = site.directory / "beat.log"
    until("the beat's request to fail", lambda: "orch.broker.lost" in log.read_text())
    tag = "11111111-1111-1111-1111-111111111111"
    entry = json.dumps([envelope(tag), "", SWEEP_QUEUE])
    site.admin.hset("unacked", mapping={tag: entry, "senseless": "[1, 2, 3]"})
    site.admin.zadd("unacked_index", {tag: 1.0, "senseless": 1.0})
    stack.enter_context(roles.celery("worker").worker())
    until("both to be taken away", lambda: not site.admin.zcount("unacked_index", 0, 2))
    roles.cli("worker", "health", code=None)
    roles.cli("beat", "health", code=None)


def leave_listeners(site: Site) -> None:
    """Leave traces of killed processes, which Celery clears away a hundred at a time."""
    names = [f"gone-{number}" for number in range(3000)]
    with site.admin.pipeline() as pipe:
        for name in names:
            pipe.sadd(f"_kombu.binding.{name}", "a queue")
        pipe.zadd("_kombu.binding_deadlines", dict.fromkeys(names, 1))
        pipe.execute()


def envelope(message_id: str) -> dict[str, Any]:
    """Return a message as Celery puts it on the broker."""
    sent = ROOT / "tests" / "data" / "messages"
    newest = max(sent.glob("*.json"))
    found: dict[str, Any] = json.loads(newest.read_text())[EVALUATE]
    found["properties"]["delivery_tag"] = message_id
    return found


def work(site: Site, roles: Roles) -> None:
    """Sweep: releases, a lost terminal, and an evaluation that fails for good."""
    found = site.world.seed(
        {"a": [], "b": ["a"], "c": ["b"]},
        {"a": "succeeded", "b": "released"},
        tasks={"b": "COMPLETED"},
    )
    until("c to be released", lambda: site.world.statuses(found)["c"] == "released")
    roles.celery("operator").call(EVALUATE, "orch_" + "f" * 32)


def lose_connections(site: Site) -> None:
    """Cut every connection, and wait for more work to be done."""
    for role in ROLES:
        execute(site.admin, "CLIENT KILL", "USER", user_of(role))
    found = site.world.seed({"a": []})
    until("a to be released", lambda: site.world.statuses(found)["a"] == "released")


def look_at_flower(site: Site, seen: Flower) -> None:
    """Open every page of Flower, and press a button."""
    name = f"w1@{os.uname().nodename}"
    until("the worker in Flower", lambda: name in seen.get("/workers")[1])
    until("the worker's details", lambda: "visibility_timeout" in seen.get(f"/worker/{name}")[1])
    for path in PAGES:
        assert seen.get(path)[0] == 200, path
    task = next(iter(until("a task in Flower", seen.tasks)))
    assert seen.get(f"/task/{task}")[0] == 200
    page = f"/orchestrations/{site.world.seed({'a': []})}"
    status, shown = seen.get(page)
    assert status == 200, shown
    status, shown = seen.post(f"{page}/evaluate", token=token_of(shown))
    assert (status, "SUCCESS" in shown) == (200, True), shown


PAGES = (
    "/", "/workers", "/tasks", "/broker", "/orchestrations", "/metrics", "/healthcheck",
    "/api/workers?refresh=1", "/api/workers?status=1", "/api/tasks", "/api/task/types",
    "/api/queues/length",
)  # fmt: skip


WAIT = """
from workers.application import app
print(app.send_task("reconciler.sweep").get(timeout=60))
"""
"""A program that starts a sweep and waits for its result."""


def ask_by_hand(site: Site, roles: Roles) -> None:
    """Do what an operator does, with the operator's login and with the worker's."""
    found = site.world.seed({"a": [], "b": ["a"]}, {"a": "released"}, tasks={"a": "RUNNING"})
    commands = (
        ["doctor"],
        ["status"],
        ["health"],
        ["inspect", found],
        ["sweep", "--wait"],
        ["sweep", "--wait", "--report"],
    )
    for role in ("operator", "worker"):
        for command in commands:
            roles.cli(role, *command, code=None)
        celery = roles.celery(role)
        celery.call(EVALUATE, found)
        waited = run_python("-c", WAIT, environment=celery.environment)
        assert "outcome" in waited.stdout, waited.stderr
        inspect = run_python(*celery.command("inspect", "ping")[1:], environment=celery.environment)
        assert "pong" in inspect.stdout, inspect.stderr


def scrape(roles: Roles, stack: ExitStack) -> None:
    """Read the metrics."""
    port = free_port()
    celery = roles.celery("exporter")
    command = ["-m", "reconciler.cli.main", "metrics", "--port", str(port)]
    stack.enter_context(
        running(
            [*celery.command()[:1], *command],
            ready=lambda: answers_http(f"http://127.0.0.1:{port}"),
            log=celery.directory / "metrics.log",
            env={**celery.environment, "METRICS_EMF": "true"},
            cwd=ROOT,
        )
    )
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        assert "reconciler_broker_up 1.0" in answer.read().decode()


def use_directly(roles: Roles) -> None:
    """Call everything that a worker uses of the broker, rare cases included."""
    settings = roles.settings("worker")
    client = broker_client(settings)
    for records in (BrokerRecords(client, "here"), BrokerRecords(client, "here", "by-hand")):
        records.now()
        records.update("kind", "name", lambda _old, now: {"at": now})
        records.get("kind", "name")
        records.add("numbers", {"a": 1.0})
        records.numbers("numbers")
        records.read("kind", "others")
        records.drop("kind", ["name"])
        records.update("kind", "name", lambda _old, now: {"at": now})
        records.update("kind", "name", lambda _old, _now: None)
        records.drop("kind")
        records.drop("numbers")
    use_dedup_keys(client)
    Recoveries(client, "here").add("lost_release", {}, 1.0)
    Recoveries(client, "here").list_last(60)
    metrics = RedisMetrics(client, "here")
    metrics.increment("reconciler_errors_total", kind="time_limit")
    metrics.set_gauge("reconciler_paused_since_timestamp_seconds", 0)
    assert metrics.flush()
    assert ReleaseRate(settings).acquire()
    with Locks(client, "here").lock("a"):
        pass
    BrokerAllowance(client, "here", 1000).take(1)
    client.close()


def ask_twice(client: redis.Redis) -> None:
    """Do what one of two beats does: the other has asked already, and that is counted."""
    use_dedup_keys(client)
    metrics = RedisMetrics(client, "here")
    metrics.increment("reconciler_duplicates_dropped_total", task=SWEEP)
    assert metrics.flush()


def use_dedup_keys(client: redis.Redis) -> None:
    """Take a key, fail to take it again, and give it back."""
    keys = DedupKeys(client, "here")
    token = keys.take(["work"], 5)["work"]
    assert not keys.take(["work"], 5)
    assert keys.give_back("work", token)
