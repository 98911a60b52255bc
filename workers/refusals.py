"""Counts and logs the messages that a worker drops."""

from __future__ import annotations

import time
from collections.abc import Callable

import redis

from reconciler.observability.redis_metrics import RedisMetrics
from workers.messages import MessageRefusedError, OtherDeploymentError, describe
from workers.running import say_refused

QUIET_SECONDS = 600.0
"""A flood of messages of another deployment ends when none has come for so long. Longer than the
interval, or each of its sweeps would log a line."""


class Refusals:
    """The messages that one worker drops, counted in the metrics of ``own_deployment``."""

    def __init__(
        self, own_deployment: Callable[[], str], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._own_deployment = own_deployment
        self._monotonic = monotonic
        self._foreign_at = -QUIET_SECONDS

    def add(self, client: redis.Redis, error: Exception, raw: object = None) -> None:
        """Count and log a message; of another deployment's, log only the first of a flood.

        ``client``: a connected one, because connecting for each message would be slow in a flood.
        """
        if isinstance(error, MessageRefusedError):
            kind, detail = error.kind, str(error)
        else:  # its text may quote the message
            kind, detail = MessageRefusedError.kind, type(error).__name__
        metrics = RedisMetrics(client, self._own_deployment())
        metrics.increment("reconciler_errors_total", kind=kind)
        metrics.flush()
        if not isinstance(error, OtherDeploymentError) or self._is_first_foreign():
            say_refused(detail, kind, **describe(raw))

    def _is_first_foreign(self) -> bool:
        before, self._foreign_at = self._foreign_at, self._monotonic()
        return self._foreign_at - before >= QUIET_SECONDS
