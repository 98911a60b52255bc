"""The broker: whether it can be reached, keeps what it is given, and is kept from others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from reconciler import broker_url
from reconciler.clock import Clock
from reconciler.doctor.aws import check_clock
from reconciler.doctor.findings import Finding, failure, ok, warning
from reconciler.settings import Settings

if TYPE_CHECKING:
    import redis

CHECK = "broker"
_SECONDS = 3.0
_SCHEMES = frozenset({"redis", "rediss", "redis+socket", "unix"})
_OLDEST_MAJOR = 6
_NEARLY_FULL = 0.8


def examine_broker(settings: Settings, clock: Clock) -> Iterator[Finding]:
    """Ask the broker about itself; the last finding is a failure where it cannot be used."""
    import redis  # noqa: PLC0415 - start-up time

    url = settings.celery_broker_url
    shown = broker_url.shown(url)
    try:
        client = redis.Redis.from_url(url, socket_timeout=_SECONDS, socket_connect_timeout=_SECONDS)
        before = clock()
        seconds, micros = client.time()
        at = before + (clock() - before) / 2
        facts: Any = client.info()
    except ValueError as error:
        advice = "set CELERY_BROKER_URL to a redis:// or rediss:// URL"
        yield failure(CHECK, "URL", f"{shown} makes no sense: {error}", advice)
        return
    except redis.RedisError as error:
        yield _unreachable(settings, shown, str(error))
        return
    version = str(facts.get("valkey_version") or facts.get("redis_version") or "")
    name = "Valkey" if facts.get("valkey_version") else "Redis"
    yield from _server(shown, name, version, facts)
    yield from _keeps(client, facts)
    yield from _transport(url)
    yield from _result_backend(settings)
    theirs = datetime.fromtimestamp(int(seconds) + int(micros) / 1e6, UTC)
    yield check_clock(settings, "the broker", theirs, at)


def _unreachable(settings: Settings, shown: str, said: str) -> Finding:
    if "celery_broker_url" not in settings.model_fields_set:
        found = "CELERY_BROKER_URL is not set, and nothing answers at its default"
        advice = "set it to run workers; `sweep --inline` and `doctor --inline` need no broker"
        return warning(CHECK, "reachable", found, advice)
    if any(word in said.lower() for word in ("auth", "password", "noperm", "permission")):
        advice = "correct user and password in CELERY_BROKER_URL, and the user's ACL"
        return failure(CHECK, "reachable", f"{shown} refuses: {said}", advice)
    advice = "see that it runs, and that CELERY_BROKER_URL, network and TLS (rediss://) are right"
    return failure(CHECK, "reachable", f"{shown}: {said}", advice)


def _server(shown: str, name: str, version: str, facts: Mapping[str, Any]) -> Iterator[Finding]:
    if facts.get("redis_mode") == "cluster":
        advice = "Celery needs a single endpoint: use one with cluster mode off"
        yield failure(CHECK, "server", f"{shown} is in cluster mode", advice)
    elif facts.get("role") in {"slave", "replica"}:
        yield failure(CHECK, "server", f"{shown} is a replica", "use the primary's endpoint")
    elif version and int(version.partition(".")[0]) < _OLDEST_MAJOR:
        advice = f"use Valkey, or Redis {_OLDEST_MAJOR} or later"
        yield failure(CHECK, "server", f"{name} {version} is too old", advice)
    else:
        yield ok(CHECK, "server", f"{name} {version} at {shown}")


def _keeps(client: redis.Redis, facts: Mapping[str, Any]) -> Iterator[Finding]:
    policy = facts.get("maxmemory_policy")
    if policy is None:
        advice = "see its parameter group: it must be noeviction"
        yield warning(CHECK, "eviction", "maxmemory-policy may not be asked", advice)
    elif policy != "noeviction":
        said = f"maxmemory-policy is {policy}: queued messages can be dropped"
        yield failure(CHECK, "eviction", said, "set maxmemory-policy to noeviction")
    else:
        yield ok(CHECK, "eviction", "noeviction: no message is dropped")
    most, used = int(facts.get("maxmemory") or 0), int(facts.get("used_memory") or 0)
    if most and used > _NEARLY_FULL * most:
        said = f"{used * 100 // most} % of maxmemory are used"
        yield warning(CHECK, "memory", said, "give it more: a full one takes no more messages")
    if facts.get("aof_enabled") or _saves(client):
        yield ok(CHECK, "persistence", "what is queued is on disk")
    else:
        said = "off: what is queued is lost with the process, and found again by the next sweep"
        yield warning(CHECK, "persistence", said, "set appendonly to yes")


def _saves(client: redis.Redis) -> bool:
    """Whether snapshots are scheduled; a service that may not be asked (ElastiCache) says no."""
    from redis.exceptions import ResponseError  # noqa: PLC0415 - start-up time

    try:
        found: Any = client.config_get("save")
    except ResponseError:
        return False
    return bool(found.get("save"))


def _transport(url: str) -> Iterator[Finding]:
    parts = urlsplit(url)
    if _is_here(parts.scheme, parts.hostname):
        yield ok(CHECK, "transport", "on this machine")
        return
    checks = parse_qs(parts.query).get("ssl_cert_reqs", ["required"])[0]
    if parts.scheme != "rediss":
        said = "not encrypted: who can listen can read it, and who can write can send tasks"
        yield warning(CHECK, "transport", said, "use TLS: a rediss:// URL")
    elif checks.lower() in {"none", "cert_none", "optional", "cert_optional"}:
        said = "encrypted, but anybody can pose as the broker"
        yield warning(CHECK, "transport", said, "set ssl_cert_reqs=required in the URL")
    else:
        yield ok(CHECK, "transport", "TLS, and its certificate is checked")
    if not parts.password:
        said = "none: whoever reaches it can send tasks"
        yield warning(CHECK, "password", said, "give it a user and a password of its own")


def _is_here(scheme: str, host: str | None) -> bool:
    if scheme in {"unix", "redis+socket"} or host in {None, "localhost"}:
        return True
    try:
        return ip_address(host or "").is_loopback
    except ValueError:
        return False


def _result_backend(settings: Settings) -> Iterator[Finding]:
    import redis  # noqa: PLC0415 - start-up time

    url = settings.celery_result_backend
    shown = broker_url.shown(url)
    if urlsplit(url).scheme not in _SCHEMES:
        yield ok(CHECK, "results", f"{shown} (not looked at: it is no Redis)")
        return
    try:
        redis.Redis.from_url(url, socket_timeout=_SECONDS, socket_connect_timeout=_SECONDS).ping()
    except (redis.RedisError, ValueError) as error:
        advice = "correct CELERY_RESULT_BACKEND"
        yield failure(CHECK, "results", f"{shown}: {error}", advice)
    else:
        yield ok(CHECK, "results", f"reached at {shown}")
