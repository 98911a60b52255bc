"""Broker outages: workers and beats keep running, and log once when one begins and ends."""

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
"""Errors of a broker that is unreachable or refuses commands."""

WRONG_SETTINGS = 2
"""The exit code for settings that cannot work."""


class Outage:
    """Tracks whether the broker can be used, and logs each change once."""

    def __init__(self) -> None:
        self._codes: list[str] = []
        self._since = 0.0

    def began(self, error: BaseException) -> None:
        """Log why the broker cannot be used, unless that was logged already."""
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
        """Log that the broker can be used again, if it could not."""
        if self._codes:
            seconds = round(time.monotonic() - self._since, 1)
            log.info("orch.broker.restored", refusals=self._codes, after_seconds=seconds)
            self._codes = []


def check_broker() -> None:
    """Check that the broker can be used; takes a few seconds at most.

    Raises:
        SystemExit: it is in cluster mode, which waiting cannot change.
        redis.exceptions.RedisError: it cannot be reached, or refuses.
    """
    with broker_client(load_settings()) as client:
        try:
            probe(client)
        except ClusterModeError:
            sys.stderr.write(
                f"reconciler: CELERY_BROKER_URL: {CLUSTER_MODE.meaning}. {CLUSTER_MODE.advice}\n"
            )
            raise SystemExit(WRONG_SETTINGS) from None
