"""A broker that is away or refuses: what counts as that, and saying so once.

Workers and beats stay. They say when it begins, why, and when it is over.
"""

from __future__ import annotations

import sys
import time

import redis
import structlog

from reconciler.broker_refusal import CLUSTER_MODE, ClusterModeError, probe, refusal_of
from reconciler.settings import load_settings
from workers.broker import broker_client

log = structlog.get_logger("reconciler")

LOST = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.ResponseError,
    OSError,
)
"""What a broker that is away, or that refuses, raises while it is spoken to."""

WRONG_SETTINGS = 2
"""The exit code for settings that cannot work."""


class Outage:
    """Whether the broker can be used; each change is logged once."""

    def __init__(self) -> None:
        self._codes: list[str] = []
        self._since = 0.0

    def began(self, error: BaseException) -> None:
        """Say why the broker cannot be used, unless that has been said."""
        refusal = refusal_of(error)
        if refusal.code in self._codes:
            return
        if not self._codes:
            self._since = time.monotonic()
        self._codes.append(refusal.code)
        log.error(
            "orch.broker.lost",
            refusal=refusal.code,
            meaning=refusal.meaning,
            advice=refusal.advice,
            detail=str(error),
        )

    def ended(self) -> None:
        """Say that the broker can be used again, if it could not."""
        if self._codes:
            seconds = round(time.monotonic() - self._since, 1)
            log.info("orch.broker.restored", refusals=self._codes, after_seconds=seconds)
            self._codes = []


def check_broker() -> None:
    """See whether the broker can be used; a few seconds at most.

    Raises:
        SystemExit: it is in cluster mode, and no waiting helps; one line says so.
        redis.exceptions.RedisError: it cannot be reached, or refuses.
    """
    client = broker_client(load_settings())
    try:
        probe(client)
    except ClusterModeError:
        sys.stderr.write(
            f"reconciler: CELERY_BROKER_URL: {CLUSTER_MODE.meaning}. {CLUSTER_MODE.advice}\n"
        )
        raise SystemExit(WRONG_SETTINGS) from None
    finally:
        client.close()
