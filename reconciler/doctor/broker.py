"""Checks of the broker: whether it is reachable, takes writes, keeps them, and is secured."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from ipaddress import ip_address
from ssl import CERT_REQUIRED
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.exceptions import NoPermissionError

from reconciler import broker_url
from reconciler.broker_refusal import UNREACHABLE, ClusterModeError, probe, refusal_of
from reconciler.clock import Clock
from reconciler.doctor.aws import check_clock
from reconciler.doctor.findings import Finding, failure, ok, warning
from reconciler.settings import Settings
from workers.broker import evicting_policy

CHECK = "broker"
_SECONDS = 3.0
_MIN_VERSION = (7, 2)
_NEARLY_FULL = 0.8


def examine_broker(settings: Settings, clock: Clock) -> Iterator[Finding]:
    """Check the broker; if it cannot be used, the last finding is a failure."""
    url = settings.celery_broker_url
    shown = broker_url.shown(url)
    try:
        client = _connect(url)
        facts = _asked(client.info)
        before = clock()
        theirs = _asked(client.time)
        at = before + (clock() - before) / 2
    except redis.RedisError as error:
        yield _unreachable(settings, shown, error)
        return
    yield _server(shown, facts or {})
    yield _writes(client, shown, facts or {})
    if facts is None:
        advice = "allow INFO to its user, as deploy/valkey/users.acl does"
        yield warning(CHECK, "eviction", "INFO is not allowed", advice)
    else:
        yield from _keeps(client, facts)
    yield from _transport(url)
    yield from _result_backend(settings)
    if theirs is not None:
        seconds, micros = theirs
        moment = datetime.fromtimestamp(int(seconds) + int(micros) / 1e6, UTC)
        yield check_clock(settings, "the broker", moment, at)


def _connect(url: str) -> redis.Redis:
    client = redis.Redis.from_url(url, socket_timeout=_SECONDS, socket_connect_timeout=_SECONDS)
    client.ping()
    return client


def _asked(question: Callable[[], Any]) -> Any:  # noqa: ANN401 - redis-py's
    """Run a command that the broker's user may lack the right to; then return None."""
    try:
        return question()
    except NoPermissionError:
        return None


def _unreachable(settings: Settings, shown: str, error: redis.RedisError) -> Finding:
    if "celery_broker_url" not in settings.model_fields_set:
        found = "CELERY_BROKER_URL is not set, and nothing answers at its default"
        advice = "set it to run workers; `sweep --inline` and `doctor --inline` need no broker"
        return warning(CHECK, "reachable", found, advice)
    refusal = refusal_of(error)
    if refusal == UNREACHABLE:
        return failure(CHECK, "reachable", f"{shown}: {error}", refusal.advice)
    found = f"{shown} answers {refusal.code}: {refusal.meaning} ({error})"
    return failure(CHECK, "reachable", found, refusal.advice)


def _server(shown: str, facts: Mapping[str, Any]) -> Finding:
    version = str(facts.get("valkey_version") or facts.get("redis_version") or "")
    name = "Valkey" if facts.get("valkey_version") else "Redis"
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers and tuple(map(int, numbers.groups())) < _MIN_VERSION:
        advice = f"use Valkey or Redis, {'.'.join(map(str, _MIN_VERSION))} or later"
        return failure(CHECK, "server", f"{name} {version} is too old", advice)
    return ok(CHECK, "server", f"{name} {version}".rstrip() + f" at {shown}")


def _writes(client: redis.Redis, shown: str, facts: Mapping[str, Any]) -> Finding:
    """Check that the broker takes writes, with one that changes nothing."""
    try:
        probe(client)
    except (redis.RedisError, ClusterModeError) as error:
        refusal = refusal_of(error)
        found = f"{shown} answers {refusal.code}: {refusal.meaning}"
        return failure(CHECK, "writes", found, refusal.advice)
    if facts.get("role") in {"slave", "replica"}:
        found = f"{shown} is a replica: its primary knows nothing of what is written to it"
        return failure(CHECK, "writes", found, "use the primary's endpoint")
    return ok(CHECK, "writes", "it takes writes")


def _keeps(client: redis.Redis, facts: Mapping[str, Any]) -> Iterator[Finding]:
    most, used = int(facts.get("maxmemory") or 0), int(facts.get("used_memory") or 0)
    yield _eviction(facts)
    if most and used > _NEARLY_FULL * most:
        said = f"{used * 100 // most} % of maxmemory are used"
        yield warning(CHECK, "memory", said, "give it more: a full one takes no more messages")
    yield _persistence(client, facts)


def _eviction(facts: Mapping[str, Any]) -> Finding:
    policy = facts.get("maxmemory_policy")
    if policy is None:
        advice = "check its parameter group: it must be noeviction"
        return warning(CHECK, "eviction", "maxmemory-policy cannot be read", advice)
    if policy != "noeviction":
        said = f"maxmemory-policy is {policy}: queued messages can be dropped"
        advice = "set maxmemory-policy to noeviction"
        if evicting_policy(facts) is not None:
            return failure(CHECK, "eviction", said, advice)
        return warning(CHECK, "eviction", f"{said} once maxmemory is set", advice)
    return ok(CHECK, "eviction", "noeviction: no message is dropped")


def _persistence(client: redis.Redis, facts: Mapping[str, Any]) -> Finding:
    if facts.get("aof_enabled"):
        return ok(CHECK, "persistence", "what is queued is on disk")
    said = "appendonly is off: what is queued is lost with the process, until the next sweep"
    saved = _asked(lambda: client.config_get("save"))
    if saved and saved.get("save"):
        said = "only snapshots: the last minutes of what is queued are lost with the process"
    return warning(CHECK, "persistence", said, "set appendonly to yes, where the service lets you")


def _transport(url: str) -> Iterator[Finding]:
    parts = urlsplit(url)
    if _is_here(parts.hostname or ""):
        yield ok(CHECK, "transport", "on this machine")
        return
    tls = broker_url.tls_options(url)
    if tls is None:
        said = "not encrypted: who can listen can read it, and who can write can send tasks"
        yield warning(CHECK, "transport", said, "use TLS: a rediss:// URL")
    elif tls["ssl_cert_reqs"] is not CERT_REQUIRED:
        said = "encrypted, but anybody can pose as the broker"
        yield warning(CHECK, "transport", said, "set ssl_cert_reqs=required in the URL")
    else:
        yield ok(CHECK, "transport", "TLS, and its certificate is checked")
    if not parts.password:
        said = "none: whoever reaches it can send tasks"
        yield warning(CHECK, "password", said, "give it a user and a password of its own")


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _result_backend(settings: Settings) -> Iterator[Finding]:
    url = settings.celery_result_backend
    shown = broker_url.shown(url)
    try:
        _connect(url)
    except redis.RedisError as error:
        advice = "correct CELERY_RESULT_BACKEND"
        yield failure(CHECK, "results", f"{shown}: {error}", advice)
    else:
        yield ok(CHECK, "results", f"reached at {shown}")
