"""Outages of AWS: logged when one begins and ends, not for each failure."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

import structlog

from reconciler.aws_errors import EXPLANATIONS
from reconciler.errors import OUTAGES, ReconcilerError

log = structlog.get_logger("reconciler")

QUIET_SECONDS = 30.0
"""An outage is over when a failed operation succeeds and nothing has failed for so long. So one
that comes and goes counts as one."""


@dataclass(slots=True)
class _Outage:
    operations: set[str]
    began_at: float
    failed_at: float
    failures: int = 0


class Outages:
    """The outages that this process sees, one for each kind of error. Thread-safe."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = Lock()
        self._known: dict[str, _Outage] = {}

    def failed(self, operation: str, error: ReconcilerError) -> None:
        """Record a failure; log the first of its kind."""
        if error.kind not in OUTAGES:
            return
        now = self._monotonic()
        with self._lock:
            outage = self._known.get(error.kind, _Outage(set(), now, now))
            is_new = not outage.operations
            if operation not in outage.operations and now - outage.failed_at >= QUIET_SECONDS:
                # The outage of a rare operation, which is not tried again, must not hide another.
                # Its operations stay known, so that each of them is logged once at most.
                is_new, outage = True, _Outage(outage.operations, now, now)
            self._known[error.kind] = outage
            outage.operations.add(operation)
            outage.failed_at = now
            outage.failures += 1
        if is_new:
            known = EXPLANATIONS[error.kind]
            log.error(
                "orch.aws.lost",
                error_kind=error.kind,
                meaning=known.meaning,
                advice=known.advice,
                detail=str(error),
            )

    def succeeded(self, operation: str) -> None:
        """Record a success; log the outages that it ends."""
        if not self._known:
            return
        now = self._monotonic()
        with self._lock:
            over = {
                kind: outage
                for kind, outage in self._known.items()
                if operation in outage.operations and now - outage.failed_at >= QUIET_SECONDS
            }
            for kind in over:
                del self._known[kind]
        for kind, outage in over.items():
            log.info(
                "orch.aws.restored",
                error_kind=kind,
                failures=outage.failures,
                after_seconds=round(outage.failed_at - outage.began_at, 1),
            )
