"""Explains why a broker that answers cannot be used, for logs and for ``doctor``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import redis

_PROBE_KEY = "reconciler:probe"


@dataclass(frozen=True, slots=True)
class Refusal:
    """The broker's error code, what it means, and what to do about it."""

    code: str
    meaning: str
    advice: str


UNREACHABLE = Refusal(
    "UNREACHABLE",
    "the broker cannot be reached",
    "see that it runs, and that CELERY_BROKER_URL, network and TLS (rediss://) are right",
)
CLUSTER_MODE = Refusal(
    "CLUSTER",
    "the broker is in cluster mode",
    "Celery needs a single endpoint: use one with cluster mode off",
)
_READ_ONLY = (
    "the broker is a replica and takes no writes",
    "use the primary's endpoint; during a failover, wait",
)
_LOGIN = "correct BROKER_USERNAME and BROKER_PASSWORD, or the login in CELERY_BROKER_URL"
REFUSALS = {
    refusal.code: refusal
    for refusal in (
        UNREACHABLE,
        CLUSTER_MODE,
        Refusal("READONLY", *_READ_ONLY),
        Refusal("UNBLOCKED", *_READ_ONLY),
        Refusal("MASTERDOWN", *_READ_ONLY),
        Refusal(
            "NOREPLICAS",
            "too few of the broker's replicas are connected, so it takes no writes",
            "bring its replicas back, or lower min-replicas-to-write",
        ),
        Refusal(
            "MISCONF",
            "the broker cannot save to its disk, so it takes no writes",
            "see its log, and whether its disk is full or read-only",
        ),
        Refusal(
            "OOM",
            "the broker's memory is full, so it takes no writes",
            "give it more memory; do not let it evict, which loses queued work",
        ),
        Refusal("LOADING", "the broker is loading its data", "wait until it has started"),
        Refusal("NOAUTH", "the broker asks for a password", _LOGIN),
        Refusal("WRONGPASS", "the broker does not accept the user or the password", _LOGIN),
        Refusal(
            "NOPERM",
            "the broker's user lacks a right",
            "give it the rights that deploy/valkey/users.acl names",
        ),
    )
}
_ANSWERS = REFUSALS | dict.fromkeys(("MOVED", "ASK", "CROSSSLOT", "CLUSTERDOWN"), CLUSTER_MODE)
_DENIED_IN_SCRIPT = "ACL failure in script"
"""The text if a command of a script is denied; its code is only ERR."""

_CODE = re.compile(r"\b[A-Z]{3,}\b")


class ClusterModeError(Exception):
    """The broker is in cluster mode, which Celery cannot use."""


def refusal_of(error: BaseException) -> Refusal:
    """Return the meaning of an error of redis-py, or of its cause."""
    if isinstance(error, ClusterModeError):
        return CLUSTER_MODE
    # redis-py removes the code from the text of errors that it has a class for.
    said = str(error)
    if _DENIED_IN_SCRIPT in said:
        return REFUSALS["NOPERM"]
    for code in (getattr(error, "status_code", None), *_CODE.findall(said)):
        if code in _ANSWERS:
            return _ANSWERS[code]
    return refusal_of(error.__cause__) if error.__cause__ is not None else UNREACHABLE


def probe(client: redis.Redis) -> None:
    """Check that the broker accepts writes, with one that changes nothing.

    Raises:
        ClusterModeError: it is in cluster mode.
        redis.exceptions.RedisError: it cannot be reached, or refuses.
    """
    from redis.exceptions import NoPermissionError  # noqa: PLC0415 - start-up time of the commands

    try:
        cluster = client.info("cluster").get("cluster_enabled")
    except NoPermissionError:
        cluster = None
    if cluster:
        raise ClusterModeError
    # It writes only if the key exists, and nobody creates it. A broker that refuses writes
    # refuses this one too.
    client.set(_PROBE_KEY, "", xx=True)
