"""Make a real broker refuse requests for a while, with each refusal that Valkey knows.

Workers and beats log in with the account ``worker``, which is changed while they use it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import redis

from tests.support.broker import Broker
from tests.support.processes import until

LOGIN = "worker:first-password"
ACCOUNT = ("on", ">first-password", "~*", "&*", "+@all")
WITH_ACCOUNT = ("--user", "worker", *ACCOUNT)
"""Options of a broker with that account; the access list is not part of the data."""


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
    """The primary is demoted, and another server was promoted."""
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
    """A snapshot cannot be written, because a directory has its name."""
    (broker.directory / "dump.rdb").unlink(missing_ok=True)
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
    """Change the account of the worker and the beat while they use it."""
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
    """The broker was restarted and reads its data, very slowly, until it is told to hurry."""
    with broker.client.pipeline() as pipe:
        for number in range(10_000):
            pipe.set(f"ballast:{number}", number)
        pipe.execute()
    broker.client.bgrewriteaof()
    until(
        "the data to be on disk",
        lambda: not broker.client.info("persistence")["aof_rewrite_in_progress"],
    )
    broker.stop()
    slowly = ("--key-load-delay", "3000", "--loading-process-events-interval-bytes", "1024")
    broker.start(*slowly, loaded=False)
    try:
        yield
    finally:
        broker.client.config_set("key-load-delay", "0")
        until("the broker to be loaded", broker.loaded)


REFUSALS: dict[str, Callable[[Broker], Any]] = {
    "READONLY": replica,
    "NOREPLICAS": too_few_replicas,
    "OOM": full,
    "MISCONF": unsaved,
    "WRONGPASS": another_password,
    "NOPERM": fewer_rights,
    "LOADING": loading,
}
