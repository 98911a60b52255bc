"""Our own switch: whether releases and repairs are paused, for all workers at once.

A marker row in a partition of its own in OrchestrationTable, so that cron mode, which has no
broker, knows it too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from reconciler.domain.model import Item, timestamp
from reconciler.stores.conditions import put_new
from reconciler.stores.dynamodb import DynamoDB
from reconciler.stores.items import row_key, text

PARTITION = "reconciler#control"
PAUSE_ROW = "reconciler#pause"
PAUSED_AT = "paused_at"
CACHE_SECONDS = 1.0
_KEY = row_key(PARTITION, PAUSE_ROW)


@dataclass(frozen=True, slots=True)
class Pause:
    """Since when, why and by whom everything is paused."""

    since: str
    reason: str
    by: str


class ControlStore:
    """The pause switch."""

    def __init__(
        self,
        dynamodb: DynamoDB,
        table: str,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._dynamodb = dynamodb
        self._table = table
        self._monotonic = monotonic
        self._cached: tuple[float, Pause | None] | None = None

    def pause(self, reason: str, by: str, now: datetime) -> Pause:
        """Pause all repairs; returns the pause that holds, which may be an earlier one."""
        item = {
            **_KEY,
            PAUSED_AT: {"S": timestamp(now)},
            "reason": {"S": reason or "no reason given"},
            "paused_by": {"S": by or "unknown"},
        }
        # A second pause must not hide since when nothing has been repaired, and why.
        lost = self._dynamodb.write(put_new(self._table, item, PAUSED_AT))
        self._cached = None
        return self._parse(lost) if lost else self._parse(item)

    def resume(self) -> None:
        """Let repairs go on; harmless when nothing is paused."""
        self._dynamodb.call("delete_item", TableName=self._table, Key=_KEY)
        self._cached = None

    def paused(self) -> Pause | None:
        """Return the pause that holds, if any; at most one second old."""
        now = self._monotonic()
        if self._cached is None or now - self._cached[0] >= CACHE_SECONDS:
            item = self._dynamodb.get(self._table, _KEY)
            # That there is none is kept too: a pass asks before each of its writes.
            self._cached = (now, self._parse(item) if item else None)
        return self._cached[1]

    @staticmethod
    def _parse(item: Item) -> Pause:
        return Pause(
            text(item, PAUSED_AT) or "", text(item, "reason") or "", text(item, "paused_by") or ""
        )
